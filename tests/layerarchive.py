# SPDX-License-Identifier: BSD-3-Clause
"""Layer archives made by a tool that is not ours, from a description: the merge's input, without the writer."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from shifter_imagegw.layers.merge import MergeSummary, merge_archives
from shifter_imagegw.squashfs.walk import walk
from tests.imagecheck import check_image

_OPAQUE = {"trusted.overlay.opaque": b"y"}
_IMPLIED = {"user.shifter.implied": b"1"}


@dataclass(frozen=True)
class Directory:
    mode: int = 0o755
    mtime: int = 1000
    implied: bool = False
    opaque: bool = False
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class File:
    data: bytes = b""
    mode: int = 0o644
    mtime: int = 1000
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    uid: int = 0
    storage: int = 0  # storage class: equal contents of different classes are different to the merge


@dataclass(frozen=True)
class Symlink:
    target: bytes
    mtime: int = 1000


@dataclass(frozen=True)
class Whiteout:
    """Removes the name."""


@dataclass(frozen=True)
class OldLink:
    """A hard link to a path of older layers."""

    target: bytes


@dataclass(frozen=True)
class OwnLink:
    """A hard link to an earlier path of the same layer."""

    target: bytes


@dataclass(frozen=True)
class Fifo:
    mtime: int = 1000


Object = Union[Directory, File, Symlink, Whiteout, OldLink, OwnLink, Fifo]
Layer = Mapping[bytes, Object]
IMPLIED = Directory(mtime=0, implied=True)


def write_archive(layer: Layer, path: Path, *options: str) -> Path:
    """The archive of a layer; the root is implied unless the layer has an entry with an empty path."""
    members = [(b"root/" + name if name else b"root", entry) for name, entry in {b"": IMPLIED, **layer}.items()]
    choice = options or ("-c", "zstd", "-X", "level=3", "-b", "4096")
    _pack(members, path, ["tar2sqfs", "-q", "-f", "-j", "1", "-r", "root", *choice, str(path)])
    files = {name: entry for name, entry in layer.items() if isinstance(entry, File) and entry.data}
    return add_digests(path, {name: _digest(entry) for name, entry in files.items()})


def _digest(file: File) -> bytes:
    """Of the storage class and the content; none where zeros became a hole."""
    if bytes(4096) in file.data:
        return bytes(16)
    return hashlib.sha256(bytes([file.storage]) + file.data).digest()[:16]


def add_digests(archive: Path, digests: Mapping[bytes, bytes]) -> Path:
    """Put the table and the trailer behind the file system, in the place of what is there (layers/trailer.py)."""
    content = archive.read_bytes()
    used, count = int.from_bytes(content[40:48], "little"), int.from_bytes(content[4:8], "little")
    table = bytearray(16 * count)
    for entry in walk(archive):
        at = 16 * (entry.inode - 1)
        table[at : at + 16] = digests.get(entry.path, table[at : at + 16])
    trailer = b"shifter layer 2\n" + used.to_bytes(8, "little") + len(table).to_bytes(8, "little") + bytes(64)
    zeros = bytes(-(used + len(table) + len(trailer)) % 4096)
    archive.write_bytes(content[:used] + table + zeros + trailer)
    return archive


def archive_of_tree(tree: Path, path: Path) -> Path:
    """The archive of a directory; for many entries in one, which the tools that read tar are slow at."""
    options = ["-comp", "gzip", "-b", "4096", "-xattrs", "-all-root", "-no-duplicates", "-quiet", "-no-progress"]
    subprocess.run(["mksquashfs", str(tree), str(path), *options], check=True, stdout=subprocess.DEVNULL)
    return path


def _pack(members: list[tuple[bytes, Object]], path: Path, command: list[str]) -> Path:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as writer:
        for name, entry in sorted(members, key=lambda member: member[0]):
            info, data = _member(name, entry)
            writer.addfile(info, io.BytesIO(data))
    path.unlink(missing_ok=True)
    subprocess.run(command, input=tar.getvalue(), check=True, capture_output=True)
    return path


@contextmanager
def opened(archives: Sequence[Path]) -> Iterator[list[int]]:
    """Descriptors of the files, as the layer cache hands them out."""
    descriptors = [os.open(archive, os.O_RDONLY) for archive in archives]
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def go_on() -> None:
    """A check that never stops the merge."""


def merge_files(archives: Sequence[Path], image: Path, check: Callable[[], None] = go_on) -> MergeSummary:
    """Merge archives, whose layers are called sha256:0, sha256:1, … in messages; other readers then take the image."""
    with opened(archives) as descriptors:
        names = [f"sha256:{number}" for number in range(len(archives))]
        summary = merge_archives(descriptors, image, check, names)
    assert check_image(image).entries == summary.entries
    return summary


def expected(*layers: Layer) -> dict[str, bytes]:
    """The contents by name in the image of layers that only add or replace files."""
    return {name.decode(): file.data for layer in layers for name, file in layer.items() if isinstance(file, File)}


def build_image(directory: Path, *layers: Layer) -> Path:
    """The image of the layers, oldest first; made anew in `directory`."""
    archives = [write_archive(layer, directory / f"{number}.layer") for number, layer in enumerate(layers)]
    image = directory / "image.squashfs"
    image.unlink(missing_ok=True)
    merge_files(archives, image)
    return image


def _member(name: bytes, entry: Object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(os.fsdecode(name))
    info.mtime = getattr(entry, "mtime", 0)
    info.mode = getattr(entry, "mode", 0o644)
    info.uid = getattr(entry, "uid", 0)
    xattrs: dict[str, bytes] = dict(getattr(entry, "xattrs", {}))
    data = b""
    if isinstance(entry, Directory):
        info.type = tarfile.DIRTYPE
        xattrs.update(_OPAQUE if entry.opaque else {})
        xattrs.update(_IMPLIED if entry.implied else {})
    elif isinstance(entry, File):
        data = entry.data
        info.size = len(data)
    elif isinstance(entry, Symlink):
        info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(entry.target)
    elif isinstance(entry, Whiteout):
        info.type = tarfile.CHRTYPE
    elif isinstance(entry, OldLink):
        xattrs["user.shifter.hardlink"] = entry.target
    elif isinstance(entry, OwnLink):
        info.type, info.linkname = tarfile.LNKTYPE, os.fsdecode(b"root/" + entry.target)
    else:
        info.type = tarfile.FIFOTYPE
    info.pax_headers = {f"SCHILY.xattr.{key}": os.fsdecode(value) for key, value in xattrs.items()}
    return info, data
