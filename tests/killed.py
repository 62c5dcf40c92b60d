# SPDX-License-Identifier: BSD-3-Clause
"""Programs of the runtime that get a signal after any of their system calls (tests/killafter.c)."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests import oldkernel
from tests.accounts import User
from tests.faulty import compiled


@dataclass(frozen=True)
class Hit:
    """What became of one run."""

    number: int
    call: str  # the last one: class, number, second argument, result
    hit: bool  # otherwise it did its work before that call
    status: int  # negative: the signal that ended it
    said: str


class KillAfter:
    """The tracer. A command runs as `user`, as root without one; `hidden` as in tests/oldkernel.py.
    `of_child`: the calls are those of its first child, which gets the signal."""

    def __init__(self, directory: Path) -> None:
        self._program = compiled("killafter", directory)
        self._report = directory / "calls"

    def last_fork(self) -> int:
        """The number of the call, in the last run, that made the last process."""
        calls = self._report.read_text().splitlines()
        return max(number for number, call in enumerate(calls, 1) if call.startswith("fork"))

    def run(
        self, number: int, command: list[str], user: User | None = None, *,
        with_signal: int = signal.SIGKILL, hidden: Sequence[str] = (), of_child: bool = False,
    ) -> Hit:  # fmt: skip
        done = subprocess.run(
            self.traced(number, command, user, with_signal=with_signal, of_child=of_child),
            capture_output=True, text=True, cwd="/", timeout=60,
            preexec_fn=partial(oldkernel.hide, hidden) if hidden else None,
        )  # fmt: skip
        return self.outcome(number, done)

    def traced(
        self, number: int, command: list[str], user: User | None = None, *,
        with_signal: int = signal.SIGKILL, of_child: bool = False,
    ) -> list[str]:  # fmt: skip
        """What `run` runs, for those who run it elsewhere."""
        who = [user.uid, user.gid] if user else [0, 0]
        tracer = [str(self._program), str(self._report), str(int(with_signal)), f"{'-' * of_child}{number}"]
        return [*tracer, *map(str, who), *command]

    def outcome(self, number: int, done: subprocess.CompletedProcess[str]) -> Hit:
        """What came of it."""
        assert done.returncode in (0, 1), (number, done.stderr)
        *calls, last = self._report.read_text().splitlines()
        if done.returncode == 1:
            return Hit(number, "none", hit=False, status=0, said=done.stderr)
        return Hit(number, calls[-1], hit=True, status=int(last.split()[1]), said=done.stderr)

    def points(
        self, command: list[str], user: User | None = None, *,
        every: int = 1, hidden: Sequence[str] = (), of_child: bool = False,
    ) -> list[int]:  # fmt: skip
        """Runs the command to its end: every so manieth call that leaves a trace, and a few of those that do not."""
        assert not self.run(0, command, user, hidden=hidden, of_child=of_child).hit
        calls = self._report.read_text().splitlines()
        acts = [number for number, call in enumerate(calls, 1) if not call.startswith("look")]
        looks = sorted(set(range(1, len(calls) + 1)).difference(acts))
        assert len(acts) > 20
        return sorted(acts[::every] + looks[:: 10 * every])
