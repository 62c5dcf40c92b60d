# SPDX-License-Identifier: BSD-3-Clause
"""Where connections wait that have nothing to say yet: one thread for all of them, so that they hold up nobody.

Those whose request has not arrived whole, and those that are answered and only have to be read to their end. Anybody on
the network can open such connections, without a credential.
"""

from __future__ import annotations

import logging
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_MAX_GUESTS = 256
"""More than that, and whoever waits longest has to go."""

MAX_HEAD_BYTES = 512 * 1024
"""A head that is not complete by then is left to the parser, which refuses it."""

_HEAD_END = b"\r\n\r\n"
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Connection:
    """One client; ``head`` is what it has sent, ``until`` when it must have sent all (monotonic clock)."""

    client: socket.socket
    address: Any
    server: Any
    until: float
    head: bytearray = field(default_factory=bytearray)
    answered: bool = False

    def receive(self) -> bool:
        """Take what is there; whether the head is complete, or will never be. OSError, also when nothing is there."""
        data = self.client.recv(65536)
        if self.answered:
            return not data
        # The end mark may have begun in what came before.
        start = max(0, len(self.head) - len(_HEAD_END) + 1)
        self.head += data
        return not data or len(self.head) > MAX_HEAD_BYTES or self.head.find(_HEAD_END, start) >= 0


class WaitingRoom:
    """``arrived`` gets connections whose request is there, ``leave`` those that are to be closed."""

    def __init__(self, arrived: Callable[[Connection], None], leave: Callable[[Connection], None]) -> None:
        self._arrived = arrived
        self._leave = leave
        self._new: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._bell, self._button = socket.socketpair()
        self._button.setblocking(False)
        self._guests: dict[Connection, None] = {}
        self._stop = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="waiting-room", daemon=True).start()

    def admit(self, connection: Connection) -> None:
        """Hand a connection over; from any thread."""
        self._new.put(connection)
        self._ring()
        if self._stop.is_set():
            self._send_away_new()

    def close(self) -> None:
        """Send all guests away."""
        self._stop.set()
        self._ring()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # it has been rung often enough
            self._button.send(b"\0")

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            while not self._stop.is_set():
                for key, _ in selector.select(1.0):
                    if key.data is None:
                        self._bell.recv(65536)
                    else:
                        self._look_at(selector, key.data)
                with suppress(queue.Empty):
                    while True:
                        self._seat(selector, self._new.get_nowait())
                now = time.monotonic()
                for guest in [guest for guest in self._guests if guest.until < now]:
                    self._end(selector, guest)
            for guest in list(self._guests):
                self._end(selector, guest)
        self._send_away_new()

    def _send_away_new(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._leave(self._new.get_nowait())

    def _seat(self, selector: selectors.BaseSelector, guest: Connection) -> None:
        if len(self._guests) >= _MAX_GUESTS:
            self._end(selector, next(iter(self._guests)))
        guest.client.setblocking(False)
        selector.register(guest.client, selectors.EVENT_READ, guest)
        self._guests[guest] = None

    def _look_at(self, selector: selectors.BaseSelector, guest: Connection) -> None:
        try:
            if not guest.receive():
                return
        except BlockingIOError:
            return
        except OSError as error:
            _log.debug("connection from %s ended early: %s", guest.address, error.strerror)
            self._end(selector, guest)
            return
        if guest.answered:
            self._end(selector, guest)
            return
        selector.unregister(guest.client)
        del self._guests[guest]
        self._arrived(guest)

    def _end(self, selector: selectors.BaseSelector, guest: Connection) -> None:
        selector.unregister(guest.client)
        del self._guests[guest]
        self._leave(guest)
