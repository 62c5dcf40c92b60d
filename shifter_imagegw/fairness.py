# SPDX-License-Identifier: BSD-3-Clause
"""Places for the layers of all pulls of a process, shared so that a large image does not keep a small one waiting."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Callable

from shifter_imagegw.attended import CHECK_SECONDS


class FairGate:
    """``places`` for layers at work. A pull always has its first place at once, also when all are taken; a place that
    becomes free goes to the waiting pull that has the fewest, among equals to the one that waits longest.

    So the number at work is bounded by ``places`` and one for each pull. Used by any number of threads.
    """

    def __init__(self, places: int = sys.maxsize) -> None:
        self._places = places
        self._changed = threading.Condition()
        self._held: Counter[Hashable] = Counter()
        self._waiting: list[_Ticket] = []

    @contextmanager
    def place(self, pull: Hashable, check: Callable[[], None]) -> Iterator[None]:
        """Have a place. ``check`` is called while there is none, and may raise to give up."""
        ticket = _Ticket(pull)
        with self._changed:
            self._waiting.append(ticket)
            try:
                while not self._is_next(ticket):
                    self._changed.wait(CHECK_SECONDS)
                    check()
                self._held[pull] += 1
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()  # whose turn it is may be another's now
        try:
            yield
        finally:
            with self._changed:
                self._held[pull] -= 1
                if not self._held[pull]:
                    del self._held[pull]
                self._changed.notify_all()

    def _is_next(self, ticket: _Ticket) -> bool:
        if not self._held[ticket.pull]:
            return True
        if sum(self._held.values()) >= self._places:
            return False
        return ticket is min(self._waiting, key=lambda waiting: self._held[waiting.pull])


class _Ticket:
    """One thread that waits; told from others of its pull by identity."""

    def __init__(self, pull: Hashable) -> None:
        self.pull = pull
