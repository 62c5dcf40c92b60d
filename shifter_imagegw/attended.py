# SPDX-License-Identifier: BSD-3-Clause
"""Waiting for a registry without being at its mercy: others wait, and whoever started them may leave at any time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Callable, TypeVar

CHECK_SECONDS = 0.2

_T = TypeVar("_T")


def attended(tasks: Sequence[Callable[[], _T]], parallel: int, check: Callable[[], None]) -> list[_T]:
    """The results of ``tasks``, in their order, ``parallel`` at once; or the first error of one of them.

    ``check`` is called a few times per second and may raise to end the waiting. What has not begun by then never
    begins; what waits for a registry stays behind until that answers or its time-out strikes.
    """
    todo = iter(enumerate(tasks))
    lock = threading.Lock()
    left = threading.Event()
    results: queue.SimpleQueue[tuple[int, _T | BaseException]] = queue.SimpleQueue()

    def run() -> None:
        while not left.is_set():
            with lock:
                number, task = next(todo, (-1, None))
            if task is None:
                return
            try:
                results.put((number, task()))
            except BaseException as error:
                results.put((number, error))

    for number in range(min(parallel, len(tasks))):
        # Daemons: a registry that keeps one waiting must not keep the process from ending.
        threading.Thread(target=run, name=f"attended-{number}", daemon=True).start()
    found: dict[int, _T] = {}
    try:
        while len(found) < len(tasks):
            try:
                number, outcome = results.get(timeout=CHECK_SECONDS)
            except queue.Empty:
                check()
                continue
            if isinstance(outcome, BaseException):
                raise outcome
            found[number] = outcome
    finally:
        left.set()
    return [found[number] for number in range(len(tasks))]
