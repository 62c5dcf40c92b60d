# SPDX-License-Identifier: BSD-3-Clause
"""setupRoot and its neighbours while the sshd of a job takes its time to start. A script stands in for sshd."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.nodestate import check_clean, processes
from tests.shifternode import ShifterNode, image_id

BASE = image_id("base")
SECRET = "5a" * 32
SSHD = """#!/bin/sh
while ! test -e /go/go; do sleep 0.05; done
echo "Server listening on nothing" >&2
sleep 1000
"""


@pytest.fixture
def go(node: ShifterNode) -> Iterator[Path]:
    """The file for which the sshd waits before it listens."""
    site, mark = node.base / "slow-udiImage", node.base / "go"
    for name, text in {
        "etc/sshd_config": "Port 1204\n",
        "etc/ssh_config": "",
        "bin/ssh": "",
        "sbin/sshd": SSHD,
    }.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    mark.mkdir()
    node.configure(optUdiImage=str(site), siteFs=f"{mark}:/go")
    yield mark / "go"
    assert node.as_root("unsetupRoot").returncode == 0
    check_clean(node, "at the end")
    shutil.rmtree(site)
    shutil.rmtree(mark)


@contextmanager
def starting(node: ShifterNode, *around: str) -> Iterator[subprocess.Popen[str]]:
    command = [*around, node.program("setupRoot"), "-u", node.alice.name, "-J", "1@n", "-s", "@-", "id", BASE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/") as process:
        assert process.stdin is not None
        process.stdin.write(f"{SECRET}\n")
        process.stdin.close()
        process.stdin = None
        try:
            yield process
        except BaseException:
            node.as_root("unsetupRoot")  # strace ends with what it follows
            raise


def await_that(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_who_is_taken_away_meanwhile_leaves_alone_what_is_shown_since(node: ShifterNode, go: Path) -> None:
    shown = node.udi_mount / "etc"
    with starting(node) as process:
        await_that(lambda: list(node.state.glob("*/*/sshd")))
        assert shown.exists()
        assert node.as_root("unsetupRoot").returncode == 0
        assert not shown.exists()
        other = node.as_root("setupRoot", "-u", node.eve.name, "-J", "2@n", "id", BASE)
        assert other.returncode == 0, other.stderr
        assert shown.exists()
        go.touch()
        message = "setupRoot: unsetupRoot has taken the container away while it was built\n"
        assert (process.communicate(timeout=60)[1], process.returncode) == (message, 1)
    assert shown.exists()


def test_no_process_that_it_starts_has_the_nodes_lock(node: ShifterNode, go: Path) -> None:
    """It may wait for a file system that keeps it for ever, which the delay stands in for."""
    go.touch()
    delay = ("-e", "trace=setns", "-e", "inject=setns:delay_enter=3000000")
    with starting(node, "strace", "-f", "-o", "/dev/null", *delay) as process:
        await_that(lambda: len(processes(node)) == 3)  # it, the watcher, what becomes sshd
        await_that(lambda: len(processes(node)) == 3 and list(node.state.glob("*/*/sshd")))
        holding = [entry for entry in Path("/proc").glob("[0-9]*/fd/*") if links_to(entry, node.state)]
        assert holding == []
        await_that(lambda: list(node.state.glob("*/*/ready")))
        assert node.as_root("unsetupRoot").returncode == 0  # strace ends with the watcher
        assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)


def links_to(link: Path, target: Path) -> bool:
    try:
        return link.readlink() == target
    except OSError:  # closed just now
        return False
