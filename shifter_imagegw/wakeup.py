# SPDX-License-Identifier: BSD-3-Clause
"""Tells idle workers of this host that a pull was queued, so that they need not look twenty times a second.

A named pipe in the gateway's scratch directory. It only shortens the wait: workers look by themselves as well, those of
other hosts do nothing else.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from pathlib import Path

from shifter_imagegw.errors import ConfigurationError

_NAME = "pull-queued"


class Bell:
    """The API's end; ``ring`` never fails and never waits."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME

    def ring(self) -> None:
        """Wake one idle worker, if there is any."""
        # ENOENT, ENXIO: no worker here; EAGAIN: the pipe is full of rings already.
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.write(descriptor, b"\0")
            finally:
                os.close(descriptor)


class Listener:
    """A worker's end; all workers of one scratch directory share the pipe. ConfigurationError: it cannot be made."""

    def __init__(self, directory: Path) -> None:
        path = directory / _NAME
        try:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(path, 0o600)
            # For writing too: a pipe without writers would be readable (end of file) all the time.
            self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise ConfigurationError(
                f"{path}: {error.strerror}; is ExpandDirectory writable by this account?"
            ) from error
        if not stat.S_ISFIFO(os.fstat(self._descriptor).st_mode):
            os.close(self._descriptor)
            raise ConfigurationError(f"{path}: not a named pipe; remove it")

    def wait(self, seconds: float) -> bool:
        """Wait for a ring, at most so long; whether there was one."""
        readable, _, _ = select.select([self._descriptor], [], [], seconds)
        if not readable:
            return False
        with contextlib.suppress(BlockingIOError):  # another worker was quicker
            os.read(self._descriptor, 1)
        return True

    def ring(self) -> None:
        """End the wait from a signal handler of this process."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._descriptor, b"\0")

    def close(self) -> None:
        os.close(self._descriptor)
