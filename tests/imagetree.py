# SPDX-License-Identifier: BSD-3-Clause
"""File trees as tests compare them: what a kernel shows of a mounted image or of an unpacked one."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """One name: everything the differential tests compare. `names`: all names of the inode, sorted."""

    kind: str  # the letter of ls(1)
    mode: int
    mtime: int
    content: bytes  # sha256 of a file, target of a symlink
    size: int
    names: tuple[bytes, ...] = ()


@contextmanager
def mounted(image: Path, *options: str) -> Iterator[Path]:
    """The squashfs, mounted read-only through a loop device of its own."""
    with _mount("-t", "squashfs", "-o", ",".join(("loop", "ro", *options)), str(image)) as target:
        yield target


@contextmanager
def mounted_disk(disk: Path) -> Iterator[Path]:
    """The filesystem in the file, mounted to be written to."""
    with _mount("-o", "loop", str(disk)) as target:
        yield target


def contents(image: Path) -> dict[str, bytes]:
    """The files in the root of the squashfs, by name."""
    with mounted(image) as root:
        return {path.name: path.read_bytes() for path in root.iterdir()}


@contextmanager
def overlaid(layers: Sequence[Path]) -> Iterator[Path]:
    """Mounted layers, oldest first, as overlayfs shows them: a second opinion on whiteouts and opaque directories."""
    lower = ":".join(str(layer) for layer in reversed(layers))
    with _mount("-t", "overlay", "-o", f"ro,lowerdir={lower}", "overlay") as target:
        yield target


@contextmanager
def _mount(*arguments: str) -> Iterator[Path]:
    # Not in /tmp: other suites show that in their containers, and what is mounted there stays busy with them.
    target = Path(tempfile.mkdtemp(prefix="shifter-mount-", dir="/run"))
    try:
        subprocess.run(["mount", *arguments, str(target)], check=True)
    except subprocess.CalledProcessError:
        target.rmdir()
        raise
    try:
        yield target
    finally:
        _unmount(target)


def _unmount(target: Path) -> None:
    """Another suite's container may show a copy for a moment: then the kernel calls the mount or its place busy."""
    deadline = time.monotonic() + 20

    def wait() -> None:
        assert time.monotonic() < deadline, f"{target} stays busy"
        time.sleep(0.1)

    while subprocess.run(["umount", str(target)], capture_output=True, check=False).returncode != 0:
        wait()
    while True:
        try:
            return target.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        wait()


def listing(root: Path) -> dict[bytes, Item]:
    """All names below `root` (itself is ""), every file read to its end."""
    found: dict[bytes, Item] = {}
    inodes: dict[tuple[int, int], list[bytes]] = {}
    for path, full in _walk(root, b""):
        status = full.lstat()
        found[path] = _item(full, status)
        inodes.setdefault((status.st_dev, status.st_ino), []).append(path)
    for names in inodes.values():
        for name in names:
            item = found[name]
            found[name] = Item(item.kind, item.mode, item.mtime, item.content, item.size, tuple(sorted(names)))
    return found


def _walk(full: Path, path: bytes) -> Iterator[tuple[bytes, Path]]:
    yield path, full
    if full.is_dir() and not full.is_symlink():
        for child in sorted(full.iterdir()):
            # overlayfs lists the whiteouts of a directory that only one layer has, although nothing can be found there.
            if child.exists() or child.is_symlink():
                name = os.fsencode(child.name)
                yield from _walk(child, path + b"/" + name if path else name)


def _item(full: Path, status: os.stat_result) -> Item:
    kind = stat.filemode(status.st_mode)[0]
    mode, mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    if kind == "-":
        return Item(kind, mode, mtime, hashlib.sha256(full.read_bytes()).digest(), status.st_size)
    if kind == "l":
        # No file system gives symlinks permissions that mean anything. Path.readlink would tidy the target.
        return Item(kind, 0o777, mtime, os.fsencode(os.readlink(full)), status.st_size)  # noqa: PTH115
    return Item(kind, mode, mtime, b"", 0)
