# SPDX-License-Identifier: BSD-3-Clause
"""On a filesystem that can share blocks between files an image shares its data with the archives of its layers."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imagetree import contents, mounted_disk
from tests.layerarchive import File, Layer, Whiteout, expected, merge_files, write_archive

MIB = 1 << 20


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    """A mounted XFS that can share blocks, as mkfs.xfs makes it."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(512 * MIB)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(disk)], check=True)
    with mounted_disk(disk) as target:
        yield target


def used(filesystem: Path) -> int:
    """Bytes, once what was written has its place."""
    subprocess.run(["sync", "-f", str(filesystem)], check=True)
    status = os.statvfs(filesystem)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def large_layers() -> list[Layer]:
    """Three, of files of odd sizes, whose data starts anywhere in a block."""
    generator = random.Random(7)

    def file() -> File:
        return File(generator.randbytes(MIB + generator.randrange(MIB)))

    return [{b"%d-%02d" % (layer, number): file() for number in range(12)} for layer in range(3)]


@pytest.mark.parametrize("options", [(), ("-c", "gzip", "-b", "131072")], ids=["zstd", "gzip"])
def test_an_image_shares_the_blocks_of_its_archives(xfs: Path, options: tuple[str, ...]) -> None:
    layers = large_layers()
    archives = [write_archive(layer, xfs / f"{number}.layer", *options) for number, layer in enumerate(layers)]
    before = used(xfs)
    summary = merge_files(archives, xfs / "image")
    assert summary.copied > 36 * MIB
    assert used(xfs) - before < MIB
    assert contents(xfs / "image") == expected(*layers)


def test_parts_of_an_archive_are_shared_too(xfs: Path) -> None:
    """Files that upper layers remove or replace leave runs that begin anywhere in their archive."""
    layers = large_layers()
    layers[1] = {**layers[1], b"0-03": Whiteout(), b"0-07": File(b"replaced")}
    archives = [write_archive(layer, xfs / f"{number}.layer") for number, layer in enumerate(layers)]
    before = used(xfs)
    merge_files(archives, xfs / "image")
    assert used(xfs) - before < MIB
    wanted = expected(*layers)
    del wanted["0-03"]
    assert contents(xfs / "image") == wanted


def test_the_place_of_the_data_does_not_depend_on_the_filesystem(xfs: Path, tmp_path: Path) -> None:
    archives = [write_archive(layer, xfs / f"{number}.layer") for number, layer in enumerate(large_layers())]
    merge_files(archives, xfs / "image")
    merge_files(archives, tmp_path / "image")
    assert (xfs / "image").read_bytes() == (tmp_path / "image").read_bytes()
