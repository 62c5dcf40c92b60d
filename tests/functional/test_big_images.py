# SPDX-License-Identifier: BSD-3-Clause
"""Images at the edge of what sites pull: many layers, a file of 2 GB, a million names, through a real worker process.

The registry, the store and the worker are real, and what the worker needs of memory is what docs/conversion.md says.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pytest

from shifter_imagegw.images import Image
from tests.gatewayserver import write_configuration
from tests.imagecheck import Contents
from tests.imagetree import listing, mounted
from tests.munged import Munged
from tests.registryserver import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    RegistryServer,
    descriptor,
    registry_server,
    tar_of,
)
from tests.workersite import Site

MEMORY_MB = 150
# docs/conversion.md: 300,000 files with content, 700,000 other entries and their names, two layers, the process itself.
MILLION_MB = (300_000 * 110 + 700_000 * 80 + 1_000_000 * 11) / 1e6 + 2 * 30 + 25
WAIT_SECONDS = 300.0  # a busy machine is no failure
BLOCK = 512


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        yield server


@dataclass(frozen=True)
class Converted:
    """An image that a worker made, and the high-water mark of that process's memory in MB (VmHWM, proc(5))."""

    path: Path
    contents: Contents
    memory_mb: float


@contextmanager
def converted(directory: Path, munge: Munged, registry: RegistryServer, reference: str) -> Iterator[Converted]:
    """Pull by a worker process of its own. What it took on disk is gone at the end."""
    locations = {"reg": {"remotetype": "dockerv2", "url": registry.url}}
    with tempfile.TemporaryDirectory(dir=directory) as base:
        config = write_configuration(Path(base), munge.socket, Locations=locations, DefaultImageLocation="reg")
        site = Site(config)
        site.pull(reference)
        with site.worker() as process:
            image: Image = site.await_ready(reference, WAIT_SECONDS)
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
        contents = site.check_published(image)
        site.store.close()
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        memory_mb = int(found[1]) * 1024 / 1e6
        print(f"{reference}: {memory_mb:.0f} MB of memory")
        yield Converted(site.images / f"{image.image_id}.squashfs", contents, memory_mb)


class Layer:
    """A tar stream on its way into a file of the registry's form, gzip; never as a whole in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._deflate = zlib.compressobj(1, wbits=31)
        self._tar, self._blob = hashlib.sha256(), hashlib.sha256()
        self._waiting = bytearray()
        self._size = 0

    def __enter__(self) -> Layer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.write(bytes(2 * BLOCK))
        self._flush()
        self._store(self._deflate.flush())
        self._file.close()

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._tar.hexdigest()}"

    @property
    def descriptor(self) -> dict[str, object]:
        digest = f"sha256:{self._blob.hexdigest()}"
        return {"mediaType": f"{OCI_LAYER}+gzip", "digest": digest, "size": self._size}

    def add(self, name: bytes, data: bytes = b"", kind: bytes = b"0", target: bytes = b"") -> None:
        """An entry; its kind is that of ustar (pax(1)): 0 file, 1 hard link, 2 symbolic link, 5 directory."""
        self.begin(name, len(data), kind, target)
        self.write(data + bytes(-len(data) % BLOCK))

    def begin(self, name: bytes, size: int, kind: bytes = b"0", target: bytes = b"") -> None:
        """The header alone: the caller writes the data."""
        head = b"%-100b0000755\0%07o\0%07o\0%011o\0%011o\0" % (name, 0, 0, size, 1_000_000_000)
        head = head.replace(b" ", b"\0") + b" " * 8 + kind + target.ljust(100, b"\0") + b"ustar\x0000"
        self.write(head[:148] + b"%06o\0 " % sum(head) + head[156:].ljust(BLOCK - 156, b"\0"))

    def write(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) > 1 << 20:
            self._flush()

    def _flush(self) -> None:
        self._tar.update(self._waiting)
        self._store(self._deflate.compress(self._waiting))
        self._waiting.clear()

    def _store(self, blob: bytes) -> None:
        self._size += len(blob)
        self._blob.update(blob)
        self._file.write(blob)


def push(registry: RegistryServer, repository: str, *layers: Layer) -> None:
    """The image of the layers, oldest first, with the tag 1."""
    rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    registry.push_blob(repository, config)
    for layer in layers:
        registry.push_file(repository, layer.path, str(layer.descriptor["digest"]))
        layer.path.unlink()
    manifest = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, config),
        "layers": [layer.descriptor for layer in layers],
    }  # fmt: skip
    registry.push_document(repository, "1", json.dumps(manifest).encode(), OCI_MANIFEST)


def test_sixty_layers(tmp_path: Path, munge: Munged, registry: RegistryServer) -> None:
    """Each replaces what the one before it said, and every second one removes a file of it."""
    tars, expected = [], {}
    for number in range(60):
        files = {"shared/same": b"%d" % number, f"shared/{number}": b"layer %d" % number, f"own{number}/": b""}
        expected.update(files)
        if number % 2:
            files[f"shared/.wh.{number - 1}"] = b""
            del expected[f"shared/{number - 1}"]
        tars.append(tar_of(files))
    registry.push_image("sixty", "1", tars)
    with converted(tmp_path, munge, registry, "sixty:1") as image:
        with mounted(image.path) as root:
            tree = listing(root)
        assert {name for name, item in tree.items() if item.kind == "-"} == {
            name.encode() for name in expected if not name.endswith("/")
        }
        for name, content in expected.items():
            assert tree[name.rstrip("/").encode()].content == (hashlib.sha256(content).digest() if content else b"")
        assert image.memory_mb < MEMORY_MB


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_file_of_two_gigabytes(tmp_path: Path, munge: Munged, registry: RegistryServer) -> None:
    """One byte more than a signed number of 32 bits counts; a little noise, some text, many zeros."""
    size, source, crc = (2 << 30) + 1, random.Random(1), 0
    text = b"the quick brown fox jumps over the lazy dog\n" * 6000
    with Layer(tmp_path / "blob") as layer:
        layer.add(b"data/", kind=b"5")
        layer.begin(b"data/huge", size)
        for _mebibyte in range(size >> 20):
            piece = (source.randbytes(32 << 10) + text).ljust(1 << 20, b"\0")
            crc = zlib.crc32(piece, crc)
            layer.write(piece)
        layer.write(b"!" + bytes(BLOCK - 1))
        layer.add(b"data/behind", b"it")
    push(registry, "huge", layer)
    checksum = zlib.crc32(b"!", crc) + zlib.crc32(b"it")
    with converted(tmp_path, munge, registry, "huge:1") as image:
        assert image.contents == Contents(4, size + 2, checksum)
        assert image.path.stat().st_size < 160 << 20
        with mounted(image.path) as root:
            # Three of the eight blocks in each mebibyte are no holes.
            assert (root / "data/huge").stat().st_blocks == (size >> 20) * 3 * 256 + 1
        assert image.memory_mb < MEMORY_MB


def many_names(layer: Layer, first: int, count: int) -> tuple[int, int]:
    """``count`` directories with 199 names each: 60 files with contents of their own, 120 empty ones and links,
    in most a directory. Returns the bytes and the sum of the checksums of their files."""
    size = checksum = 0
    for number in range(first, first + count):
        directory = b"%04d/" % number
        layer.add(directory, kind=b"5")
        for name in range(60):
            data = b"%d of %d\n" % (name, number)
            size, checksum = size + len(data), checksum + zlib.crc32(data)
            layer.add(directory + b"file-%03d" % name, data)
        for name in range(120):
            layer.add(directory + b"empty-%03d" % name)
        for name in range(18):
            layer.add(directory + b"symlink-%02d" % name, kind=b"2", target=b"file-%03d" % name)
        if number % 20:
            layer.add(directory + b"last", kind=b"5")
        else:  # of more hard links sqfs2tar would make minutes: its time grows with the square of their number
            layer.add(directory + b"last", kind=b"1", target=directory + b"file-009")
    return size, checksum


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_million_names(tmp_path: Path, munge: Munged, registry: RegistryServer) -> None:
    """In two layers; the second also removes an empty file of each directory of the first, and adds one."""
    with Layer(tmp_path / "1") as first, Layer(tmp_path / "2") as second:
        one, two = many_names(first, 0, 3000), many_names(second, 3000, 2000)
        for number in range(3000):
            second.add(b"%04d/.wh.empty-007" % number)
            second.add(b"%04d/new" % number)
    push(registry, "million", first, second)
    with converted(tmp_path, munge, registry, "million:1") as image:
        assert image.contents == Contents(1_000_001, one[0] + two[0], one[1] + two[1])
        with mounted(image.path) as root:
            left = {path.name for path in (root / "2999").glob("empty-00*")}
            assert left == {f"empty-00{number}" for number in range(10) if number != 7}
            assert (root / "2980/last").samefile(root / "2980/file-009")
            assert (root / "4999/symlink-03").read_bytes() == b"3 of 4999\n"
        assert image.memory_mb < MILLION_MB
