# SPDX-License-Identifier: BSD-3-Clause
"""The sshd of prepared containers from the prolog to the epilog: it ends, with all that it began."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from pathlib import Path

from tests.killed import Hit, KillAfter
from tests.nodestate import processes
from tests.shifternode import image_id
from tests.sshpair import DIRECTORY, PORT, Pair, await_gone, listeners, processes_of


def test_nothing_of_the_logins_outlives_the_release(pair: Pair) -> None:
    pair.prepare()
    alice = pair.node.alice
    first, last = (str(5000000 + os.getpid() + extra) for extra in (0, 10000000))
    # One stays in the foreground, one leaves its session and its parents.
    left = pair.ssh(0, f"(exec /bin/sleep {last} </dev/null >/dev/null 2>&1 &) ; exit 0")
    assert left.returncode == 0, left.stderr
    with subprocess.Popen(
        pair.nodes[0].inside(
            "env", "-i", "PATH=/usr/bin:/bin", "SLURM_JOB_ID=7", "SLURMD_NODENAME=n1",
            *pair.node.command(f"--image=id:{image_id('base')}", "ssh", "-oBatchMode=yes", "n2", f"sleep {first}"),
            user=alice,
        ), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as client:  # fmt: skip
        deadline = time.monotonic() + 30
        while len(processes_of(alice, f"^sleep {first}")) < 1:
            assert time.monotonic() < deadline
            assert client.poll() is None
            time.sleep(0.05)
        assert len(processes_of(alice, f"sleep {last}")) == 1
        pair.release(1)
        assert processes_of(alice, f"^(/bin/)?sleep ({first}|{last})") == []
        assert client.wait(30) == 255
    assert listeners(pair.nodes[1]) == []
    assert len(pair.watchers()) == 1
    pair.release(0)
    assert processes_of(alice, "sshd") == []
    assert pair.node.loop_devices() == []


def test_a_second_prolog_of_the_job_keeps_the_sshd_and_one_after_its_death_starts_another(pair: Pair) -> None:
    pair.prepare()
    before = processes_of(pair.node.alice, "sshd -D")
    assert len(before) == 2
    pair.prepare()
    assert processes_of(pair.node.alice, "sshd -D") == before
    for process in before:
        os.kill(process, signal.SIGKILL)
    await_gone(pair.node.alice, "sshd -D")
    assert pair.ssh(0, "true").returncode == 255
    while pair.watchers():
        time.sleep(0.05)
    pair.prepare()
    assert pair.ssh(0, "true").returncode == 0


def test_a_setup_killed_while_it_starts_sshd_leaves_none_that_nobody_knows(pair: Pair, tmp_path: Path) -> None:
    """At each call from the one that makes the watcher on."""
    tracer, node, alice = KillAfter(tmp_path), pair.nodes[0], pair.node.alice
    command = pair.setup(alice.name, alice, "7@n1")

    def run(number: int) -> Hit:
        done = node.run(*tracer.traced(number, command), input=pair.told())
        return tracer.outcome(number, done)

    assert not run(0).hit
    pair.release(0)
    made = tracer.last_fork()
    for number in range(made, made + 9):
        hit = run(number)
        pair.release(0)
        await_gone(alice, "sshd")
        deadline = time.monotonic() + 20
        while processes(pair.node):  # the watcher without its sshd as well
            assert time.monotonic() < deadline, hit
            time.sleep(0.02)
        assert pair.node.loop_devices() == [], hit


def test_the_user_can_end_his_sshd_but_not_what_watches_it(pair: Pair) -> None:
    pair.prepare()
    for watcher in pair.watchers():
        done = pair.node.as_user(["/bin/sh", "-c", f"kill -9 {watcher}"])
        assert "not permitted" in done.stderr
        assert Path(f"/proc/{watcher}/status").read_text().split("Uid:")[1].split()[:4] == ["0"] * 4
        # Nothing of the prolog's stays open: its lock, its pipes.
        kinds = {str(entry.readlink()) for entry in Path(f"/proc/{watcher}/fd").iterdir()}
        assert {kind.split(":")[0] for kind in kinds} == {"/dev/null", "pipe", "anon_inode"}


def test_an_occupied_port_is_told_and_nothing_stays(pair: Pair) -> None:
    assert pair.set_up(0).returncode == 0
    done = pair.set_up(0, job="8", secret="6b" * 32)
    assert done.returncode == 1
    assert "the container's sshd does not start: " in done.stderr
    assert f"Bind to port {PORT} on 0.0.0.0 failed: Address already in use" in done.stderr
    assert len(pair.watchers()) == 1
    assert pair.shifter(0, "/bin/true", job="8").returncode == 0


def test_without_dash_s_there_is_neither_key_nor_listener(pair: Pair) -> None:
    name = pwd.getpwuid(pair.node.alice.uid).pw_name
    done = pair.nodes[0].run(pair.node.program("setupRoot"), "-u", name, "-J", "7@n1", "id", image_id("base"))
    assert done.returncode == 0, done.stderr
    assert listeners(pair.nodes[0]) == []
    assert pair.shifter(0, "ls", DIRECTORY, "/etc/ssh").returncode != 0
