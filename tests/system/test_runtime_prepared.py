# SPDX-License-Identifier: BSD-3-Clause
"""setupRoot, unsetupRoot, and `shifter` entering what was prepared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.accounts import User
from tests.shifternode import ShifterNode, base_tree, host_mounts, image_id
from udiroot.check import check
from udiroot.check.problem import ERROR

IMAGE = f"--image=id:{image_id('base')}"


def setup(node: ShifterNode, *options: str, image: str = "base", user: User | None = None) -> None:
    who = user or node.alice
    done = node.as_root(
        "setupRoot", "-u", who.name, "-U", str(who.uid), "-G", str(who.gid), *options, "id", image_id(image)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def unsetup(node: ShifterNode, *options: str) -> None:
    done = node.as_root("unsetupRoot", *options)
    assert done.returncode == 0, done.stderr


def environments(node: ShifterNode) -> list[Path]:
    return sorted(node.state.glob("*/*"))


def system_calls(node: ShifterNode, *command: str) -> list[str]:
    trace = node.base / "trace"
    done = subprocess.run(
        ["strace", "-f", "-o", str(trace), "-u", node.alice.name, *node.command(IMAGE, *command)],
        check=False, capture_output=True, text=True, cwd="/",
    )
    assert done.returncode == 0, done.stderr
    calls = [line.split(" ", 1)[1].lstrip().split("(")[0] for line in trace.read_text().splitlines()]
    trace.unlink()
    return calls


def test_the_prepared_tree_is_seen_at_udi_mount(node: ShifterNode) -> None:
    setup(node)
    state = json.loads((node.udi_mount / "var/shifterConfig.json").read_text())
    assert state["identifier"] == image_id("base")
    assert (node.udi_mount / "etc/os-release").read_text() == "NAME=TestImage\n"


def test_entering_a_prepared_environment_mounts_nothing(node: ShifterNode) -> None:
    setup(node)
    calls = system_calls(node, "/bin/true")
    assert "setns" in calls
    assert not {"mount", "move_mount", "open_tree", "unshare", "pivot_root", "umount2"} & set(calls)
    assert calls.count("execve") == 2


def test_entering_a_prepared_environment_asks_for_no_account(node: ShifterNode) -> None:
    """As many tasks as a node has would ask the directory service at once."""
    files = node.base / "etc/files"
    everybody = (files / "passwd").read_text()
    node.configure(allowLibcPwdCalls="0")
    setup(node)
    try:
        lines = everybody.splitlines(keepends=True)
        (files / "passwd").write_text("".join(line for line in lines if not line.startswith(f"{node.alice.name}:")))
        assert "setns" in system_calls(node, "/bin/true")
        assert json.loads(node.script("cat /var/shifterConfig.json"))["user"] == node.alice.name
        node.add_image("other", base_tree(node.base / "other-tree"))
        refused = node.run(f"--image=id:{image_id('other')}", "/bin/true")
        assert (refused.returncode, refused.stdout) == (125, "")
        assert f"uid {node.alice.uid} has no account in {files}/passwd" in refused.stderr
    finally:
        (files / "passwd").write_text(everybody)


def test_a_private_start_beside_prepared_ones_is_for_its_own_account(node: ShifterNode) -> None:
    setup(node)
    namespace = node.script("readlink /proc/self/ns/mnt")
    script = "cat /var/shifterConfig.json; id -un; readlink /proc/self/ns/mnt"
    state, name, own = node.script(script, user=node.eve).splitlines()
    assert json.loads(state)["user"] == name == node.eve.name
    assert own != namespace.strip()


def test_ranks_share_the_prepared_namespace(node: ShifterNode) -> None:
    setup(node)
    assert node.script("readlink /proc/self/ns/mnt") == node.script("readlink /proc/self/ns/mnt")


def test_what_is_entered_is_as_restricted_as_a_private_start(node: ShifterNode) -> None:
    setup(node)
    status = node.script("cat /proc/self/status")
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Read-only" in node.run(IMAGE, "/bin/touch", "/etc/x").stderr


def test_another_user_another_image_or_another_configuration_starts_privately(node: ShifterNode) -> None:
    setup(node)
    mine = node.script("readlink /proc/self/ns/mnt")
    assert node.script("readlink /proc/self/ns/mnt", user=node.eve) != mine
    node.add_image("other", base_tree(node.base / "other-tree"))
    assert node.script("readlink /proc/self/ns/mnt", image="other") != mine
    node.configure(siteFs="/usr/share:/usr/share:ro")
    assert node.script("readlink /proc/self/ns/mnt") != mine


def test_setup_twice_adds_a_holder_and_the_last_one_takes_it_away(node: ShifterNode) -> None:
    setup(node, "-J", "7@n1")
    setup(node, "-J", "7@n1")
    setup(node, "-J", "7@n2")
    assert len(environments(node)) == 1
    unsetup(node, "-J", "7@n1")
    unsetup(node, "-J", "7@n1")
    assert len(environments(node)) == 1
    assert (node.udi_mount / "etc/os-release").exists()
    unsetup(node, "-J", "7@n2")
    assert not node.state.exists()
    assert list(node.udi_mount.iterdir()) == []


def test_several_jobs_are_prepared_at_once(node: ShifterNode) -> None:
    node.add_image("other", base_tree(node.base / "other-tree"))
    setup(node, "-J", "1@n1")
    setup(node, "-J", "2@n1", image="other")
    setup(node, "-J", "3@n1", user=node.eve)
    assert len(environments(node)) == 3
    for arguments in ({}, {"image": "other"}, {"user": node.eve}):
        assert node.script("cat /var/shifterConfig.json", **arguments)
    unsetup(node, "-J", "1@n1")
    assert len(environments(node)) == 2
    assert "setns" not in system_calls(node, "/bin/true")
    unsetup(node, "-J", "2@n1")
    unsetup(node, "-J", "3@n1")


def test_a_job_finds_its_own_hosts_file(node: ShifterNode) -> None:
    setup(node, "-J", "1@n1", "-N", "a/2 b/1")
    setup(node, "-J", "2@n1", "-N", "c/1")
    for job, hosts in (("1", "a\na\nb\n"), ("2", "c\n")):
        env = {"PATH": "/bin", "SLURM_JOB_ID": job, "SLURMD_NODENAME": "n1"}
        assert node.script("cat /var/hostsfile", env=env) == hosts


@pytest.mark.parametrize("hosts", ["a", "a/", "a/0", "a/x", "/2"])
def test_a_bad_host_list_is_refused(node: ShifterNode, hosts: str) -> None:
    done = node.as_root("setupRoot", "-u", node.alice.name, "-N", hosts, "id", image_id("base"))
    assert done.returncode == 1
    assert hosts in done.stderr


def test_unsetup_without_a_holder_removes_everything(node: ShifterNode) -> None:
    setup(node, "-J", "1@n1")
    setup(node, "-J", "2@n1", user=node.eve)
    subprocess.run(["mount", "-t", "tmpfs", "stacked", str(node.udi_mount)], check=True)
    unsetup(node)
    assert host_mounts() == []
    unsetup(node)


def test_processes_of_the_job_outlive_the_teardown(node: ShifterNode) -> None:
    setup(node)
    process = subprocess.Popen(
        node.command(IMAGE, "/bin/sh", "-c", "echo in; read go; cat /etc/os-release"),
        user=node.alice.uid, group=node.alice.gid, extra_groups=[], cwd="/",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    unsetup(node)
    assert process.communicate("go\n", timeout=60)[0] == "NAME=TestImage\n"


def test_a_failed_setup_undoes_itself(node: ShifterNode) -> None:
    node.configure(siteFs="/does/not/exist:/somewhere")
    done = node.as_root("setupRoot", "-u", node.alice.name, "id", image_id("base"))
    assert done.returncode == 1
    assert "/does/not/exist" in done.stderr
    assert not node.state.exists()
    assert host_mounts() == []


def test_setup_killed_at_any_moment_leaves_nothing_the_next_one_cannot_heal(node: ShifterNode) -> None:
    for delay in range(0, 24, 2):
        process = subprocess.Popen(
            [node.program("setupRoot"), "-u", node.alice.name, "-J", "9@n1", "id", image_id("base")],
            stderr=subprocess.DEVNULL, cwd="/",
        )
        time.sleep(delay / 1000)
        process.send_signal(signal.SIGKILL)
        process.wait()
        setup(node, "-J", "9@n1")
        assert len(environments(node)) == 1
        assert "setns" in system_calls(node, "/bin/true")
        unsetup(node, "-J", "9@n1")
        assert not node.state.exists()
        assert host_mounts() == []


def test_setups_at_the_same_time_agree_on_one_environment(node: ShifterNode) -> None:
    running = [
        subprocess.Popen(
            [node.program("setupRoot"), "-u", node.alice.name, "-J", f"{job}@n1", "id", image_id("base")], cwd="/"
        )
        for job in range(8)
    ]
    assert [process.wait(60) for process in running] == [0] * 8
    assert len(environments(node)) == 1
    for job in range(8):
        unsetup(node, "-J", f"{job}@n1")
    assert not node.state.exists()


def test_the_tree_of_an_image_with_an_acl_is_not_shown_to_the_node(node: ShifterNode) -> None:
    node.add_image("mine", node.base / "tree", f"USERACL: {node.alice.uid}\n")
    setup(node, image="mine")
    assert not (node.udi_mount / "var").exists()
    assert "setns" not in system_calls(node, "/bin/true")
    assert node.script("cat /etc/os-release", image="mine") == "NAME=TestImage\n"


def test_nothing_of_the_sites_is_hidden_by_a_tree(node: ShifterNode) -> None:
    """A udiMount with something in it, be it a dot file, is not shifter's own: nothing is prepared for anybody."""
    place = node.base / "of-the-site"
    place.mkdir()
    node.add_image("mine", node.base / "tree", f"USERACL: {node.alice.uid}\n")
    for directory, image in ((node.base / "bin", "base"), (place, "base"), (place, "mine")):
        (directory / ".keep").touch()
        node.configure(udiMount=str(directory))
        done = node.as_root("setupRoot", "-u", node.alice.name, "id", image_id(image))
        assert (done.returncode, done.stdout) == (1, "")
        assert f"udiMount {directory} is not empty" in done.stderr
        assert not node.state.exists()
        (found,) = [problem for problem in check(node.conf, installed=True) if problem.key == "udiMount"]
        assert (found.severity, "is not empty" in found.message) == (ERROR, True)
        assert node.script("cat /etc/os-release", image=image) == "NAME=TestImage\n"  # nobody else sees that one
        (directory / ".keep").unlink()
    setup(node)
    assert (place / "etc/os-release").exists()
    assert [problem for problem in check(node.conf, installed=True) if problem.key == "udiMount"] == []
    setup(node, user=node.eve)
    unsetup(node)
    place.rmdir()


def test_wrong_use_is_refused_with_status_1(node: ShifterNode) -> None:
    image = image_id("base")
    for arguments in (
        [], ["id", image], ["-u", "root", "id", image], ["-u", node.alice.name, "-U", "0", "-G", "0", "id", image],
        ["-u", node.alice.name, "id", "../etc/passwd"], ["-u", node.alice.name, "id", image.upper()],
        ["-u", node.alice.name, "-J", "../x", "id", image], ["-u", node.alice.name, "vm", image],
        ["-u", "nobody-such", "id", image], ["-u", node.alice.name, "-v", "/tmp:/etc", "id", image],
    ):
        done = node.as_root("setupRoot", *arguments)
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert done.stderr.startswith("setupRoot: "), arguments
    assert node.as_root("unsetupRoot", "-J", "../x").returncode == 1
    assert not node.state.exists()


def test_only_root_prepares(node: ShifterNode) -> None:
    for command in (["setupRoot", "-u", node.alice.name, "id", image_id("base")], ["unsetupRoot"]):
        done = node.as_user([node.program(command[0]), *command[1:]])
        assert done.returncode == 1
        assert "only root" in done.stderr


def test_the_umask_is_the_callers_in_a_prepared_environment_too(node: ShifterNode) -> None:
    setup(node)
    assert node.script("umask", preexec_fn=lambda: os.umask(0o077)) == "0077\n"
