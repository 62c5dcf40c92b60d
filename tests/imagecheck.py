# SPDX-License-Identifier: BSD-3-Clause
"""Whether three readers that are not ours take an image as it is: squashfs-tools, squashfs-tools-ng and the kernel.

Each reads all of it, streamed: neither a copy on disk nor a list of names is kept, so a million names are no matter.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from tests.imagetree import mounted

_CHUNK = 1 << 20
_BLOCK = 512
_NO_ENTRIES = b"xgLK"  # they tell more about the entry that follows (pax(1), GNU tar's "Basic Tar Format")


class Contents(NamedTuple):
    """What the readers agree on. What has several names counts once in ``bytes`` and ``checksum``."""

    entries: int  # names, the root among them
    bytes: int  # of regular files, holes included
    checksum: int  # the sum of the files' CRC-32


def check_image(image: Path) -> Contents:
    """Assert that ``unsquashfs -lls``, ``sqfs2tar`` and a kernel read all of the squashfs, and the same of it.

    unsquashfs lists all names, sqfs2tar all names, attributes and contents; through a mount, every file, link, and
    attribute is read. As root.
    """
    with mounted(image) as root:
        contents, line_breaks = _read_tree(os.fsencode(root))
    with _output("unsquashfs", "-lls", str(image)) as listing:
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: listing.read(_CHUNK), b""))
    assert lines == contents.entries + line_breaks, f"unsquashfs lists {lines} lines, the kernel {contents}"
    with _output("sqfs2tar", "--no-skip", "--root-becomes", ".", str(image)) as tar:
        written = _read_tar(tar)
    assert written == contents, f"sqfs2tar writes {written}, the kernel shows {contents}"
    return contents


@contextmanager
def _output(*command: str) -> Iterator[IO[bytes]]:
    """The standard output of a program that must end well and complain about nothing."""
    # The sanitizers of a sanitized run (test_sanitized) are for our code.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    with tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, env=environment) as process:
            assert process.stdout is not None
            yield process.stdout
        complaints.seek(0)
        complaint = complaints.read(2000)
    assert (process.returncode, complaint) == (0, b""), f"{' '.join(command)}: {process.returncode}, {complaint!r}"


def _read_tree(root: bytes) -> tuple[Contents, int]:
    """What lies at and below a directory, and how many line breaks a listing of it has within names and targets."""
    entries = size = checksum = line_breaks = 0
    linked: set[int] = set()
    has_xattrs = _read_xattrs(root)
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        inner = directory.count(b"\n") - root.count(b"\n")
        with os.scandir(directory) as children:
            for child in children:
                entries += 1
                line_breaks += inner + child.name.count(b"\n")
                status = child.stat(follow_symlinks=False)
                if has_xattrs:
                    _read_xattrs(child.path)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(child.path)
                elif stat.S_ISLNK(status.st_mode):
                    target = os.readlink(child.path)  # noqa: PTH115 - Path.readlink would tidy it
                    assert len(target) == status.st_size, child.path
                    line_breaks += target.count(b"\n")
                elif stat.S_ISREG(status.st_mode) and status.st_ino not in linked:
                    if status.st_nlink > 1:
                        linked.add(status.st_ino)
                    size += status.st_size
                    checksum += _read_file(child.path, status.st_size)
    return Contents(1 + entries, size, checksum), line_breaks


def _read_file(path: bytes, size: int) -> int:
    """The CRC-32 of a file that must have ``size`` bytes."""
    if size == 0:
        return 0
    crc = found = 0
    descriptor = os.open(path, os.O_RDONLY)  # a file object for each of a million takes its time
    try:
        while chunk := os.read(descriptor, _CHUNK):
            crc, found = zlib.crc32(chunk, crc), found + len(chunk)
    finally:
        os.close(descriptor)
    assert found == size, f"{path!r} has {found} of {size} bytes"
    return crc


def _read_xattrs(path: bytes) -> bool:
    """Read all attributes; False where the image has none and the kernel says so."""
    try:
        for name in os.listxattr(path, follow_symlinks=False):
            os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    return True


def _read_tar(tar: IO[bytes]) -> Contents:
    """Counted here and not by tarfile, which takes a minute for a million entries. A tar that is cut off has less."""
    entries = size = checksum = 0
    while (header := tar.read(_BLOCK)).strip(b"\0"):
        kind, length = header[156:157], _number(header[124:136])
        if kind in _NO_ENTRIES:
            tar.read(length + -length % _BLOCK)
            continue
        entries += 1
        if kind == b"0" and length:
            crc, found = _checksum(tar, length)
            tar.read(-length % _BLOCK)
            size, checksum = size + found, checksum + crc
    while tar.read(_CHUNK):
        pass
    return Contents(entries, size, checksum)


def _number(field: bytes) -> int:
    """Octal, or from 8 GiB on GNU's base 256."""
    return int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(field.rstrip(b" \0") or b"0", 8)


def _checksum(stream: IO[bytes], size: int) -> tuple[int, int]:
    """CRC-32 of up to ``size`` bytes, and how many there were."""
    crc, left = 0, size
    while left and (chunk := stream.read(min(left, _CHUNK))):
        crc, left = zlib.crc32(chunk, crc), left - len(chunk)
    return crc, size - left
