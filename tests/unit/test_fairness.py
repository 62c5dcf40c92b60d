# SPDX-License-Identifier: BSD-3-Clause
"""Who gets the next place: first places at once, then the pull that has the fewest."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from shifter_imagegw.fairness import FairGate


class Enough(Exception):
    pass


class Layers:
    """Threads that want places of a gate; each keeps its own until ``leave``."""

    def __init__(self, gate: FairGate) -> None:
        self.gate = gate
        self.entered: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.ends: dict[str, threading.Event] = {}
        self.threads: dict[str, threading.Thread] = {}

    def want(self, name: str) -> None:
        """``name`` is the pull's letter and a number of its layer; returns when it has a place or waits for one."""
        asked = threading.Event()
        end = self.ends[name] = threading.Event()

        def run() -> None:
            with self.gate.place(name[0], asked.set):
                self.entered.put(name)
                asked.set()
                assert end.wait(60)

        thread = self.threads[name] = threading.Thread(target=run)
        thread.start()
        assert asked.wait(60)

    def leave(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
            self.threads[name].join(60)

    def next(self) -> str:
        return self.entered.get(timeout=60)

    def nobody(self) -> bool:
        return self.entered.empty()


@contextmanager
def layers(places: int) -> Iterator[Layers]:
    found = Layers(FairGate(places))
    yield found
    assert found.nobody()
    for name in found.threads:
        found.ends[name].set()
    for thread in found.threads.values():
        thread.join(60)
    assert found.gate._held == {}
    assert found.gate._waiting == []


def test_one_pull_has_all_places_and_no_more() -> None:
    with layers(2) as all_layers:
        for name in ("a1", "a2", "a3", "a4"):
            all_layers.want(name)
        assert [all_layers.next(), all_layers.next()] == ["a1", "a2"]
        assert all_layers.nobody()
        all_layers.leave("a1")
        assert all_layers.next() == "a3"
        all_layers.leave("a3")
        assert all_layers.next() == "a4"


def test_the_first_place_is_there_at_once() -> None:
    with layers(2) as all_layers:
        for name in ("a1", "a2", "a3", "b1", "c1"):
            all_layers.want(name)
        assert [all_layers.next() for _ in range(4)] == ["a1", "a2", "b1", "c1"]
        # Four at work in two places: nobody gets a second one before there are fewer than two.
        all_layers.leave("a1", "b1")
        assert all_layers.nobody()
        all_layers.leave("c1")
        assert all_layers.next() == "a3"


def test_a_free_place_goes_to_the_pull_that_has_the_fewest() -> None:
    with layers(4) as all_layers:
        for name in ("a1", "a2", "a3", "a4", "a5", "a6", "b1", "b2", "b3"):
            all_layers.want(name)
        assert [all_layers.next() for _ in range(5)] == ["a1", "a2", "a3", "a4", "b1"]
        all_layers.leave("a1")
        assert all_layers.nobody()
        all_layers.leave("a2")
        assert all_layers.next() == "b2"  # two and two by now
        for leaving, entering in (("a3", "a5"), ("b1", "b3"), ("b2", "a6")):
            all_layers.leave(leaving)
            assert all_layers.next() == entering


def test_among_equals_the_one_that_waits_longest_is_next() -> None:
    with layers(4) as all_layers:
        for name in ("a1", "b1", "c1", "d1", "c2", "a2", "b2"):
            all_layers.want(name)
        assert [all_layers.next() for _ in range(4)] == ["a1", "b1", "c1", "d1"]
        for leaving, entering in (("d1", "c2"), ("c1", "a2"), ("a1", "b2")):
            all_layers.leave(leaving)
            assert all_layers.next() == entering


def test_who_waits_may_give_up() -> None:
    with layers(1) as all_layers, ExitStack() as stack:
        all_layers.want("a1")
        assert all_layers.next() == "a1"

        def give_up() -> None:
            raise Enough

        with pytest.raises(Enough):
            stack.enter_context(all_layers.gate.place("a", give_up))
        all_layers.want("a2")
        all_layers.leave("a1")
        assert all_layers.next() == "a2"


def test_a_place_is_free_again_after_a_failure() -> None:
    gate = FairGate(1)
    for _ in range(3):
        with pytest.raises(Enough), gate.place("a", lambda: None):
            raise Enough
    with gate.place("a", lambda: None):
        assert gate._waiting == []
