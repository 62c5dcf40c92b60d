# SPDX-License-Identifier: BSD-3-Clause
"""In which order the tails of files are packed, and what that makes of reading them."""

from __future__ import annotations

import random
import stat
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from shifter_imagegw.layers.recipe import Recipe
from shifter_imagegw.squashfs.walk import walk
from tests.fragments import Tail, tails, unpackings
from tests.imagetree import mounted
from tests.layers import Layer, convert, read_tree

GZIP = Recipe("gzip", 1)
WINDOW = 8 << 20


def content(path: str, size: int) -> bytes:
    return random.Random(path).randbytes(size)


def layer_of(paths: Iterable[str], size: int) -> bytes:
    layer = Layer(tarfile.USTAR_FORMAT)
    for path in paths:
        layer.add(path, content(path, size))
    return layer.bytes()


def listed(archive: Path) -> dict[bytes, Tail]:
    """The tails of an archive, in the order of its listings, depth first."""
    found = tails(archive)
    return {entry.path: found[entry.inode] for entry in walk(archive) if entry.inode in found}


def in_order(found: dict[bytes, Tail]) -> bool:
    return list(found.values()) == sorted(found.values())


def shuffled(paths: list[str]) -> list[str]:
    return random.Random(1).sample(paths, len(paths))


def backwards(paths: list[str]) -> list[str]:
    return paths[::-1]


def interleaved(paths: list[str]) -> list[str]:
    return sorted(paths, key=lambda path: (path.rpartition("/")[2], path))


@pytest.mark.parametrize("order", [list, shuffled, backwards, interleaved])
@pytest.mark.parametrize("size", [1, 2500, 131_072 + 2500])
def test_sorted_as_far_as_the_window_reaches(
    tmp_path: Path, order: Callable[[list[str]], list[str]], size: int
) -> None:
    # A byte that sorts before the slash, one behind it, and a name that begins like another.
    names = [f"usr/{name}/{number:03d}" for name in ("a", "a-b", "ab", "a0", "b") for number in range(100)]
    archive = convert(layer_of(order(names), size), tmp_path / "one.layer", recipe=GZIP)
    found = listed(archive)
    assert len(found) == len(names) or size == 1  # equal ones are one
    if size > 1:
        assert in_order(found)
    with mounted(archive) as root:
        assert all((root / name).read_bytes() == content(name, size) for name in names)


def test_files_of_a_directory_lie_together(tmp_path: Path) -> None:
    names = [f"d/{letter}/{number}" for letter in "bdf" for number in range(50)]
    names += [f"d/{letter}{number}" for letter in "aceg" for number in range(50)]
    archive = convert(layer_of(shuffled(names), 2000), tmp_path / "one.layer", recipe=GZIP)
    found = listed(archive)
    places = [name.rpartition(b"/")[0] for name in sorted(found, key=lambda name: found[name])]
    assert places == [b"d"] * 200 + [b"d/b"] * 50 + [b"d/d"] * 50 + [b"d/f"] * 50


@pytest.mark.parametrize("order", [list, shuffled, interleaved])
def test_runs_of_a_large_layer_are_longer_than_the_window(
    tmp_path: Path, order: Callable[[list[str]], list[str]]
) -> None:
    names = [f"d{number // 500:02d}/{number % 500:03d}" for number in range(12_000)]
    archive = convert(layer_of(order(names), 3000), tmp_path / "one.layer", recipe=GZIP)
    found = listed(archive)
    packed = sorted(found, key=lambda name: found[name])
    runs = 1 + sum(second < first for first, second in zip(packed, packed[1:]))
    assert runs <= (1 if order is list else -(-12_000 * 3000 // WINDOW))
    if order is not shuffled:  # each directory is in a few runs, so that a reader is at few places
        assert unpackings(found.values()) < 12_000 / 20
    with mounted(archive) as root:
        tree = read_tree(root)
    assert {name: tree[name].content for name in found} == {
        name: content(name.decode(), 3000) for name in found
    }


def test_copies_lie_where_the_first_one_comes_to_lie(tmp_path: Path) -> None:
    names = [f"{number:05d}" for number in range(8000)]
    layer = Layer(tarfile.USTAR_FORMAT)
    for number, name in enumerate(shuffled(names)):
        layer.add(f"first/{name}", content(name, 3000)).add(f"a/{name}", content(name, 3000))
        if number % 50 == 0:  # replaced while it waits, and what was equal to it stays
            layer.add(f"first/{name}", b"new " + name.encode())
    archive = convert(layer.bytes(), tmp_path / "one.layer", recipe=GZIP)
    found = listed(archive)
    with mounted(archive) as root:
        tree = read_tree(root)
    for name in names:
        first, copy = f"first/{name}".encode(), f"a/{name}".encode()
        assert tree[copy].content == content(name, 3000)
        if tree[first].content == tree[copy].content:
            assert found[first] == found[copy]
        else:
            assert tree[first].content == b"new " + name.encode()
    assert archive.stat().st_size < 8000 * 3000 * 1.1


def test_long_names_count_in_the_window(tmp_path: Path) -> None:
    deep = "/".join(["d" * 200] * 18)
    layer = Layer()
    for number in range(5000):
        layer.add(f"{deep}/{number * 7919 % 5000:04d}", b"%d" % number)
    found = listed(convert(layer.bytes(), tmp_path / "one.layer", recipe=GZIP))
    assert len(found) == 5000
    assert not in_order(found)


def test_same_bytes_whatever_the_threads_and_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    layer = Layer(tarfile.USTAR_FORMAT)
    for name in shuffled([f"d{number % 17}/{number}" for number in range(6000)]):
        layer.add(name, content(name, rng.randrange(6000)) if rng.random() < 0.9 else b"the same" * 99)
    tar = layer.bytes()
    results = set()
    for threads, size in ((1, 1 << 30), (2, 10_007), (5, 999_983)):
        monkeypatch.setattr("shifter_imagegw.layers.archive.compression_threads", lambda count=threads: count)
        chunks = (tar[at : at + size] for at in range(0, len(tar), size))
        results.add(convert(tar, tmp_path / "one.layer", blob=tar, chunks=chunks).read_bytes())
    assert len(results) == 1


@pytest.mark.parametrize("block_size", [4096, 1 << 20])
def test_block_sizes(tmp_path: Path, block_size: int) -> None:
    sizes = [1, 4095, 4096, 4097, 100_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1]
    names = shuffled([f"d{number % 5}/{number:04d}-{size}" for number, size in enumerate(sizes * 8)])
    layer = Layer()
    for name in names:
        layer.add(name, content(name, int(name.partition("-")[2])))
    archive = convert(layer.bytes(), tmp_path / "one.layer", recipe=Recipe(block_size=block_size))
    with mounted(archive) as root:
        for name in names:
            assert stat.S_ISREG((root / name).stat().st_mode)
            assert (root / name).read_bytes() == content(name, int(name.partition("-")[2]))
