# SPDX-License-Identifier: BSD-3-Clause
"""One HTTP/1.1 request on one connection: no proxies, no redirects, a deadline for the whole, a bounded answer.

The standard library's client takes a quarter of the time that `shifterimg images` has just to be imported, and knows no
deadline for a whole transaction (docs/adr/0008-client-start.md). Message framing: RFC 9112, sections 6 and 7.1.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from udiroot.shifterimg.errors import ExchangeFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_PORTS = {"http": 80, "https": 443}
_HEAD_BYTES = 64 * 1024
_BODY_BYTES = 64 * 1024 * 1024
"""Twenty thousand images with long environments still fit."""


class Answer(NamedTuple):
    """Status and complete body."""

    status: int
    body: bytes


class Endpoint(NamedTuple):
    """A base URL taken apart; ``authority`` is what the Host header says, ``prefix`` has no slash at its end."""

    scheme: str
    host: str
    port: int
    authority: str
    prefix: str


def parse_base(url: str) -> Endpoint:
    """``http(s)://host[:port][/prefix]``, ``http`` when no scheme is given; ExchangeFailed for anything else."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise ExchangeFailed(f"not a URL: {error}; correct imageGateway in udiRoot.conf") from None
    unexpected = parts.username is not None or parts.query or parts.fragment
    if unexpected or not url.isascii() or not port or not parts.hostname:
        raise ExchangeFailed("not a URL of the form http(s)://host:port; correct imageGateway in udiRoot.conf")
    return Endpoint(parts.scheme, parts.hostname, port, parts.netloc, parts.path.rstrip("/"))


def exchange(
    base: Endpoint, method: str, path: str, *, headers: Mapping[str, str], body: bytes, timeout: float
) -> Answer:
    """Send one request and read its answer within ``timeout`` seconds (0: the defaults); ExchangeFailed."""
    start = time.monotonic()
    try:
        connection = _connect(base, start + min(timeout or _CONNECT_SECONDS, _CONNECT_SECONDS))
        with connection:
            deadline = start + timeout if timeout else time.monotonic() + _ANSWER_SECONDS
            _limit(connection, deadline)
            connection.sendall(_request(base, method, path, headers, body))
            return _read_answer(_Stream(connection, deadline))
    except (TimeoutError, socket.timeout):  # one and the same from Python 3.10 on
        raise ExchangeFailed(f"no complete answer within {time.monotonic() - start:.0f} seconds") from None
    except OSError as error:
        raise ExchangeFailed(f"connection failed: {error.strerror or error}") from None


def _connect(base: Endpoint, deadline: float) -> socket.socket:
    try:
        addresses = socket.getaddrinfo(base.host, base.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ExchangeFailed(f"host name {base.host!r} cannot be resolved: {error}") from None
    failure: OSError = OSError("no address")
    for family, kind, protocol, _name, address in addresses:
        connection = socket.socket(family, kind, protocol)
        try:
            _limit(connection, deadline)
            connection.connect(address)
            return _secure(connection, base.host) if base.scheme == "https" else connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure


def _secure(connection: socket.socket, host: str) -> socket.socket:
    import ssl  # noqa: PLC0415 -- most gateways speak plain HTTP

    return ssl.create_default_context().wrap_socket(connection, server_hostname=host)


def _limit(connection: socket.socket, deadline: float) -> None:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    connection.settimeout(remaining)


def _request(base: Endpoint, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    fields = {"Host": base.authority, "Accept": "application/json", "Connection": "close", **headers}
    if body or method == "POST":
        fields["Content-Length"] = str(len(body))
    lines = [f"{method} {base.prefix}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class _Stream:
    """Buffered reading from a connection until a deadline."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._buffer = bytearray()

    def _fill(self) -> bool:
        _limit(self._connection, self._deadline)
        data = self._connection.recv(64 * 1024)
        self._buffer += data
        return bool(data)

    def until(self, mark: bytes, limit: int) -> bytes:
        """Bytes before ``mark``, which is consumed."""
        searched = 0
        while (end := self._buffer.find(mark, searched)) < 0:
            searched = max(0, len(self._buffer) - len(mark) + 1)
            if len(self._buffer) > limit:
                raise ExchangeFailed("the answer is not HTTP: a header is too long")
            if not self._fill():
                raise ExchangeFailed("the connection ended before the answer was complete")
        data = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return data

    def exactly(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        while len(self._buffer) < count:
            if not self._fill():
                raise ExchangeFailed("the connection ended before the answer was complete")
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def rest(self) -> bytes:
        """Everything until the peer closes the connection."""
        while self._fill():
            _check_size(len(self._buffer))
        return bytes(self._buffer)


def _read_answer(stream: _Stream) -> Answer:
    status, fields = _read_head(stream)
    while 100 <= status < 200:  # interim answers, RFC 9110 section 15.2
        status, fields = _read_head(stream)
    if fields.get("content-encoding", "identity") != "identity":
        raise ExchangeFailed("the answer is compressed although nobody asked for it")
    if "transfer-encoding" in fields:
        if fields["transfer-encoding"].lower() != "chunked":
            raise ExchangeFailed(f"the answer has the unknown encoding {fields['transfer-encoding']!r}")
        return Answer(status, _read_chunks(stream))
    length = fields.get("content-length")
    if length is None:
        return Answer(status, stream.rest())
    if not (length.isascii() and length.isdigit()):
        raise ExchangeFailed(f"the answer is not HTTP: Content-Length {length!r}")
    _check_size(int(length))
    return Answer(status, stream.exactly(int(length)))


def _read_head(stream: _Stream) -> tuple[int, dict[str, str]]:
    first, *lines = stream.until(b"\r\n\r\n", _HEAD_BYTES).decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    if not version.startswith("HTTP/1.") or len(code) != 3 or not (code.isascii() and code.isdigit()):
        raise ExchangeFailed("the answer is not HTTP; does imageGateway name another service?")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return int(code), fields


def _read_chunks(stream: _Stream) -> bytes:
    body = bytearray()
    while True:
        size = stream.until(b"\r\n", _HEAD_BYTES).partition(b";")[0].strip()
        if not size or len(size) > 8 or size.strip(b"0123456789abcdefABCDEF"):
            raise ExchangeFailed("the answer is not HTTP: malformed chunk")
        length = int(size, 16)
        if length == 0:
            return bytes(body)
        _check_size(len(body) + length)
        body += stream.exactly(length)
        if stream.exactly(2) != b"\r\n":
            raise ExchangeFailed("the answer is not HTTP: malformed chunk")


def _check_size(size: int) -> None:
    if size > _BODY_BYTES:
        raise ExchangeFailed(f"the answer is larger than {_BODY_BYTES} bytes")
