# SPDX-License-Identifier: BSD-3-Clause
"""Results in order, the first error at once, and no waiting for what does not answer."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from shifter_imagegw.attended import attended


class Enough(Exception):
    pass


def test_results_come_in_the_order_of_the_tasks() -> None:
    barrier = threading.Barrier(3)

    def task(number: int) -> int:
        if number < 3:
            barrier.wait(60)  # only when they run side by side
        return number

    assert attended([partial(task, number) for number in range(20)], 3, lambda: None) == list(range(20))
    assert attended([], 3, lambda: None) == []


def test_the_first_error_ends_it_and_nothing_new_begins() -> None:
    over = threading.Event()
    begun: list[int] = []

    def task(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise Enough
        over.wait(60)

    with pytest.raises(Enough):
        attended([partial(task, number) for number in range(10)], 2, lambda: None)
    assert len(begun) < 10
    over.set()


def test_the_check_ends_it_while_tasks_hang() -> None:
    over = threading.Event()

    def check() -> None:
        raise Enough

    with pytest.raises(Enough):
        attended([partial(over.wait, 60)], 1, check)
    over.set()
