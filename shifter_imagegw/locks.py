# SPDX-License-Identifier: BSD-3-Clause
"""Names that a living process holds: an flock(2) goes with its holder, so debris is what nobody has locked."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILE_MODE = 0o600

UNSUPPORTED = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK})
"""What flock says on a file system without locks (Lustre without ``-o flock``, NFS without a lock service)."""


@contextmanager
def locked(path: Path, flags: int) -> Iterator[int | None]:
    """The file, opened and locked; None when somebody else has the lock, or the name belongs to another file by now.

    A lock on NFS takes a descriptor for writing (flock(2)). OSError, also where the file system has no locks.
    """
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
    try:
        yield fd if lock_file(fd, path) else None
    finally:
        os.close(fd)


def lock_file(fd: int, path: Path) -> bool:
    """Whether ``fd`` is locked and ``path`` still its name; OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(path.lstat(), os.fstat(fd))
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
