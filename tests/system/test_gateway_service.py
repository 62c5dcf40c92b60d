# SPDX-License-Identifier: BSD-3-Clause
"""``shifter-imagegw`` as a service of an unprivileged account: started, used, stopped, killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gatewayserver import (
    PROGRAM,
    GatewayServer,
    free_port,
    gateway_server,
    http_server,
    session_members,
    write_configuration,
)
from tests.munged import Munged
from tests.registryserver import RegistryServer, registry_server, tar_of

ROOT = Path(__file__).resolve().parents[2]
SERVICE_UID = 65501
"""An account without a name, home or right."""

ACCOUNT: Mapping[str, Any] = {"user": SERVICE_UID, "group": SERVICE_UID, "extra_groups": (), "cwd": "/"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        server.push_image("app", "1", [tar_of({"one": b"1" * 5000}), tar_of({"two": b"2" * 5000})])
        yield server


@pytest.fixture
def config(munge: Munged, registry: RegistryServer) -> Iterator[Path]:
    """A configuration whose directories belong to the service's account; pytest's own ones are closed to it."""
    base = Path(tempfile.mkdtemp(prefix="shifter-service-"))
    try:
        base.chmod(0o755)
        locations = {"reg": {"remotetype": "dockerv2", "url": registry.url}}
        path = write_configuration(base, munge.socket, Locations=locations, DefaultImageLocation="reg")
        for directory in (base, *(entry for entry in base.iterdir() if entry.is_dir())):
            os.chown(directory, SERVICE_UID, SERVICE_UID)
        yield path
    finally:
        shutil.rmtree(base)


@contextmanager
def service(config: Path, *options: str) -> Iterator[GatewayServer]:
    environment = {"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"}
    with gateway_server(config, "--workers", "1", *options, environment=environment, **ACCOUNT) as server:
        yield server
        server.stop()
        until(lambda: session_members(server.process.pid) == [], server)


def until(condition: Callable[[], Any], server: GatewayServer | None = None) -> Any:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain:\n{server.log[-3000:] if server else ''}")


def pull(server: GatewayServer, munge: Munged, reference: str = "app:1") -> dict[str, Any]:
    """Poll as the client does, until it ends."""

    def ended() -> dict[str, Any] | None:
        answer = server.post(f"/api/pull/cluster/docker/{reference}/", munge.credential(uid=3000)).json
        return answer if answer["status"] in ("READY", "FAILURE") else None

    found: dict[str, Any] = until(ended, server)
    return found


def commands(server: GatewayServer) -> dict[int, list[str]]:
    """Processes of the service by their subcommand line."""
    found = {}
    for pid in session_members(server.process.pid):
        try:
            found[pid] = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except OSError:
            continue
    return found


def workers(server: GatewayServer) -> list[int]:
    return [pid for pid, command in commands(server).items() if "worker" in command]


def test_a_small_sites_whole_service(config: Path, munge: Munged) -> None:
    with service(config, "--with-workers", "1") as server:
        answer = pull(server, munge)
        assert answer["status"] == "READY", answer
        image = config.parent / "images" / f"{answer['id']}.squashfs"
        assert (image.stat().st_uid, image.stat().st_mode & 0o777) == (SERVICE_UID, 0o600)
        looked_up = server.get("/api/lookup/cluster/docker/app:1", munge.credential(uid=3000))
        assert looked_up.json["id"] == answer["id"]
        assert all(Path(f"/proc/{pid}").stat().st_uid == SERVICE_UID for pid in session_members(server.process.pid))
        assert server.stop() == 0
        assert all(isinstance(record, dict) for record in server.log_records)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_everything(config: Path, number: int) -> None:
    with service(config, "--with-workers", "2") as server:
        until(lambda: len(workers(server)) == 2, server)
        until(lambda: server.log.count(" serves ") == 2, server)
        assert server.stop(number) == 0


def test_a_kill_of_the_first_process_leaves_none_behind(config: Path) -> None:
    with service(config, "--with-workers", "2") as server:
        until(lambda: server.log.count(" serves ") == 2, server)
        session = server.process.pid
        server.stop(signal.SIGKILL)
        until(lambda: session_members(session) == [], server)


def test_a_killed_worker_is_replaced(config: Path) -> None:
    with service(config, "--with-workers", "1") as server:
        (first,) = until(lambda: workers(server), server)
        until(lambda: " serves " in server.log, server)
        os.kill(first, signal.SIGKILL)
        until(lambda: [pid for pid in workers(server) if pid != first], server)
        assert "another starts" in server.log


def test_a_killed_api_process_is_replaced(config: Path) -> None:
    with service(config) as server:
        (child,) = [pid for pid in session_members(server.process.pid) if pid != server.process.pid]
        os.kill(child, signal.SIGKILL)
        until(lambda: set(session_members(server.process.pid)) - {server.process.pid, child}, server)
        assert until(lambda: server.get("/").status, server) == 200


def test_the_end_of_the_api_ends_the_service_with_its_status(config: Path) -> None:
    with service(config, "--with-workers", "1") as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        (master,) = set(map(int, children)) - set(workers(server))
        os.kill(master, signal.SIGKILL)
        assert server.process.wait(timeout=60) == 1
        until(lambda: session_members(server.process.pid) == [], server)


@pytest.mark.parametrize("options", [(), ("--with-workers", "1")])
def test_an_address_in_use_is_said_plainly(config: Path, options: tuple[str, ...]) -> None:
    with service(config) as server:
        command = [*PROGRAM, "--config", str(config), "serve", "--bind", f"127.0.0.1:{server.port}", *options]
        second = subprocess.run(command, capture_output=True, text=True, timeout=120, **ACCOUNT)
        assert second.returncode == 1
        message = f"shifter-imagegw: cannot listen on 127.0.0.1:{server.port}: Address already in use"
        assert message in second.stderr
        assert "Traceback" not in second.stderr


@pytest.mark.parametrize(
    "bind", ["nonsense", "127.0.0.1:x", "127.0.0.1:70000", "192.0.2.1:5000", "no.such.host.invalid:1"]
)
def test_an_address_that_is_none(config: Path, bind: str) -> None:
    done = subprocess.run(
        [*PROGRAM, "--config", str(config), "serve", "--bind", bind], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert bind in done.stderr
    assert "Traceback" not in done.stderr


def test_ipv6(config: Path, munge: Munged) -> None:
    port = free_port()
    command = [*PROGRAM, "--config", str(config), "serve", "--bind", f"[::]:{port}", "--workers", "1"]
    with http_server(command, port, config.parent / "log", **ACCOUNT) as server:
        assert server.get("/api/list/cluster/", munge.credential()).status == 200


@pytest.mark.parametrize("command", ["serve", "worker", "check-config"])
def test_a_bad_configuration_stops_every_command(config: Path, command: str) -> None:
    document = json.loads(config.read_text())
    document["Platfroms"] = document.pop("Platforms")
    config.write_text(json.dumps(document))
    done = subprocess.run([*PROGRAM, "--config", str(config), command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, "did you mean 'Platfroms'" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


def test_check_config_tells_errors_from_warnings(config: Path) -> None:
    command = [*PROGRAM, "--config", str(config), "check-config"]
    good = subprocess.run(command, capture_output=True, text=True, timeout=60, **ACCOUNT)
    assert (good.returncode, "0 errors" in good.stdout) == (0, True), good.stdout + good.stderr
    (config.parent / "images").chmod(0o777)
    bad = subprocess.run(command, capture_output=True, text=True, timeout=60, **ACCOUNT)
    assert (bad.returncode, "imageDir" in bad.stdout) == (1, True)


def test_the_configuration_comes_from_option_variable_or_installation(config: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "GWCONFIG": str(config)}
    named = subprocess.run([*PROGRAM, "check-config"], env=environment, capture_output=True, text=True, timeout=60)
    assert str(config) in named.stdout
    option = [*PROGRAM, "--config", str(tmp_path / "absent"), "check-config"]
    preferred = subprocess.run(option, env=environment, capture_output=True, text=True, timeout=60)
    assert (preferred.returncode, str(tmp_path / "absent") in preferred.stderr) == (1, True)


def test_help_and_version(tmp_path: Path) -> None:
    for options, expected in (
        (["--version"], "shifter-imagegw 2"),
        (["--help"], "check-config"),
        (["serve", "-h"], "--bind"),
    ):
        done = subprocess.run([*PROGRAM, *options], capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert (done.returncode, done.stderr, expected in done.stdout) == (0, "", True)


def test_logs_are_text_on_a_terminal(config: Path) -> None:
    ours, theirs = os.openpty()
    command = [*PROGRAM, "--config", str(config), "worker"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=theirs, **ACCOUNT) as process:
        os.close(theirs)
        try:
            line = os.read(ours, 4096).decode()
        finally:
            process.terminate()
            process.wait(timeout=60)
            os.close(ours)
    assert " info " in line
    assert not line.startswith("{")
