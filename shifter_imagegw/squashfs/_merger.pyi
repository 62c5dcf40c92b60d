# SPDX-License-Identifier: BSD-3-Clause
from collections.abc import Callable, Sequence

class FileError(OSError):
    """A system call failed; ``filename`` is the index of the archive it was on, None for the destination."""

class ArchiveError(ValueError):
    """args: (index of the archive, reason): it is no squashfs we read, or damaged."""

class EntryError(ValueError):
    """args: (index of the archive, path of the entry as raw bytes, reason)."""

def merge(archives: Sequence[int], destination: int, check: Callable[[], object]) -> tuple[int, int, int, int]: ...
def entries(
    fd: int,
) -> list[tuple[bytes, int, int, int, int, int, int, int, int, bytes | None, dict[bytes, bytes]]]: ...
def examine(fd: int, check: Callable[[], object]) -> tuple[str, int, int, int, int]: ...
