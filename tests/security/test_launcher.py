# SPDX-License-Identifier: BSD-3-Clause
"""Who can use the setuid launcher, with what, and that old kernels change nothing. The sec- numbers are those of the
security requirements; see docs/security.md."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import oldkernel
from tests.accounts import User
from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"
EVERY_KERNEL = True


# identity, configuration, access


def test_root_cannot_use_the_launcher(node: ShifterNode) -> None:
    done = subprocess.run(node.command(IMAGE, "/bin/true"), check=False, capture_output=True, text=True, cwd="/")
    assert done.returncode == 125
    assert "root" in done.stderr


def test_gid_zero_cannot_use_the_launcher_and_never_comes_along(node: ShifterNode) -> None:
    node.refused(IMAGE, "/bin/true", user=User("x", node.alice.uid, 0))
    with_root_group = User(node.alice.name, node.alice.uid, node.alice.gid, (0, 7))
    assert "0" not in node.script("id -G", user=with_root_group).split()


def test_w23_groups_are_those_of_the_process(node: ShifterNode) -> None:
    kept = User(node.alice.name, node.alice.uid, node.alice.gid, tuple(range(5000, 5040)))
    assert {int(group) for group in node.script("id -G", user=kept).split()} == {node.alice.gid, *range(5000, 5040)}


def test_a_copy_without_the_setuid_bit_says_so(node: ShifterNode) -> None:
    copy = node.base / "bin/plain-shifter"
    copy.write_bytes(Path(node.program("shifter")).read_bytes())
    copy.chmod(0o755)
    done = node.as_user([str(copy), IMAGE, "/bin/true"])
    assert done.returncode == 125
    assert "setuid" in done.stderr


def test_a_configuration_that_others_can_write_is_refused(node: ShifterNode) -> None:
    for mode in (0o664, 0o646):
        node.conf.chmod(mode)
        assert str(node.conf) in node.refused(IMAGE, "/bin/true")
    node.conf.unlink()
    assert str(node.conf) in node.refused(IMAGE, "/bin/true")


def test_an_account_the_site_does_not_know_is_refused(node: ShifterNode) -> None:
    assert "54321" in node.refused(IMAGE, "/bin/true", user=User("x", 54321, 54321))


def test_sec74_the_acl_holds_for_ids_too(node: ShifterNode) -> None:
    identifier = node.add_image("acl", node.base / "tree", f"USERACL: {node.alice.uid}\n")
    assert node.script("cat /etc/os-release", image="acl") == "NAME=TestImage\n"
    node.refused(f"--image=id:{identifier}", "/bin/true", user=node.eve)


def test_sec74_malformed_ids_are_refused(node: ShifterNode) -> None:
    good = image_id("base")
    for bad in (good.upper(), good[:-1], good + "0", "../" + good, good[:-1] + "/", "." * 64):
        node.refused(f"--image=id:{bad}", "/bin/true")


def test_sec74_an_image_without_metadata_is_refused(node: ShifterNode) -> None:
    identifier = node.add_image("bare", node.base / "tree")
    (node.images / f"{identifier}.meta").unlink()
    node.refused(f"--image=id:{identifier}", "/bin/true")


# sec-17, sec-27


def test_sec17_a_container_cannot_mount_or_see_the_old_root(node: ShifterNode) -> None:
    assert node.run(IMAGE, "/bin/mount", "-t", "tmpfs", "x", "/tmp").returncode != 0
    assert str(node.base) not in node.script("cat /proc/self/mountinfo")


def test_sec27_the_launcher_cannot_be_overwritten(node: ShifterNode) -> None:
    before = Path(node.program("shifter")).read_bytes()
    script = f"echo x > {node.program('shifter')}"
    assert node.as_user(["/bin/sh", "-c", script]).returncode != 0
    assert Path(node.program("shifter")).read_bytes() == before


# sec-16: state


def test_sec16_state_that_root_did_not_make_is_not_used(node: ShifterNode) -> None:
    node.state.mkdir(mode=0o777)
    node.state.chmod(0o777)
    try:
        assert node.script("cat /etc/os-release") == "NAME=TestImage\n"
        done = node.as_root("setupRoot", "-u", node.alice.name, "id", image_id("base"))
        assert done.returncode == 1
        assert str(node.state) in done.stderr
    finally:
        node.state.rmdir()


# Fallbacks of older kernels are as strict: one call is missing, or all the newer ones


@pytest.mark.parametrize(
    "node",
    [("openat2",), ("open_tree", "move_mount"), ("mount_setattr",), ("close_range",), (oldkernel.LOOP_CONFIGURE,),
     oldkernel.EVERYTHING],
    indirect=True,
)  # fmt: skip
def test_old_kernels_get_the_same_container(node: ShifterNode) -> None:
    tree = base_tree(node.base / "old-tree")
    (tree / "out").symlink_to("/../../srv")
    node.add_image("old", tree)
    node.configure(siteFs="/usr/share:/out/made/here:ro:rec;/etc/hostname:/new/file")
    script = "cat /new/file; ls /proc/self/fd; touch /out/made/here/x; cat /proc/self/mountinfo"
    done = node.run(f"--image=id:{image_id('old')}", "/bin/sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "Read-only" in done.stderr
    assert done.stdout.startswith(Path("/etc/hostname").read_text() + "0\n1\n2\n3\n")
    mounts = [line.split() for line in done.stdout.splitlines()[5:]]
    reachable = {fields[4]: fields[5].split(",") for fields in mounts}  # the last one at a point covers the others
    assert {"/", "/srv/made/here", "/new/file", "/proc", "/sys", "/dev", "/tmp"} <= reachable.keys()
    for point, options in reachable.items():
        assert "nosuid" in options, point
        assert "nodev" in options or point.startswith("/dev"), point
    assert "ro" in reachable["/"]
    assert "ro" in reachable["/srv/made/here"]
