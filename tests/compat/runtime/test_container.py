# SPDX-License-Identifier: BSD-3-Clause
"""What the reference's own tests check of containers (runtime contract, section 20, "Core, unprivileged" and "Core, as
root"), asked of the installed programs. Each test is named after its line there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.accounts import MARK, User
from tests.shifternode import ShifterNode, base_tree, host_mounts, image_id

IMAGE = f"--image=id:{image_id('base')}"


def prepare(node: ShifterNode, *options: str) -> subprocess.CompletedProcess[str]:
    return node.as_root("setupRoot", "-u", node.alice.name, *options, "id", image_id("base"))


@contextmanager
def mounted(point: Path) -> Iterator[Path]:
    """A tmpfs there, until the end."""
    point.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", f"test-{MARK}", str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-R", str(point)], check=True)


# Core, unprivileged


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["/bin/printenv", "GIVEN"], "given\n"),
        ([], "shell\n"),
        (["--entrypoint"], "entry cmd\n"),
        (["--entrypoint", "mine"], "entry mine\n"),
        (["--entrypoint=/bin/pwd-like"], None),
        (["--entrypoint=/bin/cat"], "echo shell\n"),
        (["--entrypoint=/bin/cat", "/etc/os-release"], "NAME=TestImage\n"),
    ],
)
def test_command_computation(node: ShifterNode, options: list[str], expected: str | None) -> None:
    """All rows of 7.3: what is typed, else a shell; the image's entry with its own or given arguments; a program."""
    node.add_image(
        "computed", node.base / "tree", "ENTRY: ['/bin/sh', '-c', 'echo entry $0']\nCMD: ['cmd']\nENV: GIVEN=given\n"
    )
    done = node.run(f"--image=id:{image_id('computed')}", *options, input="echo shell\n")
    assert done.stdout == (expected or "")
    assert done.returncode == (127 if expected is None else 0), done.stderr


def test_command_computation_without_an_entry(node: ShifterNode) -> None:
    for options in (["--entrypoint"], ["--entrypoint", "/bin/true"]):
        done = node.run(IMAGE, *options)
        assert (done.returncode, done.stdout) == (125, "")
        assert "--entrypoint" in done.stderr


@pytest.fixture
def caches(node: ShifterNode) -> Path:
    place = node.base / "compat-caches"
    place.mkdir(exist_ok=True)
    node.configure(perNodeCachePath=str(place), perNodeCacheSizeLimit="0", mkfsXfsPath="/usr/sbin/mkfs.xfs")
    return place


def test_per_node_cache_file_name(node: ShifterNode, caches: Path) -> None:
    """It has none, so nobody guesses it; the type is XFS, named or not."""
    for flag in ("perNodeCache=size=300m", "perNodeCache=size=300m,fs=xfs"):
        running = node.start(IMAGE, f"-V/x:/cache:{flag}", "/bin/sh", "-c", "stat -f -c %T /cache; read end")
        assert running.stdout is not None
        assert running.stdout.readline() == "xfs\n"
        assert list(caches.iterdir()) == []
        running.communicate("\n", timeout=60)
    done = node.run(IMAGE, "-V/x:/cache:perNodeCache=size=300m,fs=ext4", "/bin/true")
    assert done.returncode == 125
    assert "xfs" in done.stderr


def test_backing_store_of_300_mib(node: ShifterNode, caches: Path) -> None:
    """Created when mkfs.xfs is there; the sizes of section 4.3, which the state file repeats in bytes."""
    for size in ("314572800", "307200k", "307200K", "300M", "300MB", "0.29296875g"):
        done = node.run(IMAGE, f"-V/x:/cache:perNodeCache=size={size},bs=1m", "/bin/cat", "/var/shifterConfig.json")
        assert "/x:/cache:perNodeCache=size=314572800,bs=1048576," in done.stdout, done.stderr
    node.configure(perNodeCachePath=str(caches), mkfsXfsPath="/no/such/mkfs.xfs")
    assert node.run(IMAGE, "-V/x:/cache:perNodeCache=size=300m", "/bin/true").returncode == 125


def test_byte_sizes(node: ShifterNode, caches: Path) -> None:
    """5, 5k, 500K and 500KB are sizes, which no XFS has; what follows is none."""
    sizes = {"5": True, "5k": True, "500K": True, "500KB": True, "5x": False, "k": False, "0": False}
    for size, known in sizes.items():
        done = node.run(IMAGE, f"-V/x:/cache:perNodeCache=size={size}", "/bin/true")
        assert done.returncode == 125
        assert ("volume map" in done.stderr) != known, done.stderr


def test_filesystem_types(node: ShifterNode) -> None:
    """Known to the kernel: yes; nonsense: no. It is asked by mounting, not by reading /proc/filesystems."""
    for kind in ("tmpfs", "ramfs"):
        node.configure(rootfsType=kind)
        assert node.run(IMAGE, "/bin/true").returncode == 0
    for kind in ("nonsense", "proc", "ext4"):
        node.configure(rootfsType=kind)
        done = node.run(IMAGE, "/bin/true")
        assert (done.returncode, done.stderr.count("\n")) == (125, 1)
        assert "rootfsType" in done.stderr


@pytest.mark.parametrize(
    ("hosts", "lines"),
    [
        ("node1/4", ["node1"] * 4),
        ("host1/24 host2/24 host3/24", ["host1"] * 24 + ["host2"] * 24 + ["host3"] * 24),
        ("a/1  b/2", ["a", "b", "b"]),
    ],
)
def test_hosts_file(node: ShifterNode, hosts: str, lines: list[str]) -> None:
    """A single host four times; three hosts 24 times in their order."""
    assert prepare(node, "-N", hosts).returncode == 0
    assert node.script("cat /var/hostsfile").splitlines() == lines
    assert (node.udi_mount / "var/hostsfile").read_text().splitlines() == lines


@pytest.mark.parametrize("hosts", ["node1", "node1/", "node1/x", "node1/0", "/4", "node1/4 node2"])
def test_hosts_file_malformed(node: ShifterNode, hosts: str) -> None:
    assert prepare(node, "-N", hosts).returncode == 1
    assert not node.state.exists()


def test_state_string_for_an_empty_request(node: ShifterNode) -> None:
    expected = f'{{"identifier":"{image_id("base")}","user":"{node.alice.name}","volMap":"","modules":""}}\n'
    assert node.script("cat /var/shifterConfig.json") == expected
    assert prepare(node).returncode == 0
    assert (node.udi_mount / "var/shifterConfig.json").read_text() == expected


def test_environment(node: ShifterNode) -> None:
    """Set, append, prepend and unset with exact names; on top of the image they give one PATH and two variables."""
    node.add_image("variables", node.base / "tree", "ENV: PATH=/usr/bin\nENV: DROPPED=1\n")
    node.configure(
        siteEnv="SHIFTER_RUNTIME=1", siteEnvAppend="PATH=/opt/udiImage/bin", siteEnvPrepend="PATH=/sbin",
        siteEnvUnset="DROPPED SHIFTER_IMAGE SHIFTER_IMAGEREQUEST NOT_THERE",
    )  # fmt: skip
    image = f"--image=id:{image_id('variables')}"
    cleared = node.run("--clearenv", image, "/bin/env").stdout.splitlines()
    assert sorted(cleared) == ["PATH=/sbin:/usr/bin:/opt/udiImage/bin", "SHIFTER_RUNTIME=1"]
    kept = node.run(image, "/bin/env", env={"PATH_2": "x", "DROPPED_2": "y", "PATH": "/old"}).stdout.splitlines()
    assert {"PATH_2=x", "DROPPED_2=y"} <= set(kept)
    assert len(kept) == 4


def test_process_environment(node: ShifterNode) -> None:
    """The command is looked for in the container's own PATH, not the caller's; nothing there is the error 127."""
    node.configure(siteEnv="PATH=/elsewhere:/bin")
    done = node.run(IMAGE, "cat", "/etc/os-release", env={"PATH": "/nowhere", "KEPT": "1"})
    assert (done.returncode, done.stdout) == (0, "NAME=TestImage\n"), done.stderr
    node.configure(siteEnv="PATH=/elsewhere")
    done = node.run(IMAGE, "cat", "/etc/os-release", env={"PATH": "/bin"})
    assert done.returncode == 127
    assert "cat" in done.stderr


# Core, as root


def test_copy_helper(node: ShifterNode) -> None:
    """Files of the site become root's and readable, whatever their modes; only plain files that are there."""
    files = node.base / "etc/files"
    special = {"plain": 0o600, "program": 0o755, "odd": 0o6755}
    try:
        for name, mode in special.items():
            (files / name).write_text(f"{name}\n")
            (files / name).chmod(mode)
        shown = node.script("cd /etc; stat -c '%n %u:%g %a' plain program odd passwd group; cat plain")
        assert shown == "plain 0:0 644\nprogram 0:0 644\nodd 0:0 644\npasswd 0:0 644\ngroup 0:0 644\nplain\n"
        (files / "directory").mkdir()
        assert "plain files only" in node.run(IMAGE, "/bin/true").stderr
    finally:
        shutil.rmtree(files / "directory", ignore_errors=True)
        for name in special:
            (files / name).unlink()


@pytest.mark.parametrize(
    ("lines", "groups", "expected"),
    [
        (
            "one:x:5001:a,b\ntwo:x:5002:\nthree:x:5003:a\n", (5001, 5003),
            "one:x:5001:{me}\ntwo:x:5002:\nthree:x:5003:{me}\n",
        ),
        ("root:x:0:a\none:x:5001:a\n", (0, 5001), "root:x:0:\none:x:5001:{me}\n"),
        ("one:x:5001:a\n", (), "one:x:5001:\n"),
        ("", (), ""),
        ("proj::5001:u\nbad\nbad:x:y:\none:x:5001:\n", (5001,), "proj:x:5001:{me}\none:x:5001:{me}\n"),
    ],
)  # fmt: skip
def test_group_list(node: ShifterNode, lines: str, groups: tuple[int, ...], expected: str) -> None:
    """Three data bases: normal, with an entry of gid 0 that is nobody's, none; and lines that were lost (W-19)."""
    path = node.base / "etc/files/group"
    before = path.read_text()
    path.write_text(lines)
    try:
        who = User(node.alice.name, node.alice.uid, node.alice.gid, groups)
        assert node.script("cat /etc/group", user=who) == expected.format(me=who.name)
        assert set(node.script("id -G", user=who).split()) == {str(gid) for gid in (who.gid, *groups) if gid != 0}
    finally:
        path.write_text(before)


def test_group_list_refusals(node: ShifterNode) -> None:
    """No user, `root`, gid 0."""
    zero = (["-u", node.alice.name, "-U", "0"], ["-u", node.alice.name, "-G", "0"])
    for options in ([], ["-u", ""], ["-u", "root"], *zero):
        done = node.as_root("setupRoot", *options, "id", image_id("base"))
        assert (done.returncode, done.stdout) == (1, ""), options
    assert not node.state.exists()


def test_process_found_by_command_line(node: ShifterNode) -> None:
    """So the reference found its sshd, and ended who was called so; ours is known by process id and start (W-14)."""
    assert prepare(node).returncode == 0
    poser = subprocess.Popen(
        ["/opt/udiImage/sbin/sshd", "60"], executable="/bin/sleep",
        user=node.alice.uid, group=node.alice.gid, extra_groups=(),
    )  # fmt: skip
    try:
        assert node.as_root("unsetupRoot").returncode == 0
        assert poser.poll() is None
    finally:
        poser.kill()
        poser.wait()


@pytest.mark.parametrize("propagation", ["shared", "slave", "private"])
def test_private_namespace_does_not_leak(node: ShifterNode, propagation: str) -> None:
    """Also "shared-mount detection" and "bind": whatever the host's mounts do, nothing of a container goes out."""
    script = f"""
        mount --make-r{propagation} /
        before=$(grep {MARK} /proc/self/mountinfo)
        setpriv --reuid {node.alice.uid} --regid {node.alice.gid} --clear-groups \\
            {node.program("shifter")} {IMAGE} -V/srv/data:/leaked /bin/cat /leaked/file || exit 1
        test "$before" = "$(grep {MARK} /proc/self/mountinfo)"
    """
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], check=False, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stdout) == (0, "from the image\n"), done.stderr
    assert not Path("/leaked").exists()


def test_bind(node: ShifterNode) -> None:
    """Visible; in the place of what was there; writable, then read-only."""
    site = node.base / "bound"
    for name in ("first", "second"):
        (site / name).mkdir(parents=True)
        (site / name).chmod(0o1777)
        (site / name / name).touch()
    try:
        node.configure(siteFs=f"{site}/first:/srv/data;{site}/second:/srv/data")
        assert node.script("ls /srv/data; touch /srv/data/made") == "second\n"
        assert (site / "second/made").exists()
        node.configure(siteFs=f"{site}/first:/srv/data:ro")
        assert node.script("ls /srv/data; touch /srv/data/made 2>&1 || true").endswith("Read-only file system\n")
        assert not (site / "first/made").exists()
    finally:
        shutil.rmtree(site)


def test_unmount_tree(node: ShifterNode) -> None:
    """All that is at a place and below it, in stacks too, and nothing of a sibling with a longer name."""
    sibling = node.udi_mount.with_name(f"{node.udi_mount.name}_nfs")
    try:
        with mounted(sibling), mounted(sibling / "cvmfs"):
            for point in (node.udi_mount, node.udi_mount / "cvmfs", node.udi_mount / "cvmfs"):
                point.mkdir(parents=True, exist_ok=True)
                subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", f"test-{MARK}", str(point)], check=True)
            assert node.run(IMAGE, "/bin/true").returncode == 0
            done = node.as_root("unsetupRoot")
            assert done.returncode == 0, done.stderr
            left = {Path(line.split()[2]) for line in host_mounts()}
            assert {sibling, sibling / "cvmfs"} <= left
            assert not [point for point in left if node.udi_mount in (point, *point.parents)]
    finally:
        sibling.rmdir()


def test_unmount_tree_loop_mount(node: ShifterNode) -> None:
    """What an earlier version left at `loopMount`."""
    place = node.base / "loopMount"
    place.mkdir(exist_ok=True)
    image = node.images / f"{image_id('base')}.squashfs"
    subprocess.run(["mount", "-o", "loop,ro", str(image), str(place)], check=True)
    subprocess.run(["mount", "-t", "tmpfs", f"test-{MARK}", str(place / "tmp")], check=True)
    assert node.as_root("unsetupRoot").returncode == 0
    assert not os.path.ismount(place)
    assert node.loop_devices() == []


def test_teardown_removes_everything(node: ShifterNode) -> None:
    before = host_mounts()
    assert prepare(node, "-v", "/srv/data:/x").returncode == 0
    assert host_mounts() != before
    assert node.as_root("unsetupRoot").returncode == 0
    assert host_mounts() == before
    assert list(node.udi_mount.iterdir()) == []
    assert node.loop_devices() == []
    assert not node.state.exists()


def test_local_image(node: ShifterNode) -> None:
    """Refused where `allowLocalChroot` is 0, and nothing stays mounted; accepted with 1, with the site's own files."""
    own = node.base / "own-of-site"
    own.mkdir(exist_ok=True)
    (own / "file").write_text("of the site\n")
    image = f"--image=local:{node.base}/tree"
    before = host_mounts()
    node.configure(allowLocalChroot="0", optUdiImage=str(own))
    done = node.run(image, "/bin/true")
    assert (done.returncode, done.stdout) == (125, "")
    assert "allowLocalChroot" in done.stderr
    assert host_mounts() == before
    node.configure(allowLocalChroot="1", optUdiImage=str(own))
    done = node.run(image, "/bin/cat", "/etc/os-release", "/opt/udiImage/file")
    assert (done.returncode, done.stdout) == (0, "NAME=TestImage\nof the site\n"), done.stderr


def test_dangerous_image(node: ShifterNode) -> None:
    """The reference has a placeholder. Setuid and device files, links for directories, names that end a line."""
    tree = base_tree(node.base / "dangerous-tree")
    (tree / "bin/id").chmod(0o6755)
    os.mknod(tree / "srv/mem", 0o020666, os.makedev(1, 1))
    (tree / "srv/a\nb").touch()
    for name in ("var", "etc", "proc"):
        shutil.rmtree(tree / name)
    (tree / "var").symlink_to("/tmp")
    (tree / "etc").symlink_to("../../../etc")
    (tree / "proc").write_text("")
    identifier = node.add_image("dangerous", tree, "ENV: LD_PRELOAD=/tmp/x.so\nWORKDIR: /proc/1/root\n")
    image = f"--image=id:{identifier}"
    assert node.run(image, "--workdir", "/bin/id", "-u").stdout == f"{node.alice.uid}\n"
    assert node.run(image, "/bin/cat", "/srv/mem").returncode != 0
    state = json.loads(node.run(image, "/bin/cat", "/var/shifterConfig.json").stdout)
    assert state["identifier"] == identifier
    assert not Path("/tmp/shifterConfig.json").exists()
