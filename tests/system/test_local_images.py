# SPDX-License-Identifier: BSD-3-Clause
"""local:/path, a directory of the node in place of an image."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.shifternode import ShifterNode, base_tree

STATE = "cat /var/shifterConfig.json"


@pytest.fixture
def tree(node: ShifterNode) -> Path:
    """A root file system of the node's, below a directory that everybody can enter."""
    place = base_tree(node.base / "local")
    (place / "etc/own").write_text("own\n")
    (place / "var/log/file").write_text("log\n")
    (place / "link").symlink_to("/etc/own")
    (place / "home").mkdir()
    os.chown(place / "home", node.alice.uid, node.alice.gid)
    node.configure(allowLocalChroot="1")
    return place


def run(node: ShifterNode, tree: Path | str, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return node.run(f"--image=local:{tree}", *options, "/bin/sh", "-c", script)


def test_w1_the_key_decides(node: ShifterNode, tree: Path) -> None:
    for value in ("0", "1"):
        node.configure(allowLocalChroot=value)
        done = run(node, tree, "true")
        prepared = node.as_root("setupRoot", "-u", node.alice.name, "local", str(tree))
        assert (done.returncode, prepared.returncode) == ((125, 1) if value == "0" else (0, 0)), done.stderr
        assert value == "1" or "allowLocalChroot is 0" in done.stderr
        assert value == "1" or "allowLocalChroot is 0" in prepared.stderr


def test_the_directory_is_the_container(node: ShifterNode, tree: Path) -> None:
    done = run(node, tree, f"cat /etc/own /var/log/file /link /srv/data/file; head -1 /etc/passwd; {STATE}; env")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("own\nlog\nown\nfrom the image\nroot:")
    state = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert state["identifier"] == str(tree)
    assert f"SHIFTER_IMAGE={tree}\n" in done.stdout
    assert f"SHIFTER_IMAGEREQUEST=local:{tree}\n" in done.stdout
    assert "image hosts" not in run(node, tree, "cat /etc/hosts").stdout
    assert run(node, tree, "wc -c < /etc/shadow").stdout == "0\n"


def test_what_the_user_may_write_he_may_write(node: ShifterNode, tree: Path) -> None:
    done = run(node, tree, "echo x > /home/new; echo x > /etc/new || echo x > /srv/new || echo read-only")
    assert done.stdout == "read-only\n"
    assert (tree / "home/new").read_text() == "x\n"
    assert not (tree / "srv/new").exists()
    for line in run(node, tree, "cat /proc/self/mountinfo").stdout.splitlines():
        point, options = line.split()[4:6]
        assert "nosuid" in options, line
        assert "nodev" in options or point.startswith("/dev"), line


def test_what_the_site_shows_stays(node: ShifterNode, tree: Path) -> None:
    site = node.base / "local-site"
    site.mkdir(exist_ok=True)
    (site / "file").write_text("site\n")
    own = node.base / "local-own"
    own.mkdir(exist_ok=True)
    (own / "tool").write_text("tool\n")
    (tree / "opt/software").mkdir(parents=True)
    hook = node.add_program("hook", "#!/bin/sh\nset -e\nmkdir srv\ntest ! -e bin\necho hook > srv/hook\n")
    node.configure(
        allowLocalChroot="1", siteFs=f"{site}:/var/log;{site}:/new/place", optUdiImage=str(own),
        sitePreMountHook=str(hook),
    )
    done = run(node, tree, "cat /var/log/file /new/place/file /opt/udiImage/tool /srv/hook /srv/data/file; ls /opt")
    assert done.stdout == "site\nsite\ntool\nhook\nfrom the image\nsoftware\nudiImage\n", done.stderr


def test_users_volumes_come_from_it(node: ShifterNode, tree: Path) -> None:
    done = run(node, tree, "cat /mnt/here/file", "--volume=/srv/data:/mnt/here")
    assert done.stdout == "from the image\n", done.stderr


def test_the_root_of_the_node_itself(node: ShifterNode, tree: Path) -> None:
    done = run(node, "/", f"id -un; cat /etc/hostname; ls -d /usr/bin /proc/self; ls {node.udi_mount}; {STATE}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == node.alice.name
    assert lines[1] + "\n" == Path("/etc/hostname").read_text()
    assert lines[2:4] == ["/proc/self", "/usr/bin"]
    assert json.loads(lines[-1])["identifier"] == "/"
    assert len(lines) == 5  # udiMount is an empty directory in it


def test_a_prepared_one_is_entered_and_not_shown_to_others(node: ShifterNode, tree: Path) -> None:
    setup = ["setupRoot", "-u", node.alice.name, "-N", "here/1", "local", str(tree)]
    assert node.as_root(*setup).returncode == 0
    look = "cat /etc/own; test -e /var/hostsfile && echo prepared"
    assert run(node, tree, look).stdout == "own\nprepared\n"
    assert not (node.udi_mount / "etc").exists()
    assert node.run(f"--image=local:{tree}", "/bin/sh", "-c", look, user=node.eve).stdout == "own\n"


@pytest.mark.parametrize("path", ["relative", "/a/../b", "", "/nowhere", "/etc/passwd"])
def test_bad_paths_are_refused(node: ShifterNode, tree: Path, path: str) -> None:
    assert node.run(f"--image=local:{path}", "/bin/true").returncode == 125
    done = node.as_root("setupRoot", "-u", node.alice.name, "local", path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr


@pytest.mark.parametrize("masked", ["openat2", "openat2,open_tree,move_mount,mount_setattr,close_range"])
def test_old_kernels_get_the_same_container(node: ShifterNode, tree: Path, masked: str) -> None:
    trace = ["strace", "-f", "-o", "/dev/null", "-e", f"inject={masked}:error=ENOSYS", "-u", node.alice.name]
    command = node.command(f"--image=local:{tree}", "/bin/cat", "/etc/own", "/var/log/file", "/link")
    done = subprocess.run([*trace, *command], check=False, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stdout) == (0, "own\nlog\nown\n"), done.stderr


@pytest.mark.parametrize("suffix", ["\n", '"', "\x1b[31m", " x", "\\", "é", "/../x", "\nvolumes /a:/b"])
def test_a_path_given_to_setup_follows_the_rules_of_the_option(node: ShifterNode, tree: Path, suffix: str) -> None:
    """Else text of a user's would become lines of the plan, and of the state file."""
    path = f"{tree}{suffix}"
    if "/" not in suffix:
        shutil.copytree(tree, path, symlinks=True)
    prepared = node.as_root("setupRoot", "-u", node.alice.name, "local", path)
    done = run(node, path, "true")
    assert (prepared.returncode, done.returncode) == (1, 125)
    assert prepared.stderr.count("\n") == done.stderr.count("\n") == 1
    assert prepared.stderr.removeprefix("setupRoot: ") == done.stderr.removeprefix("shifter: --image: ")
    shutil.rmtree(path, ignore_errors=True)
