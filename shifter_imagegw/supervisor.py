# SPDX-License-Identifier: BSD-3-Clause
"""``serve --with-workers``: one API server and some conversion workers as children of one process.

For small sites without an init unit per process. The API decides: when it ends, everything ends with its status. A
worker that dies is started again, ever later if it keeps dying. If this process is killed, the kernel tells the
children (prctl(2), PR_SET_PDEATHSIG), so that none is left over. Signals are waited for instead of handled, so that no
child's end is missed.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_STABLE_SECONDS = 60.0
"""A worker that lived so long starts with the shortest pause again."""

_STOP_SECONDS = 30.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)

_log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class _Worker:
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = _FIRST_PAUSE_SECONDS
    due: float = 0.0


class Supervisor:
    """Runs ``server`` (argument vector) and ``count`` times ``worker``. Use it in a process without threads."""

    def __init__(self, server: Sequence[str], worker: Sequence[str], count: int) -> None:
        self._server_command = server
        self._worker_command = worker
        self._workers = [_Worker() for _ in range(count)]
        self._mask: set[signal.Signals] = set()

    def run(self) -> int:
        """Until SIGTERM, SIGINT or the end of the server; returns the exit status."""
        self._mask = {signal.Signals(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)}
        server = self._start(self._server_command)
        stopped = False
        while server.poll() is None and not stopped:
            self._tend()
            info = signal.sigtimedwait(_SIGNALS, self._until_due())
            stopped = info is not None and info.si_signo != signal.SIGCHLD
        status = 0 if stopped else server.returncode or 0
        self._stop_all([server, *(worker.process for worker in self._workers if worker.process is not None)])
        return status if status >= 0 else 1

    def _tend(self) -> None:
        """Start workers that are due, notice those that have ended."""
        now = time.monotonic()
        for worker in self._workers:
            if worker.process is not None and worker.process.poll() is not None:
                if now - worker.started > _STABLE_SECONDS:
                    worker.pause = _FIRST_PAUSE_SECONDS
                _log.error(
                    "a conversion worker ended with status %d; another starts in %.0f seconds",
                    worker.process.returncode, worker.pause,
                )  # fmt: skip
                worker.process = None
                worker.due = now + worker.pause
                worker.pause = min(2 * worker.pause, _LONGEST_PAUSE_SECONDS)
            if worker.process is None and now >= worker.due:
                worker.process = self._start(self._worker_command)
                worker.started = now

    def _until_due(self) -> float:
        pauses = [worker.due - time.monotonic() for worker in self._workers if worker.process is None]
        return max(0.01, min([*pauses, _LONGEST_PAUSE_SECONDS]))

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        parent = os.getpid()

        def prepare() -> None:
            # SIGTERM: a worker gives its pulls back, the API answers what it has begun.
            _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            if os.getppid() != parent:
                os._exit(1)

        return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=prepare)  # noqa: PLW1509

    def _stop_all(self, processes: list[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.error("process %d does not end; killing it", process.pid)
                process.kill()
                process.wait()
