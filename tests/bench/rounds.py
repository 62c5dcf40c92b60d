# SPDX-License-Identifier: BSD-3-Clause
"""Runs contenders in turn, so that a slow minute of the machine hits all of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Found = TypeVar("Found")
Contender = Callable[[], float]


def alternate(contenders: Mapping[str, Callable[[], Found]], rounds: int) -> dict[str, list[Found]]:
    """Each contender once per round, in an order that rotates; returns what each call returned."""
    samples: dict[str, list[Found]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            say(f"round {turn + 1}/{rounds}: {name}")
            samples[name].append(contenders[name]())
    return samples


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def say(text: str) -> None:
    """Progress, on standard error only."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
