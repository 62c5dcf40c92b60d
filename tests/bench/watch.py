# SPDX-License-Identifier: BSD-3-Clause
"""What a contender takes besides time: processor, memory, disk. The same measure for ours and for the others."""

from __future__ import annotations

import os
import re
import resource
import shutil
import statistics
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_PERIOD_SECONDS = 0.05
_XFS_BYTES = 6 << 30


@dataclass(frozen=True)
class Sample:
    """One run of one contender; MB are 10^6 bytes."""

    seconds: float
    cpu_seconds: float
    memory_mb: float  # high-water mark of the largest process (VmHWM)
    read_mb: float  # from the disk: read_bytes of /proc/PID/io
    written_mb: float  # to the disk: write_bytes of /proc/PID/io
    disk_mb: float | None  # most that the place held at once, with the result; None where others write there too
    result_mb: float  # its length, as that of scratch files: what a file system adds to them varies
    scratch_mb: float = 0.0  # ours: most that files which are no result took at once


class Spent(NamedTuple):
    """Processor seconds, and bytes from and to the disk."""

    cpu_seconds: float
    read: int
    written: int

    def since(self, earlier: Spent) -> Spent:
        """The difference."""
        return Spent(self.cpu_seconds - earlier.cpu_seconds, self.read - earlier.read, self.written - earlier.written)


def spent_by_children() -> Spent:
    """What this process and the children it has waited for have spent; their own children count with them."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(usage.ru_utime + usage.ru_stime, *_disk(Path("/proc/self/io")))


def spent_by_session(session: int) -> Spent:
    """What the living processes of a session have spent."""
    cpu, read, written = 0.0, 0, 0
    for process in processes((session,)):
        try:
            fields = (process / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            cpu += (int(fields[11]) + int(fields[12])) / _TICKS  # utime, stime: proc(5)
            more = _disk(process / "io")
        except OSError:
            continue
        read, written = read + more[0], written + more[1]
    return Spent(cpu, read, written)


def processes(sessions: Collection[int]) -> Iterator[Path]:
    """The directories below /proc of all processes of these sessions."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(directory.name)) in sessions:
                yield directory
        except OSError:
            continue


def _disk(io: Path) -> tuple[int, int]:
    found = dict(line.split(": ") for line in io.read_text(encoding="ascii").splitlines())
    return int(found["read_bytes"]), int(found["write_bytes"])


@dataclass(frozen=True)
class Place:
    """Where contenders work: a file system of the bench's own, or a directory on the machine's disk."""

    name: str
    directory: Path

    @property
    def work(self) -> Path:
        """The directory of whoever runs now."""
        return self.directory / "work"

    def empty(self) -> Path:
        """Remove what the last one left; what it wrote shall not be written in the next one's time."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True, mode=0o755)
        os.sync()
        return self.work

    def used(self) -> int | None:
        """Bytes in use; None where others use the same file system."""
        if not self.directory.is_mount():
            return None
        status = os.statvfs(self.directory)
        return (status.f_blocks - status.f_bfree) * status.f_frsize


@contextmanager
def places(base: Path) -> Iterator[Mapping[str, Place]]:
    """The disk below ``base``; a tmpfs, and an XFS in a file on the disk, mounted for the time of the context."""
    found = {name: Place(name, base / name) for name in ("tmpfs", "xfs", "disk")}
    mounts = [found["tmpfs"].directory, found["xfs"].directory]
    for place in found.values():
        place.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    for directory in mounts:
        if directory.is_mount():  # of a bench that was killed
            subprocess.run(["umount", str(directory)], check=True)
    try:
        options = "mode=0755,size=6g,nr_inodes=2m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "shifter-bench", str(mounts[0])], check=True)
        _mount_xfs(base / "xfs.img", mounts[1])
        yield found
    finally:
        for directory in filter(Path.is_mount, mounts):
            subprocess.run(["umount", str(directory)], check=True)
        shutil.rmtree(base)


def _mount_xfs(disk: Path, directory: Path) -> None:
    """As a site's XFS does, this one writes straight to the disk: pages are kept once, and a sync is one."""
    with disk.open("wb") as file:
        file.truncate(_XFS_BYTES)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(disk)], check=True)
    losetup = ["losetup", "--find", "--show", "--direct-io=on", str(disk)]
    device = subprocess.run(losetup, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    try:
        subprocess.run(["mount", "-t", "xfs", device, str(directory)], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)  # once it is unmounted, losetup(8)


class Watch:
    """Looks 20 times a second at the processes of ``sessions`` and at the place, as long as its context lasts."""

    def __init__(self, place: Place, sessions: Collection[int], scratch: Callable[[], int] = lambda: 0) -> None:
        self.place = place
        self.sessions = sessions
        self.scratch = scratch
        self.memory_mb = 0.0
        self.disk_mb: float | None = None
        self.scratch_mb = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._used_before = place.used()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._ended.wait(_PERIOD_SECONDS):
            self._look()

    def _look(self) -> None:
        for process in processes(self.sessions):
            try:
                status = (process / "status").read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
            found = re.search(r"VmHWM:\s*(\d+)", status)
            if found is not None:
                self.memory_mb = max(self.memory_mb, int(found[1]) * 1024 / 1e6)
        used = self.place.used()
        if used is not None and self._used_before is not None:
            self.disk_mb = max(self.disk_mb or 0.0, (used - self._used_before) / 1e6)
        self.scratch_mb = max(self.scratch_mb, self.scratch() / 1e6)


def middle(samples: Sequence[Sample | None], field: str) -> float | None:
    """The median of one field; None where the contender was absent or there is no such figure."""
    values = [getattr(sample, field) for sample in samples if sample is not None]
    return statistics.median(values) if values and None not in values else None
