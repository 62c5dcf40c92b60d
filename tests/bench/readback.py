# SPDX-License-Identifier: BSD-3-Clause
"""How fast images are read, by compressor and block size: what the usual recipe has to justify itself with."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench import peers
from tests.bench.gateway import Gateway
from tests.bench.images import ensure_root3
from tests.bench.registry import BenchRegistry
from tests.bench.report import Grid
from tests.bench.rounds import alternate, say, seconds
from tests.bench.watch import Place
from tests.installation import Installation

COMPRESSORS = (("zstd", 3), ("lz4", 0), ("gzip", 6), ("xz", 6))
BLOCK_SIZES = (64, 128, 256, 1024)  # KiB
RANDOM_READS = 3000
READ_BYTES = 4096
MOST_ROUNDS = 3
HEADER = ("root3 as", "made in, s", "size, MB", "read whole, s", "reads of 4 KiB, 1/s")
Spot = tuple[str, int]  # path below the root, offset


class ReadBack:
    """Images of root3 by each recipe, read with nothing of them in memory."""

    def __init__(
        self, options: argparse.Namespace, registry: BenchRegistry, product: Installation, place: Place
    ) -> None:
        self.registry = registry
        self.product = product
        self.place = place
        self.rounds = min(options.rounds, MOST_ROUNDS)
        self.name = ensure_root3(registry, options.cache)
        self.store = place.directory / "readback"
        self.mount = self.store / "mount"
        self.made: dict[str, tuple[Path, float]] = {}
        self.spots: Sequence[Spot] = ()

    def grid(self) -> Grid:
        """One line per image: how long it took to make, its size, how fast it is read."""
        self.mount.mkdir(parents=True)
        try:
            self._make()
            labels = [label for label in self.made if self._readable(label)]
            whole = alternate({label: partial(self._read, label, self._whole) for label in labels}, self.rounds)
            spots = alternate({label: partial(self._read, label, self._random) for label in labels}, self.rounds)
            lines = []
            for label, (image, taken) in self.made.items():
                rate = RANDOM_READS / statistics.median(spots[label]) if label in spots else None
                read = statistics.median(whole[label]) if label in whole else None
                lines.append((label, taken, image.stat().st_size / 1e6, read, rate))
            return Grid("Reading images back, nothing of them in memory", HEADER, lines)
        finally:
            shutil.rmtree(self.store)

    def _make(self) -> None:
        for compressor, level in COMPRESSORS:
            for block_size in BLOCK_SIZES:
                label = f"{compressor}-{level} {block_size}K" if level else f"{compressor} {block_size}K"
                say(f"making root3 as {label}")
                recipe = {"compressor": compressor, "level": level, "blockSize": block_size * 1024}
                self.place.empty()
                gateway = Gateway(self.product, self.registry, self.place.work, recipe)
                gateway.start()
                try:
                    taken = gateway.pull(self.name)
                    self._keep(label, gateway.images().pop(), taken)
                finally:
                    gateway.stop()
        try:
            self._make_peer()
        except peers.PeerError as error:
            say(f"mksquashfs is absent: {error}")

    def _make_peer(self) -> None:
        work = self.place.empty()
        tools = peers.Tools(work)
        tree = peers.unpack(tools, peers.Source(self.registry, "", self.name), work)
        image = work / "image.squashfs"
        command = ["mksquashfs", str(tree), str(image), "-no-xattrs", "-no-progress", "-quiet", "-b", "128K"]
        taken = seconds(lambda: tools.run(*command, *peers.ZSTD))
        self._keep("mksquashfs zstd-3 128K, from a tree", image, taken)
        self.place.empty()

    def _keep(self, label: str, image: Path, taken: float) -> None:
        kept = self.store / f"{len(self.made)}.squashfs"
        image.rename(kept)
        self.made[label] = kept, taken

    def _readable(self, label: str) -> bool:
        """Whether this kernel mounts it; the first that it does also decides where is read."""
        try:
            with self._mounted(self.made[label][0]):
                self.spots = self.spots or choose_spots(self.mount)
        except subprocess.CalledProcessError as error:
            say(f"this kernel does not read {label}: {error.stderr.strip()}")
            return False
        return True

    def _read(self, label: str, action: Callable[[], None]) -> float:
        with self._mounted(self.made[label][0]):
            return seconds(action)

    def _whole(self) -> None:
        with subprocess.Popen(["tar", "-C", str(self.mount), "-cf", "-", "."], stdout=subprocess.PIPE) as tar:
            # tar(1) reads no file when it sees that its output is /dev/null.
            subprocess.run(["cat"], stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True)
        if tar.returncode != 0:
            raise SystemExit(f"bench: tar of {self.mount}: exit {tar.returncode}")

    def _random(self) -> None:
        for path, offset in self.spots:
            descriptor = os.open(f"{self.mount}/{path}", os.O_RDONLY)
            os.pread(descriptor, READ_BYTES, offset)
            os.close(descriptor)

    @contextmanager
    def _mounted(self, image: Path) -> Iterator[None]:
        """With a superblock of its own, so without inodes or pages of earlier mounts, and the file not in memory."""
        descriptor = os.open(image, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages not yet on disk would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        mount = ["mount", "-t", "squashfs", "-o", "loop,ro", str(image), str(self.mount)]
        subprocess.run(mount, check=True, capture_output=True, text=True)
        try:
            yield
        finally:
            subprocess.run(["umount", str(self.mount)], check=True)


def choose_spots(root: Path) -> list[Spot]:
    """Random pages of random files, the same for all images as they hold the same tree."""
    source = random.Random(20261126)
    files = sorted(
        (str(path.relative_to(root)), path.stat().st_size)
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    files = [(path, size) for path, size in files if size >= READ_BYTES]
    chosen = source.choices(files, k=RANDOM_READS)
    return [(path, source.randrange(size // READ_BYTES) * READ_BYTES) for path, size in chosen]
