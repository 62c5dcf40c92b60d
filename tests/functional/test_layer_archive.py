# SPDX-License-Identifier: BSD-3-Clause
"""Layer archives, seen through a kernel mount and the readers of two squashfs tool sets."""

from __future__ import annotations

import dataclasses
import gzip
import os
import random
import re
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from shifter_imagegw.errors import ConversionError, LayerError
from shifter_imagegw.layers.archive import build_archive
from shifter_imagegw.layers.recipe import LEVELS, RECIPE, Limits, Recipe
from shifter_imagegw.layers.trailer import check_trailer, verify_archive
from shifter_imagegw.squashfs import _writer
from tests.imagetree import mounted
from tests.layerarchive import merge_files
from tests.layers import MTIME, Found, Layer, convert, descriptor, digest_of, pieces, read_tree, tree_of

IMPLIED = (("user.shifter.implied", b"1"),)
TASKS = Path("/proc/self/task")
OPAQUE = (("trusted.overlay.opaque", b"y"),)


def brief(tree: dict[bytes, Found]) -> dict[bytes, tuple[str, bytes]]:
    return {name: (found.kind, found.content) for name, found in tree.items() if name != b"."}


def count(directory: Path) -> int:
    return sum(1 for _entry in directory.iterdir())


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def sample() -> bytes:
    layer = Layer().directory("usr").directory("usr/bin", 0o711).add("usr/bin/tool", noise(300_001), mode=0o755)
    layer.add("usr/empty").add("usr/block", noise(131_072)).add("usr/zeros", bytes(400_000)).add("usr/small", b"x" * 99)
    layer.symlink("usr/link", "bin/tool").hardlink("usr/again", "usr/bin/tool")
    return layer.bytes()


class TestTree:
    def test_objects_keep_kind_mode_time_and_content(self, tmp_path: Path) -> None:
        tree = tree_of(sample(), tmp_path)
        assert tree[b"usr"] == Found("directory", 0o755, links=3, mtime=MTIME, inode=tree[b"usr"].inode)
        assert tree[b"usr/bin"].mode == 0o711
        tool = tree[b"usr/bin/tool"]
        assert tool == Found("file", 0o755, noise(300_001), links=2, mtime=MTIME, inode=tool.inode)
        assert tree[b"usr/again"] == tool
        assert tree[b"usr/empty"].content == b""
        assert tree[b"usr/block"].content == noise(131_072)
        assert tree[b"usr/zeros"].content == bytes(400_000)
        assert tree[b"usr/small"].content == b"x" * 99
        assert tree[b"usr/link"] == Found(
            "symlink", 0o777, b"bin/tool", mtime=MTIME, inode=tree[b"usr/link"].inode
        )
        assert tree[b"."].xattrs == IMPLIED
        assert len({found.inode for found in tree.values()}) == len(tree) - 1

    def test_other_readers_agree(self, tmp_path: Path) -> None:
        archive = convert(sample(), tmp_path / "one.layer")
        listing = subprocess.run(["unsquashfs", "-lls", str(archive)], check=True, capture_output=True, text=True)
        assert "-rwxr-xr-x root/root            300001 2023-11-14" in listing.stdout
        described = subprocess.run(
            ["rdsquashfs", "--describe", str(archive)], check=True, capture_output=True, text=True
        ).stdout
        assert "slink usr/link 0777 0 0 bin/tool" in described
        out = tmp_path / "out"
        subprocess.run(["unsquashfs", "-q", "-n", "-d", str(out), str(archive)], check=True, capture_output=True)
        assert (out / "usr/bin/tool").read_bytes() == noise(300_001)

    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_names_are_bytes(self, tmp_path: Path, form: int) -> None:
        # Decomposed and composed forms of the same letter, bytes that are no UTF-8, bytes that are no text at all.
        names = [b"e\xcc\x81", b"\xc3\xa9", b"bad\xff\xfe", b"tab\tnew\nline\x01", b"\xea\x80\x80", b"a..b", b"-rf"]
        layer = Layer(form)
        for name in names:
            layer.add(os.fsdecode(name), name)
        layer.symlink("link", os.fsdecode(names[0])).hardlink("hard", os.fsdecode(names[0]))
        tree = tree_of(layer.bytes(), tmp_path)
        assert {name: tree[name].content for name in names} == {name: name for name in names}
        assert tree[b"link"].content == names[0]
        assert tree[b"hard"] == tree[names[0]]
        assert tree[names[0]].links == 2
        assert tree[names[1]].links == 1

    @pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_names_and_big_numbers(self, tmp_path: Path, form: int) -> None:
        deep = "/".join(["d" * 200] * 15)
        layer = Layer(form).add(f"{deep}/{'f' * 255}", b"found", uid=3_000_000_000).symlink("l", "t" * 4000)
        tree = tree_of(layer.bytes(), tmp_path, recipe=Recipe(keep_owners=True))
        entry = tree[f"{deep}/{'f' * 255}".encode()]
        assert (entry.content, entry.uid) == (b"found", 3_000_000_000)
        assert tree[b"l"].content == b"t" * 4000

    def test_gnu_tar_with_holes(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        with (source / "holes").open("wb") as file:
            for at in (5_000, 1_000_000, 3_000_000):
                file.seek(at)
                file.write(noise(1000, at))
            file.truncate(5_000_000)
        (source / "only-a-hole").touch()
        os.truncate(source / "only-a-hole", 2_000_000)
        for form in (
            ["--format=gnu"], ["--format=pax", "--sparse-version=1.0"], ["--format=pax", "--sparse-version=0.1"],
        ):
            tar = subprocess.run(
                ["tar", "-C", str(source), "--sparse", *form, "-cf", "-", "."], check=True, capture_output=True
            ).stdout
            assert len(tar) < 100_000
            tree = tree_of(tar, tmp_path)
            assert tree[b"holes"].content == (source / "holes").read_bytes(), form
            assert tree[b"only-a-hole"].content == bytes(2_000_000), form

    def test_equal_files_share_their_blocks(self, tmp_path: Path) -> None:
        contents = [noise(size, size) for size in (100_000, 300_001, 262_144, 5_000, 4_096, 100, 131_072 * 3 + 1)]
        layer = Layer()
        for turn in range(20):
            for number, content in enumerate(contents):
                layer.add(f"f{number}-{turn}", content)
            layer.add(f"own-{turn}", b"x" * turn)
        archive = convert(layer.bytes(), tmp_path / "one.layer")
        with mounted(archive) as root:
            tree = read_tree(root)
        for number, content in enumerate(contents):
            assert all(tree[b"f%d-%d" % (number, turn)].content == content for turn in range(20))
        assert all(tree[b"own-%d" % turn].content == b"x" * turn for turn in range(20))
        assert len({found.inode for found in tree.values()}) == len(tree)
        # Tails are taken back; whole blocks have been written by then, and stay behind unused.
        blocks = sum(len(content) // 131_072 * 131_072 for content in contents)
        assert archive.stat().st_size < 20 * blocks + sum(map(len, contents)) + 50_000
        subprocess.run(["sqfs2tar", str(archive)], check=True, stdout=subprocess.DEVNULL)

    def test_implied_directories_are_marked_until_they_come(self, tmp_path: Path) -> None:
        layer = Layer().add("a/b/file").directory("a", 0o700).add("./c/./file").add("/d//file")
        tree = tree_of(layer.bytes(), tmp_path)
        implied = {name: found for name, found in tree.items() if found.xattrs == IMPLIED}
        assert set(implied) == {b".", b"a/b", b"c", b"d"}
        assert {(found.mode, found.mtime) for found in implied.values()} == {(0o755, 0)}
        assert (tree[b"a"].mode, tree[b"a"].xattrs) == (0o700, ())

    def test_the_root_takes_attributes(self, tmp_path: Path) -> None:
        tree = tree_of(Layer().directory("./", 0o750).add("f").bytes(), tmp_path)
        assert (tree[b"."].mode, tree[b"."].mtime, tree[b"."].xattrs) == (0o750, MTIME, ())

    @pytest.mark.parametrize("tar", [b"", bytes(512), bytes(1024), bytes(10240)])
    def test_empty_layers(self, tmp_path: Path, tar: bytes) -> None:
        assert brief(tree_of(tar, tmp_path)) == {}
        assert brief(tree_of(tar, tmp_path, blob=tar)) == {}

    def test_a_hundred_thousand_files_in_a_directory(self, tmp_path: Path) -> None:
        layer = Layer(tarfile.USTAR_FORMAT)
        for number in range(100_000):
            layer.add(f"d/file-{number}", b"%d" % number)
        archive = convert(layer.bytes(), tmp_path / "one.layer")
        with mounted(archive) as root:
            assert count(root / "d") == 100_000
            assert (root / "d/file-99999").read_text() == "99999"
            assert (root / "d/file-0").read_text() == "0"

    def test_listings_around_64_kibibytes(self, tmp_path: Path) -> None:
        # The short form of a directory inode holds the size of its listing, plus 3, in 16 bits.
        files = [f"{number:016d}" for number in range(2712)]

        def size_with(name: str) -> int:
            layer = Layer(tarfile.GNU_FORMAT)
            for file in (*files, name):
                layer.add(file)
            tar = layer.bytes()
            with mounted(convert(tar, tmp_path / "one.layer", blob=tar)) as root:
                assert count(root) == len(files) + 1
                return root.stat().st_size

        probe = size_with("x")
        assert 65_290 < probe < 65_500
        for size in range(65_532, 65_540):
            assert size_with("x" * (size - probe + 1)) == size


class TestReplacement:
    """The last entry of a name wins; what a directory of this layer replaces hides older layers."""

    def test_last_one_wins(self, tmp_path: Path) -> None:
        layer = Layer().add("f", b"old" * 50_000).add("f", b"new").directory("d", 0o700).directory("d", 0o711)
        tree = tree_of(layer.bytes(), tmp_path)
        assert tree[b"f"].content == b"new"
        assert (tree[b"d"].mode, tree[b"d"].xattrs) == (0o711, ())

    def test_directory_to_file_and_back(self, tmp_path: Path) -> None:
        layer = Layer().add("a/old").add("a", b"file").directory("a").add("a/new").add("b/x").symlink("b", "a")
        tree = tree_of(layer.bytes(), tmp_path)
        assert set(tree) == {b".", b"a", b"a/new", b"b"}
        assert (tree[b"a"].kind, tree[b"a"].xattrs) == ("directory", OPAQUE)
        assert tree[b"b"].content == b"a"

    def test_hard_links_keep_what_they_were_made_to(self, tmp_path: Path) -> None:
        layer = Layer().add("a", b"first").hardlink("h", "./a").hardlink("i", "/h").add("a", b"second")
        tree = tree_of(layer.bytes(), tmp_path)
        assert [tree[name].content for name in (b"a", b"h", b"i")] == [b"second", b"first", b"first"]
        assert (tree[b"a"].links, tree[b"h"].links, tree[b"h"].inode) == (1, 2, tree[b"i"].inode)

    def test_hard_links_to_symlinks(self, tmp_path: Path) -> None:
        tree = tree_of(Layer().symlink("s", "nowhere").hardlink("h", "s").bytes(), tmp_path)
        assert (tree[b"h"].kind, tree[b"h"].content, tree[b"h"].inode) == ("symlink", b"nowhere", tree[b"s"].inode)

    def test_hard_links_to_older_layers(self, tmp_path: Path) -> None:
        name = os.fsdecode(b"usr/b\xffn")
        layer = Layer().hardlink("x/h", name).hardlink("x/i", "x/h").symlink("l", "deep/er").hardlink("j", "l/../up")
        layer.add("k", b"1").add(".wh.gone").hardlink("m", "gone")
        with pytest.raises(LayerError, match=r"entry 'j': a path with `\.\.` in it"):
            convert(layer.bytes(), tmp_path / "bad.layer")
        layer = Layer().hardlink("x/h", name).hardlink("x/i", "x/h").symlink("l", "deep/../er").hardlink("j", "l/up")
        layer.add(".wh.gone").hardlink("m", "gone")
        tree = tree_of(layer.bytes(), tmp_path)
        assert tree[b"x/h"].xattrs == (("user.shifter.hardlink", b"usr/b\xffn"),)
        assert (tree[b"x/h"].kind, tree[b"x/h"].content, tree[b"x/h"].links) == ("file", b"", 2)
        assert tree[b"x/i"] == tree[b"x/h"]
        assert tree[b"j"].xattrs == (("user.shifter.hardlink", b"er/up"),)
        assert tree[b"m"].xattrs == (("user.shifter.hardlink", b"gone"),)
        assert tree[b"gone"].kind == "whiteout"

    def test_many_links_to_older_layers(self, tmp_path: Path) -> None:
        layer = Layer(tarfile.USTAR_FORMAT)
        for number in range(5000):
            layer.hardlink(f"h{number}", f"older/{number}")
        tree = tree_of(layer.bytes(), tmp_path)
        found = {tree[b"h%d" % number].xattrs[0][1] for number in range(5000)}
        assert found == {b"older/%d" % number for number in range(5000)}

    def test_paths_through_links_of_the_layer(self, tmp_path: Path) -> None:
        # As umoci unpacks them: inside the root, which `..` does not leave.
        layer = Layer().directory("usr/lib").symlink("lib", "usr/lib").add("lib/a", b"1").symlink("up", "../../../usr")
        layer.add("up/lib/b", b"2").symlink("abs", "/usr/./lib/").add("abs/c", b"3").symlink("dangling", "made/here")
        layer.add("dangling/d", b"4").add("lib/.wh.w").hardlink("e", "lib/a")
        tree = tree_of(layer.bytes(), tmp_path)
        assert tree[b"usr/lib/a"].content == b"1"
        assert tree[b"usr/lib/b"].content == b"2"
        assert tree[b"usr/lib/c"].content == b"3"
        assert tree[b"made/here/d"].content == b"4"
        assert tree[b"usr/lib/w"].kind == "whiteout"
        assert tree[b"e"].inode == tree[b"usr/lib/a"].inode
        assert tree[b"lib"].kind == "symlink"


class TestWhiteouts:
    def test_forms(self, tmp_path: Path) -> None:
        layer = Layer().add("d/.wh.gone").add(".wh.top").directory(".wh.dir").directory("o").add("o/.wh..wh..opq")
        layer.add("p/.wh..wh..opq").add(".wh..wh.aufs").directory(".wh..wh.plnk").add(".wh..wh.plnk/1.2")
        tree = tree_of(layer.bytes(), tmp_path)
        assert {name for name, found in tree.items() if found.kind == "whiteout"} == {b"d/gone", b"top", b"dir"}
        assert tree[b"o"].xattrs == OPAQUE
        assert tree[b"p"].xattrs == OPAQUE + IMPLIED
        assert set(tree) == {b".", b"d", b"d/gone", b"top", b"dir", b"o", b"p"}

    @pytest.mark.parametrize("last", [True, False])
    def test_they_are_about_older_layers(self, tmp_path: Path, last: bool) -> None:
        steps = [lambda layer: layer.directory("d", 0o700).add("d/new").add("f", b"new").add("i/new")]
        steps.insert(0 if last else 1, lambda layer: layer.add(".wh.d").add(".wh.f").add(".wh.i"))
        layer = Layer()
        for step in reversed(steps):
            step(layer)
        tree = tree_of(layer.bytes(), tmp_path)
        assert (tree[b"d"].mode, tree[b"d"].xattrs) == (0o700, OPAQUE)
        assert (tree[b"f"].kind, tree[b"f"].content) == ("file", b"new")
        assert (tree[b"i"].mode, tree[b"i"].xattrs) == (0o755, OPAQUE)
        assert {b"d/new", b"i/new"} < set(tree)

    def test_opaque_root(self, tmp_path: Path) -> None:
        assert OPAQUE[0] in tree_of(Layer().add(".wh..wh..opq").add("new").bytes(), tmp_path)[b"."].xattrs


class TestPolicy:
    @pytest.fixture
    def tar(self) -> bytes:
        layer = Layer().directory("tmp", 0o3777, uid=7, gid=8).add("su", b"x", mode=0o6755, uid=7, gid=8)
        layer.add("cap", b"x", pax_headers={
            "SCHILY.xattr.security.capability": "\x01", "SCHILY.xattr.user.note": "kept",
            "SCHILY.xattr.user.shifter.implied": "1", "SCHILY.xattr.trusted.overlay.opaque": "y",
        })
        layer.directory("dev").add("dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)
        layer.add("dev/sda", kind=tarfile.BLKTYPE).add("dev/file", b"f").add("dev/pipe", kind=tarfile.FIFOTYPE)
        layer.add("ancient", mtime=-5).add("far", mtime=1 << 40).add("half", mtime=10.75)
        return layer.bytes()

    def test_default(self, tar: bytes, tmp_path: Path) -> None:
        tree = tree_of(tar, tmp_path)
        assert {(found.uid, found.gid) for found in tree.values()} == {(0, 0)}
        assert (tree[b"tmp"].mode, tree[b"su"].mode) == (0o1777, 0o755)
        assert tree[b"cap"].xattrs == ()
        # A device is no object, but what older layers have under its name is replaced all the same.
        assert {name for name, found in tree.items() if found.kind == "whiteout"} == {b"dev/null", b"dev/sda"}
        assert tree[b"dev/file"].content == b"f"
        assert tree[b"dev/pipe"].kind == "fifo"
        assert [tree[name].mtime for name in (b"ancient", b"far", b"half")] == [0, (1 << 32) - 1, 10]

    def test_keeping(self, tar: bytes, tmp_path: Path) -> None:
        tree = tree_of(tar, tmp_path, recipe=Recipe(keep_owners=True, keep_setid=True, keep_user_xattrs=True))
        assert (tree[b"tmp"].mode, tree[b"su"].mode) == (0o3777, 0o6755)
        assert (tree[b"su"].uid, tree[b"su"].gid) == (7, 8)
        assert tree[b"cap"].xattrs == (("user.note", b"kept"),)

    def test_recipes_are_checked(self) -> None:
        for wrong in (
            {"compressor": "lzo"}, {"level": 23}, {"compressor": "lz4", "level": 1}, {"block_size": 5000},
            {"block_size": 2 << 20}, {"keep_setid": True},
        ):
            with pytest.raises(ValueError):  # noqa: PT011
                Recipe(**wrong)
        for field in dataclasses.fields(Limits):
            with pytest.raises(ValueError, match=field.name):
                Limits(**{field.name: 0})

    def test_fingerprints_differ(self) -> None:
        recipes = [Recipe(), Recipe(level=4), Recipe(compressor="gzip"), Recipe(block_size=4096)]
        recipes += [Recipe(keep_owners=True), Recipe(boot_set=False)]
        assert len({recipe.fingerprint() for recipe in recipes}) == len(recipes)
        assert Recipe().fingerprint() == Recipe().fingerprint()
        records = [recipe.record() for recipe in recipes]
        assert [Recipe.of_record(record) for record in records] == [(RECIPE, recipe) for recipe in recipes]

    def test_a_record_is_a_line_that_can_be_read_again(self) -> None:
        assert Recipe().record() == f"{RECIPE} zstd 3 131072 bootSet"
        everything = Recipe("xz", 0, 4096, keep_owners=True, keep_user_xattrs=True, keep_setid=True, boot_set=False)
        assert everything.record() == f"{RECIPE} xz 0 4096 keepOwners keepSetid keepUserXattrs"
        assert Recipe.of_record("1 zstd 3 131072") == (1, Recipe(boot_set=False))
        for wrong in ("", "2 zstd 3", "two zstd 3 131072", "2 lzo 1 131072", "2 zstd 3 131072 keepDevices"):
            with pytest.raises(ValueError):  # noqa: PT011
                Recipe.of_record(wrong)


class TestBootSet:
    """Stored uncompressed: its bytes stand in the archive as they are, in one piece, the tail too."""

    @staticmethod
    def text(name: str, size: int = 300_001) -> bytes:
        return (f"{name}'s own text, easy to compress. ".encode() * (size // 20))[:size]

    @pytest.mark.parametrize(
        "name",
        [
            "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2", "lib/ld-musl-aarch64.so.1",
            "lib64/ld64.so.2", "lib/x86_64-linux-gnu/ld-2.31.so", "usr/lib/arm-linux-gnueabihf/libc.so.6",
            "lib64/libc-2.17.so", "usr/lib64/libtinfo.so.6.4", "bin/sh", "usr/bin/dash", "usr/bin/bash", "bin/[",
            "sbin/busybox", "./usr/sbin/ash",
        ],
    )  # fmt: skip
    def test_members(self, tmp_path: Path, name: str) -> None:
        content = self.text(name)
        archive = convert(Layer().add(name, content).bytes(), tmp_path / "one.layer")
        assert content in archive.read_bytes()
        with mounted(archive) as root:
            assert (root / name).read_bytes() == content
        plain = convert(Layer().add(name, content).bytes(), tmp_path / "plain", recipe=Recipe(boot_set=False))
        assert content[:1000] not in plain.read_bytes()

    @pytest.mark.parametrize(
        "name",
        [
            "usr/bin/zsh", "usr/local/bin/bash", "opt/lib/libc.so.6", "sh", "usr/lib/x86_64-linux-gnu/d/libc.so.6",
            "usr/lib/gcc/libc.so.6", "usr/lib/x86_64-linux-gnu/libcrypt.so.1", "usr/bin/bash.real", "bin/sh/sh",
            "usr/lib32/libc.so.6", f"usr/lib/{'d' * 80}-linux-gnu/libc.so.6",
        ],
    )  # fmt: skip
    def test_no_members(self, tmp_path: Path, name: str) -> None:
        content = self.text(name)
        archive = convert(Layer().add(name, content).bytes(), tmp_path / "one.layer")
        assert content[:1000] not in archive.read_bytes()

    def test_a_place_behind_links_of_the_layer_counts(self, tmp_path: Path) -> None:
        layer = Layer().symlink("lib", "usr/lib").symlink("local", "/usr/bin")
        layer.add("lib/libc.so.6", self.text("libc")).add("local/bash", self.text("bash"))
        content = convert(layer.bytes(), tmp_path / "one.layer").read_bytes()
        assert self.text("libc") in content
        assert self.text("bash") in content

    def test_large_files_are_no_members(self, tmp_path: Path) -> None:
        layer = Layer().add("bin/sh", self.text("sh", 8 << 20)).add("bin/bash", self.text("bash", (8 << 20) + 1))
        content = convert(layer.bytes(), tmp_path / "one.layer").read_bytes()
        assert self.text("sh", 8 << 20) in content
        assert self.text("bash")[:1000] not in content

    @pytest.mark.parametrize("size", [1, 4095, 4096, 131_071, 131_072, 131_073, 400_000])
    def test_sizes_around_blocks(self, tmp_path: Path, size: int) -> None:
        layer = Layer().add("a", b"before").add("bin/sh", self.text("sh", size)).add("z", b"behind").add("bin/ash")
        layer.hardlink("bin/again", "bin/sh")
        archive = convert(layer.bytes(), tmp_path / "one.layer")
        tree = tree_of(layer.bytes(), tmp_path)
        assert tree[b"bin/sh"].content == tree[b"bin/again"].content == self.text("sh", size)
        assert [tree[name].content for name in (b"a", b"z", b"bin/ash")] == [b"before", b"behind", b""]
        subprocess.run(["sqfs2tar", str(archive)], check=True, stdout=subprocess.DEVNULL)

    @pytest.mark.parametrize("size", [131_072 * 2, 131_072 * 2 + 100])
    def test_zeros_stay_holes(self, tmp_path: Path, size: int) -> None:
        archive = convert(Layer().add("bin/sh", bytes(size)).bytes(), tmp_path / "one.layer")
        with mounted(archive) as root:
            assert (root / "bin/sh").read_bytes() == bytes(size)
            assert (root / "bin/sh").stat().st_blocks == 0
        assert archive.stat().st_size < 8192

    @pytest.mark.parametrize("order", [["copy", "bin/sh", "bin/bash"], ["bin/sh", "bin/bash", "copy"]])
    def test_a_copy_elsewhere_decides_nothing(self, tmp_path: Path, order: list[str]) -> None:
        text = self.text("shell", 131_072 + 5000)
        layer = Layer()
        for name in order:
            layer.add(name, text).add(f"{name}.beside", b"tail" * 50)
        tree = tree_of(layer.bytes(), tmp_path)
        assert all(tree[name.encode()].content == text for name in order)
        assert all(tree[f"{name}.beside".encode()].content == b"tail" * 50 for name in order)
        described = {
            name: subprocess.run(
                ["rdsquashfs", "--stat", name, str(tmp_path / "one.layer")], check=True, capture_output=True, text=True
            ).stdout
            for name in order
        }
        starts = {name: re.search(r"Blocks start: (\d+)", text) for name, text in described.items()}
        where = {name: match[1] for name, match in starts.items() if match is not None}
        assert where["bin/sh"] == where["bin/bash"] != where["copy"]
        assert text in (tmp_path / "one.layer").read_bytes()

    def test_same_bytes_with_any_number_of_threads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = Layer()
        for number, name in enumerate(["bin/sh", "a", "bin/bash", "lib/libc.so.6", "b", "bin/dash"]):
            layer.add(name, self.text(name, number * 150_001)).add(f"x{number}", noise(number * 997))
        tar = layer.bytes()
        results = set()
        for threads in (1, 2, 5):
            monkeypatch.setattr("shifter_imagegw.layers.archive.compression_threads", lambda count=threads: count)
            results.add(convert(tar, tmp_path / "one.layer").read_bytes())
        assert len(results) == 1

    def test_the_merge_copies_it_as_it_is(self, tmp_path: Path) -> None:
        layers = [
            Layer().add("bin/sh", self.text("old")).add("bin/bash", self.text("bash")).add("f", self.text("file")),
            Layer().add("bin/sh", self.text("new", 140_000)).add(".wh.f"),
        ]
        archives = [convert(layer.bytes(), tmp_path / f"{number}.layer") for number, layer in enumerate(layers)]
        image = tmp_path / "image"
        merge_files(archives, image)
        content = image.read_bytes()
        assert self.text("bash") in content
        assert self.text("new", 140_000) in content
        with mounted(image) as root:
            assert (root / "bin/sh").read_bytes() == self.text("new", 140_000)
            assert (root / "bin/bash").read_bytes() == self.text("bash")


class TestStream:
    @pytest.mark.parametrize("compressor", LEVELS)
    @pytest.mark.parametrize("block_size", [4096, 131072, 1 << 20])
    def test_every_compressor(self, tmp_path: Path, compressor: str, block_size: int) -> None:
        recipe = Recipe(compressor=compressor, level=LEVELS[compressor][-1], block_size=block_size)
        tree = tree_of(sample(), tmp_path, recipe=recipe)
        assert tree[b"usr/bin/tool"].content == noise(300_001)
        assert tree[b"usr/zeros"].content == bytes(400_000)

    def test_compression_is_recognised_whatever_the_pieces(self, tmp_path: Path) -> None:
        tar = sample()
        half = len(tar) // 2 + 100
        zstd = subprocess.run(["zstd", "-q", "-c"], input=tar, check=True, capture_output=True).stdout
        frames = b"".join(
            subprocess.run(["zstd", "-q", "-c"], input=part, check=True, capture_output=True).stdout
            for part in (tar[:half], tar[half:])
        )
        skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
        members = gzip.compress(tar[:half]) + gzip.compress(b"") + gzip.compress(tar[half:], 9)
        named = subprocess.run(["gzip", "-c9"], input=tar, check=True, capture_output=True).stdout
        forms = [tar, named, members, named + bytes(1000), zstd, frames, skippable + zstd + skippable]
        results = set()
        for blob in forms:
            for size in (1 << 30, 100_003, 1013):
                archive = convert(tar, tmp_path / "one.layer", blob=blob, chunks=pieces(blob, size))
                results.add(archive.read_bytes())
        chunks = [*pieces(named[:100], 1), b"", named[100:]]
        results.add(convert(tar, tmp_path / "one.layer", chunks=chunks).read_bytes())
        assert len(results) == 1

    def test_same_bytes_with_any_number_of_threads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = Layer()
        for number in range(120):
            layer.add(f"d{number % 7}/f{number}", noise(number * 997, number) + bytes(number * 500))
        tar = layer.bytes()
        results = set()
        for threads in (1, 2, 3, 8):
            monkeypatch.setattr("shifter_imagegw.layers.archive.compression_threads", lambda count=threads: count)
            results.add(convert(tar, tmp_path / "one.layer").read_bytes())
        assert len(results) == 1

    def test_the_file_is_sealed_and_private(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            archive = convert(sample(), tmp_path / "one.layer")
        finally:
            os.umask(before)
        assert archive.stat().st_mode & 0o7777 == 0o600
        assert archive.stat().st_size % 4096 == 0
        key = f"{digest_of(sample())} {Recipe().fingerprint()}"
        with archive.open("rb") as file:
            check_trailer(file.fileno(), key)
            verify_archive(file.fileno(), key)


class TestFailures:
    def test_wrong_diff_id(self, tmp_path: Path) -> None:
        blob = gzip.compress(sample())
        with pytest.raises(LayerError, match="and not to its diff_id") as caught:
            build_archive(
                [blob], descriptor(blob), digest_of(b""), tmp_path / "x",
                recipe=Recipe(), limits=Limits(), progress=lambda _count: None,
            )
        assert caught.value.digest == digest_of(blob)

    def test_destination_must_be_new(self, tmp_path: Path) -> None:
        (tmp_path / "x").touch()
        with pytest.raises(ConversionError, match="File exists"):
            build_archive(
                [], descriptor(b""), digest_of(b""), tmp_path / "x",
                recipe=Recipe(), limits=Limits(), progress=lambda _count: None,
            )

    def test_cancelling_leaves_no_thread(self, tmp_path: Path) -> None:
        class Stop(Exception):
            pass

        seen = []

        def progress(count: int) -> None:
            seen.append(count)
            if len(seen) == 5:
                raise Stop

        blob = Layer().add("f", noise(5_000_000)).bytes()
        before = count(TASKS)
        with pytest.raises(Stop):
            build_archive(
                pieces(blob), descriptor(blob), digest_of(blob), tmp_path / "x",
                recipe=Recipe(), limits=Limits(), progress=progress,
            )
        assert seen == [10_007] * 5
        assert count(TASKS) == before

    def test_full_disk(self, tmp_path: Path) -> None:
        small = tmp_path / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(small)], check=True)
        try:
            tar = Layer().add("f", noise(3_000_000)).bytes()
            with pytest.raises(ConversionError, match="No space left on device; free some space"):
                convert(tar, small / "x")
        finally:
            subprocess.run(["umount", str(small)], check=True)

    def test_an_object_is_used_by_one_thread_and_once(self, tmp_path: Path) -> None:
        settings = {**dataclasses.asdict(Recipe()), **dataclasses.asdict(Limits())}
        with (tmp_path / "x").open("w+b") as file:
            writer = _writer.LayerWriter(file.fileno(), threads=1, **settings)
            blob = gzip.compress(Layer().add("f", noise(20_000_000)).bytes(), 1)
            refused = []

            def feed() -> None:
                for chunk in pieces(blob, 50_000):
                    try:
                        writer.feed(chunk)
                    except (RuntimeError, _writer.Failure) as error:
                        refused.append(error)

            threads = [threading.Thread(target=feed) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            writer.abort()
            writer.abort()
            with pytest.raises(ValueError, match="finished or aborted"):
                writer.feed(b"")
            with pytest.raises(ValueError, match="out of its range"):
                _writer.LayerWriter(file.fileno(), threads=0, **settings)
            with pytest.raises(OSError, match="Bad file descriptor"):
                _writer.LayerWriter(-1, threads=1, **settings)
            before = count(TASKS)
            dropped = _writer.LayerWriter(file.fileno(), threads=1, **settings)
            del dropped
            assert count(TASKS) == before
