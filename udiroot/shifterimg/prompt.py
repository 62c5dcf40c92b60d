# SPDX-License-Identifier: BSD-3-Clause
"""Asks for user name and password on the terminal; a signal leaves it as it was (gateway contract, section 15.6)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from udiroot.shifterimg import output
from udiroot.shifterimg.errors import LoginsUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_LONGEST_LINE = 64 * 1024


def ask_login(location: str) -> tuple[str, str]:
    """User name and password; LoginsUnusable when the input ends before both are there."""
    with _unwinding(), _source() as source:
        user = _ask(f"{location} username: ", source)
        with _echo_off(source):
            password = _ask(f"{location} password: ", source)
        return user, password


@contextmanager
def _source() -> Iterator[int]:
    try:
        source = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        output.tell("no terminal: user name and password are read from standard input")
        yield 0
        return
    try:
        yield source
    finally:
        os.close(source)


def _ask(question: str, source: int) -> str:
    print(question, end="", file=sys.stderr, flush=True)
    line = bytearray()
    # Byte by byte: what follows the line belongs to the next reader.
    while (byte := os.read(source, 1)) not in (b"", b"\n"):
        line += byte
        if len(line) > _LONGEST_LINE:
            raise LoginsUnusable("the input is too long for a login")
    if byte != b"\n" and not line:
        raise LoginsUnusable("the input ended before the login was complete; nothing was stored")
    return line.decode("utf-8", "surrogateescape").rstrip("\r")


@contextmanager
def _echo_off(source: int) -> Iterator[None]:
    try:
        before = termios.tcgetattr(source)
    except termios.error:
        yield
        return
    silent = list(before)
    silent[3] = before[3] & ~termios.ECHO
    termios.tcsetattr(source, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(source, termios.TCSADRAIN, before)
        print(file=sys.stderr, flush=True)


@contextmanager
def _unwinding() -> Iterator[None]:
    """SIGTERM unwinds the stack, as SIGINT does by itself, so that the terminal is restored."""
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
