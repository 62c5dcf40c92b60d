# SPDX-License-Identifier: BSD-3-Clause
"""Programs of the site that root runs while a container is built: when, where, and what becomes of what they make."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"


def log(node: ShifterNode) -> Path:
    return node.base / "hooks.log"


@pytest.fixture
def hooked(node: ShifterNode) -> ShifterNode:
    log(node).unlink(missing_ok=True)
    for name in ("site", "module"):
        (node.base / name).mkdir(exist_ok=True)
        (node.base / name / "file").write_text(f"{name}\n")
    return node


def record(node: ShifterNode, name: str, script: str = "") -> str:
    """A hook that writes down what it sees of the mounts of the others."""
    look = f"echo {name}: $(cat srv/data/file mnt/deep/file mnt/module/file 2>/dev/null) >> {log(node)}"
    return str(node.add_program(name, f"#!/bin/sh\nset -e\n{look}\n{script}\n"))


def test_hooks_run_in_the_contracts_order_and_see_the_mounts_made_so_far(hooked: ShifterNode) -> None:
    node = hooked
    node.configure(
        f"module_m_roothook={record(node, 'root')}\nmodule_m_siteFs={node.base}/module:/mnt/module\n"
        f"module_n_roothook={record(node, 'other')}",
        sitePreMountHook=record(node, "pre"), sitePostMountHook=record(node, "post"),
        siteFs=f"{node.base}/site:/srv/data;{node.base}/site:/mnt/deep",
    )
    done = node.run(IMAGE, "--module=n,m", "/bin/cat", "/srv/data/file", "/mnt/deep/file", "/mnt/module/file")
    assert done.stdout == "site\nsite\nmodule\n", done.stderr
    seen = log(node).read_text()
    assert seen == "pre:\npost: site site\nother: site site module\nroot: site site module\n"
    log(node).unlink()
    assert node.run(IMAGE, "/bin/true").returncode == 0
    assert log(node).read_text() == "pre:\npost: site site\n"


def test_what_hooks_make_is_part_of_the_container(hooked: ShifterNode) -> None:
    node = hooked
    pre = record(
        node, "pre",
        "mkdir -p global/homes made/by\necho hook > made/by/file\nmkdir srv; echo beside > srv/beside\n"
        "mount -t tmpfs -o mode=0755 test made\necho mounted > made/file\nmkdir -p bin; chmod 0755 bin",
    )  # fmt: skip
    post = record(node, "post", "ln -s global/homes home\ntest -e home/file\necho '127.9.9.9 hooked' >> etc/hosts")
    node.configure(sitePreMountHook=pre, sitePostMountHook=post, siteFs=f"{node.base}/site:/global/homes")
    output = node.script("cat /made/file /home/file /srv/beside /srv/data/file; cat /etc/hosts; ls /bin/cat")
    assert output.startswith("mounted\nsite\nbeside\nfrom the image\n")
    assert "127.9.9.9 hooked\n" in output
    assert output.endswith("/bin/cat\n")


def test_a_mount_that_a_hook_makes_is_restricted_like_all_others(hooked: ShifterNode) -> None:
    node = hooked
    pre = record(node, "pre", "mkdir made\nmount -t tmpfs test made\nmkdir made/in\nmount -t tmpfs test made/in")
    node.configure(sitePreMountHook=pre)
    options = {
        line.split()[4]: set(line.split()[5].split(","))
        for line in node.script("cat /proc/self/mountinfo").splitlines()
    }
    for point in ("/made", "/made/in"):
        assert {"nosuid", "nodev"} <= options[point]


def test_hooks_work_in_the_absolute_udi_mount_too(hooked: ShifterNode) -> None:
    node = hooked
    script = f"test $PWD = {node.udi_mount}\ncat {node.udi_mount}/srv/data/file\nmkdir {node.udi_mount}/absolute"
    node.configure(sitePostMountHook=record(node, "post", script), siteFs=f"{node.base}/site:/srv/data")
    assert node.script("ls -d /absolute") == "/absolute\n"


@pytest.mark.parametrize(
    ("text", "works"), [("#!/usr/bin/env bash\n[[ a = a ]] && mkdir made\n", True), ("mkdir made\n", True), ("", True)]
)
def test_a_hook_is_run_by_its_own_interpreter_or_the_shell(hooked: ShifterNode, text: str, works: bool) -> None:
    node = hooked
    node.configure(sitePreMountHook=str(node.add_program("pre", text)))
    assert node.run(IMAGE, "/bin/ls", "/").returncode == (0 if works else 125)


def test_a_hook_that_is_no_script(hooked: ShifterNode) -> None:
    node = hooked
    program = node.base / "etc/binary"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    node.configure(sitePreMountHook=str(program))
    assert node.script("echo runs") == "runs\n"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'no such licence' >&2; exit 3", "failed: no such licence"),
        ("exit 7", "exited with status 7 and did not say why"),
        ("kill -9 $$", "was killed by signal 9"),
        ("exec sleep 1000", "did not end within 4 seconds and was killed"),
        ("printf '\\033[31mred\\nand more\\n' >&2; exit 1", "failed: ?[31mred and more"),
        ("mount -t tmpfs x .", "something is mounted over"),
    ],
)
@pytest.mark.parametrize("key", ["sitePreMountHook", "sitePostMountHook", "roothook"])
def test_a_hook_that_fails_stops_the_start(hooked: ShifterNode, key: str, script: str, words: str) -> None:
    node = hooked
    hook = node.add_program("hook", f"#!/bin/sh\necho chatter\n{script}\n")
    node.configure_hook(key, hook)
    done = node.run(IMAGE, "/bin/id", "-u")
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert words in done.stderr
    assert key in done.stderr or "over" in words
    assert done.stderr.count("\n") == 1
    prepared = node.as_root("setupRoot", "-u", node.alice.name, "id", image_id("base"))
    assert prepared.returncode == 1
    assert words in prepared.stderr
    assert not node.state.exists()


def test_a_hook_that_works_is_not_heard(hooked: ShifterNode) -> None:
    node = hooked
    loud = "echo chatter; echo chatter >&2; head -c 1000000 /dev/zero >&2"
    node.configure(sitePreMountHook=record(node, "pre", loud))
    done = node.run(IMAGE, "/bin/id", "-u")
    assert (done.stdout, done.stderr) == (f"{node.alice.uid}\n", "")


def test_hooks_run_when_a_container_is_prepared_and_not_when_it_is_entered(hooked: ShifterNode) -> None:
    node = hooked
    node.configure(sitePreMountHook=record(node, "pre", "mkdir made"), siteFs=f"{node.base}/site:/srv/data")
    done = node.as_root("setupRoot", "-u", node.alice.name, "-N", "here/1", "id", image_id("base"))
    assert done.returncode == 0, done.stderr
    for _rank in range(3):
        assert node.script("ls -d /made /var/hostsfile; cat /srv/data/file") == "/made\n/var/hostsfile\nsite\n"
    assert log(node).read_text() == "pre:\n"
    node.configure(sitePreMountHook=record(node, "second"), siteFs=f"{node.base}/site:/srv/data")
    assert node.run(IMAGE, "/bin/ls", "/var/hostsfile").returncode != 0


def test_mount_points_of_the_image_keep_owner_and_mode(hooked: ShifterNode, tmp_path: Path) -> None:
    node = hooked
    tree = base_tree(tmp_path / "tree")
    (tree / "srv").chmod(0o751)
    (tree / "srv/data").chmod(0o1777)
    (tree / "srv/file").write_text("of the image\n")
    node.add_image("modes", tree)
    maps = f"{node.base}/site:/srv/data;{node.base}/site/file:/srv/file"
    node.configure(sitePostMountHook=record(node, "post", "stat -c '%n %a' srv | tee modes"), siteFs=maps)
    assert node.script("stat -c '%a' /srv; cat /srv/file /modes; ls -d /srv/data", image="modes") == (
        "751\nsite\nsrv 751\n/srv/data\n"
    )
    assert (tree / "srv/file").read_text() == "of the image\n"


@pytest.mark.parametrize(
    "masked",
    ["openat2", "open_tree", "mount_setattr", "close_range", "openat2,open_tree,move_mount,mount_setattr,close_range"],
)
def test_old_kernels_get_the_same_container(hooked: ShifterNode, masked: str) -> None:
    node = hooked
    node.configure(
        sitePreMountHook=record(node, "pre", "mkdir made; mount -t tmpfs x made; echo made > made/file"),
        sitePostMountHook=record(node, "post"),
        siteFs=f"{node.base}/site:/srv/data;{node.base}/site/file:/mnt/deep/file:ro",
    )
    trace = ["strace", "-f", "-o", "/dev/null", "-e", f"inject={masked}:error=ENOSYS", "-u", node.alice.name]
    script = "cat /made/file /srv/data/file /mnt/deep/file; cat /proc/self/mountinfo"
    done = subprocess.run(
        [*trace, *node.command(IMAGE, "/bin/sh", "-c", script)], check=False, capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("made\nsite\nsite\n")
    assert log(node).read_text() == "pre:\npost: site site\n"
    for line in done.stdout.splitlines()[3:]:
        point, options = line.split()[4:6]
        assert "nosuid" in options or point.startswith("/dev"), line
