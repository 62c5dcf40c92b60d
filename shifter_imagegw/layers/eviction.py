# SPDX-License-Identifier: BSD-3-Clause
"""What goes out of the directory of layer archives: what was not used for longest, and what killed workers left.

A use sets the file's access time, explicitly: mount options decide what the kernel makes of that field. Nothing here is
locked against other workers and hosts, as they come to the same decisions: who finds a file gone counts it as removed,
and an archive that is in use stays readable without its name.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shifter_imagegw.locks import UNSUPPORTED, locked

# Names of this version and of earlier ones, which had no digest in front. Other files are none of our business.
_NAME = r"(?:(?:[0-9a-f]{128}|[0-9a-f]{64})-)?(?:[0-9a-f]{128}|[0-9a-f]{64})-[0-9a-f]{16}"
_ARCHIVE = re.compile(rf"{_NAME}\.layer")
_PART = re.compile(rf"\.{_NAME}\.[0-9a-f]{{8}}\.part")
_LOCK = re.compile(rf"\.{_NAME}\.lock")
_ABANDONED_SECONDS = 600.0
"""Longer than a living worker writes nothing; counts where hosts do not see each other's locks."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheLimits:
    """How much is kept. ValueError for what makes no sense.

    ``max_bytes`` on disk; ``min_free_percent`` of the file system stays free, whatever else fills it; ``max_idle``
    seconds without use, 0 for ever.
    """

    max_bytes: int = 200 << 30
    min_free_percent: int = 10
    max_idle: int = 0

    def __post_init__(self) -> None:
        if self.max_bytes < 1 << 20:
            raise ValueError(f"max_bytes is {self.max_bytes}, less than a megabyte: no layer would be kept")
        if not 0 <= self.min_free_percent <= 99:
            raise ValueError(f"min_free_percent is {self.min_free_percent}, not within 0 to 99")


class Stored(NamedTuple):
    """An archive on disk: ``used`` is its last use in nanoseconds since 1970, ``bytes`` what it occupies."""

    used: int
    path: Path
    bytes: int


def stored_archives(directory: Path) -> list[Stored]:
    """All archives, of any recipe and version, the least recently used first."""
    return sorted(_files(directory, _ARCHIVE))


def mark_used(fd: int) -> None:
    """Note that the archive was used just now."""
    with suppress(OSError):  # another account's file: only its turn comes sooner
        os.utime(fd, ns=(time.time_ns(), os.fstat(fd).st_mtime_ns))


def evict(directory: Path, limits: CacheLimits, coming: int = 0) -> list[Path]:
    """Remove archives until what is left, and ``coming`` bytes more, is within ``limits``; returns them. OSError."""
    archives = stored_archives(directory)
    taken = sum(file.bytes for file in archives) + sum(file.bytes for file in _files(directory, _PART))
    excess = max(taken + coming - limits.max_bytes, missing_space(directory, limits) + coming)
    expired = time.time_ns() - limits.max_idle * 10**9 if limits.max_idle else 0
    removed = []
    for archive in archives:
        if excess <= 0 and archive.used >= expired:
            break
        if _unlink_unused(archive):
            removed.append(archive.path)
            excess -= archive.bytes
    if removed:
        _log.info(
            "layer cache %s: removed %d of %d layers, not used for longest", directory, len(removed), len(archives)
        )
    if excess > 0 and removed:
        _log.warning(
            "layer cache %s: %d bytes more than allowed are used; other files fill the disk, or maxBytes is too small",
            directory, excess,
        )  # fmt: skip
    return removed


def missing_space(directory: Path, limits: CacheLimits) -> int:
    """Bytes that are taken of what shall stay free on the file system; negative while there is room. OSError."""
    status = os.statvfs(directory)
    return (status.f_blocks * limits.min_free_percent // 100 - status.f_bavail) * status.f_frsize


def sweep(directory: Path) -> list[Path]:
    """Remove what workers left that were killed; returns it."""
    left = [file.path for file in _files(directory, _PART) if _is_abandoned(file.path)]
    return [path for path in (*left, *(file.path for file in _files(directory, _LOCK))) if _unlink_unheld(path)]


def _files(directory: Path, name: re.Pattern[str]) -> Iterator[Stored]:
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if name.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield Stored(status.st_atime_ns, Path(entry.path), status.st_blocks * 512)


def _unlink_unused(archive: Stored) -> bool:
    """False when it was used, or made again, a moment ago."""
    with suppress(FileNotFoundError):
        if archive.path.lstat().st_atime_ns != archive.used:
            return False
        archive.path.unlink()
    return True


def _is_abandoned(path: Path) -> bool:
    try:
        return path.lstat().st_mtime < time.time() - _ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def _unlink_unheld(path: Path) -> bool:
    try:
        with locked(path, os.O_RDWR) as fd:
            if fd is not None:
                path.unlink()
            return fd is not None
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            _log.warning("layer cache: %s: %s", path, error.strerror)
        return False
