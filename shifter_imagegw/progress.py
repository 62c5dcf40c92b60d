# SPDX-License-Identifier: BSD-3-Clause
"""A pull's lease and its progress, kept up by one thread while others do the work.

Workers only count; the thread writes what has changed at most twice a second, and extends the lease at a fixed interval
whatever the work does (gateway contract, section 6.4).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any

from shifter_imagegw.errors import LeaseLost, PullTimedOut, StoreError
from shifter_imagegw.images import Image
from shifter_imagegw.store import ImageStore

_WRITE_SECONDS = 0.5
_BEATS_PER_LEASE = 4

_log = logging.getLogger(__name__)


class PullInterruptedError(Exception):
    """The worker is asked to stop; the pull goes back to the queue."""


class Reporter:
    """Context manager around the work on one claimed pull. ``check`` raises once the work must end."""

    def __init__(
        self,
        store: ImageStore,
        pull: Image,
        lease_seconds: float,
        stop: threading.Event,
        clock: Callable[[], float] = time.time,
        *,
        timeout: float = threading.TIMEOUT_MAX,
    ) -> None:
        self._store = store
        self._pull = pull
        self._lease_seconds = lease_seconds
        self._stop = stop
        self._clock = clock
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._lost: LeaseLost | None = None
        self._phase = ""
        self._done = 0
        self._total = 0
        self._written = ""
        self._beat = clock()
        self._thread = threading.Thread(target=self._run, name=f"lease-{pull.record_id}", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def phase(self, status: str, text: str, total: int = 0, **changes: Any) -> None:
        """Enter a state with its text (section 5.2); with a ``total``, bytes are counted from now on."""
        self.check()
        with self._lock:
            self._phase, self._done, self._total = text, 0, total
            self._write(status=status, **changes)

    def advance(self, count: int) -> None:
        """Count bytes of the current phase."""
        self.check()
        with self._lock:
            self._done += count

    def check(self) -> None:
        """LeaseLost when the pull is somebody else's by now, PullInterruptedError when this worker stops, PullTimedOut
        when the work has taken ``timeout`` seconds."""
        if self._lost is not None:
            raise self._lost
        if self._stop.is_set():
            raise PullInterruptedError
        if time.monotonic() > self._deadline:
            raise PullTimedOut(
                f"not finished after {timedelta(seconds=self._timeout)} hours (pullTimeout of this site), at: "
                f"{self._text()}; finished layers are kept, so a new pull goes on from here"
            )

    def _text(self) -> str:
        return f"{self._phase}: {min(self._done, self._total)}/{self._total} bytes" if self._total else self._phase

    def _write(self, **changes: Any) -> None:
        text = self._text()
        now = self._clock()
        if text:
            changes["status_message"] = text
        self._store.progress(self._pull, now, self._lease_seconds, **changes)
        self._written, self._beat = text, now

    def _run(self) -> None:
        while not self._ended.wait(_WRITE_SECONDS):
            try:
                with self._lock:
                    due = self._clock() - self._beat >= self._lease_seconds / _BEATS_PER_LEASE
                    if due or self._text() != self._written:
                        self._write()
            except LeaseLost as error:
                self._lost = error
                return
            except StoreError as error:
                _log.warning("pull %s: lease not extended: %s", self._pull.record_id, error)
                if self._clock() - self._beat >= self._lease_seconds:
                    self._lost = LeaseLost(f"pull of {self._pull.pulltag}: the database was out of reach for too long")
                    return
