# SPDX-License-Identifier: BSD-3-Clause
"""A gateway that answers what a test says, and a login node whose shifterimg talks to it with real munge credentials.

Credentials are decoded by the program unmunge, which also tells when one is used twice.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.munged import Munged
from tests.scriptedserver import Request, scripted_server

PROGRAM = [sys.executable, "-I", "-c", "from udiroot.shifterimg.cli import main; main()"]
IMAGE_ID = "468b48e3864f5489a6fa4a35843292b101ac73c31e3272688fa3220ff485f549"
MINIMAL_ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def image(**changes: Any) -> dict[str, Any]:
    """A READY image as a gateway shows it (gateway contract, section 2.4)."""
    record: dict[str, Any] = {
        "id": IMAGE_ID, "system": "mycluster", "itype": "docker", "tag": ["alpine:latest"], "status": "READY",
        "userACL": [], "groupACL": [], "ENV": ["PATH=/usr/bin:/bin"], "ENTRY": "MISSING", "WORKDIR": "MISSING",
        "LABELS": "MISSING", "last_pull": 1700000000.48, "status_message": "Transferring image",
    }  # fmt: skip
    return {**record, **changes}


def in_flight(status: str, message: str = "MISSING") -> dict[str, Any]:
    """The answer while a pull is under way."""
    return image(id="MISSING", tag=[], status=status, last_pull="MISSING", status_message=message)


@dataclass(frozen=True)
class Reply:
    """An answer in every detail; a plain dictionary is a good one with status 200."""

    status: int
    body: bytes | Mapping[str, Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request, with what its credential says."""

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    uid: int
    payload: str


@dataclass
class ScriptedGateway:
    """``answers`` maps a verb to its answers in order (dictionaries, replies, scripts); the last one is repeated."""

    munge: Munged
    answers: dict[str, list[Any]]
    calls: list[Call] = field(default_factory=list)
    url: str = ""

    def answer(self, request: Request) -> None:
        """Note the request, decode its credential, give the next answer."""
        body = request.rfile.read(int(request.headers.get("Content-Length", "0")))
        uid, payload = unmunge(self.munge, request.headers["authentication"])
        self.calls.append(Call(request.command, request.path, body, dict(request.headers.items()), uid, payload))
        script = self.answers[request.path.split("/api/")[1].split("/")[0]]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if callable(answer):
            answer(request)
            return
        reply = answer if isinstance(answer, Reply) else Reply(200, answer)
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        request.reply(reply.status, data, {"Content-Type": "application/json", **reply.headers})


def unmunge(munge: Munged, credential: str) -> tuple[int, str]:
    """Uid and payload; AssertionError when munged does not accept the credential."""
    done = subprocess.run(
        ["unmunge", f"--socket={munge.socket}"], input=credential, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    head, _, payload = done.stdout.partition("\n\n")
    uid = next(line for line in head.splitlines() if line.startswith("UID:"))
    return int(uid.rpartition("(")[2].rstrip(")")), payload


@contextmanager
def scripted_gateway(munge: Munged, **answers: Any) -> Iterator[ScriptedGateway]:
    """A gateway; each keyword is a verb with its answer or list of answers."""
    scripts = {verb: answer if isinstance(answer, list) else [answer] for verb, answer in answers.items()}
    gateway = ScriptedGateway(munge, scripts)
    with scripted_server(gateway.answer) as server:
        gateway.url = server.url
        yield gateway


@dataclass
class LoginNode:
    """Where users call shifterimg: a configuration and a munged."""

    munge: Munged
    conf: Path

    def configure(self, *gateways: str, **settings: str) -> None:
        """Write udiRoot.conf for these gateways."""
        values = {"system": "mycluster", "defaultImageType": "docker", "imageGateway": " ".join(gateways), **settings}
        tools = {f"{name}Path": f"/bin/{name}" for name in ("cp", "mv", "chmod", "dd")}
        names = ("udiMount", "loopMount", "imagePath", "udiRootPath", "etcPath")
        places = {name: f"/nonexistent/{name}" for name in names}
        rest = {"rootfsType": "tmpfs", "modprobePath": "/bin/true", "insmodPath": "/bin/true"}
        lines = {**tools, **places, **rest, **values}
        self.conf.write_text("".join(f"{key}={value}\n" for key, value in lines.items() if value))

    def command(self, *arguments: str) -> list[str]:
        return [*PROGRAM, "--config", str(self.conf), "--munge-socket", str(self.munge.socket), *arguments]

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """`shifterimg ARGUMENTS` in a minimal environment, like the launcher's; whatever its status is."""
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            self.command(*arguments), env={**MINIMAL_ENVIRONMENT, **(env or {})}, cwd="/",
            capture_output=True, text=True, timeout=120, **options,
        )  # fmt: skip


def login_node(munge: Munged, directory: Path, *gateways: str) -> LoginNode:
    """A login node configured in ``directory``."""
    node = LoginNode(munge, directory / "udiRoot.conf")
    node.configure(*gateways)
    return node
