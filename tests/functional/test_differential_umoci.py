# SPDX-License-Identifier: BSD-3-Clause
"""Whole conversions beside `umoci unpack` of the same image: equal but for the policy in docs/conversion.md."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from shifter_imagegw.layers.archive import build_archive
from shifter_imagegw.layers.recipe import Limits, Recipe
from tests.imagetree import Item, listing, mounted
from tests.layerarchive import merge_files
from tests.ociimage import (
    LayerBlob,
    LayerMembers,
    Member,
    directory,
    file,
    hardlink,
    layer_blob,
    opaque,
    symlink,
    tar_of,
    whiteout,
    write_layout,
)

ROOT = directory(b".", mtime=500)


def archive(layer: LayerBlob, path: Path) -> Path:
    path.unlink(missing_ok=True)
    chunks = [layer.content[at : at + 50_000] for at in range(0, len(layer.content), 50_000)]
    build_archive(
        chunks, layer.descriptor, layer.diff_id, path, recipe=Recipe(), limits=Limits(), progress=lambda _size: None
    )
    return path


def convert(directory_: Path, layers: Sequence[LayerBlob], name: str, *, backwards: bool = False) -> Path:
    """All layers at once as the pipeline does it, or one after the other and the newest first."""
    paths = [directory_ / f"{name}-{number}" for number in range(len(layers))]
    if backwards:
        for layer, path in reversed(list(zip(layers, paths))):
            archive(layer, path)
    else:
        with ThreadPoolExecutor() as pool:
            list(pool.map(archive, layers, paths))
    merge_files(paths, directory_ / name)
    return directory_ / name


def unpacked(directory_: Path, layers: Sequence[LayerBlob]) -> dict[bytes, Item]:
    """By `umoci raw unpack`: as `umoci unpack`, without the list of hashes that nobody reads here."""
    write_layout(directory_ / "layout", layers)
    subprocess.run(
        ["umoci", "raw", "unpack", "--image", f"{directory_ / 'layout'}:latest", str(directory_ / "rootfs")],
        check=True, capture_output=True,
    )  # fmt: skip
    return listing(directory_ / "rootfs")


def policy(tree: dict[bytes, Item]) -> dict[bytes, Item]:
    """What umoci gives, as the default recipe wants it (docs/conversion.md)."""
    return {path: replace(item, mode=item.mode & 0o1777) for path, item in tree.items()}


def without_times(tree: dict[bytes, Item], paths: Sequence[bytes]) -> dict[bytes, Item]:
    return {path: replace(item, mtime=0) if path in paths else item for path, item in tree.items()}


def many_files(count: int) -> list[LayerMembers]:
    source = random.Random(5)
    names = [b"d%02d/f%05d" % (number * 40 // count, number) for number in range(count)]
    first = [ROOT, *(directory(b"d%02d" % number) for number in range(40))]
    first += [file(name, source.randbytes(source.randrange(1, 400)), mtime=source.randrange(2**31)) for name in names]
    changed = source.sample(names, count // 20)
    second = [whiteout(name) for name in changed[::3]] + [file(name, b"changed") for name in changed[1::3]]
    second += [hardlink(name + b"-link", name) for name in changed[2::3]]
    return [first, second]


# What one image of each kind has; the times of the paths named there are those of umoci's run, and so not compared.
IMAGES: dict[str, tuple[list[LayerMembers], list[bytes]]] = {
    "whiteouts": ([
        [ROOT, directory(b"a"), directory(b"a/b"), file(b"a/b/c", b"1"), file(b"a/d", b"2"), file(b"e", b"3")],
        [directory(b"a", mtime=7), whiteout(b"a/b"), whiteout(b"e"), whiteout(b"nothing"), file(b"new", b"4")],
        [directory(b"a/b", 0o700, 9), file(b"a/b/again", b"5")],
    ], []),
    "opaque directories": ([
        [ROOT, directory(b"a"), directory(b"a/b"), file(b"a/b/c", b"1"), file(b"a/d", b"2"), file(b"keep", b"3")],
        [directory(b"a", 0o750, 8), file(b"a/new", b"4"), opaque(b"a")],
        [directory(b"a", 0o711, 9), opaque(b"a"), directory(b"a/b"), file(b"a/b/c", b"newest")],
    ], []),
    "hard links across directories": ([
        [ROOT, directory(b"a"), directory(b"b"), file(b"a/x", b"x" * 200_000), hardlink(b"b/y", b"a/x"),
         hardlink(b"z", b"b/y"), symlink(b"s", b"a/x"), hardlink(b"t", b"s")],
        [hardlink(b"b/w", b"a/x"), hardlink(b"u", b"s"), whiteout(b"z")],
        [file(b"a/x", b"other"), hardlink(b"v", b"b/y")],
    ], []),
    "a directory replaced by a file and back": ([
        [ROOT, directory(b"a"), directory(b"a/b"), file(b"a/b/c", b"1"), directory(b"l"), file(b"l/f", b"2")],
        [file(b"a", b"a file"), symlink(b"l", b"a")],
        [directory(b"a", 0o700, 3), file(b"a/z", b"2"), directory(b"l"), file(b"l/g", b"3")],
    ], []),
    "unicode and invalid UTF-8 names": ([
        [ROOT, directory("ä".encode()), file("ä/\ua000".encode(), b"1"), file(b"\xff\xfe", b"2"),
         symlink(b"l\x80", b"\xff\xfe"), hardlink(b"h\xc3", b"\xff\xfe"), file(b"\n\t\\ \x01", b"3")],
        [whiteout("ä/\ua000".encode()), file(b"n" * 255, b"4"), directory(b"\xed\xa0\x80"),
         file(b"\xed\xa0\x80/f", b"5")],
    ], []),
    "50k small files": (many_files(50_000), []),
    "a single empty layer": ([[]], [b""]),
    "an empty layer between": ([[ROOT, file(b"a", b"1")], [], [file(b"b", b"2")]], []),
    "entries below symlinks": ([
        [ROOT, directory(b"usr"), directory(b"usr/bin"), file(b"usr/bin/sh", b"sh", 0o755),
         symlink(b"bin", b"usr/bin"), symlink(b"lib", b"/usr/lib"), symlink(b"up", b"../../usr")],
        [file(b"bin/ls", b"ls", 0o755), file(b"lib/so", b"so"), hardlink(b"busybox", b"bin/sh"),
         whiteout(b"up/bin/sh")],
    ], [b"usr/lib", b"usr"]),
    "implied directories": ([
        [ROOT, file(b"a/b/c", b"1"), directory(b"d", 0o700, 5)],
        [file(b"d/e/f", b"2"), file(b"a/g", b"3"), whiteout(b"gone/h")],
    ], [b"", b"a", b"a/b", b"d", b"d/e"]),
    "permissions and times": ([
        [ROOT, file(b"suid", b"1", 0o4755), file(b"sgid", b"2", 0o2755), directory(b"tmp", 0o1777),
         file(b"none", b"", 0), directory(b"ro", 0o555), file(b"ro/f", b"3", 0o444), Member(b"pipe", "p"),
         file(b"late", b"4", mtime=2**32 - 1),
         file(b"early", b"5", mtime=0)],
        [file(b"ro/g", b"6", 0o400)],
    ], []),
    "large and sparse contents": ([
        [ROOT, file(b"big", random.Random(3).randbytes(700_001)), file(b"zeros", bytes(1_000_000)), file(b"one", b"x")],
        [file(b"twin", random.Random(3).randbytes(700_001)), file(b"exact", b"y" * 131_072)],
    ], []),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_the_image_is_what_umoci_unpacks(tmp_path: Path, name: str) -> None:
    layers, timeless = IMAGES[name]
    blobs = [layer_blob(tar_of(members)) for members in layers]
    expected = without_times(policy(unpacked(tmp_path, blobs)), timeless)
    with mounted(convert(tmp_path, blobs, "image")) as root:
        assert without_times(listing(root), timeless) == expected


@pytest.mark.parametrize("compression", ["zstd", "tar"])
@pytest.mark.parametrize("name", ["whiteouts", "hard links across directories", "large and sparse contents"])
def test_other_compressions_give_the_same_file(tmp_path: Path, name: str, compression: str) -> None:
    """umoci 0.4 does not know zstd; what it says about the gzip layers is said about these."""
    tars = [tar_of(members) for members in IMAGES[name][0]]
    gzipped = convert(tmp_path, [layer_blob(tar) for tar in tars], "gzip")
    other = convert(tmp_path, [layer_blob(tar, compression) for tar in tars], compression)
    assert gzipped.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", IMAGES)
def test_same_layers_same_bytes(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which archives are made, and the number of threads that compress."""
    blobs = [layer_blob(tar_of(members)) for members in IMAGES[name][0]]
    first = convert(tmp_path, blobs, "first").read_bytes()
    for threads in (1, 4):
        monkeypatch.setattr("shifter_imagegw.layers.archive.compression_threads", lambda number=threads: number)
        assert convert(tmp_path, blobs, f"with-{threads}", backwards=True).read_bytes() == first
