# SPDX-License-Identifier: BSD-3-Clause
"""Damaged and hostile squashfs files (sec-02, sec-48): an error or a sound image, never a crash, a hang or a flood."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shifter_imagegw.errors import ConversionError, LayerError
from shifter_imagegw.squashfs.validate import validate_image
from shifter_imagegw.squashfs.walk import walk
from tests.layerarchive import (
    IMPLIED,
    Directory,
    Fifo,
    File,
    Layer,
    OldLink,
    OwnLink,
    Symlink,
    Whiteout,
    merge_files,
    opened,
    write_archive,
)

SUPERBLOCK = struct.Struct("<5I6H8Q")  # squashfs_fs.h, struct squashfs_super_block
FIELDS = [
    *("magic", "inodes", "mtime", "block_size", "fragments", "compressor", "block_log", "flags", "ids"),
    *("major", "minor", "root", "used", "id_table", "xattr_table"),
    *("inode_table", "directory_table", "fragment_table", "export_table"),
]
NOWHERE = 2**64 - 1


def make_archives() -> tuple[bytes, bytes]:
    """A layer with everything in it: as it is, and with tables that are not compressed, so that damage gets through."""
    xattrs = {"user.a": b"value" * 20}
    layer: Layer = {
        b"d": Directory(opaque=True), b"d/deep": IMPLIED, b"d/deep/f": File(b"tail" * 50, xattrs=xattrs),
        b"big": File(random.Random(1).randbytes(20_000)), b"holes": File(bytes(50_000) + b"x"),
        b"link": OwnLink(b"big"), b"old": OldLink(b"d/deep/f"), b"s": Symlink(b"somewhere/else"), b"w": Whiteout(),
        b"p": Fifo(), **{b"many%03d" % number: File(b"%d" % number, xattrs=xattrs) for number in range(300)},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        packed = write_archive(layer, Path(directory) / "packed")
        tree = Path(directory) / "tree"
        subprocess.run(["rdsquashfs", "-q", "-X", "-T", "-p", str(tree), "-u", "/", str(packed)], check=True)
        plain = Path(directory) / "plain"
        subprocess.run(
            ["mksquashfs", str(tree), str(plain), "-comp", "gzip", "-b", "4096", "-noI", "-noX", "-noId", "-xattrs",
             "-no-progress", "-quiet", "-processors", "1"],
            check=True, capture_output=True,
        )  # fmt: skip
        return packed.read_bytes(), plain.read_bytes()


PACKED, PLAIN = make_archives()


@contextmanager
def file_of(content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "archive"
        path.write_bytes(content)
        yield path


def survive(content: bytes) -> str:
    """Look at it and merge it twice over itself; the error, or nothing if all went well."""
    with file_of(content) as path:
        try:
            for _entry in walk(path):
                pass
            with opened([path]) as (descriptor,):
                validate_image(descriptor)
        except (ConversionError, ValueError) as error:
            first = str(error)
        else:
            first = ""
        try:
            merge_files([path, path], path.parent / "image")
        except (ConversionError, LayerError) as error:
            return str(error)
        return first


def with_fields(content: bytes, **changes: int) -> bytes:
    values = dict(zip(FIELDS, SUPERBLOCK.unpack_from(content)))
    assert changes.keys() <= values.keys()
    return SUPERBLOCK.pack(*{**values, **changes}.values()) + content[SUPERBLOCK.size :]


def field(content: bytes, name: str) -> int:
    return int(SUPERBLOCK.unpack_from(content)[FIELDS.index(name)])


def test_the_whole_ones_are_accepted() -> None:
    for content in (PACKED, PLAIN):
        with file_of(content) as path:
            assert sum(1 for _entry in walk(path)) > 300


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"magic": 1}, "no squashfs"),
        ({"major": 3}, "version 3.0"),
        ({"compressor": 2}, "compressor 2"),
        ({"compressor": 3}, "compressor 3"),
        ({"compressor": 77}, "compressor 77"),
        ({"block_size": 4095}, "block size"),
        ({"block_log": 13}, "block size"),
        ({"block_size": 1 << 21, "block_log": 21}, "block size"),
        ({"used": 1 << 40}, "ends too early"),
        ({"ids": 0}, "no ids"),
        ({"inodes": 0}, "no ids or no inodes"),
        ({"inodes": 2**32 - 1}, "counts 4294967295 inodes"),
        ({"inodes": 5}, "inode number"),
        ({"ids": 65535}, "table"),
        ({"fragments": 2**32 - 1}, "table"),
        ({"inode_table": 0}, "wrong place"),
        ({"directory_table": 0}, "wrong place"),
        ({"fragment_table": 97}, "wrong order"),
        ({"id_table": NOWHERE}, "no id table"),
        ({"id_table": NOWHERE - 1}, "wrong order"),
        ({"xattr_table": 96}, "wrong order"),
        ({"root": NOWHERE}, "outside its table"),
        ({"root": 0xFFFF}, "outside its table"),
    ],
)
@pytest.mark.parametrize("content", [PACKED, PLAIN], ids=["packed", "plain"])
def test_superblock_limits(content: bytes, changes: dict[str, int], reason: str) -> None:
    assert reason in survive(with_fields(content, **changes))


def test_every_truncation_is_noticed() -> None:
    used = field(PLAIN, "used")
    for length in [*range(0, 130, 7), *range(130, used, max(1, used // 60)), used - 1]:
        assert survive(PLAIN[:length]) != ""


def test_an_image_must_end_on_a_sector() -> None:
    content = PACKED[: field(PACKED, "used")]
    with file_of(content + bytes(-len(content) % 512)) as path, opened([path]) as (descriptor,):
        assert validate_image(descriptor).compressor == "zstd"
    if len(content) % 512:
        refused = pytest.raises(ConversionError, match="loop device")
        with file_of(content) as path, opened([path]) as (descriptor,), refused:
            validate_image(descriptor)


def _metadata(table: bytes) -> bytes:
    return struct.pack("<H", 0x8000 | len(table)) + table


def _image(inodes: bytes, listing: bytes, root_offset: int, count: int) -> bytes:
    """A hand-made image: two tables and one id."""
    inode_table = _metadata(inodes)
    directory_table = _metadata(listing)
    ids_at = 96 + len(inode_table) + len(directory_table)
    ids = _metadata(bytes(4))
    id_table = ids_at + len(ids)
    used = id_table + 8
    superblock = SUPERBLOCK.pack(
        0x73717368, count, 0, 4096, 0, 1, 12, 0x210, 1, 4, 0, root_offset, used, id_table, NOWHERE, 96,
        96 + len(inode_table), NOWHERE, NOWHERE,
    )  # fmt: skip
    return superblock + inode_table + directory_table + ids + struct.pack("<Q", ids_at) + bytes(4096)


def _directory(number: int, size: int, offset: int = 0, kind: int = 1) -> bytes:
    return struct.pack("<HHHHII", kind, 0o755, 0, 0, 0, number) + struct.pack("<IIHHI", 0, 2, size + 3, offset, 0)


def _listing(*entries: tuple[bytes, int, int], number: int = 1) -> bytes:
    """(name, inode's offset in its block, number)"""
    packed = struct.pack("<III", len(entries) - 1, 0, number)
    for name, offset, own in entries:
        packed += struct.pack("<HhHH", offset, own - number, 1, len(name) - 1) + name
    return packed


def test_a_directory_that_holds_itself_or_another_twice_is_refused() -> None:
    loop = _listing((b"a", 0, 1))
    assert "two names" in survive(_image(_directory(1, len(loop)), loop, 0, 1))
    twice = _listing((b"a", 32, 2), (b"b", 32, 2))
    assert "two names" in survive(_image(_directory(1, len(twice)) + _directory(2, 0), twice, 0, 2))
    fine = _listing((b"a", 32, 2))
    assert survive(_image(_directory(1, len(fine)) + _directory(2, 0), fine, 0, 2)) == ""


def test_listings_that_overlap_are_refused_before_they_fill_the_memory() -> None:
    shared = _listing(*((b"%03d" % number + b"n" * 200, 32 * 9, 10) for number in range(28)))
    root = _listing(*((b"%d" % number, 32 * number, number + 1) for number in range(1, 9)))
    inodes = _directory(1, len(root), len(shared))
    inodes += b"".join(_directory(number, len(shared)) for number in range(2, 10))
    inodes += struct.pack("<HHHHII", 6, 0o644, 0, 0, 0, 10) + struct.pack("<I", 1)  # a FIFO with many names
    assert "more than their table holds" in survive(_image(inodes, shared + root, 0, 10))


@pytest.mark.parametrize("name", [b".", b"..", b"a/b", b"a\0b", b"/", b"x" * 256])
def test_names_that_would_lead_elsewhere_are_refused(name: bytes) -> None:
    listing = _listing((name, 32, 2))
    assert "a name" in survive(_image(_directory(1, len(listing)) + _directory(2, 0), listing, 0, 2))


def test_unsorted_and_repeated_names_are_refused() -> None:
    for names in ((b"b", b"a"), (b"a", b"a")):
        listing = _listing((names[0], 32, 2), (names[1], 64, 3))
        inodes = _directory(1, len(listing)) + _directory(2, 0) + _directory(3, 0)
        assert "not sorted" in survive(_image(inodes, listing, 0, 3))


def test_a_file_of_many_exabytes_is_refused_at_once() -> None:
    listing = _listing((b"f", 32, 2))
    file = struct.pack("<HHHHII", 9, 0o644, 0, 0, 0, 2)
    file += struct.pack("<QQQIIII", 96, 2**63 - 1, 0, 1, 2**32 - 1, 0, 2**32 - 1)
    assert "too many blocks" in survive(_image(_directory(1, len(listing)) + file, listing, 0, 2))


def test_xattrs_that_say_a_terabyte_are_refused() -> None:
    sound = _image(_directory(1, 0), bytes(1), 0, 1)[:-4096]
    reference = (8192 + 2) << 16  # to the value, which begins with the second block
    pair = struct.pack("<HH", 0x100, 1) + b"a" + struct.pack("<IQ", 8, reference)
    pairs = 8192 // len(pair)
    content = (pair * pairs).ljust(8192, b"\0") + struct.pack("<I", 65536) + bytes(65536)
    sets = struct.pack("<QII", 0, pairs, 0) * 34_000
    tables = [b"".join(_metadata(t[at : at + 8192]) for at in range(0, len(t), 8192)) for t in (content, sets)]
    sets_at = len(sound) + len(tables[0])
    listed_at = sets_at + len(tables[1])
    blocks = b"".join(struct.pack("<Q", sets_at + at) for at in range(0, len(tables[1]), 8194))
    image = sound + b"".join(tables) + struct.pack("<QII", len(sound), 34_000, 0) + blocks
    assert "too many xattrs" in survive(with_fields(image + bytes(4096), xattr_table=listed_at, used=len(image)))


DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6)


@settings(max_examples=400)
@given(st.sampled_from([PACKED, PLAIN]), DAMAGE)
def test_random_bytes_anywhere(content: bytes, damage: list[tuple[float, int]]) -> None:
    damaged = bytearray(content)
    for where, value in damage:
        damaged[int(where * len(damaged))] = value
    survive(bytes(damaged))


@settings(max_examples=600)
@given(DAMAGE, st.integers(0, 200))
def test_random_bytes_in_the_tables(damage: list[tuple[float, int]], cut: int) -> None:
    damaged = bytearray(PLAIN)
    first = field(PLAIN, "inode_table")
    for where, value in damage:
        damaged[first + int(where * (len(damaged) - first))] = value
    survive(bytes(damaged[: len(damaged) - cut]))


def test_garbage_and_nothing() -> None:
    assert survive(b"") != ""
    assert survive(os.urandom(5000)) != ""
