# SPDX-License-Identifier: BSD-3-Clause
"""A real munged of the tests' own: its own key, socket and files; credentials made and decoded as any user.

::

    with munged() as munge:
        credential = munge.credential("payload", uid=1000)
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Munged:
    """A running munged; ``key`` is its security realm."""

    directory: Path
    key: bytes
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "socket"

    def start(self) -> None:
        """Start it and wait until it makes credentials."""
        command = ["munged", "--foreground", "--num-threads=2", f"--socket={self.socket}"]
        command += [f"--{name}-file={self.directory / name}" for name in ("key", "pid", "seed", "log")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while subprocess.run(self._munge(), capture_output=True).returncode != 0:
            if time.monotonic() > deadline or self.process.poll() is not None:
                log = self.directory / "log"
                raise AssertionError(f"munged does not start: {log.read_text() if log.exists() else '(no log)'}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it; its socket goes away."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def credential(self, payload: str | bytes = b"", *options: str, uid: int | None = None) -> str:
        """A fresh credential of ``uid`` (default: this process's) with the gid of the same number."""
        identity = {} if uid is None else {"user": uid, "group": uid, "extra_groups": ()}
        data = payload.encode() if isinstance(payload, str) else payload
        made = subprocess.run([*self._munge(), *options], input=data, capture_output=True, check=True, **identity)  # type: ignore[call-overload]
        return str(made.stdout.decode("ascii").strip())

    def _munge(self) -> list[str]:
        # --input=/dev/stdin is the default; an empty payload comes from an empty standard input.
        return ["munge", f"--socket={self.socket}"]


@contextmanager
def munged(key: bytes | None = None) -> Iterator[Munged]:
    """Run a munged below a directory of its own (all its parents belong to root, as it demands)."""
    # Not below the temporary directory: munged wants no parent that others can write.
    directory = Path(tempfile.mkdtemp(prefix="shifter-munged-", dir="/run"))
    server = Munged(directory, key or secrets.token_bytes(64))
    try:
        directory.chmod(0o755)
        descriptor = os.open(directory / "key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(server.key)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def munge() -> Iterator[Munged]:
    """One munged for all tests of the session; who stops it starts it again."""
    with munged() as server:
        yield server
