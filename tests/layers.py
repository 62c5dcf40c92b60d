# SPDX-License-Identifier: BSD-3-Clause
"""Layers made by hand, and a look at what the kernel makes of their archives."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shifter_imagegw.layers.archive import build_archive
from shifter_imagegw.layers.recipe import Limits, Recipe
from shifter_imagegw.registry.manifest import Descriptor
from tests.imagetree import mounted

MTIME = 1_700_000_000


class Layer:
    """A tar stream in the making; entries keep their order."""

    def __init__(self, form: int = tarfile.PAX_FORMAT) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(  # noqa: SIM115 - closed by bytes()
            fileobj=self._buffer, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
        )

    def add(self, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> Layer:
        entry = tarfile.TarInfo(name)
        entry.size, entry.type, entry.mtime = len(content), kind, MTIME
        for key, value in fields.items():
            setattr(entry, key, value)
        self._tar.addfile(entry, io.BytesIO(content))
        return self

    def directory(self, name: str, mode: int = 0o755, **fields: Any) -> Layer:
        return self.add(name, kind=tarfile.DIRTYPE, mode=mode, **fields)

    def symlink(self, name: str, target: str) -> Layer:
        return self.add(name, kind=tarfile.SYMTYPE, linkname=target)

    def hardlink(self, name: str, target: str) -> Layer:
        return self.add(name, kind=tarfile.LNKTYPE, linkname=target)

    def bytes(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


@dataclass(frozen=True)
class Found:
    """What the kernel says about a path."""

    kind: str
    mode: int
    content: bytes = b""
    links: int = 1
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    inode: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()


_KINDS = {
    stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "whiteout",
}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(blob: bytes) -> Descriptor:
    return Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", digest_of(blob), len(blob))


def pieces(blob: bytes, size: int = 10_007) -> Iterator[bytes]:
    return (blob[at : at + size] for at in range(0, len(blob), size))


def convert(
    tar: bytes,
    destination: Path,
    *,
    blob: bytes | None = None,
    recipe: Recipe | None = None,
    limits: Limits | None = None,
    chunks: Iterable[bytes] | None = None,
) -> Path:
    """The archive of a tar stream; ``blob`` is what the registry has of it (default: gzip)."""
    packed = gzip.compress(tar, 1) if blob is None else blob
    destination.unlink(missing_ok=True)
    build_archive(
        pieces(packed) if chunks is None else chunks,
        descriptor(packed),
        digest_of(tar),
        destination,
        recipe=recipe or Recipe(),
        limits=limits or Limits(),
        progress=lambda _count: None,
    )
    return destination


def read_tree(root: Path) -> dict[bytes, Found]:
    """Everything below ``root``, and ``root`` itself as ``.``, all contents read."""
    found = {}
    waiting = [root]
    while waiting:
        path = waiting.pop()
        name = os.fsencode(path.relative_to(root))
        found[name] = _look(path)
        if found[name].kind == "directory":
            waiting += path.iterdir()
    return found


def _look(path: Path) -> Found:
    status = path.lstat()
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    content = b""
    if kind == "whiteout":
        assert status.st_rdev == 0
    elif kind == "file":
        content = path.read_bytes()
        assert len(content) == status.st_size
    elif kind == "symlink":
        content = os.fsencode(path.readlink())
    try:
        names = sorted(os.listxattr(path, follow_symlinks=False))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # an archive in which nothing has attributes
            raise
        names = []
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    return Found(
        kind, stat.S_IMODE(status.st_mode), content, status.st_nlink, status.st_uid, status.st_gid,
        int(status.st_mtime), status.st_ino, xattrs,
    )


def tree_of(tar: bytes, directory: Path, **how: Any) -> dict[bytes, Found]:
    """What a layer's archive shows when mounted."""
    archive = convert(tar, directory / "one.layer", **how)
    with mounted(archive) as root:
        return read_tree(root)
