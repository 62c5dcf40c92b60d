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

_LOOK_SECONDS = 60.0

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
    name: str
    bytes: int


def stored_archives(directory: Path) -> list[Stored]:
    """All archives, of any recipe and version, the least recently used first."""
    return sorted(_files(directory, _ARCHIVE))


def mark_used(fd: int) -> None:
    """Note that the archive was used just now."""
    with suppress(OSError):  # another account's file: only its turn comes sooner
        os.utime(fd, ns=(time.time_ns(), os.fstat(fd).st_mtime_ns))


class Keeper:
    """Keeps a directory within ``limits``. Used by any number of threads. Methods raise OSError."""

    def __init__(self, directory: Path, limits: CacheLimits) -> None:
        self._directory = directory
        self._limits = limits
        self._room = 0
        self._looked = float("-inf")

    def make_room(self, coming: int) -> None:
        """Remove what must go before ``coming`` bytes more are written.

        Thousands of files take long to look at, so for a minute our own additions are subtracted from what was found;
        for what others add meanwhile there is the housekeeping.
        """
        fresh = time.monotonic() - self._looked < _LOOK_SECONDS
        if fresh and coming <= self._room and missing_space(self._directory, self._limits) + coming <= 0:
            self._room -= coming
        else:
            self.evict(coming)

    def evict(self, coming: int = 0) -> list[Path]:
        """Remove archives until what is left, and ``coming`` bytes more, is within the limits; returns them."""
        archives = stored_archives(self._directory)
        taken = sum(file.bytes for file in archives) + sum(file.bytes for file in _files(self._directory, _PART))
        excess = coming + max(taken - self._limits.max_bytes, missing_space(self._directory, self._limits))
        expired = time.time_ns() - self._limits.max_idle * 10**9 if self._limits.max_idle else 0
        removed = []
        for archive in archives:
            if excess <= 0 and archive.used >= expired:
                break
            path = self._directory / archive.name
            if _unlink_unused(path, archive.used):
                removed.append(path)
                excess -= archive.bytes
        self._room, self._looked = -excess, time.monotonic()
        if removed:
            self._report(len(removed), len(archives), excess)
        return removed

    def _report(self, removed: int, found: int, excess: int) -> None:
        _log.info("layer cache %s: removed %d of %d layers, not used for longest", self._directory, removed, found)
        if excess > 0:
            _log.warning(
                "layer cache %s: still %d bytes more than allowed; other files fill the disk, or maxBytes is too small",
                self._directory, excess,
            )  # fmt: skip


def missing_space(directory: Path, limits: CacheLimits) -> int:
    """Bytes that are taken of what shall stay free on the file system; negative while there is room. OSError."""
    status = os.statvfs(directory)
    return (status.f_blocks * limits.min_free_percent // 100 - status.f_bavail) * status.f_frsize


def sweep(directory: Path) -> list[Path]:
    """Remove what workers left that were killed; returns it."""
    oldest = time.time() - _ABANDONED_SECONDS
    left = [directory / file.name for pattern in (_PART, _LOCK) for file in _files(directory, pattern)]
    return [path for path in left if _is_abandoned(path, oldest) and _unlink_unheld(path)]


def _files(directory: Path, name: re.Pattern[str]) -> Iterator[Stored]:
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if name.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield Stored(status.st_atime_ns, entry.name, status.st_blocks * 512)


def _unlink_unused(path: Path, used: int) -> bool:
    """False when it was used, or made again, a moment ago."""
    with suppress(FileNotFoundError):
        if path.lstat().st_atime_ns != used:
            return False
        path.unlink()
    return True


def _is_abandoned(path: Path, oldest: float) -> bool:
    """Locks are told from abandoned ones by locking them alone: taking one away wrongly costs a second transfer."""
    try:
        return _LOCK.fullmatch(path.name) is not None or path.lstat().st_mtime < oldest
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
