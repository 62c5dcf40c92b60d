# SPDX-License-Identifier: BSD-3-Clause
"""The check that all made images go through finds what it is for."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import zlib
from pathlib import Path

import pytest

from tests.imagecheck import Contents, check_image
from tests.layerarchive import Directory, Fifo, File, Layer, OwnLink, Symlink, write_archive

NOISE = random.Random(1).randbytes(300_000)
LAYER: Layer = {
    b"line\nbreak": Directory(xattrs={"user.a": b"1"}),
    b"line\nbreak/in\nname": File(b"one", xattrs={"user.b": b"2"}),
    b"line\nbreak/link": Symlink(b"to\n\nnowhere"),
    b"line\nbreak/\xff\xfe": Fifo(),
    b"noise": File(NOISE),
    b"once more": OwnLink(b"noise"),
    b"n" * 200: Symlink(b"t" * 200),
    b"zeros": File(bytes(100_000)),
    b"empty": File(),
}


def test_everything_counts_once(tmp_path: Path) -> None:
    archive = write_archive(LAYER, tmp_path / "image")
    checksum = sum(zlib.crc32(data) for data in (b"one", NOISE, bytes(100_000)))
    assert check_image(archive) == Contents(10, 3 + len(NOISE) + 100_000, checksum)


def test_damaged_data_are_found(tmp_path: Path) -> None:
    """Only who unpacks the blocks can tell: no table says anything about them."""
    archive = write_archive({b"a": File(b"text " * 20_000)}, tmp_path / "image")
    content = bytearray(archive.read_bytes())
    content[100:140] = bytes(40)
    archive.write_bytes(content)
    with pytest.raises(OSError, match="Input/output error"):
        check_image(archive)


def test_a_complaint_of_a_reader_is_a_failure(tmp_path: Path) -> None:
    """A socket is nothing that a tar can hold."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "socket"))
    image = tmp_path.with_suffix(".squashfs")
    subprocess.run(["mksquashfs", str(tmp_path), str(image), "-quiet", "-no-progress"], check=True, capture_output=True)
    with pytest.raises(AssertionError, match="sqfs2tar"):
        check_image(image)
