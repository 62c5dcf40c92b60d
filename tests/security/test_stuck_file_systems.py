# SPDX-License-Identifier: BSD-3-Clause
"""A user's file system that never answers keeps his own container waiting, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts import MARK
from tests.shifternode import ShifterNode, image_id
from tests.stuckfs import stuck_file_system

BASE = image_id("base")


@pytest.fixture
def stuck(node: ShifterNode) -> Iterator[Path]:
    point = Path(f"/tmp/shifter-stuck-{MARK}")
    point.mkdir(exist_ok=True)
    os.chown(point, node.eve.uid, node.eve.gid)
    node.configure(allowLocalChroot="1")
    with stuck_file_system(point, node.eve):
        yield point
    point.rmdir()


@pytest.mark.slow
def test_the_nodes_lock_is_not_kept_by_who_cannot_be_killed(node: ShifterNode, stuck: Path) -> None:
    """Others are served while he is waited for, and what is being built for him is not taken for debris."""
    command = [node.program("setupRoot"), "-u", node.eve.name, "-v", f"{stuck}/x:/mnt", "id", BASE]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as waiting:
        while not list(node.state.glob(f"*/{node.eve.uid}.0/holders/*")):
            time.sleep(0.01)
        for _job in range(2):
            prepared = node.as_root("setupRoot", "-u", node.alice.name, "-J", "1@n", "id", BASE)
            assert prepared.returncode == 0, prepared.stderr
            assert node.as_root("unsetupRoot", "-J", "1@n").returncode == 0
        assert waiting.poll() is None
        _none, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert "was not built within 30 seconds" in errors
    assert not node.state.exists()


@pytest.mark.slow
def test_a_local_image_that_never_answers_keeps_a_prolog_for_a_while_only(node: ShifterNode, stuck: Path) -> None:
    done = node.as_root("setupRoot", "-u", node.eve.name, "local", f"{stuck}/x")
    assert done.returncode == 1
    assert "was not built within 30 seconds" in done.stderr
    assert not node.state.exists()


@pytest.mark.slow
def test_equal_requests_do_not_wait_for_one_failure_after_the_other(node: ShifterNode, stuck: Path) -> None:
    """The first one is waited for; when it has failed, the others try at the same time."""
    command = [node.program("setupRoot"), "-u", node.eve.name, "-v", f"{stuck}/x:/mnt"]
    jobs = [subprocess.Popen([*command, "-J", f"{job}@n", "id", BASE], stderr=subprocess.DEVNULL) for job in range(3)]
    most = 0
    while any(job.poll() is None for job in jobs):
        most = max(most, len(list(node.state.glob(f"*/{node.eve.uid}.*"))))
        if most > 1:
            for job in jobs:
                job.kill()
        time.sleep(0.01)
    assert most == 2
