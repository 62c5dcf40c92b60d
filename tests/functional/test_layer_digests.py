# SPDX-License-Identifier: BSD-3-Clause
"""The digests behind the file system of a layer archive: which file has which, by the inode numbers of the kernel."""

from __future__ import annotations

import hashlib
import os
import random
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.imagetree import mounted
from tests.layers import Found, Layer, convert, read_tree

BLOCK = 131_072
UNKNOWN = bytes(16)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def digest(content: bytes, *, plain: bool = False) -> bytes:
    return hashlib.sha256(bytes([plain]) + content).digest()[:16]


def table(archive: Path) -> list[bytes]:
    """The digests, that of the inode with number 1 first."""
    content = archive.read_bytes()
    inodes, bytes_used = struct.unpack_from("<4xI32xQ", content)
    magic, said_used, size = struct.unpack_from("<16sQQ", content, len(content) - 96)
    assert (magic, said_used, size) == (b"shifter layer 2\n", bytes_used, 16 * inodes)
    assert not content[bytes_used + size : -96].strip(b"\0")
    return [content[at : at + 16] for at in range(bytes_used, bytes_used + size, 16)]


def read(tar: bytes, directory: Path) -> tuple[dict[bytes, Found], dict[bytes, bytes]]:
    """What the kernel shows of a layer's archive, and the digest of each path."""
    archive = convert(tar, directory / "one.layer")
    digests = table(archive)
    with mounted(archive) as root:
        tree = read_tree(root)
    assert {found.inode for found in tree.values()} == set(range(1, len(digests) + 1))
    return tree, {name: digests[found.inode - 1] for name, found in tree.items()}


def test_every_file_with_content_has_the_one_of_it(tmp_path: Path) -> None:
    sizes = [1, 2, 99, 4095, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5]
    layer = Layer()
    for size in sizes:
        layer.add(f"d{size % 3}/{size}", noise(size)).add(f"again/{size}", noise(size))
    layer.add("zeros", bytes(2 * BLOCK + 9)).add("empty").hardlink("link", "again/99")
    tree, digests = read(layer.bytes(), tmp_path)
    files = {name: found.content for name, found in tree.items() if found.kind == "file"}
    assert len(files) == 2 * len(sizes) + 3
    assert {name: digests[name] for name in files} == {
        name: digest(content) if content else UNKNOWN for name, content in files.items()
    }


def test_nothing_else_has_one(tmp_path: Path) -> None:
    layer = Layer().directory("d").symlink("s", "d").add(".wh.gone").add("pipe", kind=tarfile.FIFOTYPE)
    layer.hardlink("old", "older/file").add("implied/empty").add("o/.wh..wh..opq").add("null", kind=tarfile.CHRTYPE)
    _tree, digests = read(layer.bytes(), tmp_path)
    assert set(digests.values()) == {UNKNOWN}
    _tree, digests = read(b"", tmp_path)
    assert digests == {b".": UNKNOWN}


def test_what_is_stored_otherwise_is_another_content(tmp_path: Path) -> None:
    text = b"a small shell" * 99
    _tree, digests = read(Layer().add("copy", text).add("bin/sh", text).add("bin/ash", text).bytes(), tmp_path)
    assert digests[b"copy"] == digest(text)
    assert digests[b"bin/sh"] == digests[b"bin/ash"] == digest(text, plain=True)


def test_files_with_holes_have_none(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "holes").open("wb") as file:
        file.seek(1_000_000)
        file.write(b"end")
    (source / "whole").write_bytes(b"end")
    tar = subprocess.run(["tar", "-C", str(source), "--sparse", "-cf", "-", "."], check=True, capture_output=True)
    _tree, digests = read(tar.stdout, tmp_path)
    assert (digests[b"holes"], digests[b"whole"]) == (UNKNOWN, digest(b"end"))


def test_the_last_entry_of_a_name_counts(tmp_path: Path) -> None:
    layer = Layer().add("f", b"old").hardlink("kept", "f").add("f", b"new").add("g", b"file").directory("g")
    layer.directory("h").add("h/x", b"x").add("i", b"gone").symlink("i", "f")
    _tree, digests = read(layer.bytes(), tmp_path)
    assert {name: found for name, found in digests.items() if found != UNKNOWN} == {
        b"f": digest(b"new"), b"kept": digest(b"old"), b"h/x": digest(b"x"),
    }  # fmt: skip


def test_many_inodes(tmp_path: Path) -> None:
    layer = Layer(tarfile.USTAR_FORMAT)
    for number in range(9000):
        layer.add(f"d{number % 7}/e{number % 3}/{number}", b"%d" % (number % 4000))
        if number % 5 == 0:
            layer.hardlink(f"d{number % 6}/link{number}", f"d{number % 7}/e{number % 3}/{number}")
    tree, digests = read(layer.bytes(), tmp_path)
    assert all(digests[name] == digest(found.content) for name, found in tree.items() if found.kind == "file")
    assert sum(found != UNKNOWN for found in digests.values()) == 10_800


@pytest.mark.parametrize("size", [1, 100, 4000])
def test_equal_files_are_stored_once_however_small(tmp_path: Path, size: int) -> None:
    once = convert(Layer().add("0", noise(size)).bytes(), tmp_path / "once").read_bytes()
    layer = Layer()
    for number in range(2000):
        layer.add(f"{number}", noise(size))
    archive = convert(layer.bytes(), tmp_path / "one.layer")
    start = {content: struct.unpack_from("<Q", content, 64)[0] for content in (once, archive.read_bytes())}
    assert len(set(start.values())) == 1  # of the inode table, which follows all data
    with mounted(archive) as root:
        assert all((root / f"{number}").read_bytes() == noise(size) for number in range(2000))
    subprocess.run(["sqfs2tar", os.fspath(archive)], check=True, stdout=subprocess.DEVNULL)
