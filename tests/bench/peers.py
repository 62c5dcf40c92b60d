# SPDX-License-Identifier: BSD-3-Clause
"""What the pull bench compares with: other tools doing the same conversion, and the least that anybody must do."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.registry import BenchRegistry
from tests.bench.rounds import seconds
from tests.bench.watch import Place, Sample, Watch, spent_by_children

CHAIN = "skopeo+umoci+mksquashfs"
CHAIN_ZSTD = "skopeo+umoci+mksquashfs zstd-3"
CHARLIECLOUD = "ch-image+ch-convert"
FLOOR = "floor"
ZSTD: Sequence[str] = ("-comp", "zstd", "-Xcompression-level", "3")
# The distribution's programs want the distribution's interpreters.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT: Mapping[str, str] = {"PATH": PATH, "HOME": "/root", "USER": "root", "LC_ALL": "C"}
VERSIONS = {
    "skopeo": ["skopeo", "--version"],
    "umoci": ["umoci", "--version"],
    "mksquashfs": ["mksquashfs", "-version"],
    "tar2sqfs": ["tar2sqfs", "--version"],
    "igzip": ["igzip", "--version"],
    "charliecloud": ["ch-convert", "--version"],
}


class PeerError(Exception):
    """Why a peer cannot be measured here."""


@dataclass(frozen=True)
class Source:
    """An image in the registry; ``tls_host`` serves the same to those who know no plain HTTP."""

    registry: BenchRegistry
    tls_host: str
    name: str


class Tools:
    """Runs the programs of a contender below ``work``, each in a session of its own, so that they can be watched."""

    def __init__(self, work: Path) -> None:
        self.sessions: set[int] = set()
        # skopeo(1) keeps blobs in TMPDIR for a while; ch-convert(1) has no option for the storage.
        self.environment = {**ENVIRONMENT, "TMPDIR": str(work), "CH_IMAGE_STORAGE": f"{work}/storage"}

    def run(self, *command: str, stdin: object = subprocess.DEVNULL) -> None:
        """One program to its end; PeerError with what it said when it fails."""
        with self._start(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            said = process.stdout.read()
        self._check(command, process, said)

    def pipe(self, source: Path, first: Sequence[str], second: Sequence[str]) -> None:
        """``first <source | second``; what they say goes to standard error."""
        with source.open("rb") as data, self._start(first, stdin=data, stdout=subprocess.PIPE) as writer:
            with self._start(second, stdin=writer.stdout) as reader:
                assert writer.stdout is not None
                writer.stdout.close()
            self._check(second, reader)
        self._check(first, writer)

    def _start(self, command: Sequence[str], **streams: object) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = subprocess.Popen(
            command, env=self.environment, start_new_session=True, **streams  # type: ignore[call-overload]
        )  # fmt: skip
        self.sessions.add(process.pid)
        return process

    def _check(self, command: Sequence[str], process: subprocess.Popen[bytes], said: bytes = b"") -> None:
        if process.returncode != 0:
            text = said.decode(errors="replace")[-1000:]
            raise PeerError(f"{' '.join(command)}: exit {process.returncode}\n{text}")


@dataclass(frozen=True)
class Peer:
    """A contender: ``pull`` makes images below a directory and says which files they are."""

    name: str
    programs: Sequence[str]
    pull: Callable[[Tools, Source, Path], Sequence[Path]]

    def measure(self, source: Source, place: Place) -> Sample:
        """One run; PeerError when it cannot be done."""
        absent = [program for program in self.programs if shutil.which(program, path=PATH) is None]
        if absent:
            raise PeerError(f"this machine has no {', '.join(absent)} (extra/install-deps --bench)")
        work = place.empty()
        tools, images = Tools(work), list[Path]()
        before = spent_by_children()
        try:
            with Watch(place, tools.sessions) as watch:
                taken = seconds(lambda: images.extend(self.pull(tools, source, work)))
            spent = spent_by_children().since(before)
            size = sum(image.stat().st_size for image in images) / 1e6
        finally:
            place.empty()
        return Sample(taken, spent.cpu_seconds, watch.memory_mb, spent.read / 1e6, spent.written / 1e6,
                      watch.disk_mb, size)  # fmt: skip


def chain(compression: Sequence[str]) -> Callable[[Tools, Source, Path], Sequence[Path]]:
    """skopeo copy, umoci unpack, mksquashfs."""

    def pull(tools: Tools, source: Source, work: Path) -> Sequence[Path]:
        tree = unpack(tools, source, work)
        image = work / "image.squashfs"
        tools.run("mksquashfs", str(tree), str(image), "-no-xattrs", "-no-progress", "-quiet", *compression)
        return [image]

    return pull


def unpack(tools: Tools, source: Source, work: Path) -> Path:
    """The image as a tree: skopeo copy, umoci unpack."""
    layout, registry = f"{work}/oci:image", source.registry.host
    tools.run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{registry}/{source.name}", f"oci:{layout}")
    tools.run("umoci", "unpack", "--image", layout, f"{work}/bundle")
    return work / "bundle/rootfs"


def charliecloud(tools: Tools, source: Source, work: Path) -> Sequence[Path]:
    """ch-image pull, ch-convert; its own block size and compression."""
    reference, image = f"{source.tls_host}/{source.name}", work / "image.sqfs"
    tools.run("ch-image", "--tls-no-verify", "--no-cache", "pull", reference)
    tools.run("ch-convert", "-i", "ch-image", "-o", "squash", reference, str(image))
    return [image]


def floor(tools: Tools, source: Source, work: Path) -> Sequence[Path]:
    """``igzip -dc | tar2sqfs -c zstd -X level=3`` for each layer. No download, no merge, no whiteouts."""
    images = []
    for number, layer in enumerate(source.registry.layer_files(source.name)):
        image = work / f"{number}.squashfs"
        tools.pipe(layer, ["igzip", "-dc"], ["tar2sqfs", "-q", "-f", "-c", "zstd", "-X", "level=3", str(image)])
        images.append(image)
    return images


_TREE_TOOLS = ("skopeo", "umoci", "mksquashfs")
PEERS: Sequence[Peer] = (
    Peer(CHAIN, _TREE_TOOLS, chain(())),
    Peer(CHAIN_ZSTD, _TREE_TOOLS, chain(ZSTD)),
    Peer(CHARLIECLOUD, ("ch-image", "ch-convert", "mksquashfs"), charliecloud),
    Peer(FLOOR, ("igzip", "tar2sqfs"), floor),
)
QUICK: Sequence[Peer] = (PEERS[0], PEERS[3])
