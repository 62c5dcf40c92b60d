# SPDX-License-Identifier: BSD-3-Clause
"""Where in an archive the tails of files lie: its inode table, read without any of the product's code.

Of squashfs format 4.0, for archives of gzip whose inodes are files, directories and symbolic links.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

KERNEL_CACHE = 3
"""Unpacked fragment blocks that the kernel keeps (CONFIG_SQUASHFS_FRAGMENT_CACHE_SIZE, by default)."""

_NO_FRAGMENT = 0xFFFFFFFF
_HEADER = struct.Struct("<H2x2x2x4xI")


class Tail(NamedTuple):
    """Where it begins, and how many bytes of the file it is."""

    block: int
    offset: int
    size: int


def tails(archive: Path) -> dict[int, Tail]:
    """Of all files that have one, by inode number."""
    content = archive.read_bytes()
    block_size, inode_table, directory_table = struct.unpack_from("<12xI48xQQ", content)
    found = {}
    table = b"".join(_metadata(content[inode_table:directory_table]))
    at = 0
    while at < len(table):
        kind, number = _HEADER.unpack_from(table, at)
        at += _HEADER.size
        if kind in (2, 9):
            form = "<4xIII" if kind == 2 else "<8xQ12xII4x"
            values = struct.unpack_from(form, table, at)
            block, offset, size = values if kind == 2 else (*values[1:], values[0])
            at += struct.calcsize(form)
            at += 4 * (size // block_size if block != _NO_FRAGMENT else -(-size // block_size))
            if block != _NO_FRAGMENT:
                found[number] = Tail(block, offset, size % block_size)
        else:
            at += _size_of_other(kind, table, at)
    return found


def unpackings(order: Iterable[Tail]) -> int:
    """How often the kernel unpacks a fragment block when files are read in this order (fs/squashfs/cache.c)."""
    cache: list[int] = []
    count = 0
    for tail in order:
        if tail.block not in cache:
            cache = [*cache[-KERNEL_CACHE + 1 :], tail.block]
            count += 1
    return count


def _metadata(table: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(table):
        (head,) = struct.unpack_from("<H", table, at)
        block = table[at + 2 : at + 2 + (head & 0x7FFF)]
        yield block if head & 0x8000 else zlib.decompress(block)
        at += 2 + len(block)


def _size_of_other(kind: int, table: bytes, at: int) -> int:
    if kind == 1:
        return 16
    if kind == 3:
        return 8 + int(struct.unpack_from("<4xI", table, at)[0])
    assert kind == 8, f"an inode of type {kind}"
    (indices,) = struct.unpack_from("<16xH", table, at)
    size = 24
    for _index in range(indices):
        size += 12 + int(struct.unpack_from("<8xI", table, at + size)[0]) + 1
    return size
