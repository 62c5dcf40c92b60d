# SPDX-License-Identifier: BSD-3-Clause
"""Prologs and epilogs of many jobs at once, of which some are killed at any moment: who is not killed gets what he
asked for, and the node is as before."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.nodestate import check_clean, totals
from tests.shifternode import ShifterNode, image_id

BASE = image_id("base")
WORKERS, SECONDS = 8, 20
TAKEN_AWAY = "setupRoot: unsetupRoot has taken the container away while it was built\n"
REQUESTS: tuple[list[str], ...] = ([], [], ["-N", "a/1"], ["-N", "b/2"], ["-v", "/srv/data:/mnt"])


@dataclass
class Worker:
    """One job after the other, until the time is over."""

    node: ShifterNode
    number: int
    end: float
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.number)

    def call(self, name: str, *arguments: str, killed: float, expected: str = "") -> bool:
        """Whether it ended well; `killed` is how likely it is that it is not left alone."""
        command = [self.node.program(name), *arguments]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd="/") as process:
            victim = self.random.random() < killed
            if victim:
                time.sleep(self.random.random() * 0.1)
                process.send_signal(self.random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            text = process.communicate(timeout=120)[1]
        if process.returncode != 0 and not victim and text != expected:
            self.wrong.append(f"{command}: {process.returncode} {text}")
        return process.returncode == 0

    def job(self, count: int) -> None:
        user = self.random.choice([self.node.alice, self.node.eve])
        holder = f"{self.number}.{count}@n"
        request = self.random.choice(REQUESTS)
        arguments = ["-u", user.name, "-J", holder, *request, "id", BASE]
        if self.call("setupRoot", *arguments, killed=0.3, expected=TAKEN_AWAY) and self.random.random() < 0.3:
            done = self.node.run(f"--image=id:{BASE}", "/bin/true", user=user)
            if done.returncode != 0:
                self.wrong.append(f"shifter: {done.returncode} {done.stderr}")
        while not self.call("unsetupRoot", "-J", holder, killed=0.2) and not self.wrong:
            continue
        if self.random.random() < 0.05:
            self.call("unsetupRoot", killed=0.2)

    def work(self) -> list[str]:
        count = 0
        while time.monotonic() < self.end and not self.wrong:
            self.job(count := count + 1)
        return self.wrong


@pytest.mark.slow
def test_jobs_come_go_and_are_killed(node: ShifterNode) -> None:
    before = totals(node)
    end = time.monotonic() + SECONDS
    with ThreadPoolExecutor(WORKERS) as pool:
        wrong = pool.map(lambda number: Worker(node, number, end).work(), range(WORKERS))
        assert [line for lines in wrong for line in lines] == []
    assert not list(node.state.glob("*/*/ready"))  # every holder was taken off
    assert node.as_root("unsetupRoot").returncode == 0
    check_clean(node, "at the end")
    after = totals(node)
    assert {**after, "files": 0} == {**before, "files": 0}
