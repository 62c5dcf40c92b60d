# SPDX-License-Identifier: BSD-3-Clause
"""Users and groups of the gateway host, remembered for a minute: a name service must not be asked at every request."""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

UNKNOWN = "???"
"""Name of an id that this host does not know, as munge prints it (gateway contract, section 3.2)."""

_SECONDS = 60.0
_MAX_ENTRIES = 10_000

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Remembered(Generic[Key, Value]):
    """A function whose answers hold for a while; two threads may ask the same at once, which costs little."""

    def __init__(self, ask: Callable[[Key], Value], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._answers: dict[Key, tuple[float, Value]] = {}

    def __call__(self, key: Key) -> Value:
        now = self._clock()
        found = self._answers.get(key)
        if found is not None and now < found[0]:
            return found[1]
        value = self._ask(key)
        if len(self._answers) >= _MAX_ENTRIES:
            self._answers.clear()
        self._answers[key] = (now + _SECONDS, value)
        return value


class Accounts:
    """Look-ups by number. ``clock`` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.user_name: Callable[[int], str] = _Remembered(_user_name, clock)
        self.group_name: Callable[[int], str] = _Remembered(_group_name, clock)
        self.groups_of: Callable[[int], frozenset[int]] = _Remembered(_groups_of, clock)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return UNKNOWN


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return UNKNOWN


def _groups_of(uid: int) -> frozenset[int]:
    """All groups of a user as getgrouplist(3) has them; an unknown uid has none."""
    try:
        user = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return frozenset()
    return frozenset(os.getgrouplist(user.pw_name, user.pw_gid))
