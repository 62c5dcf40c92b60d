# SPDX-License-Identifier: BSD-3-Clause
"""setupRoot and unsetupRoot while another setupRoot of the node is building: who waits, and for what."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.nodestate import check_clean
from tests.shifternode import ShifterNode, image_id

BASE = image_id("base")


def setup(node: ShifterNode, holder: str, *options: str) -> list[str]:
    return [node.program("setupRoot"), "-u", node.alice.name, "-J", holder, *options, "id", BASE]


def holders(node: ShifterNode) -> list[list[str]]:
    """Of each environment."""
    return [sorted(path.name for path in place.iterdir()) for place in sorted(node.state.glob("*/*/holders"))]


@contextmanager
def building(node: ShifterNode, holder: str = "1@n") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A setupRoot of alice's whose builder stands still, and the builder, which goes on with SIGCONT. Others go on."""
    begun = node.base / "begun"
    begun.unlink(missing_ok=True)
    script = f"test -e {begun} || {{ echo $PPID > {begun}.new; mv {begun}.new {begun}; kill -STOP $PPID; }}"
    node.configure(sitePreMountHook=str(node.add_program("stopping", f"#!/bin/sh\n{script}\n")))
    with subprocess.Popen(setup(node, holder), stderr=subprocess.PIPE, text=True, cwd="/") as process:
        while not begun.exists():
            time.sleep(0.01)
        builder = int(begun.read_text())
        try:
            yield process, builder
        finally:
            subprocess.run(["kill", "-CONT", str(builder)], check=False, stderr=subprocess.DEVNULL)


def finish(process: subprocess.Popen[str], builder: int) -> tuple[int, str]:
    subprocess.run(["kill", "-CONT", str(builder)], check=True)
    text = process.communicate(timeout=60)[1]
    return process.returncode, text


def test_other_requests_do_not_wait(node: ShifterNode) -> None:
    with building(node) as (process, builder):
        for options in (["-N", "other/1"], ["-v", "/srv/data:/mnt"]):
            assert subprocess.run(setup(node, "2@n", *options), cwd="/", check=False, timeout=60).returncode == 0
        eve = node.as_root("setupRoot", "-u", node.eve.name, "-J", "3@n", "id", BASE)
        assert eve.returncode == 0, eve.stderr
        assert holders(node) == [["1@n"], ["2@n"], ["2@n"], ["3@n"]]
        for holder in ("2@n", "3@n"):
            assert node.as_root("unsetupRoot", "-J", holder).returncode == 0
        assert holders(node) == [["1@n"]]
        assert process.poll() is None
        assert finish(process, builder) == (0, "")
    assert node.as_root("unsetupRoot", "-J", "1@n").returncode == 0
    check_clean(node, "at the end")


def test_the_same_request_waits_and_shares(node: ShifterNode) -> None:
    with building(node) as (process, builder):
        others = [subprocess.Popen(setup(node, f"{job}@n"), cwd="/") for job in range(2, 5)]
        time.sleep(0.3)
        assert [other.poll() for other in others] == [None] * 3
        assert holders(node) == [["1@n"]]
        assert finish(process, builder) == (0, "")
        assert [other.wait(60) for other in others] == [0] * 3
    assert holders(node) == [["1@n", "2@n", "3@n", "4@n"]]
    assert node.as_root("unsetupRoot").returncode == 0
    check_clean(node, "at the end")


def test_who_waits_ends_when_he_is_asked_to(node: ShifterNode) -> None:
    with building(node) as (process, builder):
        other = subprocess.Popen(setup(node, "2@n"), cwd="/", stderr=subprocess.PIPE, text=True)
        time.sleep(0.3)
        other.terminate()
        text = other.communicate(timeout=60)[1]
        assert (other.returncode, text.count("\n")) in ((1, 1), (-15, 0)), text  # before it had looked
        assert holders(node) == [["1@n"]]
        assert finish(process, builder) == (0, "")


@pytest.mark.parametrize("dead", ["builder", "setup"])
def test_who_waits_for_one_that_is_killed_builds_himself(node: ShifterNode, dead: str) -> None:
    with building(node) as (process, builder):
        other = subprocess.Popen(setup(node, "2@n"), cwd="/")
        time.sleep(0.3)
        subprocess.run(["kill", "-KILL", str(builder if dead == "builder" else process.pid)], check=True)
        assert other.wait(60) == 0
        assert process.wait(60) != 0
        assert holders(node) == [["2@n"]]
    assert node.as_root("unsetupRoot", "-J", "2@n").returncode == 0
    check_clean(node, "at the end")


@pytest.mark.parametrize("options", [["-J", "1@n"], []], ids=["holder", "all"])
def test_what_is_taken_away_while_it_is_built_does_not_stay(node: ShifterNode, options: list[str]) -> None:
    with building(node) as (process, builder):
        assert node.as_root("unsetupRoot", *options).returncode == 0
        assert process.poll() is None
        message = "setupRoot: unsetupRoot has taken the container away while it was built\n"
        assert finish(process, builder) == (1, message)
    check_clean(node, "at the end")


def test_a_teardown_clears_up_after_a_setup_that_was_killed_while_it_built(node: ShifterNode) -> None:
    with building(node) as (process, _builder):
        process.kill()
        process.wait()
        assert node.as_root("unsetupRoot", "-J", "1@n").returncode == 0
        assert not node.state.exists()
    check_clean(node, "at the end")


def test_the_state_directory_can_vanish_before_it_is_locked(node: ShifterNode) -> None:
    """The last teardown removes it."""
    node.state.mkdir(mode=0o700)
    log = node.base / "trace"
    calls = "?mkdir,mkdirat"
    delayed = ["strace", "-o", str(log), "-e", f"trace={calls}", "-e", f"inject={calls}:delay_exit=2000000:when=1"]
    with subprocess.Popen([*delayed, *setup(node, "1@n")], stderr=subprocess.PIPE, text=True, cwd="/") as process:
        while not log.exists() or str(node.state) not in log.read_text():
            time.sleep(0.01)
        node.state.rmdir()
        assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    log.unlink()
    assert holders(node) == [["1@n"]]


def test_a_shown_container_can_go_when_a_start_has_opened_its_place(node: ShifterNode) -> None:
    assert subprocess.run(setup(node, "1@n"), cwd="/", check=False).returncode == 0
    assert (node.udi_mount / "etc").exists()
    log = node.base / "trace"
    traced = ["strace", "-u", node.eve.name, "-o", str(log), "-e", "trace=mount,openat2"]
    delay = ["-e", "inject=mount:delay_enter=2000000:when=2"]
    start = node.command(f"--image=id:{BASE}", "/bin/true")
    with subprocess.Popen([*traced, *delay, *start], stderr=subprocess.PIPE, text=True, cwd="/") as process:
        while not log.exists() or "MS_SLAVE" not in log.read_text():
            time.sleep(0.01)
        time.sleep(0.5)  # it opens the place
        assert node.as_root("unsetupRoot").returncode == 0
        assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    log.unlink()
