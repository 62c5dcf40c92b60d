# SPDX-License-Identifier: BSD-3-Clause
"""The inputs that a corpus begins with, made by the tests' own layer builders.

``python -m tests.fuzz.seeds DIRECTORY`` writes them. Needed again only for a new target or when an input format
changes; the fuzzer finds the rest.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shifter_imagegw.layers.recipe import Recipe
from tests.layerarchive import IMPLIED, Directory, Fifo, File, OldLink, OwnLink, Symlink, Whiteout, write_archive
from tests.layerarchive import Layer as Description
from tests.layers import Layer, convert

_EVERYTHING: Description = {
    b"d": Directory(opaque=True), b"d/deep": IMPLIED, b"d/deep/f": File(b"tail" * 9, xattrs={"user.a": b"value"}),
    b"big": File(bytes(range(256)) * 18), b"holes": File(bytes(8192) + b"x"), b"link": OwnLink(b"big"),
    b"shared": File(b"1", xattrs={"user.a": b"value" * 9}), b"x": File(b"2", xattrs={"user.b": b"value" * 9}),
    b"old": OldLink(b"d/deep/f"), b"s": Symlink(b"d/deep"), b"w": Whiteout(), b"p": Fifo(),
}  # fmt: skip
_SMALL: Description = {b"d/f": File(b"x"), b"d": Directory(), b"big": File(b"y" * 5000)}


def _tars() -> Iterator[bytes]:
    """Uncompressed layers: usual ones of each format, and hostile ones."""
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        usual = Layer(form).directory("d").add("d/f", b"tail" * 9).add("bin/sh", b"\x7fELF" * 1100, mode=0o4755, uid=7)
        usual.symlink("l", "d").hardlink("h", "d/f").add("l/g").add(".wh.old").add("d/.wh..wh..opq")
        usual.add("p", kind=tarfile.FIFOTYPE).add("c", kind=tarfile.CHRTYPE)
        yield usual.hardlink("older", "usr/lib/x").bytes()
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        yield Layer(form).add("n" * 120, b"x").symlink("t", "u" * 120).add("/".join("deep" * 30)).bytes()
    xattrs = {"SCHILY.xattr.user.a": "1", "SCHILY.xattr.security.capability": "2", "hdrcharset": "BINARY"}
    yield Layer().add("x", b"x", pax_headers=xattrs).add("y", b"x", mtime=2.5, uid=1 << 40).bytes()
    for name in ("../escape", "a/../../b", ".", ".wh.", "d/.wh...", ""):
        yield Layer(tarfile.USTAR_FORMAT).directory("d").add(name).bytes()
    yield Layer().symlink("a", "b").symlink("b", "a").add("a/x").hardlink("a/y", "b/z").bytes()
    yield Layer().add("a", b"x").add("a/b").bytes()
    yield Layer().add("twin1", b"same" * 2000).add("twin2", b"same" * 2000).add("zeros", bytes(9000)).bytes()
    yield b""


def _sparse() -> Iterator[bytes]:
    """Files with holes, in the forms that GNU tar has for them."""
    with tempfile.TemporaryDirectory() as directory:
        with (Path(directory) / "holes").open("wb") as file:
            for offset in (0, 40_000, 90_000):
                file.seek(offset)
                file.write(b"data")
            file.truncate(120_000)
        for form in (["gnu"], ["posix", "--sparse-version=0.0"], ["posix", "--sparse-version=0.1"], ["posix"]):
            command = ["tar", "-C", directory, "-b", "1", "-S", f"--format={form[0]}", *form[1:], "-cf", "-", "holes"]
            yield subprocess.run(command, check=True, capture_output=True).stdout


def layer_inputs() -> Iterator[bytes]:
    """Inputs of layer_fuzz.c."""
    tars = [tar.rstrip(b"\0") + bytes(1024) for tar in (*_tars(), *_sparse())]
    for number, tar in enumerate(tars):
        yield bytes([number % 4, 0x0F if number % 3 else 0, number % 5]) + tar
    yield bytes([0, 0x18, 0]) + tars[0]
    yield bytes([1, 0x2B, 3]) + tars[0]
    yield bytes([2, 0x4B, 3]) + tars[1]
    yield bytes([0xF4, 0x0B, 3]) + tars[2]
    yield bytes([0, 0, 3]) + gzip.compress(tars[0], 9)
    yield bytes([0, 0, 0]) + gzip.compress(tars[0][:700]) + gzip.compress(tars[0][700:]) + bytes(100)
    yield bytes([0, 0, 9]) + subprocess.run(["zstd", "-q"], input=tars[0], check=True, capture_output=True).stdout


def _archives() -> Iterator[bytes]:
    """Layer archives: packed ones, and one whose tables are not compressed, so that damage reaches their readers."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        for number, description in enumerate((_EVERYTHING, _SMALL)):
            for compressor in ("zstd", "gzip", "lz4", "xz"):
                packed = write_archive(description, work / "packed", "-c", compressor, "-b", "4096")
                yield _without_padding(packed.read_bytes())
            tree = work / f"tree{number}"
            subprocess.run(["rdsquashfs", "-q", "-X", "-T", "-p", str(tree), "-u", "/", str(packed)], check=True)
            for export in ([], ["-no-exports"]):
                plain = work / "plain"
                plain.unlink(missing_ok=True)
                subprocess.run(
                    ["mksquashfs", str(tree), str(plain), "-comp", "gzip", "-b", "4096", "-noI", "-noX", "-noId",
                     "-noF", "-nopad", "-xattrs", "-no-progress", "-quiet", "-processors", "1", *export],
                    check=True, capture_output=True,
                )  # fmt: skip
                yield plain.read_bytes()


def _sealed() -> Iterator[bytes]:
    """Archives of our own writer, with digests, alike but for what is in them."""
    recipe = Recipe(compressor="gzip", level=1, block_size=4096)
    with tempfile.TemporaryDirectory() as directory:
        for tar in list(_tars())[:3]:
            yield convert(tar, Path(directory) / "sealed", recipe=recipe).read_bytes()


def _without_padding(archive: bytes) -> bytes:
    return archive[: int.from_bytes(archive[40:48], "little")]


def merge_inputs() -> Iterator[bytes]:
    """Inputs of merge_fuzz.c: each archive alone, pairs that are compressed alike, and pairs that are not."""
    archives = list(_archives())
    for archive in archives:
        for way in (0, 1, 2, 6):
            yield bytes([way]) + len(archive).to_bytes(3, "little") + archive
    sealed = list(_sealed())
    for older, newer in zip(sealed, sealed[1:]):
        for way in (0, 1):
            yield bytes([way]) + b"".join(len(one).to_bytes(3, "little") + one for one in (older, newer))
    half = len(archives) // 2
    for older, newer in zip(archives, archives[1:]):
        yield bytes([0]) + b"".join(len(one).to_bytes(3, "little") + one for one in (older, newer))
    for older, newer in zip(archives[:half], archives[half:]):
        yield bytes([0]) + b"".join(len(one).to_bytes(3, "little") + one for one in (older, newer))


def overlay_inputs() -> Iterator[bytes]:
    """Inputs of overlay_fuzz.c: any bytes are layers, so a few runs of them will do."""
    for number in range(24):
        layer = hashlib.shake_256(bytes([number])).digest(40 + 4 * number)
        yield layer
        yield layer + b"\x0d" + layer  # 13 ends the layer: the files of both are equal


def image_inputs() -> Iterator[bytes]:
    """Inputs of image_fuzz.c."""
    yield from _archives()


INPUTS = {"layer": layer_inputs, "merge": merge_inputs, "overlay": overlay_inputs, "image": image_inputs}


def main() -> None:
    """Write the files, named by what is in them as libFuzzer does it."""
    for target, inputs in INPUTS.items():
        directory = Path(sys.argv[1]) / target
        directory.mkdir(parents=True, exist_ok=True)
        for content in inputs():
            (directory / hashlib.sha1(content).hexdigest()).write_bytes(content)


if __name__ == "__main__":
    os.umask(0o022)
    main()
