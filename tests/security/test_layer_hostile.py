# SPDX-License-Identifier: BSD-3-Clause
"""Layers that mean harm or are broken: each has a defined result, none gets out of its tree, its memory or its time."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shifter_imagegw.errors import LayerError, LimitExceeded
from shifter_imagegw.layers.recipe import Limits, Recipe
from tests.layers import Layer, convert, tree_of

ROOT = Path(__file__).resolve().parents[2]


def refused(tar: bytes, directory: Path, limits: Limits | None = None, blob: bytes | None = None) -> LayerError:
    with pytest.raises(LayerError) as caught:
        convert(tar, directory / "bad.layer", limits=limits, blob=tar if blob is None else blob)
    assert caught.value.digest is not None
    assert caught.value.digest in str(caught.value)
    return caught.value


class TestNames:
    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("../escape", "with `..`"),
            ("a/../../escape", "with `..`"),
            ("a/../b", "with `..`"),
            ("/../escape", "with `..`"),
            ("..", "with `..`"),
            (".", "the root directory cannot be anything else"),
            ("/.", "the root directory cannot be anything else"),
            ("././/.", "the root directory cannot be anything else"),
            (".wh.", "a whiteout of nothing"),
            ("d/.wh..", "a whiteout of nothing"),
            ("d/.wh...", "a whiteout of nothing"),
        ],
    )
    @pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
    def test_refused(self, tmp_path: Path, name: str, reason: str, kind: bytes) -> None:
        error = refused(Layer().directory("d").add(name, kind=kind, linkname="/tmp").bytes(), tmp_path)
        assert reason in error.reason
        assert error.entry == name

    def test_without_a_name(self, tmp_path: Path) -> None:
        assert refused(Layer(tarfile.USTAR_FORMAT).add("").bytes(), tmp_path).reason == "an entry without a name"

    def test_cleaned(self, tmp_path: Path) -> None:
        layer = Layer().add("/abs").add("//x//y/./z").add("./././w").add("...").add("a..b").add("..c").add("C:\\d")
        assert set(tree_of(layer.bytes(), tmp_path)) == {
            b".", b"abs", b"x", b"x/y", b"x/y/z", b"w", b"...", b"a..b", b"..c", b"C:\\d",
        }

    def test_names_in_messages_are_printable(self, tmp_path: Path) -> None:
        error = refused(Layer().add(os.fsdecode(b"../\xff\x1b[2J\n")).bytes(), tmp_path)
        assert "\x1b" not in str(error)
        assert "\n" not in str(error)
        assert error.entry == "../\\xff\x1b[2J\n"


class TestLinks:
    def test_below_a_file(self, tmp_path: Path) -> None:
        error = refused(Layer().add("a", b"x").add("a/b").bytes(), tmp_path)
        assert (error.entry, error.reason) == ("a/b", "it lies below a, which is not a directory in this layer")

    def test_symlinks_do_not_leave_the_tree(self, tmp_path: Path) -> None:
        sentinel = tmp_path / "sentinel"
        sentinel.mkdir()
        layer = Layer().symlink("out", str(sentinel)).add("out/file", b"in the image")
        layer.symlink("up", "../" * 40 + "etc").add("up/passwd", b"in the image too")
        tree = tree_of(layer.bytes(), tmp_path)
        assert list(sentinel.iterdir()) == []
        assert tree[os.fsencode(sentinel)[1:] + b"/file"].content == b"in the image"
        assert tree[b"etc/passwd"].content == b"in the image too"

    def test_loops(self, tmp_path: Path) -> None:
        for layer in (Layer().symlink("a", "a"), Layer().symlink("a", "b/c").symlink("b", "a/d")):
            assert "more than 40 symbolic links" in refused(layer.add("a/x").bytes(), tmp_path).reason
        layer = Layer().symlink("a", "/" + "./" * 2000 + "a")
        assert "symbolic links" in refused(layer.add("a/x").bytes(), tmp_path).reason

    @pytest.mark.parametrize(
        ("target", "reason"),
        [
            ("../etc/passwd", "with `..`"),
            ("d/../../x", "with `..`"),
            ("d", "a hard link to the directory d"),
            ("/", "a hard link to the directory /"),
            ("implied", "a hard link to the directory implied"),
            ("h", "a hard link to itself"),
            ("./h", "a hard link to itself"),
            ("f/x", "it lies below f, which is not a directory"),
        ],
    )
    def test_hard_links(self, tmp_path: Path, target: str, reason: str) -> None:
        layer = Layer().directory("d").add("f").add("implied/x").hardlink("h", target)
        error = refused(layer.bytes(), tmp_path)
        assert error.reason.startswith(reason) or reason in error.reason
        assert error.entry == "h"

    def test_hard_link_to_itself_through_a_link(self, tmp_path: Path) -> None:
        layer = Layer().symlink("l", "d").hardlink("d/h", "l/h")
        assert refused(layer.bytes(), tmp_path).reason == "a hard link to itself"
        layer = Layer().add("d/h", b"x").symlink("l", "d").hardlink("d/h", "l/h")
        assert refused(layer.bytes(), tmp_path).reason == "a hard link to itself"

    def test_symlinks_to_nothing(self, tmp_path: Path) -> None:
        assert refused(Layer().symlink("s", "").bytes(), tmp_path).reason == "a symbolic link to nothing"

    def test_devices_never_get_in(self, tmp_path: Path) -> None:
        layer = Layer().add("sda", kind=tarfile.BLKTYPE, devmajor=8, mode=0o666)
        layer.add("mem", kind=tarfile.CHRTYPE, devmajor=1).hardlink("again", "sda")
        tree = tree_of(layer.bytes(), tmp_path, recipe=Recipe(keep_owners=True, keep_setid=True, keep_user_xattrs=True))
        # read_tree has seen that the character devices are 0:0. The link is one to an older layer's `sda`.
        assert [tree[name].kind for name in (b"sda", b"mem", b"again")] == ["whiteout", "whiteout", "file"]


class TestLimits:
    @pytest.mark.parametrize(
        ("limit", "layer", "reason"),
        [
            ({"max_entries": 5}, [f"f{number}" for number in range(6)], "more than 5 entries"),
            ({"max_entries": 5}, ["a/b/c/d/e/f"], "more than 5 entries"),
            ({"max_entries": 5}, ["same"] * 6, "more than 5 entries"),
            ({"max_depth": 4}, ["a/b/c/d/e"], "more than 4 directories deep"),
            ({}, ["/".join("d" * 257)], "more than 256 directories deep"),
            ({"max_name": 20}, ["n" * 21], "a name of more than 20 bytes"),
            ({}, ["n" * 256], "a name of more than 255 bytes"),
            ({"max_path": 30}, ["p" * 20 + "/" + "q" * 20], "a path of more than 30 bytes"),
            ({}, ["/".join(["d" * 200] * 21)], "a path of more than 4096 bytes"),
            ({"max_text": 100}, ["a" * 50, "b" * 60], "more than 100 bytes of names"),
        ],
    )
    def test_of_names(self, tmp_path: Path, limit: dict[str, int], layer: list[str], reason: str) -> None:
        made = Layer()
        for name in layer:
            made.add(name)
        error = refused(made.bytes(), tmp_path, Limits(**limit))
        assert isinstance(error, LimitExceeded)
        assert reason in error.reason
        assert error.entry == layer[-1]

    def test_of_paths_through_links(self, tmp_path: Path) -> None:
        layer = Layer().symlink("l", "/".join("d" * 250)).symlink("m", "l/l").add("l/e/" + "/".join("f" * 20))
        assert "more than 256 directories deep" in refused(layer.bytes(), tmp_path).reason
        layer = Layer().symlink("l", "x" * 300).add("l/f")
        assert "a name of more than 255 bytes" in refused(layer.bytes(), tmp_path).reason

    def test_of_links(self, tmp_path: Path) -> None:
        layer = Layer().add("f").hardlink("g", "f").hardlink("h", "f").hardlink("i", "g")
        error = refused(layer.bytes(), tmp_path, Limits(max_links=3))
        assert (error.entry, error.reason) == ("i", "more than 3 hard links to one file; refused")
        error = refused(Layer().symlink("s", "t" * 4096).bytes(), tmp_path)
        assert error.reason == "a link target of more than 4095 bytes; refused"

    def test_of_attributes(self, tmp_path: Path) -> None:
        tar = Layer().add("f", pax_headers={"SCHILY.xattr.user.big": "x" * 70_000}).bytes()
        with pytest.raises(LimitExceeded, match="more than 65536 bytes of extended attributes on one entry"):
            convert(tar, tmp_path / "x", recipe=Recipe(keep_user_xattrs=True))
        convert(tar, tmp_path / "x")

    def test_of_bytes(self, tmp_path: Path) -> None:
        tar = Layer().add("f", bytes(3_000_000)).bytes()
        error = refused(tar, tmp_path, Limits(max_bytes=2_000_000))
        assert (error.entry, error.reason) == ("f", "its files have more than 2000000 bytes; refused")
        padding = Layer().bytes() + bytes(3_000_000)
        error = refused(padding, tmp_path, Limits(max_bytes=2_000_000))
        assert "more than 2000000 bytes when uncompressed" in error.reason

    def test_of_holes(self, tmp_path: Path) -> None:
        # A few blocks of tar for an exbibyte of file.
        header = tarfile.TarInfo("huge")
        header.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "huge",
                              "GNU.sparse.realsize": str(1 << 60)}
        body = b"1\n%d\n1\n" % ((1 << 60) - 1)
        header.size = 1024
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(header, io.BytesIO(body.ljust(1024, b"\0")))
        assert isinstance(refused(buffer.getvalue(), tmp_path), LimitExceeded)

    @pytest.mark.parametrize("form", ["pax", "gnu"])
    def test_of_maps_of_sparse_files(self, tmp_path: Path, form: str) -> None:
        """A piece takes 4 bytes of tar, next to none of the blob, and 48 of libarchive's memory."""
        for pieces, refuses in ((100_000, False), (6_000_000, True)):
            tar = sparse_map(form, pieces)
            blob = gzip.compress(tar, 1)
            if refuses:
                error = refused(tar, tmp_path, Limits(max_ratio=1 << 20), blob=blob)
                assert isinstance(error, LimitExceeded)
                assert "bytes of headers for one entry" in error.reason
            else:
                assert {b"sparse", b"next"} <= set(tree_of(tar, tmp_path))

    def test_data_of_what_is_left_out_is_no_header(self, tmp_path: Path) -> None:
        layer = Layer().add(".wh..wh.plnk/x", os.urandom(9 << 20)).add("next")
        assert set(tree_of(layer.bytes(), tmp_path)) == {b".", b"next"}

    @pytest.mark.parametrize("tool", [["gzip", "-c"], ["zstd", "-qc"]])
    def test_of_ratio(self, tmp_path: Path, tool: list[str]) -> None:
        bomb = subprocess.run(
            f"head -c 400M /dev/zero | {' '.join(tool)}", shell=True, check=True, capture_output=True
        ).stdout
        limits = Limits(max_ratio=500)
        error = refused(b"", tmp_path, limits, blob=bomb)
        assert isinstance(error, LimitExceeded)
        assert "over 500 times as much" in error.reason
        assert (tmp_path / "bad.layer").stat().st_size < 1 << 20


def sparse_map(form: str, pieces: int) -> bytes:
    """A layer whose first file consists of so many pieces, all of them empty."""
    header = tarfile.TarInfo("sparse")
    buffer = io.BytesIO()
    if form == "pax":  # GNU tar's manual, "Storing Sparse Files", version 1.0: the map is in front of the data
        header.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sparse",
                              "GNU.sparse.realsize": "0"}
        body = (b"%d\n" % pieces) + b"0\n0\n" * pieces
        body += bytes(-len(body) % 512)
        header.size = len(body)
        tar = tarfile.open(fileobj=buffer, mode="w")  # noqa: SIM115 - closing it would write the end marks
        tar.addfile(header, io.BytesIO(body))
    else:  # the older form: four pieces in the header, 21 in each of the blocks that follow it
        header.type = b"S"
        block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
        piece = b"00000000000\0" * 2
        block[386:482], block[482:483], block[483:495] = piece * 4, b"\1", b"00000000000\0"
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
        buffer.write(block + (piece * 21 + b"\1" + bytes(7)) * (pieces // 21) + piece * 21 + bytes(8))
    return buffer.getvalue() + Layer(tarfile.USTAR_FORMAT).add("next").bytes()


class TestDamage:
    def test_cut_off(self, tmp_path: Path) -> None:
        whole = Layer().add("a", b"x" * 2000).add("b", b"y" * 600).bytes()
        second = 512 + 2048
        for size in (100, 511, 1024, 512 + 1999, second + 100, second + 512 + 599, second + 512 + 600):
            assert refused(whole[:size], tmp_path).reason != ""
        for size in (second, second + 512 + 1024, second + 512 + 1024 + 512):
            assert b"a" in tree_of(whole[:size], tmp_path)  # only the end marks are missing: tools make such layers

    def test_what_follows_the_end(self, tmp_path: Path) -> None:
        first = Layer().add("a").bytes()
        for tail in (b"garbage" * 1000, Layer().add("b").bytes()):
            assert set(tree_of(first + tail, tmp_path)) == {b".", b"a"}

    @pytest.mark.parametrize("garbage", [b"garbage" * 1000, b"x", b"\x1f", b"\x1f\x8b", b"(\xb5/\xfd", b"\xaa" * 5000])
    def test_garbage(self, tmp_path: Path, garbage: bytes) -> None:
        refused(garbage, tmp_path)

    def test_other_compressions(self, tmp_path: Path) -> None:
        for blob in (bz2.compress(SMALL), lzma.compress(SMALL)):
            assert refused(b"", tmp_path, blob=blob).reason.endswith("; layers are gzip, zstd or plain tar")

    def test_checksum_of_a_header(self, tmp_path: Path) -> None:
        tar = bytearray(Layer(tarfile.USTAR_FORMAT).add("a", b"x").add("b").bytes())
        tar[1024 + 148] ^= 1
        refused(bytes(tar), tmp_path)

    def test_compressed_streams(self, tmp_path: Path) -> None:
        tar = Layer().add("a", os.urandom(100_000)).bytes()
        zipped = gzip.compress(tar)
        zstd = subprocess.run(["zstd", "-qc", "--check"], input=tar, check=True, capture_output=True).stdout
        broken = {
            "ends too early": [zipped[:-9], zipped[:5000], zstd[:-9], zstd[:3000], zipped[:-1], zstd[:-1]],
            "checksum": [zipped[:-8] + b"\0\0\0\0" + zipped[-4:], zstd[:-4] + b"\0\0\0\0"],
            "garbage after the end": [zipped + b"x", zipped + bytes(100) + b"x", zipped + b"\x1fx"],
        }
        for reason, blobs in broken.items():
            for number, blob in enumerate(blobs):
                found = refused(tar, tmp_path, blob=blob).reason
                assert reason in found or reason == "garbage after the end", (reason, number, found)

    def test_headers_that_say_what_nobody_reads(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, kind, data in (("PaxHeader", b"x", b"99 path=other\n"), ("a", tarfile.REGTYPE, b"")):
                header = tarfile.TarInfo(name)
                header.type, header.size = kind, len(data)
                tar.addfile(header, io.BytesIO(data))
        assert "malformed pax" in refused(buffer.getvalue(), tmp_path).reason


def small_layer() -> bytes:
    layer = Layer().directory("d").add("d/f", b"x" * 3000, pax_headers={"SCHILY.xattr.user.a": "b"}).symlink("l", "d")
    layer.add("l/g" + "n" * 120, b"y").hardlink("h", "d/f").add("d/.wh.w").add(".wh..wh..opq")
    layer.add("bin/sh", b"s" * 5000).add("copy", b"s" * 5000).add("bin/ash", b"s" * 5000)  # boot set and not
    return layer.bytes() + Layer(tarfile.GNU_FORMAT).add("x" * 300, b"z" * 700).bytes()


SMALL = small_layer()


def survives(tar: bytes, blob: bytes) -> None:
    """An archive the kernel's tools can read, or a LayerError."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            archive = convert(tar, Path(directory) / "fuzzed.layer", blob=blob, recipe=Recipe(keep_user_xattrs=True))
        except LayerError:
            return
        subprocess.run(["unsquashfs", "-lls", str(archive)], check=True, stdout=subprocess.DEVNULL)


class TestFuzz:
    @settings(max_examples=150)
    @given(st.binary(max_size=3000))
    def test_bytes(self, blob: bytes) -> None:
        survives(blob, blob)

    @settings(max_examples=300)
    @given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=6),
           st.integers(0, len(SMALL)))
    def test_changed_tars(self, changes: list[tuple[int, int]], size: int) -> None:
        tar = bytearray(SMALL)
        for at, value in changes:
            tar[at] = value
            block = at - at % 512  # a right checksum leads past the first check
            checksum = sum(tar[block : block + 148]) + 256 + sum(tar[block + 156 : block + 512])
            if tar[block + 257 : block + 262] == b"ustar":
                tar[block + 148 : block + 156] = b"%06o\0 " % checksum
        survives(bytes(tar[:size] or tar), bytes(tar[:size] or tar))

    @settings(max_examples=150)
    @given(st.sampled_from([gzip.compress(SMALL), subprocess.run(
        ["zstd", "-qc"], input=SMALL, check=True, capture_output=True).stdout]),
        st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=4))
    def test_changed_streams(self, blob: bytes, changes: list[tuple[int, int]]) -> None:
        changed = bytearray(blob)
        for at, value in changes:
            changed[at % len(changed)] = value
        survives(SMALL, bytes(changed))

    @settings(max_examples=100)
    @given(st.lists(st.tuples(
        st.lists(st.sampled_from(["a", "b", "c", ".wh.a", ".wh.b", ".wh..wh..opq", "."]), min_size=1, max_size=4),
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]),
        st.sampled_from(["a", "b", "a/b", "../c", "/", "c/a"]),
    ), max_size=12))
    def test_trees(self, entries: list[tuple[list[str], bytes, str]]) -> None:
        layer = Layer(tarfile.USTAR_FORMAT)
        for parts, kind, target in entries:
            link = target if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            layer.add("/".join(parts), b"x" if kind == tarfile.REGTYPE else b"", kind=kind, linkname=link)
        tar = layer.bytes()
        survives(tar, tar)


MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.layers import Layer, convert
import tarfile
layer = Layer(tarfile.USTAR_FORMAT)
for number in range(100_000):
    layer.add(f"directory-{{number % 100}}/file-{{number}}", b"%d" % number)
tar = layer.bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
convert(tar, Path({directory!r}) / "one.layer", blob=tar)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_of_a_hundred_thousand_entries(tmp_path: Path) -> None:
    script = MEMORY.format(root=str(ROOT), directory=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 40 * 1024
