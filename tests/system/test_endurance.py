# SPDX-License-Identifier: BSD-3-Clause
"""What a node goes through: hundreds of starts at one moment, again and again, and nothing of them stays."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.accounts import User
from tests.installation import ROOT
from tests.nodestate import backing_files, check_clean, totals
from tests.shifternode import ShifterNode, base_tree, image_id

ROUNDS, CROWD = 100, 256
TRUE = "/bin/true"


@dataclass
class Crowd:
    """Many starts at once, and how many loop devices each image had meanwhile."""

    node: ShifterNode
    devices: Counter[str] = field(default_factory=Counter)

    def group(self, user: User, image: str, count: int, *command: str) -> list[object]:
        return [user.uid, user.gid, count, self.node.command(f"--image=id:{image_id(image)}", *(command or [TRUE]))]

    def run(self, groups: list[list[object]]) -> None:
        """All of them, to their ends, which must be good ones."""
        errors = self.node.base / "crowd-errors"
        with errors.open("w+") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.crowd", json.dumps(groups)],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=said, text=True,
            )  # fmt: skip
            while process.poll() is None:
                seen = Counter(backing_files(self.node))
                self.devices |= seen
                time.sleep(0.005)
            output = process.communicate()[0]
        text = errors.read_text()
        errors.unlink()
        assert (output, text) == ("[]", "")


@pytest.fixture
def crowd(node: ShifterNode) -> Iterator[Crowd]:
    node.add_image("other", base_tree(node.base / "other-tree"))
    yield Crowd(node)
    check_clean(node, "at the end")


def prepare(node: ShifterNode, user: User, image: str) -> None:
    done = node.as_root("setupRoot", "-u", user.name, "id", image_id(image))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_sec04_256_simultaneous_starts_a_hundred_times(crowd: Crowd) -> None:
    """Two users and two images; one of the four pairs is prepared."""
    node, quarter = crowd.node, CROWD // 4
    prepare(node, node.alice, "base")
    for round_number in range(ROUNDS):
        crowd.run([crowd.group(user, image, quarter) for user in (node.alice, node.eve) for image in ("base", "other")])
        deadline = time.monotonic() + 10
        while len(backing_files(node)) > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [Path(path).stem for path in backing_files(node)] == [image_id("base")], round_number  # the prepared one
    assert node.as_root("unsetupRoot").returncode == 0
    check_clean(node, "after the rounds")
    assert {Path(path).stem for path in crowd.devices} == {image_id("base"), image_id("other")}
    assert max(crowd.devices.values()) == 1, crowd.devices


@pytest.mark.slow
def test_a_thousand_starts_leave_the_node_as_it_was(node: ShifterNode) -> None:
    """In a namespace whose mounts are shared with a peer, as systemd has it: nothing goes out to either."""
    groups = json.dumps([Crowd(node).group(node.alice, "base", 100), Crowd(node).group(node.eve, "base", 100)])
    before, count_before = files(node), totals(node)
    script = f"""
        set -e
        mount --make-rshared /
        cat /proc/self/mountinfo > {node.base}/before
        for round in 1 2 3 4 5; do
            {sys.executable} -m tests.crowd '{groups}'
        done
        cat /proc/self/mountinfo > {node.base}/after
    """
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "bash", "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    tables = [(node.base / name).read_text() for name in ("before", "after")]
    for name in ("before", "after"):
        (node.base / name).unlink()
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]" * 5, "")
    assert tables[0] == tables[1]
    check_clean(node, "afterwards")
    assert files(node) == before
    deadline = time.monotonic() + 60
    while (grown := growth(count_before, totals(node))) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert grown == {}


def growth(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What has become more; open files are of other programs too, but one for each start would be seen."""
    noise = {"files": 500}
    return {name: after[name] - count for name, count in before.items() if after[name] > count + noise.get(name, 0)}


def files(node: ShifterNode) -> list[str]:
    """What the node's programs, or its users, could have left in a file."""
    found = [str(path) for path in node.base.rglob("*")]
    for place in ("/tmp", "/var/tmp", "/dev/shm", "/run"):
        for path in Path(place).iterdir():
            try:
                if path.lstat().st_uid in (node.alice.uid, node.eve.uid):
                    found.append(str(path))
            except FileNotFoundError:
                continue
    return sorted(found)
