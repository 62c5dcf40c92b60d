# SPDX-License-Identifier: BSD-3-Clause
"""Equal files of different layers are stored once; everything else about them stays their own."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from shifter_imagegw.layers.merge import MergeSummary
from shifter_imagegw.squashfs.walk import walk
from tests.imagetree import contents, listing, mounted
from tests.layerarchive import (
    File,
    Layer,
    OldLink,
    OwnLink,
    Whiteout,
    add_digests,
    expected,
    merge_files,
    write_archive,
)
from tests.layers import Layer as TarLayer
from tests.layers import convert

BLOCK = 4096


def noise(seed: int, size: int) -> bytes:
    """Bytes that no compressor makes smaller."""
    return random.Random(seed).randbytes(size)


def merged(directory: Path, *layers: Layer) -> MergeSummary:
    """The layers' image, made anew as ``directory/image``."""
    archives = [write_archive(layer, directory / f"{number}.layer") for number, layer in enumerate(layers)]
    (directory / "image").unlink(missing_ok=True)
    return merge_files(archives, directory / "image")


@pytest.mark.parametrize("size", [1, 700, BLOCK, 50 * BLOCK, 50 * BLOCK + 5])
def test_a_file_that_several_layers_have_is_stored_once(tmp_path: Path, size: int) -> None:
    data = noise(1, size)
    layers = [{name: File(data), b"own-" + name: File(noise(number, 9))} for number, name in enumerate((b"a", b"b"))]
    once = merged(tmp_path, layers[0])
    both = merged(tmp_path, *layers, {b"c": File(data)})
    assert both.copied <= once.copied + 2 * BLOCK
    assert size < BLOCK or both.copied < once.copied + size
    assert contents(tmp_path / "image") == expected(*layers, {b"c": File(data)})


def test_a_set_of_small_files_costs_only_its_tables(tmp_path: Path) -> None:
    files = {b"%03d" % number: File(noise(number, 300 + number)) for number in range(200)}
    layers: list[Layer] = [files, {b"copy-" + name: file for name, file in files.items()}]
    once, both = merged(tmp_path, layers[0]), merged(tmp_path, *layers)
    assert both.copied == once.copied
    assert both.bytes <= once.bytes + 3 * BLOCK
    assert contents(tmp_path / "image") == expected(*layers)


def test_a_small_file_stays_with_neighbours_that_keep_their_block(tmp_path: Path) -> None:
    """Where nothing is saved nothing is moved, but a tail does not hold back the blocks before it."""
    small, large, neighbour = noise(1, 500), noise(2, 10 * BLOCK + 7), noise(3, 600)
    merged(tmp_path, {b"a": File(small)}, {b"c": File(small), b"e": File(neighbour)})
    archives = [tmp_path / "0.layer", tmp_path / "1.layer"]
    for archive in archives:
        add_digests(archive, {})
    merge_files(archives, tmp_path / "apart")
    assert (tmp_path / "image").read_bytes() == (tmp_path / "apart").read_bytes()
    layers = [{b"a": File(small), b"b": File(large)}, {b"c": File(small), b"d": File(large), b"e": File(neighbour)}]
    assert merged(tmp_path, *layers).copied < 11 * BLOCK + 2 * (len(small) + len(neighbour))
    assert contents(tmp_path / "image") == expected(*layers)


def test_a_file_whose_time_alone_changed_is_there_once(tmp_path: Path) -> None:
    data = noise(1, 60_000)
    once = merged(tmp_path, {b"a": File(data)})
    touched = merged(tmp_path, {b"a": File(data)}, {b"a": File(data, mtime=2000)})
    assert touched == once
    with mounted(tmp_path / "image") as root:
        assert (root / "a").stat().st_mtime == 2000


def test_everything_but_the_content_stays_each_files_own(tmp_path: Path) -> None:
    data = noise(1, 3 * BLOCK + 10)
    older = {b"z": File(b"of its own", uid=7), b"a": File(data, 0o600, 5, {"user.a": b"1"}, 1000)}
    newer = {b"b": File(data, 0o755, 6, {"user.b": b"2", "user.c": b"3"}, 2000), b"c": File(data, 0o644, 9)}
    merged(tmp_path, older, newer)
    found = {entry.path: entry for entry in walk(tmp_path / "image") if entry.path}
    assert {name: (entry.mode & 0o777, entry.mtime, entry.uid, entry.xattrs) for name, entry in found.items()} == {
        b"a": (0o600, 5, 1000, {b"user.a": b"1"}),
        b"b": (0o755, 6, 2000, {b"user.b": b"2", b"user.c": b"3"}),
        b"c": (0o644, 9, 0, {}),
        b"z": (0o644, 1000, 7, {}),
    }
    assert len({entry.inode for entry in found.values()}) == 4
    assert all(entry.nlink == 1 for entry in found.values())
    assert contents(tmp_path / "image") == expected(older, newer)


def test_hard_links_across_layers_to_shared_files(tmp_path: Path) -> None:
    data = noise(1, 3 * BLOCK + 10)
    summary = merged(
        tmp_path,
        {b"a": File(data), b"b": OwnLink(b"a")},
        {b"c": File(data), b"d": OldLink(b"b"), b"e": OwnLink(b"c"), b"a": Whiteout()},
    )
    assert summary.copied < 2 * len(data)
    with mounted(tmp_path / "image") as root:
        tree = listing(root)
    assert (tree[b"b"].names, tree[b"c"].names) == ((b"b", b"d"), (b"c", b"e"))
    assert set(contents(tmp_path / "image").values()) == {data}


def test_what_the_image_does_not_have_gives_nothing(tmp_path: Path) -> None:
    """Its oldest copy gone, the next older one gives the content; nothing of the first layer is copied."""
    data, rest = noise(1, 20 * BLOCK), noise(2, 20 * BLOCK)
    summary = merged(
        tmp_path, {b"a": File(data + rest)}, {b"a": Whiteout(), b"b": File(data), b"c": File(rest)}, {b"d": File(data)}
    )
    assert summary.copied == 40 * BLOCK
    assert contents(tmp_path / "image") == {"b": data, "c": rest, "d": data}


def test_storage_classes_do_not_mix(tmp_path: Path) -> None:
    data = noise(1, 20 * BLOCK)
    assert merged(tmp_path, {b"sh": File(data, storage=1)}, {b"a": File(data)}).copied == 40 * BLOCK
    layers = [{b"sh": File(data, storage=1)}, {b"bash": File(data, storage=1)}, {b"a": File(data), b"b": File(data)}]
    assert merged(tmp_path, *layers).copied == 40 * BLOCK
    assert contents(tmp_path / "image") == expected(*layers)


def test_files_with_holes_are_not_shared(tmp_path: Path) -> None:
    data = noise(1, BLOCK) + bytes(20 * BLOCK) + noise(2, BLOCK)
    assert merged(tmp_path, {b"a": File(data)}, {b"b": File(data)}).copied == 4 * BLOCK
    assert contents(tmp_path / "image") == {"a": data, "b": data}


@pytest.mark.parametrize("seed", range(4))
def test_every_content_once(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    pool = [noise(number, source.choice([1, 1, 2, 3, 30]) * BLOCK) for number in range(12)]
    names = [b"%02d" % number for number in range(30)]
    image: dict[str, bytes] = {}
    layers = []
    for _number in range(5):
        layer: dict[bytes, File | Whiteout] = {}
        for name in source.sample(names, 12):
            layer[name] = File(source.choice(pool)) if source.randrange(4) else Whiteout()
        image = {name: data for name, data in image.items() if name.encode() not in layer} | expected(layer)
        layers.append(layer)
    summary = merged(tmp_path, *layers)
    first = (tmp_path / "image").read_bytes()
    stored = sum(len(data) for data in set(image.values()))
    assert stored <= summary.copied <= stored * 1.01
    assert contents(tmp_path / "image") == image
    merged(tmp_path, *layers)
    assert (tmp_path / "image").read_bytes() == first


def test_layers_as_the_gateway_converts_them(tmp_path: Path) -> None:
    """The writer's own tables; the boot set's shell is stored otherwise than the same bytes elsewhere."""
    large, shell = noise(1, 300_001), noise(2, 150_000)
    small = {f"{number:03}": noise(number, 40 + number * 9) for number in range(100)}
    archives = []
    for number, name in enumerate("abc"):
        tar = TarLayer().add(f"{name}/large", large, mtime=number).add(f"{name}/sh", shell, mode=0o755)
        tar.add("usr/bin/sh" if number == 0 else f"bin/{'bash' if number == 1 else 'dash'}", shell, mode=0o755)
        for path, data in small.items():
            tar.add(f"{name}/{path}", data)
        archives.append(convert(tar.bytes(), tmp_path / f"{name}.layer"))
    alone = merge_files(archives[:1], tmp_path / "1")
    assert alone.copied >= len(large) + 2 * len(shell) + sum(map(len, small.values()))
    assert merge_files(archives, tmp_path / "3").copied == alone.copied
    with mounted(tmp_path / "3") as root:
        for number, name in enumerate("abc"):
            assert (root / name / "large").stat().st_mtime == number
            assert (root / name / "large").read_bytes() == large
            assert (root / name / "sh").read_bytes() == shell
            assert all((root / name / path).read_bytes() == data for path, data in small.items())
        assert {(root / path).read_bytes() for path in ("usr/bin/sh", "bin/bash", "bin/dash")} == {shell}


# --- tables that are missing or lie -----------------------------------------------------------------------------------

FILES: Mapping[bytes, File] = {b"f%d" % number: File(noise(number, 5 * BLOCK + number % 3)) for number in range(9)}


@pytest.mark.parametrize(
    "damage", ["none at all", "magic", "file system's size", "table's size", "no room for the table"]
)
def test_without_a_sound_trailer_nothing_is_shared(tmp_path: Path, damage: str) -> None:
    layers: list[Layer] = [FILES, {b"copy-" + name: file for name, file in FILES.items()}]
    shared = merged(tmp_path, *layers)
    archives = [tmp_path / "0.layer", tmp_path / "1.layer"]
    content = bytearray(archives[1].read_bytes())
    used = int.from_bytes(content[40:48], "little")
    if damage == "none at all":
        del content[used:]
    elif damage == "no room for the table":
        del content[used:-96]
    else:
        content[{"magic": -96, "file system's size": -80, "table's size": -72}[damage]] ^= 1
    archives[1].write_bytes(content)
    summary = merge_files(archives, tmp_path / "second")
    assert shared.copied < len(FILES) * 7 * BLOCK < len(FILES) * 10 * BLOCK < summary.copied
    assert contents(tmp_path / "second") == expected(*layers)


@pytest.mark.parametrize("lie", ["all are equal", "random", "one of each size"])
def test_lying_tables_never_make_an_invalid_image(tmp_path: Path, lie: str) -> None:
    """Contents are then what the archives say they are; the merge validates the image, and the kernel reads it."""
    source = random.Random(3)
    archives = []
    for number in range(3):
        layer = {b"%d-" % number + name: file for name, file in FILES.items()}
        choices = [bytes([1]) * 16] if lie == "all are equal" else [bytes([value]) * 16 for value in range(3)]
        digests = {name: source.choice(choices) for name in layer}
        if lie == "one of each size":
            digests = {name: bytes([1 + len(file.data) % 3]) * 16 for name, file in layer.items()}
        archives.append(add_digests(write_archive(layer, tmp_path / f"{number}.layer"), digests))
    merge_files(archives, tmp_path / "image")
    found = contents(tmp_path / "image")
    assert {name: len(data) for name, data in found.items()} == {
        f"{number}-{name.decode()}": len(file.data) for number in range(3) for name, file in FILES.items()
    }
    assert set(found.values()) <= {file.data for file in FILES.values()}
