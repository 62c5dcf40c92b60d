# SPDX-License-Identifier: BSD-3-Clause
"""How the merge moves data: only what is needed, whole, to where there is room, and stopped when asked to."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shifter_imagegw.errors import ConversionError
from shifter_imagegw.layers.merge import merge_archives
from tests.imagetree import mounted
from tests.layerarchive import (
    File,
    Layer,
    Whiteout,
    archive_of_tree,
    build_image,
    go_on,
    merge_files,
    opened,
    write_archive,
)

BLOCK = 4096


def noise(seed: int, size: int) -> bytes:
    """Bytes that no compressor makes smaller."""
    return random.Random(seed).randbytes(size)


@contextmanager
def small_filesystem(size: str) -> Iterator[Path]:
    target = Path(tempfile.mkdtemp(prefix="shifter-small-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(target)], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)
        target.rmdir()


def test_data_that_nobody_uses_is_left_out(tmp_path: Path) -> None:
    big = {f"f{number}".encode(): File(noise(number, 40 * BLOCK)) for number in range(20)}
    gone: Layer = {name: Whiteout() for name in list(big)[::2]}
    archives = [write_archive(big, tmp_path / "1"), write_archive(gone, tmp_path / "2")]
    summary = merge_files(archives, tmp_path / "image")
    used = 10 * 40 * BLOCK
    assert used <= summary.copied <= used * 1.01
    assert summary.bytes < used * 1.01 + 3 * BLOCK
    with mounted(tmp_path / "image") as root:
        assert all((root / name.decode()).read_bytes() == big[name].data for name in big if name not in gone)


def test_small_gaps_are_copied_along_within_one_percent(tmp_path: Path) -> None:
    sizes = [101 * BLOCK, BLOCK] * 10
    files = {b"f%02d" % number: File(noise(number, size)) for number, size in enumerate(sizes)}
    archives = [
        write_archive(files, tmp_path / "1"),
        write_archive({name: Whiteout() for name in files if int(name[1:]) % 2}, tmp_path / "2"),
    ]
    summary = merge_files(archives, tmp_path / "image")
    used = 10 * 101 * BLOCK
    assert used < summary.copied <= used * 1.01


def test_many_gaps_do_not_add_up(tmp_path: Path) -> None:
    sizes = [800 * BLOCK, *([4 * BLOCK, BLOCK] * 100)]
    files = {b"f%03d" % number: File(noise(number, size)) for number, size in enumerate(sizes)}
    gone: Layer = {name: Whiteout() for name in files if int(name[1:]) % 2}
    archives = [write_archive(files, tmp_path / "1"), write_archive(gone, tmp_path / "2")]
    used = (800 + 100) * BLOCK
    assert used < merge_files(archives, tmp_path / "image").copied <= used * 1.01


def test_shared_and_unused_fragment_blocks(tmp_path: Path) -> None:
    first = {f"{number:04}".encode(): File(noise(number, 700)) for number in range(40)}
    second: Layer = {**{name: Whiteout() for name in list(first)[:20]}, b"new": File(noise(99, 5000))}
    archives = [write_archive(first, tmp_path / "1"), write_archive(second, tmp_path / "2")]
    summary = merge_files(archives, tmp_path / "image")
    assert summary.copied < 20 * 700 + 3 * BLOCK + 5000
    with mounted(tmp_path / "image") as root:
        kept = {path.name: path.read_bytes() for path in root.iterdir()}
    assert kept == {**{name.decode(): first[name].data for name in list(first)[20:]}, "new": noise(99, 5000)}


def test_files_that_share_blocks_in_an_archive_share_them_in_the_image(tmp_path: Path) -> None:
    data = noise(1, 50 * BLOCK + 5)
    archives = [
        write_archive({b"a": File(data), b"b": File(data), b"c": File(data)}, tmp_path / "1"),
        write_archive({b"a": Whiteout()}, tmp_path / "2"),
    ]
    assert merge_files(archives, tmp_path / "image").copied < 52 * BLOCK
    with mounted(tmp_path / "image") as root:
        assert (root / "b").read_bytes() == (root / "c").read_bytes() == data


def test_holes_stay_holes(tmp_path: Path) -> None:
    data = bytes(1 << 20) + b"x" + bytes(1 << 20)
    image = build_image(tmp_path, {b"sparse": File(data), b"zeros": File(bytes(10 * BLOCK + 1))})
    assert image.stat().st_size < 20_000
    with mounted(image) as root:
        assert (root / "sparse").read_bytes() == data
        assert (root / "sparse").stat().st_blocks <= 2 * BLOCK // 512
        assert (root / "zeros").read_bytes() == bytes(10 * BLOCK + 1)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_within_and_across_filesystems(tmp_path: Path, elsewhere: bool) -> None:
    with small_filesystem("64m") as other:
        data = noise(3, 3_000_000)
        archive = write_archive({b"a": File(data)}, (other if elsewhere else tmp_path) / "1")
        merge_files([archive], tmp_path / "image")
        with mounted(tmp_path / "image") as root:
            assert (root / "a").read_bytes() == data


@pytest.mark.parametrize("missing", [500_000, 12_288])
def test_a_full_filesystem_is_an_error_that_leaves_nothing(tmp_path: Path, missing: int) -> None:
    """Too small for the data; large enough for the data but not for the tables."""
    many = {b"%06d" % number + noise(number, 50).hex().encode(): File(mtime=number * 7919) for number in range(1000)}
    archive = write_archive({b"a": File(noise(3, 1_000_000)), **many}, tmp_path / "1")
    size = merge_files([archive], tmp_path / "image").bytes - missing
    with small_filesystem(str(size)) as other:
        with pytest.raises(ConversionError, match="No space left on device; free some space"):
            merge_files([archive], other / "image")
        assert list(other.iterdir()) == []


def test_an_existing_destination_is_kept(tmp_path: Path) -> None:
    (tmp_path / "image").write_text("precious")
    with pytest.raises(ConversionError, match="File exists"):
        merge_files([], tmp_path / "image")
    assert (tmp_path / "image").read_text() == "precious"


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_the_check_stops_the_merge(tmp_path: Path, after: int) -> None:
    class Stop(Exception):
        pass

    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Stop

    archives = [write_archive({b"a": File(noise(1, 100 * BLOCK))}, tmp_path / str(number)) for number in range(3)]
    with pytest.raises(Stop):
        merge_files(archives, tmp_path / "image", check)
    assert not (tmp_path / "image").exists()


def test_an_error_of_the_check_is_not_taken_for_one_of_the_merge(tmp_path: Path) -> None:
    def check() -> None:
        raise ConnectionResetError("the database is gone")

    with pytest.raises(ConnectionResetError):
        merge_files([], tmp_path / "image", check)


def test_a_bad_descriptor_is_named(tmp_path: Path) -> None:
    archive = write_archive({b"a": File(noise(1, 100))}, tmp_path / "1")
    write_only = os.open(tmp_path / "2", os.O_WRONLY | os.O_CREAT)
    os.write(write_only, archive.read_bytes())
    with opened([archive]) as (descriptor,):
        try:
            with pytest.raises(ConversionError, match="layer sha256:b: read: Bad file descriptor"):
                merge_archives([descriptor, write_only], tmp_path / "image", go_on, ["sha256:a", "sha256:b"])
        finally:
            os.close(write_only)


def test_many_files_in_one_directory_and_a_deep_tree(tmp_path: Path) -> None:
    count, deep = 40_000, "/".join(f"n{number}" for number in range(300))
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "d").mkdir(parents=True)
    (new / "d").mkdir(parents=True)
    for number in range(count):
        (old / f"d/{number:06}").write_text(str(number))
        if number % 3 == 0:
            os.mknod(new / f"d/{number:06}", stat.S_IFCHR)
    (new / deep).mkdir(parents=True)
    (new / deep / "bottom").touch()
    (new / "link").touch()
    os.setxattr(new / "link", "user.shifter.hardlink", b"d/000001")
    archives = [archive_of_tree(old, tmp_path / "1"), archive_of_tree(new, tmp_path / "2")]
    summary = merge_files(archives, tmp_path / "image")
    left = count - (count + 2) // 3
    assert summary.entries == 1 + 1 + left + 300 + 1 + 1
    with mounted(tmp_path / "image") as root:
        assert (root / deep / "bottom").exists()
        for number in range(0, count, 97):
            path = root / f"d/{number:06}"
            assert path.exists() == (number % 3 != 0)
            assert number % 3 == 0 or path.read_text() == str(number)
        assert len(list((root / "d").iterdir())) == left
        assert (root / "link").samefile(root / "d/000001")
