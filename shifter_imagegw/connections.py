# SPDX-License-Identifier: BSD-3-Clause
"""How an API process serves its connections: a gunicorn worker whose threads accept, answer and close by themselves.

One request per connection, as all clients of this API make them. gunicorn's own threaded worker passes every connection
through three threads, which costs a third of the look-ups per second; its single-threaded one lets one slow client stop
a process (docs/adr/0009). Errors of the protocol get the same JSON body as all others (gateway contract, section 2.5);
gunicorn's access log stays empty, the API has its own.
"""

from __future__ import annotations

import json
import logging
import os
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

_CONNECTION_SECONDS = 60.0
"""Longest life of a connection: whoever sends or reads more slowly must not hold a thread."""

_LINGER_SECONDS = 2.0
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

    def run(self) -> None:
        """Until SIGTERM or the end of the master; then requests under way are answered first."""
        for listener in self.sockets:
            # So that the kernel wakes one thread per connection instead of all of them.
            listener.setblocking(True)
            for _ in range(self.cfg.threads):
                threading.Thread(target=self._serve, args=(listener.sock,), daemon=True).start()
        while not self._stop.wait(1.0) and self.ppid == os.getppid():
            self.notify()
            self._end_older_than(_CONNECTION_SECONDS)
        self.alive = False
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
            with self._lock:
                self._open[client] = time.monotonic()
            try:
                self._answer(listener, client, address)
            except OSError as error:
                _log.debug("connection from %s ended early: %s", address, error.strerror)
            except Exception:
                _log.exception("connection from %s", address)
            finally:
                with self._lock:
                    del self._open[client]
                client.close()

    def _answer(self, listener: socket.socket, client: socket.socket, address: Any) -> None:
        """Read a request, write the answer."""
        try:
            request = next(RequestParser(self.cfg, client, address))
        except (NoMoreData, StopIteration):
            return
        except ParseException as error:
            self._refuse(client, error)
            return
        response, environ = create_response(request, client, address, listener.getsockname(), self.cfg)
        response.force_close()
        try:
            parts = self.wsgi(environ, response.start_response)
            for part in parts:
                response.write(part)
            response.close()
        except ParseException as error:  # in a chunked body
            if not response.headers_sent:
                self._refuse(client, error)
            return
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            _linger(client)

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
        _linger(client)

    def _end_older_than(self, seconds: float) -> None:
        now = time.monotonic()
        with self._lock:
            for client, began in self._open.items():
                if now - began > seconds:
                    with suppress(OSError):
                        client.shutdown(socket.SHUT_RDWR)


def _linger(client: socket.socket) -> None:
    """Read what the client still sends before closing: else the kernel's reset may overtake the answer (RFC 9112,
    section 9.6)."""
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        client.settimeout(_LINGER_SECONDS)
        deadline = time.monotonic() + _LINGER_SECONDS
        while client.recv(65536) and time.monotonic() < deadline:
            pass
