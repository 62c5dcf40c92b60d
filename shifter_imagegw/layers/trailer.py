# SPDX-License-Identifier: BSD-3-Clause
"""What stands behind the file system in a layer archive: by what the merge finds equal files, and a damaged or foreign
file is found out.

The superblock says where the file system ends (squashfs format 4.0, ``bytes_used``); what follows is nobody's but ours.
There the digest table begins: 16 bytes for each inode, in the order of their numbers (``squashfs/writer/digests.h``).
The file is zeros from its end to the trailer, which is the file's last 96 bytes, and a multiple of 4096 bytes long, so
that a loop device shows all of it:

====== ====== =======================================================================================================
offset length
====== ====== =======================================================================================================
0      16     ``shifter layer 2\\n``
16     8      ``bytes_used``, little endian
24     8      size of the digest table in bytes, little endian
32     32     SHA-256 of the key: which layer, by which recipe
64     32     SHA-256 of what lies between superblock (96 bytes) and zeros, then of the superblock, then of the key
====== ====== =======================================================================================================
"""

from __future__ import annotations

import hashlib
import os
import stat

_MAGIC = b"shifter layer 2\n"
_SIZE = 96
_PAGE = 4096
_SUPERBLOCK = 96
_DIGEST = 16
_CHUNK = 1 << 20


class TrailerError(Exception):
    """The file is not the archive it should be; the text says what is wrong with it."""


def write_trailer(fd: int, bytes_used: int, inodes: int, checksum: bytes, key: str) -> None:
    """Finish the archive with a file system of ``bytes_used`` bytes and the digests of ``inodes`` behind it.

    ``checksum`` is that of ``_writer.Summary``. OSError: disk full.
    """
    table = inodes * _DIGEST
    end = _file_size(bytes_used + table)
    sizes = bytes_used.to_bytes(8, "little") + table.to_bytes(8, "little")
    trailer = b"".join((_MAGIC, sizes, _key_digest(key), _seal(checksum, key)))
    os.ftruncate(fd, end)
    offset = end - _SIZE
    while offset < end:
        offset += os.pwrite(fd, trailer[offset - end :], offset)


def check_trailer(fd: int, key: str) -> None:
    """The quick look: sizes, magic numbers, key. TrailerError when it is not the archive of ``key``."""
    _read_trailer(fd, key)


def verify_archive(fd: int, key: str) -> None:
    """Hash the whole file. TrailerError when it is damaged."""
    end, sealed = _read_trailer(fd, key)
    sha256 = hashlib.sha256()
    offset = _SUPERBLOCK
    while offset < end:
        chunk = os.pread(fd, min(_CHUNK, end - offset), offset)
        if not chunk:
            raise TrailerError("the file became shorter while it was read")
        sha256.update(chunk)
        offset += len(chunk)
    sha256.update(_read(fd, _SUPERBLOCK, 0))
    if _seal(sha256.digest(), key) != sealed:
        raise TrailerError("its content is damaged")


def _read_trailer(fd: int, key: str) -> tuple[int, bytes]:
    """Where the digest table ends, and the seal."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size < _PAGE or status.st_size % _PAGE != 0:
        raise TrailerError("its size is not that of an archive")
    trailer = _read(fd, _SIZE, status.st_size - _SIZE)
    superblock = _read(fd, _SUPERBLOCK, 0)
    if trailer[:16] != _MAGIC or superblock[:4] != b"hsqs":
        raise TrailerError("it is no layer archive")
    # struct squashfs_super_block: the number of inodes at 4, bytes_used at 40.
    table = int.from_bytes(superblock[4:8], "little") * _DIGEST
    end = int.from_bytes(superblock[40:48], "little") + table
    sizes = superblock[40:48] + table.to_bytes(8, "little")
    if trailer[16:32] != sizes or _file_size(end) != status.st_size:
        raise TrailerError("it is cut off or longer than it should be")
    if trailer[32:64] != _key_digest(key):
        raise TrailerError("it is the archive of another layer or recipe")
    return end, trailer[64:]


def _file_size(end: int) -> int:
    return -(-(end + _SIZE) // _PAGE) * _PAGE


def _read(fd: int, size: int, offset: int) -> bytes:
    """All of it, unless the file ends before: one pread may give less than there is."""
    content = b""
    while len(content) < size:
        chunk = os.pread(fd, size - len(content), offset + len(content))
        if not chunk:
            break
        content += chunk
    return content


def _key_digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _seal(checksum: bytes, key: str) -> bytes:
    return hashlib.sha256(checksum + key.encode()).digest()
