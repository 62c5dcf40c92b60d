# SPDX-License-Identifier: BSD-3-Clause
"""What one user, or an odd mount of the host, could do to the containers of others."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.accounts import MARK
from tests.nodestate import backing_files
from tests.shifternode import ShifterNode, base_tree, image_id

EVERY_KERNEL = True


def prepare(node: ShifterNode, image: str = "base", *arguments: str) -> subprocess.CompletedProcess[str]:
    return node.as_root("setupRoot", "-u", node.alice.name, *arguments, "id", image_id(image))


@contextmanager
def mounted(point: Path, *options: str) -> Iterator[Path]:
    """A tmpfs there, until the end."""
    point.mkdir(exist_ok=True, parents=True)
    subprocess.run(["mount", "-t", "tmpfs", *options, f"test-{MARK}", str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-R", str(point)], check=True)


def test_a_stopped_holder_of_the_loop_lock_holds_up_nobody(node: ShifterNode) -> None:
    """Its user can stop the process that has the lock; here somebody simply keeps it."""
    with Path("/dev/loop-control").open("r+b", buffering=0) as control:
        fcntl.flock(control, fcntl.LOCK_EX)
        assert node.script("echo runs") == "runs\n"
        assert prepare(node).returncode == 0


def test_a_tree_that_its_user_can_write_is_not_shown_to_others(node: ShifterNode) -> None:
    node.configure(mountUdiRootWritable="1")
    assert prepare(node).returncode == 0
    assert list(node.udi_mount.iterdir()) == []


@pytest.mark.parametrize("node", [()], indirect=True)  # old kernels show no tree
def test_a_shown_tree_does_not_travel_to_peers_of_the_host(node: ShifterNode) -> None:
    """Where / is shared, services have namespaces that are its slaves: nothing may stay in them."""
    script = f"""
        set -e
        mount --make-rshared /
        unshare -m --propagation slave sleep 600 & slave=$!
        trap 'kill $slave' EXIT
        while [ "$(readlink /proc/$slave/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.05; done
        {node.program("setupRoot")} -u {node.alice.name} id {image_id("base")}
        test -e {node.udi_mount}/var/shifterConfig.json
        if grep -F ' {node.udi_mount}/' /proc/$slave/mountinfo; then exit 1; fi
        {node.program("unsetupRoot")}
        if grep -F '{node.udi_mount}' /proc/$slave/mountinfo /proc/self/mountinfo; then exit 1; fi
    """
    # On each processor: since Linux 6.18 it decides whether a namespace looks older than one made on another.
    for cpu in sorted(os.sched_getaffinity(0)):
        anywhere = ["taskset", "-c", f"0-{os.cpu_count()}", "bash", "-c", script]
        command = ["taskset", "-c", str(cpu), "unshare", "-m", *anywhere]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    assert node.loop_devices() == []


@pytest.mark.parametrize("propagation", ["slave", "private"])
@pytest.mark.parametrize("node", [()], indirect=True)  # old kernels show no tree
def test_a_copy_of_a_shown_tree_goes_with_it_unless_it_was_made_private(node: ShifterNode, propagation: str) -> None:
    """Whoever unshares while a tree is shown has a copy, such as a service that starts: a slave gives it up at once."""
    assert prepare(node).returncode == 0
    command = ["unshare", "-m", "--propagation", propagation, "/bin/sh", "-c", "echo there; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "there\n"

        def has_copy() -> bool:
            return f" {node.udi_mount}/" in Path(f"/proc/{holder.pid}/mountinfo").read_text()

        assert has_copy()
        assert node.as_root("unsetupRoot").returncode == 0
        assert has_copy() == (propagation == "private")
        assert node.loop_devices() == [] if propagation == "slave" else backing_files(node) != []
        # What is left hinders nobody, and goes with the process.
        assert prepare(node).returncode == 0
        assert node.script("echo runs") == "runs\n"
        assert node.as_root("unsetupRoot").returncode == 0
        holder.communicate("\n")
    assert node.loop_devices() == []


def test_a_mount_that_arrives_beneath_another_one_does_no_harm(node: ShifterNode) -> None:
    """What propagation brings is put beneath what is there: it cannot be reached, so its flags do not matter."""
    with mounted(node.base / "outer") as outer:
        subprocess.run(["mount", "--make-shared", str(outer)], check=True)
        (outer / "sub").mkdir()
        node.configure(siteFs=f"{outer}:/outer:slave;{node.base}/tree:/outer/sub")
        assert prepare(node).returncode == 0
        with mounted(outer / "sub"):
            assert "bin" in node.script("ls /outer/sub")


def test_unsetup_takes_only_its_own_side_of_what_is_bound_there(node: ShifterNode) -> None:
    victim = node.base / "victim"
    with mounted(victim), mounted(node.udi_mount), mounted(node.udi_mount / "d"):
        (node.udi_mount / "d/victim").mkdir()
        subprocess.run(["mount", "--bind", str(victim), str(node.udi_mount / "d/victim")], check=True)
        done = node.as_root("unsetupRoot")
        assert done.returncode == 0, done.stderr
        assert os.path.ismount(victim)
        assert not os.path.ismount(node.udi_mount)
        for point in (node.udi_mount, node.udi_mount / "d"):  # what the fixtures unmount again
            point.mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", f"test-{MARK}", str(point)], check=True)


def test_a_writable_root_in_unlimited_memory_is_refused(node: ShifterNode) -> None:
    node.configure(mountUdiRootWritable="1", rootfsType="ramfs")
    done = node.run(f"--image=id:{image_id('base')}", "/bin/true")
    assert done.returncode == 125
    assert "rootfsType=tmpfs" in done.stderr


@pytest.mark.parametrize("family", ["SHIFTER_", "SLURM_SPANK_SHIFTER_"])
def test_what_the_environment_asks_for_in_vain_is_refused(node: ShifterNode, family: str) -> None:
    image = f"--image=id:{image_id('base')}"
    done = node.run(image, "/bin/true", env={"PATH": "/bin", f"{family}MODULE": "mpich"})
    assert done.returncode == 125
    assert "there is no module 'mpich'" in done.stderr
    assert node.run(image, "/bin/true", env={"PATH": "/bin", f"{family}MODULE": ""}).returncode == 0


def test_no_text_of_an_image_or_user_steers_the_terminal(node: ShifterNode, tmp_path: Path) -> None:
    node.add_image("steering", base_tree(tmp_path / "tree"), "WORKDIR: /\x1b]0;owned\x07\x1b[31m\n")
    image = f"--image=id:{image_id('steering')}"
    for option in ("--workdir", "--workdir=/x\nshifter: forged", "--workdir=/\u009b31m"):
        done = node.run(image, option, "/bin/true")
        assert done.returncode == 0
        assert not any(character in done.stderr[:-1] for character in "\x1b\x07\n\u009b"), done.stderr


def test_a_denied_tag_does_not_tell_its_id(node: ShifterNode, tmp_path: Path) -> None:
    node.add_image("secret", base_tree(tmp_path / "tree"), f"PRIVATE: 1\nUSERACL: {node.alice.uid}\nGROUPACL: \n")
    node.tag("docker", "secret%2Fapp%3A1", "secret")
    done = node.run("--image=docker:secret/app:1", "/bin/true", user=node.eve)
    assert done.returncode == 125
    assert image_id("secret") not in done.stderr
    assert "secret/app:1" in done.stderr


@pytest.mark.parametrize(
    "hosts",
    ["a\x1b[31m/1", "a b\nc/1", "a\tb/1", "../x/1", "a/+1", "a/\t1", "a/-18446744073709551615", "a/65537", "a/1/1"],
)
def test_host_lists_hold_host_names_and_numbers(node: ShifterNode, hosts: str) -> None:
    done = prepare(node, "base", "-N", hosts)
    assert done.returncode == 1
    assert "HOST/COUNT" in done.stderr


def test_files_that_others_own_are_not_copied_into_containers(node: ShifterNode) -> None:
    foreign = node.base / "etc/files/foreign"
    foreign.write_text("x\n")
    os.chown(foreign, node.eve.uid, node.eve.gid)
    try:
        done = node.run(f"--image=id:{image_id('base')}", "/bin/true")
        assert done.returncode == 125
        assert str(foreign) in done.stderr
    finally:
        foreign.unlink()


def test_a_per_node_cache_that_the_node_cannot_make_is_refused_not_left_out(node: ShifterNode) -> None:
    node.configure(siteFs="/tmp:/cache:perNodeCache=size=300M")
    done = node.run(f"--image=id:{image_id('base')}", "/bin/true")
    assert done.returncode == 125
    assert "perNodeCache" in done.stderr
