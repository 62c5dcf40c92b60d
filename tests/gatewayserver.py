# SPDX-License-Identifier: BSD-3-Clause
"""The gateway as sites run it: a real ``shifter-imagegw serve`` or ``worker``, spoken to over HTTP.

::

    config = write_configuration(tmp_path, munge.socket)
    with gateway_server(config) as gateway:
        answer = gateway.get("/api/list/cluster/", munge.credential())
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-I", "-m", "shifter_imagegw"]
SYSTEM = "cluster"


def write_configuration(directory: Path, munge_socket: Path, **changes: Any) -> Path:
    """``imagemanager.json`` of a gateway with everything below ``directory``; ``changes`` replace top-level keys."""
    for name in ("images", "cache", "expand"):
        (directory / name).mkdir(mode=0o700, exist_ok=True)
    document = {
        "Platforms": {SYSTEM: {
            "accesstype": "local", "local": {"imageDir": str(directory / "images")},
            "mungeSocketPath": str(munge_socket), "admins": ["root"],
        }},
        "Locations": {"docker.io": {"remotetype": "dockerv2", "url": "https://127.0.0.1:1"}},
        "DefaultImageLocation": "docker.io",
        "DefaultImageFormat": "squashfs",
        "MongoDBURI": f"sqlite://{directory}/images.sqlite",
        "CacheDirectory": str(directory / "cache"),
        "ExpandDirectory": str(directory / "expand"),
        "cache": {"minFreePercent": 0},  # a full disk of whoever runs the tests does not change what they see
        **changes,
    }  # fmt: skip
    path = directory / "imagemanager.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    path.chmod(0o644)
    return path


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class GatewayServer:
    """A running server; ``log`` is what it said on standard error."""

    port: int
    process: subprocess.Popen[bytes]
    log_file: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def log_records(self) -> list[dict[str, Any]]:
        """The log's lines, each of which must be a JSON object."""
        return [json.loads(line) for line in self.log.splitlines()]

    def get(self, path: str, credential: str | None = None) -> Answer:
        return self.request("GET", path, credential)

    def post(self, path: str, credential: str | None = None, body: bytes | str | None = None, **headers: str) -> Answer:
        return self.request("POST", path, credential, body, headers)

    def request(
        self,
        method: str,
        path: str,
        credential: str | None = None,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        sent = dict(headers or {})
        if credential is not None:
            sent["authentication"] = credential
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """Everything the server answers to these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(request)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
        return received

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def gateway_server(
    config: Path, *options: str, environment: Mapping[str, str] | None = None, **popen: Any
) -> Iterator[GatewayServer]:
    """``serve`` with ``options``; it and what it started is gone at the end."""
    port = free_port()
    command = [*PROGRAM, "--config", str(config), "serve", "--bind", f"127.0.0.1:{port}", *options]
    with http_server(command, port, config.parent / f"serve-{port}.log", environment, **popen) as server:
        yield server


@contextmanager
def http_server(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None, **popen: Any
) -> Iterator[GatewayServer]:
    """Any command that serves the API on ``port``, in a session of its own, once it answers."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
            env={**os.environ, **(environment or {})}, **popen,
        )  # fmt: skip
    server = GatewayServer(port, process, log)
    try:
        await_answer(server)
        yield server
    finally:
        server.stop()
        kill_session(process.pid)


@contextmanager
def worker_process(config: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """``worker`` with its log beside the configuration."""
    with (config.parent / "worker.log").open("ab") as stream:
        process = subprocess.Popen(
            [*PROGRAM, "--config", str(config), "worker"], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            start_new_session=True, env={**os.environ, **environment},
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)
        kill_session(process.pid)


def await_answer(server: GatewayServer) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            server.get("/")
            return
        except OSError:
            if time.monotonic() > deadline or server.process.poll() is not None:
                raise AssertionError(f"the gateway does not answer:\n{server.log[-3000:]}") from None
            time.sleep(0.02)


def session_members(session: int) -> list[int]:
    """Living processes of a session (not zombies)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


def kill_session(session: int) -> None:
    for pid in session_members(session):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
