# SPDX-License-Identifier: BSD-3-Clause
"""A conversion worker: claims pulls by lease and works on a few at once, until SIGTERM.

Nothing here ends with a failing pull. What a worker leaves behind when it is killed is found again: its pulls when
their leases run out, its half-written files by the next housekeeping of any worker.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import signal
import socket
import threading
import time
from types import FrameType

from shifter_imagegw import rebuild
from shifter_imagegw.errors import LeaseLost, RegistryDenied, ShifterError, StoreError
from shifter_imagegw.images import Image
from shifter_imagegw.pipeline import Pipeline
from shifter_imagegw.progress import PullInterruptedError, Reporter
from shifter_imagegw.wakeup import Listener

_SHORTEST_WAIT_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 0.5
_STORE_WAIT_SECONDS = 2.0
_HOUSEKEEPING_SECONDS = 60.0
_STOP_SECONDS = 10.0
_NICENESS = 10
"""Below the API of the same host: look-ups are short, conversions take all processors for long (nice(2))."""

_log = logging.getLogger(__name__)


class Worker:
    """One worker process; ``run`` belongs to its main thread."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._configuration = configuration = pipeline.configuration
        self._store = pipeline.store
        self._clock = pipeline.clock
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._stop = threading.Event()
        self._slots = threading.Semaphore(configuration.worker_threads)
        self._running: dict[threading.Thread, Image] = {}
        self._lock = threading.Lock()
        self._tidied = 0.0

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; then running pulls go back to the queue."""
        listener = Listener(self._configuration.expand_directory)
        os.nice(_NICENESS)

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stop.set()
            listener.ring()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        _log.info("worker %s serves %s", self._name, ", ".join(sorted(self._configuration.platforms)))
        wait = _SHORTEST_WAIT_SECONDS
        while not self._stop.is_set():
            if self._slots.acquire(timeout=_LONGEST_WAIT_SECONDS):
                pull = self._claim()
                if pull is not None:
                    self._start(pull)
                    wait = _SHORTEST_WAIT_SECONDS
                    continue
                self._slots.release()
                rang = listener.wait(wait * random.uniform(0.7, 1.0))  # noqa: S311 - spreads load
                wait = _SHORTEST_WAIT_SECONDS if rang else min(1.5 * wait, _LONGEST_WAIT_SECONDS)
            self._tidy()
        self._hand_back()
        listener.close()

    def _claim(self) -> Image | None:
        try:
            return self._store.claim(
                self._name, self._clock(), self._configuration.lease_seconds, self._configuration.platforms
            )
        except StoreError as error:
            _log.error("no pull can be claimed: %s", error)
            self._stop.wait(_STORE_WAIT_SECONDS)
            return None

    def _start(self, pull: Image) -> None:
        thread = threading.Thread(target=self._work, args=(pull,), name=f"pull-{pull.record_id}", daemon=True)
        with self._lock:
            self._running[thread] = pull
        thread.start()

    def _work(self, pull: Image) -> None:
        try:
            self.attempt(pull)
        except LeaseLost as error:
            _log.warning("%s", error)
        except StoreError as error:
            _log.error(
                "pull of %s on %s: %s; it is tried again when its lease has run out", pull.pulltag, pull.system, error
            )
        except Exception:
            _log.exception("pull of %s on %s", pull.pulltag, pull.system)
        finally:
            with self._lock:
                del self._running[threading.current_thread()]
            self._slots.release()

    def attempt(self, pull: Image) -> None:
        """Work on a claimed pull and record how it ended; LeaseLost, StoreError."""
        began = time.monotonic()
        if pull.attempts > self._configuration.max_attempts:
            deaths = self._configuration.max_attempts
            self._fail(pull, f"given up: {deaths} workers ended over this pull; the gateway's logs may say why")
            return
        if pull.attempts > 1:
            _log.warning("pull of %s on %s: taken over, attempt %d", pull.pulltag, pull.system, pull.attempts)
        lease, timeout = self._configuration.lease_seconds, self._configuration.pull_timeout
        try:
            with Reporter(self._store, pull, lease, self._stop, self._clock, timeout=timeout) as report:
                ready = self._pipeline.pull_image(pull, report)
        except PullInterruptedError:
            self._store.release(pull)
            _log.info("pull of %s on %s: back in the queue, this worker stops", pull.pulltag, pull.system)
        except (LeaseLost, StoreError):
            raise
        except ShifterError as error:
            self._fail(pull, str(error), denied=isinstance(error, RegistryDenied))
        except Exception:
            error_id = secrets.token_hex(6)
            _log.exception("error %s: pull of %s on %s", error_id, pull.pulltag, pull.system)
            self._fail(pull, f"internal error {error_id}: its cause is in the gateway's log under this id")
        else:
            _log.info(
                "pull of %s on %s: READY", pull.pulltag, pull.system,
                extra={"fields": {"id": ready.image_id, "seconds": round(time.monotonic() - began, 2)}},
            )  # fmt: skip

    def _fail(self, pull: Image, reason: str, *, denied: bool = False) -> None:
        _log.warning("pull of %s on %s: FAILURE: %s", pull.pulltag, pull.system, reason)
        self._store.fail(pull, reason, self._clock(), denied=denied)

    def _hand_back(self) -> None:
        """Wait for the threads to give their pulls back; do it for those that hang on a registry."""
        deadline = time.monotonic() + _STOP_SECONDS
        with self._lock:
            running = dict(self._running)
        for thread in running:
            thread.join(max(0.0, deadline - time.monotonic()))
        for thread, pull in running.items():
            if thread.is_alive():
                _log.warning("pull of %s on %s does not end; giving it back", pull.pulltag, pull.system)
                try:
                    self._store.release(pull)
                except StoreError as error:
                    _log.error("%s", error)

    def _tidy(self) -> None:
        """Once a minute: finish what killed processes began, remove what they left. Nothing here stops the worker."""
        if time.monotonic() < self._tidied:
            return
        self._tidied = time.monotonic() + _HOUSEKEEPING_SECONDS
        try:
            self._store.repair(self._clock(), self._configuration.pull_update_timeout)
            for platform in self._pipeline.platforms.values():
                for path in platform.remove_stale_parts(self._is_stale):
                    _log.info("removed %s, which a killed worker left", path)
            self._pipeline.engine.sweep()
            for path in rebuild.sweep(self._configuration.expand_directory):
                _log.info("removed %s, which a killed 'verify --rebuild' left", path)
        except (ShifterError, OSError) as error:
            _log.error("housekeeping: %s", error)
        except Exception:
            _log.exception("housekeeping")

    def _is_stale(self, pull_id: str, attempt: int, modified: float) -> bool:
        """Whether nobody works on this attempt at a pull any more."""
        record = self._store.get(pull_id)
        if record is not None and record.in_flight:
            return record.attempts > attempt
        return modified < self._clock() - self._configuration.lease_seconds
