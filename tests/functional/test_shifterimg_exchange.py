# SPDX-License-Identifier: BSD-3-Clause
"""HTTP as servers and front-end proxies speak it, byte by byte (RFC 9112), and as nobody should."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scriptedserver import Request, scripted_server
from udiroot.shifterimg import exchange
from udiroot.shifterimg.errors import ExchangeFailed
from udiroot.shifterimg.exchange import Answer, Endpoint, parse_base


@contextlib.contextmanager
def raw_server(answer: bytes, *, linger: bool = False) -> Iterator[tuple[Endpoint, list[bytes]]]:
    """Answers any request with these bytes, then closes the connection, or keeps it open until the test ends."""
    seen: list[bytes] = []
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                seen.append(connection.recv(65536))
                connection.sendall(answer)
                if linger:
                    over.wait(60)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield parse_base(f"http://127.0.0.1:{listener.getsockname()[1]}/prefix/"), seen
        finally:
            over.set()
            with contextlib.suppress(OSError):  # a test that never connected
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def ask(base: Endpoint, timeout: float = 20) -> Answer:
    return exchange.exchange(base, "GET", "/api/", headers={"authentication": "MUNGE:x:"}, body=b"", timeout=timeout)


@pytest.mark.parametrize(
    ("answer", "linger"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", False),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", False),
        (b"HTTP/1.1 200\r\n\r\nhello", False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\nhello", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0005\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", True),
    ],
)
def test_every_framing_of_a_body(answer: bytes, linger: bool) -> None:
    with raw_server(answer, linger=linger) as (base, seen):
        assert ask(base) == Answer(200, b"hello")
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"GET /prefix/api/ HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Connection: close" in head
    assert b"Content-Length" not in head
    assert body == b""


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 2xx OK\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
    ],
    ids=lambda answer: repr(answer[:70]),
)
def test_what_is_no_answer(answer: bytes) -> None:
    with raw_server(answer) as (base, _), pytest.raises(ExchangeFailed):
        ask(base)


def test_an_endless_body_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_BODY_BYTES", 100_000)
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000
    with raw_server(answer) as (base, _), pytest.raises(ExchangeFailed, match="larger"):
        ask(base)


def test_endless_interim_answers_end() -> None:
    with raw_server(b"HTTP/1.1 102 Wait\r\n\r\n" * 1000, linger=True) as (base, _), pytest.raises(ExchangeFailed):
        ask(base, timeout=1)


def test_silence_ends_in_a_time_out() -> None:
    with raw_server(b"", linger=True) as (base, _), pytest.raises(ExchangeFailed, match="no complete answer within"):
        ask(base, timeout=0.5)


def test_a_server_that_does_not_accept_ends_in_a_time_out() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        base = parse_base(f"http://127.0.0.1:{listener.getsockname()[1]}")
        for _ in range(4):  # fill the queue of connections nobody takes
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((base.host, base.port))
        with pytest.raises(ExchangeFailed, match="no complete answer within"):
            ask(base, timeout=0.5)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://gw:5000", Endpoint("http", "gw", 5000, "gw:5000", "")),
        ("gw:5000/", Endpoint("http", "gw", 5000, "gw:5000", "")),
        ("https://gw/a/b//", Endpoint("https", "gw", 443, "gw", "/a/b")),
        ("http://[::1]:80", Endpoint("http", "::1", 80, "[::1]:80", "")),
    ],
)
def test_base_urls(url: str, expected: Endpoint) -> None:
    assert parse_base(url) == expected


@pytest.mark.parametrize(
    "url",
    ["", "ftp://gw", "http://", "http://u:p@gw", "http://gw:x", "http://gw:99999", "http://gw?x", "http://gw\r\nX: y", "http://g\xe9"],
)
def test_what_is_no_base_url(url: str) -> None:
    with pytest.raises(ExchangeFailed, match="not a URL"):
        parse_base(url)


def test_ipv6() -> None:
    with scripted_server(lambda request: request.reply(200, b"six"), address="::1") as server:
        assert ask(parse_base(server.url)).body == b"six"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    pair = (tmp_path / "cert.pem", tmp_path / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", pair[0], "-keyout", pair[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return pair


def test_https_verifies_the_gateway(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def script(request: Request) -> None:
        request.reply(200, b"secret")

    with scripted_server(script, certificate=certificate) as server:
        base = parse_base(server.url.replace("127.0.0.1", "localhost"))
        with pytest.raises(ExchangeFailed, match="certificate"):
            ask(base)
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
        assert ask(base).body == b"secret"
        with pytest.raises(ExchangeFailed, match="certificate"):
            ask(parse_base(server.url))
    assert len(server.requests) == 1
