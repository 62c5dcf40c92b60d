# SPDX-License-Identifier: BSD-3-Clause
"""How an API process serves its connections: a gunicorn worker whose threads accept, answer and close by themselves.

Who does not send his request at once waits for himself (waiting.py): idle connections, which need no credential, must
not hold up look-ups.

One request per connection, as all clients of this API make them. gunicorn's own threaded worker passes every connection
through three threads, which costs a third of the look-ups per second; its single-threaded one lets one slow client stop
a process (docs/adr/0009). Errors of the protocol get the same JSON body as all others (gateway contract, section 2.5);
gunicorn's access log stays empty, the API has its own.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from types import FrameType
from typing import Any

from gunicorn.http import RequestParser
from gunicorn.http.errors import (
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.wsgi import create as create_response
from gunicorn.workers.base import Worker

from shifter_imagegw.waiting import Connection, WaitingRoom

_CONNECTION_SECONDS = 60.0
"""Longest life of a connection: whoever sends or reads more slowly must not hold a thread."""

_LINGER_SECONDS = 2.0
_PATIENCE_SECONDS = 0.1
"""Longer than this, no thread is kept for a request that does not arrive."""

_LATE_THREADS = 4
_STATUS_OF = (
    (LimitRequestLine, HTTPStatus.REQUEST_URI_TOO_LONG),
    (LimitRequestHeaders, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (UnsupportedTransferCoding, HTTPStatus.NOT_IMPLEMENTED),
    (ParseException, HTTPStatus.BAD_REQUEST),
)
_log = logging.getLogger(__name__)


class AcceptingThreads(Worker):  # type: ignore[misc]
    """A gunicorn worker class; ``threads`` of the server's settings is how many connections it serves at once."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}
        self._late: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._room = WaitingRoom(self._late.put, self._close)

    def run(self) -> None:
        """Until SIGTERM or the end of the master; then requests under way are answered first."""
        self._room.start()
        for _ in range(_LATE_THREADS):
            threading.Thread(target=self._serve_late, daemon=True).start()
        for listener in self.sockets:
            # So that the kernel wakes one thread per connection instead of all of them.
            listener.setblocking(True)
            for _ in range(self.cfg.threads):
                threading.Thread(target=self._serve, args=(listener.sock,), daemon=True).start()
        while not self._stop.wait(1.0) and self.ppid == os.getppid():
            self.notify()
            self._end_older_than(_CONNECTION_SECONDS)
        self.alive = False
        self._room.close()
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while self._open and time.monotonic() < deadline:
            self.notify()
            time.sleep(0.02)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - gunicorn's signature
        """SIGTERM."""
        self.alive = False
        self._stop.set()

    def _serve(self, listener: socket.socket) -> None:
        while self.alive:
            try:
                client, address = listener.accept()
            except OSError as error:
                _log.error("connections cannot be accepted: %s", error.strerror)
                time.sleep(0.5)  # most likely too many open files: they must not fill the log too
                continue
            now = time.monotonic()
            with self._lock:
                self._open[client] = now
            connection = Connection(client, address, listener.getsockname(), now + _CONNECTION_SECONDS)
            try:
                # Nearly always the whole request is there, or on its way.
                client.settimeout(_PATIENCE_SECONDS)
                arrived = False
                while not arrived and time.monotonic() < now + _PATIENCE_SECONDS:
                    arrived = connection.receive()
            except (TimeoutError, socket.timeout):  # one and the same from Python 3.10 on
                pass
            except OSError as error:
                _log.debug("connection from %s ended early: %s", address, error.strerror)
                self._close(connection)
                continue
            if arrived:
                self._attend(connection)
            else:
                self._room.admit(connection)

    def _serve_late(self) -> None:
        """Requests that came in slowly."""
        while True:
            self._attend(self._late.get())

    def _attend(self, connection: Connection) -> None:
        """Answer; then the connection is closed, or in the waiting room until the client has read its answer."""
        linger = False
        try:
            connection.client.settimeout(None)
            linger = self._answer(connection)
            if linger:
                # Closing before all is read may send a reset, which overtakes the answer (RFC 9112, section 9.6).
                connection.client.shutdown(socket.SHUT_WR)
        except OSError as error:
            _log.debug("connection from %s ended early: %s", connection.address, error.strerror)
            linger = False
        except Exception:
            _log.exception("connection from %s", connection.address)
        if linger and self.alive:
            connection.answered, connection.until = True, time.monotonic() + _LINGER_SECONDS
            self._room.admit(connection)
        else:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        with self._lock:
            self._open.pop(connection.client, None)
        connection.client.close()

    def _answer(self, connection: Connection) -> bool:
        """Parse the request, write the answer; whether the client may still be sending."""
        client, address = connection.client, connection.address
        parser = RequestParser(self.cfg, client, address)
        parser.unreader.unread(bytes(connection.head))
        try:
            request = next(parser)
        except (NoMoreData, StopIteration):
            return False
        except ParseException as error:
            self._refuse(client, error)
            return True
        response, environ = create_response(request, client, address, connection.server, self.cfg)
        response.force_close()
        try:
            parts = self.wsgi(environ, response.start_response)
            for part in parts:
                response.write(part)
            response.close()
        except ParseException as error:  # in a chunked body
            if not response.headers_sent:
                self._refuse(client, error)
            return True
        return bool(response.status_code >= HTTPStatus.BAD_REQUEST)

    def _refuse(self, client: socket.socket, error: ParseException) -> None:
        status = next(status for kind, status in _STATUS_OF if isinstance(error, kind))
        message = f"{status.phrase}: the request cannot be read"
        body = json.dumps({"status": int(status), "error": type(error).__name__, "message": message}).encode()
        head = (
            f"HTTP/1.1 {int(status)} {status.phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        _log.info("request refused: %s", status.phrase, extra={"fields": {"status": int(status)}})
        client.sendall(head.encode("ascii") + body)

    def _end_older_than(self, seconds: float) -> None:
        now = time.monotonic()
        with self._lock:
            for client, began in self._open.items():
                if now - began > seconds:
                    with suppress(OSError):
                        client.shutdown(socket.SHUT_RDWR)

