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
    command = [node.program("setupRoot"), "-u", node.eve.name, "-v", f"{stuck}/x:/mnt", "id", BASE]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as waiting:
        time.sleep(1)
        assert waiting.poll() is None
        began = time.monotonic()
        prepared = node.as_root("setupRoot", "-u", node.alice.name, "id", BASE)
        assert prepared.returncode == 0, prepared.stderr
        assert time.monotonic() - began < 40
        _none, errors = waiting.communicate(timeout=10)
    assert waiting.returncode == 1
    assert "was not built within 30 seconds" in errors
    assert node.as_root("unsetupRoot").returncode == 0
    assert not node.state.exists()
