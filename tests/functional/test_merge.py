# SPDX-License-Identifier: BSD-3-Clause
"""Layer archives become an image: what each rule does, seen through a kernel mount of the result."""

from __future__ import annotations

import os
import random
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from shifter_imagegw.errors import ConversionError, LayerError
from shifter_imagegw.squashfs.validate import validate_image
from shifter_imagegw.squashfs.walk import walk
from tests.imagetree import Item, listing, mounted, overlaid
from tests.layerarchive import (
    IMPLIED,
    Directory,
    Fifo,
    File,
    Layer,
    Object,
    OldLink,
    OwnLink,
    Symlink,
    Whiteout,
    build_image,
    merge_files,
    opened,
    write_archive,
)

SHELL = File(b"#!", 0o755)


def merged(tmp_path: Path, *layers: Layer) -> dict[bytes, Item]:
    with mounted(build_image(tmp_path, *layers)) as root:
        return listing(root)


def names(tree: dict[bytes, Item]) -> set[bytes]:
    return set(tree) - {b""}


# --- what a newer layer does to an older one --------------------------------------------------------------------------


def test_newer_objects_replace_older_ones(tmp_path: Path) -> None:
    tree = merged(
        tmp_path,
        {b"a": File(b"old"), b"b": Directory(), b"b/x": File(), b"c": File(b"stays"), b"d": Directory(), b"e": SHELL},
        {b"a": File(b"new!", 0o600, 5), b"b": Symlink(b"c"), b"d": File(b"f"), b"e": Directory(), b"e/y": Fifo()},
    )
    assert names(tree) == {b"a", b"b", b"c", b"d", b"e", b"e/y"}
    assert (tree[b"a"].size, tree[b"a"].mode, tree[b"a"].mtime) == (4, 0o600, 5)
    assert [tree[name].kind for name in (b"b", b"d", b"e", b"e/y")] == ["l", "-", "d", "p"]


def test_whiteouts_remove_older_objects_only(tmp_path: Path) -> None:
    tree = merged(
        tmp_path,
        {b"gone": Directory(), b"gone/deep": Directory(), b"gone/deep/f": File(), b"kept": File(), b"f": File()},
        {b"gone": Whiteout(), b"f": Whiteout(), b"absent": Whiteout()},
        {b"f": File(b"again")},
    )
    assert names(tree) == {b"kept", b"f"}
    assert tree[b"f"].size == 5


def test_opaque_directories_hide_older_content(tmp_path: Path) -> None:
    tree = merged(
        tmp_path,
        {b"d": Directory(0o700), b"d/old": Directory(), b"d/old/f": File(), b"e": File()},
        {b"d": Directory(0o711, 7, opaque=True), b"d/new": File()},
    )
    assert names(tree) == {b"d", b"d/new", b"e"}
    assert (tree[b"d"].mode, tree[b"d"].mtime) == (0o711, 7)
    assert names(merged(tmp_path, {b"a": File()}, {b"": Directory(opaque=True), b"b": File()})) == {b"b"}


def test_directories_merge_and_take_newer_attributes_unless_implied(tmp_path: Path) -> None:
    older: Layer = {b"": Directory(0o555, 9), b"d": Directory(0o700, 77), b"d/a": File()}
    tree = merged(tmp_path, older, {b"d": Directory(0o750, 88), b"d/b": File()})
    assert names(tree) == {b"d", b"d/a", b"d/b"}
    assert (tree[b"d"].mode, tree[b"d"].mtime) == (0o750, 88)
    tree = merged(tmp_path, older, {b"d": IMPLIED, b"d/b": File()})
    assert (tree[b"d"].mode, tree[b"d"].mtime, tree[b""].mode, tree[b""].mtime) == (0o700, 77, 0o555, 9)


def test_an_implied_directory_replaces_a_file_but_not_for_whiteouts_alone(tmp_path: Path) -> None:
    older: Layer = {b"f": File(b"x")}
    assert merged(tmp_path, older, {b"f": IMPLIED, b"f/g": File()})[b"f"].kind == "d"
    only_whiteouts: Layer = {b"f": IMPLIED, b"f/g": Whiteout(), b"n": IMPLIED, b"n/o": IMPLIED, b"n/o/p": Whiteout()}
    tree = merged(tmp_path, older, only_whiteouts)
    assert names(tree) == {b"f"}
    assert tree[b"f"].kind == "-"


def test_private_xattrs_never_reach_the_image(tmp_path: Path) -> None:
    xattrs = {"user.kept": b"\x00\xff", "user.shifter.note": b"1", "trusted.overlay.redirect": b"/x"}
    image = build_image(
        tmp_path,
        {b"d": Directory(opaque=True, xattrs=xattrs), b"f": File(xattrs=xattrs), b"i": IMPLIED, b"i/f": File()},
    )
    assert {entry.path: entry.xattrs for entry in walk(image)} == {
        b"": {}, b"d": {b"user.kept": b"\x00\xff"}, b"f": {b"user.kept": b"\x00\xff"}, b"i": {}, b"i/f": {},
    }  # fmt: skip
    with mounted(image) as root:
        assert os.getxattr(root / "f", "user.kept") == b"\x00\xff"
        assert os.listxattr(root / "d") == ["user.kept"]


# --- hard links -------------------------------------------------------------------------------------------------------


def test_hard_links_to_older_layers_and_partly_removed_groups(tmp_path: Path) -> None:
    tree = merged(
        tmp_path,
        {b"a": File(b"one" * 5000), b"b": OwnLink(b"a"), b"c": OwnLink(b"a"), b"s": Symlink(b"a")},
        {b"b": Whiteout(), b"d": Directory(), b"d/e": OldLink(b"a"), b"t": OldLink(b"s"), b"u": OldLink(b"b")},
        {b"a": File(b"other"), b"z": OldLink(b"d/e")},
    )
    assert tree[b"c"].names == (b"c", b"d/e", b"u", b"z")
    assert tree[b"a"].names == (b"a",)
    assert (tree[b"t"].kind, tree[b"t"].names) == ("l", (b"s", b"t"))


def test_link_counts_are_those_of_the_image(tmp_path: Path) -> None:
    older: Layer = {b"a": File(b"x"), b"b": OwnLink(b"a"), b"d": Directory(), b"d/e": Directory()}
    image = build_image(tmp_path, older, {b"b": Whiteout()})
    with mounted(image) as root:
        assert (root / "a").stat().st_nlink == 1
        assert root.stat().st_nlink == 3
        assert (root / "d").stat().st_nlink == 3


def test_a_link_is_to_the_older_layer_even_if_this_one_replaces_the_target(tmp_path: Path) -> None:
    tree = merged(tmp_path, {b"a": File(b"old")}, {b"a": File(b"newer"), b"b": OldLink(b"a")})
    assert (tree[b"a"].size, tree[b"b"].size) == (5, 3)


@pytest.mark.parametrize(
    ("target", "reason"),
    [(b"absent", "no older layer has"), (b"d", "directory"), (b"f/x", "no older layer has"), (b"", "directory"),
     (b"loop/x", "no older layer has"), (b"x" * 300, "no older layer has")],
)  # fmt: skip
def test_hard_links_to_nothing_are_refused(tmp_path: Path, target: bytes, reason: str) -> None:
    older: Layer = {b"d": Directory(), b"f": File(), b"loop": Symlink(b"loop")}
    with pytest.raises(LayerError, match=reason) as caught:
        build_image(tmp_path, older, {b"p": Directory(), b"p/link": OldLink(target)})
    assert (caught.value.digest, caught.value.entry) == ("sha256:1", "p/link")
    assert not (tmp_path / "image.squashfs").exists()


# --- symlinks in the way (what umoci and containerd do: followed below the image's own root) --------------------------

USR: Layer = {
    b"usr": Directory(), b"usr/bin": Directory(0o711, 11), b"usr/bin/sh": SHELL, b"bin": Symlink(b"usr/bin"),
    b"abs": Symlink(b"/usr/./bin/"), b"up": Symlink(b"../../../usr/bin"), b"dangling": Symlink(b"new/place"),
    b"file": File(), b"tofile": Symlink(b"file"), b"loop": Symlink(b"loop"), b"two": Symlink(b"bin"),
}  # fmt: skip


@pytest.mark.parametrize("link", [b"bin", b"abs", b"up", b"two"])
def test_entries_below_a_symlink_go_where_it_leads(tmp_path: Path, link: bytes) -> None:
    below: Layer = {link: IMPLIED, link + b"/ls": SHELL, link + b"/sh": Whiteout()}
    tree = merged(tmp_path, USR, {**below, b"usr": IMPLIED, b"usr/x": File()})
    assert tree[link].kind == "l"
    assert names(tree) == {*USR, b"usr/bin/ls", b"usr/x"} - {b"usr/bin/sh"}
    assert (tree[b"usr/bin"].mode, tree[b"usr/bin"].mtime) == (0o711, 11)


def test_a_directory_entry_replaces_a_symlink(tmp_path: Path) -> None:
    tree = merged(tmp_path, USR, {b"bin": Directory(), b"bin/ls": SHELL})
    assert tree[b"bin"].kind == "d"
    assert b"usr/bin/ls" not in tree


def test_missing_directories_behind_a_symlink_are_made_but_not_for_whiteouts(tmp_path: Path) -> None:
    tree = merged(tmp_path, USR, {b"dangling": IMPLIED, b"dangling/f": File()})
    assert {b"new", b"new/place", b"new/place/f"} < names(tree)
    assert (tree[b"new"].mode, tree[b"new"].mtime) == (0o755, 0)
    whiteouts: Layer = {b"dangling": IMPLIED, b"dangling/f": Whiteout(), b"loop": IMPLIED, b"loop/f": Whiteout()}
    tree = merged(tmp_path, USR, whiteouts)
    assert names(tree) == set(USR)


@pytest.mark.parametrize("link", [b"tofile", b"loop"])
def test_entries_below_a_symlink_to_no_directory_are_refused(tmp_path: Path, link: bytes) -> None:
    with pytest.raises(LayerError, match="leads to no directory") as caught:
        build_image(tmp_path, USR, {link: IMPLIED, link + b"/f": File()})
    assert caught.value.entry == link.decode()


def test_hard_link_targets_are_found_behind_symlinks(tmp_path: Path) -> None:
    tree = merged(tmp_path, USR, {b"a": OldLink(b"bin/sh"), b"b": OldLink(b"up/sh"), b"c": OldLink(b"bin")})
    assert tree[b"usr/bin/sh"].names == (b"a", b"b", b"usr/bin/sh")
    assert tree[b"c"].kind == "l"


# --- against the kernel's own idea of layers --------------------------------------------------------------------------


CONTENTS = [random.Random(number).randbytes(size) for number, size in enumerate([1, 1, 500, 9000, 9000])]


def _random_layer(source: random.Random) -> Layer:
    entries: dict[bytes, Object] = {b"": Directory(0o755, source.randrange(1, 9))}

    def fill(prefix: bytes, depth: int) -> None:
        for name in source.sample([b"a", b"b", b"c", b"\xff\xfe"], source.randrange(4)):
            path, choice = prefix + name, source.randrange(6 if depth < 3 else 4)
            if choice >= 3:
                entries[path] = Directory(source.choice([0o700, 0o755]), source.randrange(9), opaque=choice == 5)
                fill(path + b"/", depth + 1)
            else:
                objects: list[Object] = [Whiteout(), Symlink(b"a"), File(source.choice(CONTENTS))]
                entries[path] = objects[choice]

    fill(b"", 0)
    return entries


@pytest.mark.parametrize("seed", range(6))
def test_overlayfs_shows_the_same_of_the_archives(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    archives = [write_archive(_random_layer(source), tmp_path / f"{number}.layer") for number in range(5)]
    image = tmp_path / "image"
    merge_files(archives, image)
    with ExitStack() as stack:
        layers = [stack.enter_context(mounted(archive)) for archive in archives]
        expected = listing(stack.enter_context(overlaid(layers)))
        assert listing(stack.enter_context(mounted(image))) == expected


# --- the file ---------------------------------------------------------------------------------------------------------


def test_no_layers_and_empty_layers_give_a_root_directory(tmp_path: Path) -> None:
    assert set(merged(tmp_path)) == {b""}
    tree = merged(tmp_path, {})
    assert (set(tree), tree[b""].mode, tree[b""].mtime) == ({b""}, 0o755, 0)
    assert set(merged(tmp_path, {}, {}, {b"a": File()}, {b"a": Whiteout()})) == {b""}


@pytest.mark.parametrize("compressor", ["gzip", "xz", "lz4", "zstd"])
def test_every_allowed_compressor(tmp_path: Path, compressor: str) -> None:
    data = random.Random(1).randbytes(3000) * 40
    layers: list[Layer] = [{b"a": File(data), b"b": File(data[:10])}, {b"b": Whiteout(), b"c": File(data[5:])}]
    options = ("-c", compressor, "-b", "8192")
    archives = [write_archive(layer, tmp_path / str(number), *options) for number, layer in enumerate(layers)]
    image = tmp_path / "image"
    merge_files(archives, image)
    with opened([image]) as (descriptor,):
        assert validate_image(descriptor).compressor == compressor
    with mounted(image) as root:
        assert (root / "a").read_bytes() == data
        assert (root / "c").read_bytes() == data[5:]


def test_archives_must_be_compressed_alike(tmp_path: Path) -> None:
    first = write_archive({b"a": File(b"x")}, tmp_path / "1")
    for number, other in enumerate(("gzip 4096 9", "zstd 4096 4", "zstd 8192 3")):
        compressor, block_size, level = other.split()
        second = write_archive(
            {b"b": File(b"x")}, tmp_path / "2", "-c", compressor, "-X", f"level={level}", "-b", block_size
        )
        with pytest.raises(ConversionError, match=r"sha256:1 (is compressed otherwise|has a block size)"):
            merge_files([first, second], tmp_path / f"image{number}")


def test_same_archives_same_bytes_padded_to_pages(tmp_path: Path) -> None:
    layers: list[Layer] = [USR, {b"bin": IMPLIED, b"bin/ls": SHELL, b"x": OldLink(b"bin/sh")}]
    image = build_image(tmp_path, *layers)
    first = image.read_bytes()
    assert build_image(tmp_path, *layers).read_bytes() == first
    assert len(first) % 4096 == 0
    assert image.stat().st_mode & 0o777 == 0o600


def test_what_follows_an_archive_is_ignored(tmp_path: Path) -> None:
    plain = write_archive({b"a": File(b"x" * 99)}, tmp_path / "1")
    first, second = tmp_path / "first", tmp_path / "second"
    merge_files([plain], first)
    used = int.from_bytes(plain.read_bytes()[40:48], "little")
    plain.write_bytes(plain.read_bytes()[:used] + b"a trailer" * 77)
    merge_files([plain], second)
    assert first.read_bytes() == second.read_bytes()


def test_other_tools_accept_the_image(tmp_path: Path) -> None:
    image = build_image(tmp_path, USR, {b"bin": IMPLIED, b"bin/ls": SHELL, b"big": File(os.urandom(50_000))})
    shown = subprocess.run(["unsquashfs", "-lls", str(image)], check=True, capture_output=True, text=True).stdout
    assert "squashfs-root/usr/bin/ls" in shown
    subprocess.run(["rdsquashfs", "-d", str(image)], check=True, stdout=subprocess.DEVNULL)


def test_walk_sees_what_the_kernel_sees(tmp_path: Path) -> None:
    image = build_image(tmp_path, USR, {b"bin": IMPLIED, b"bin/ls": SHELL, b"x": OldLink(b"bin/sh"), b"p": Fifo()})
    walked = {entry.path: (entry.mode, entry.mtime, entry.nlink, entry.inode, entry.target) for entry in walk(image)}
    with mounted(image) as root:
        seen = {}
        for path, item in listing(root).items():
            status = (root / os.fsdecode(path)).lstat()
            target = item.content if item.kind == "l" else None
            seen[path] = (status.st_mode, int(status.st_mtime), status.st_nlink, status.st_ino, target)
    assert walked == seen
