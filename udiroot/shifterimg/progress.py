# SPDX-License-Identifier: BSD-3-Clause
"""Progress of a pull: one line that is redrawn on a terminal, a line per state everywhere else."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from udiroot.shifterimg import images, output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

    from udiroot.shifterimg.settings import ImageName

_ERASE = "\r\x1b[2K"
_COUNTED = re.compile(r"(?P<phase>.*): (?P<done>\d{1,18})/(?P<total>\d{1,18}) bytes")
_RATE_SECONDS = 5.0
_THOUSAND = 1000
_USUAL_COLUMNS = 80


class Silence:
    """Nothing, where the result alone counts."""

    def show(self, record: Mapping[str, Any]) -> None:
        """Say nothing about the answer of a gateway."""

    def end(self) -> None:
        """Nothing is left open."""


class Lines:
    """A line whenever the state changes: for logs, pipes and `--verbose`."""

    def __init__(self, image: ImageName, stream: TextIO) -> None:
        self._image = image
        self._stream = stream
        self._shown = ""

    def show(self, record: Mapping[str, Any]) -> None:
        """Report the answer of a gateway."""
        status = images.status(record)
        if status != self._shown:
            print(output.progress_line(self._image, status), file=self._stream, flush=True)
            self._shown = status

    def end(self) -> None:
        """Nothing is left open."""


class LiveLine:
    """One line, redrawn with phase, bytes and rate; the last one is left as the contract's line."""

    def __init__(self, image: ImageName, stream: TextIO, columns: Callable[[], int] | None = None) -> None:
        self._image = image
        self._stream = stream
        self._columns = columns or (lambda: terminal_columns(stream))
        self._rate = Rate(time.monotonic)
        self._open = False

    def show(self, record: Mapping[str, Any]) -> None:
        """Redraw the line after an answer of a gateway."""
        status = images.status(record)
        line = output.progress_line(self._image, status)
        if status in images.IN_PROGRESS:
            line = self._fit(line, status, describe(images.text(record, "status_message"), self._rate))
        self._open = True  # before the line is there: an interruption may come at any moment
        self._stream.write(f"{_ERASE}{line}")
        self._stream.flush()

    def _fit(self, line: str, status: str, detail: str) -> str:
        """``line`` and ``detail``; on a narrow terminal without what the user has just typed."""
        # One column stays free: a full line would wrap, and could not be erased.
        width = max(1, self._columns() - 1)
        full = f"{line}  {detail}".rstrip()
        return full if len(full) <= width else f"{status}: {detail or self._image}"[:width]

    def end(self) -> None:
        """Leave the line, so that what follows starts on one of its own."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False


def terminal_columns(stream: TextIO) -> int:
    """Width of the terminal right now: people change it."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_COLUMNS
    except OSError:
        return _USUAL_COLUMNS


class Rate:
    """Bytes per second over the last seconds of one phase."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._phase = ""
        self._samples: list[tuple[float, int]] = []

    def update(self, phase: str, done: int) -> float | None:
        """The rate after ``done`` bytes of ``phase``; None until there are two samples."""
        now = self._clock()
        if phase != self._phase or (self._samples and done < self._samples[-1][1]):
            self._phase, self._samples = phase, []
        self._samples = [*(sample for sample in self._samples if now - sample[0] <= _RATE_SECONDS), (now, done)]
        first_time, first_done = self._samples[0]
        return (done - first_done) / (now - first_time) if now > first_time else None


def describe(message: str, rate: Rate) -> str:
    """``status_message`` for people: ``Phase: 123/456 bytes`` becomes sizes and a rate, other texts stay."""
    counted = _COUNTED.fullmatch(message)
    if counted is None:
        return "" if message == images.MISSING else output.printable(message)
    done, total = int(counted["done"]), int(counted["total"])
    speed = rate.update(counted["phase"], done)
    text = f"{output.printable(counted['phase'])} {size(done)} of {size(total)}"
    return text if speed is None else f"{text}, {size(speed)}/s"


def size(count: float) -> str:
    """Bytes with the largest decimal unit that leaves a digit before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < _THOUSAND:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _THOUSAND
    return f"{count:.1f} TB"


def choose(image: ImageName, *, verbose: bool, machine: bool) -> Lines | LiveLine | Silence:
    """How to show a pull: with a machine reading standard output, on standard error and only when asked."""
    if machine:
        return Lines(image, sys.stderr) if verbose else Silence()
    if sys.stdout.isatty() and not verbose:
        return LiveLine(image, sys.stdout)
    return Lines(image, sys.stdout)
