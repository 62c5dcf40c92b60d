# SPDX-License-Identifier: BSD-3-Clause
"""A pull from the first request to its end: to poll is to repeat the request (gateway contract, 2.7, 5.8, 15.8)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from udiroot.shifterimg import images
from udiroot.shifterimg.errors import NoGateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FIRST_PAUSE = 0.03
_GROWTH = 1.4
_LONGEST_PAUSE = 0.5
"""Pauses between polls, seconds: a pull that takes moments is seen to end at once, a long one costs little."""

_RETRY_PAUSE = 1.0
_PATIENCE_SECONDS = 60.0
"""How long a gateway may be gone in the middle: it is being restarted, the pull itself is a worker's."""


def follow(
    ask: Callable[[], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
    note: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Ask until the state is a final one, ``show`` every answer, return the last; the errors of ``ask``."""
    record = ask()
    show(record)
    for pause in _pauses():
        if images.status(record) not in images.IN_PROGRESS:
            return record
        sleep(pause)
        record = _ask_patiently(ask, note, sleep, clock)
        show(record)
    raise AssertionError("the pauses have no end")


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)


def _ask_patiently(
    ask: Callable[[], dict[str, Any]],
    note: Callable[[str], None],
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> dict[str, Any]:
    first_failure: float | None = None
    while True:
        try:
            return ask()
        except NoGateway as error:
            now = clock()
            if first_failure is None:
                first_failure = now
                note(f"{error}; trying again for {_PATIENCE_SECONDS:.0f} seconds")
            if now - first_failure >= _PATIENCE_SECONDS:
                raise
            sleep(_RETRY_PAUSE)
