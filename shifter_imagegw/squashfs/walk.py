# SPDX-License-Identifier: BSD-3-Clause
"""What is in a squashfs, without mounting it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shifter_imagegw.squashfs import _merger


class Entry(NamedTuple):
    """One name. Names, targets and xattrs are raw bytes; the root's path is empty, no path starts with a slash."""

    path: bytes
    mode: int  # type and permission bits, as st_mode
    uid: int
    gid: int
    mtime: int  # seconds since 1970
    size: int  # bytes of a file or of a link's target
    nlink: int  # names the inode has; of a directory: its subdirectories and two
    inode: int
    device: int  # as squashfs encodes it; 0 for a whiteout
    target: bytes | None  # of a symlink
    xattrs: dict[bytes, bytes]


def walk(image: Path | int) -> Iterator[Entry]:
    """All entries of the squashfs at a path or an open descriptor, depth first, each directory sorted by name.

    Raises OSError if it cannot be read, ValueError if it is damaged.
    """
    descriptor = image if isinstance(image, int) else os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        entries = _merger.entries(descriptor)
    finally:
        if descriptor is not image:
            os.close(descriptor)
    return (Entry(*entry) for entry in entries)
