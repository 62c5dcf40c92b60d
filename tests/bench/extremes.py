# SPDX-License-Identifier: BSD-3-Clause
"""The images at both ends: ``big``, one layer of 2 GB that cannot be compressed; ``tiny60``, sixty tiny layers."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

from tests.bench.images import KnownLayer, add_file, maker, push
from tests.bench.registry import BenchRegistry
from tests.bench.rounds import say

BIG = "bench/big:latest"
TINY60 = "bench/tiny60:latest"
_BIG_FILES = 64
_BIG_FILE_BYTES = 32_000_000
_TINY_LAYERS = 60


class StoredGzip(io.RawIOBase):
    """A gzip member whose bytes are stored as they are, written to ``sink``; knows both digests of a layer."""

    def __init__(self, sink: BinaryIO) -> None:
        self.sink = sink
        self.packer = zlib.compressobj(0, zlib.DEFLATED, 31)
        self.plain, self.packed = hashlib.sha256(), hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """It is for writing only."""
        return True

    def write(self, data: Any) -> int:
        """Pack and count."""
        self.plain.update(data)
        self._put(self.packer.compress(data))
        return len(data)

    def finish(self) -> None:
        """Write what the compressor still holds."""
        self._put(self.packer.flush())

    def _put(self, packed: bytes) -> None:
        self.packed.update(packed)
        self.size += self.sink.write(packed)


def ensure_big(registry: BenchRegistry, cache: Path) -> str:
    """Make ``big`` unless it is there; returns its name."""
    if registry.manifest(BIG) is None:
        say("making big (once; about a minute)")
        path = cache / "big.tar.gz"
        push(registry, BIG, [_write_big(path)])
        path.unlink()
    return BIG


def ensure_tiny60(registry: BenchRegistry, cache: Path) -> str:
    """Make ``tiny60`` unless it is there; returns its name."""
    if registry.manifest(TINY60) is None:
        say("making tiny60 (once)")
        directory = cache / "tiny60"
        directory.mkdir(exist_ok=True)
        push(registry, TINY60, [_write_tiny(directory / f"{number}.tar", number) for number in range(_TINY_LAYERS)])
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
    return TINY60


def _write_big(path: Path) -> KnownLayer:
    source = random.Random(20261125)
    with path.open("wb") as sink:
        packed = StoredGzip(sink)
        with tarfile.open(fileobj=cast("BinaryIO", packed), mode="w|", bufsize=1 << 20) as layer:
            for number in range(_BIG_FILES):
                add_file(layer, f"data/{number:02d}.bin", source.randbytes(_BIG_FILE_BYTES))
        packed.finish()
    digests = [f"sha256:{state.hexdigest()}" for state in (packed.packed, packed.plain)]
    return KnownLayer(path, digests[0], packed.size, digests[1], maker().LAYER_TYPE)


def _write_tiny(tar: Path, number: int) -> Any:
    """Five files of its own, one that every layer replaces."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as layer:
        for part in range(5):
            add_file(layer, f"layers/{number:02d}/part-{part}", f"layer {number}, part {part}\n".encode() * 40)
        add_file(layer, "layers/newest", f"{number}\n".encode())
    return maker().Layer(tar)
