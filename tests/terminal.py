# SPDX-License-Identifier: BSD-3-Clause
"""Programs on a pseudo terminal: what a person sees and types."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence


class Terminal:
    """A program on a terminal of its own; ``master`` is the other end of it."""

    def __init__(self, command: Sequence[str], columns: int = 100, env: Mapping[str, str] | None = None) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        # setsid(1) --ctty: /dev/tty is this terminal, and its Ctrl-C is a signal.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave, env=env, cwd="/"
        )
        os.close(slave)
        self.seen = b""

    def until(self, text: bytes, timeout: float = 60) -> None:
        """Read until ``text`` has been seen."""
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 65536)

    def keeps_silent(self) -> None:
        """Wait until the program has turned the echo off."""
        deadline = time.monotonic() + 60
        while self.echo:
            assert time.monotonic() < deadline, self.seen
            time.sleep(0.01)

    def finish(self) -> int:
        """Status of the program, after reading the rest."""
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
            while data := os.read(self.master, 65536):
                self.seen += data
        os.close(self.master)
        return self.process.wait(60)

    @property
    def echo(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())
