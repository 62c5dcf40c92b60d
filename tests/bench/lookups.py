# SPDX-License-Identifier: BSD-3-Clause
"""Sends look-ups from many connections at once and notes how long each took.

As the historic client does, every look-up is a new connection with a credential of its own. The credentials are made
beforehand: on a cluster the login nodes make them, not the gateway.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field


@dataclass
class Load:
    """What was found: seconds of each look-up that was answered with 200, and of the whole run."""

    taken: list[float] = field(default_factory=list)
    seconds: float = 0.0
    failures: list[bytes] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Look-ups per second."""
        return len(self.taken) / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds within which ``share`` of all look-ups were answered."""
        ordered = sorted(self.taken)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


def credentials(count: int) -> list[bytes]:
    """``count`` credentials of this process's user, each good for one request."""

    def make(_: int) -> bytes:
        return subprocess.run(["munge", "-n"], check=True, capture_output=True).stdout.strip()

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(make, range(count)))


def round_trips(count: int) -> float:
    """Credentials that munge and unmunge make and check per second, one after the other: what each look-up includes."""
    began = time.perf_counter()
    for _ in range(count):
        made = subprocess.run(["munge", "-n"], check=True, capture_output=True).stdout
        subprocess.run(["unmunge"], input=made, check=True, capture_output=True)
    return count / (time.perf_counter() - began)


class Connection:
    """One look-up after the other."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.began = 0.0
        self.answer = b""
        self.socket = socket.socket()

    def send(self, path: str, credential: bytes) -> None:
        """A new connection with one request."""
        self.began = time.perf_counter()
        self.answer = b""
        self.socket = socket.create_connection(self.address, timeout=30)
        host = f"{self.address[0]}:{self.address[1]}"
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nauthentication: ".encode("ascii")
        self.socket.sendall(head + credential + b"\r\n\r\n")


def lookups(port: int, path: str, fresh: Sequence[bytes], at_once: int, seconds: float) -> Load:
    """Look ``path`` up from ``at_once`` connections until the credentials or the ``seconds`` are used up."""
    load, waiting = Load(), iter(fresh)
    began = time.perf_counter()
    with selectors.DefaultSelector() as selector:

        def start(connection: Connection) -> None:
            credential = next(waiting, None)
            if credential is not None and time.perf_counter() - began < seconds:
                connection.send(path, credential)
                selector.register(connection.socket, selectors.EVENT_READ, connection)

        for _ in range(at_once):
            start(Connection(("127.0.0.1", port)))
        while selector.get_map():
            for key, _ in selector.select(30):
                connection: Connection = key.data
                chunk = connection.socket.recv(65536)
                connection.answer += chunk
                if not chunk:
                    selector.unregister(connection.socket)
                    connection.socket.close()
                    _count(load, connection)
                    start(connection)
    load.seconds = time.perf_counter() - began
    return load


def _count(load: Load, connection: Connection) -> None:
    if connection.answer.startswith(b"HTTP/1.1 200 "):
        load.taken.append(time.perf_counter() - connection.began)
    else:
        load.failures.append(connection.answer)
