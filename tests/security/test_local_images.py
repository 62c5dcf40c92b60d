# SPDX-License-Identifier: BSD-3-Clause
"""W-1: a local: image shows nobody what he could not see on the node, however it is laid out and exchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shifternode import ShifterNode, base_tree

EVERY_KERNEL = True
SECRET = "the secret\n"


@pytest.fixture
def place(node: ShifterNode) -> Iterator[Path]:
    """A directory of eve's with a root file system of hers, next to one of root's with a readable file in it."""
    node.configure(allowLocalChroot="1")
    base = node.base / "place"
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    (closed / "secret").write_text(SECRET)
    base_tree(base / "tree")
    for path in (base / "tree", *(base / "tree").rglob("*")):
        os.lchown(path, node.eve.uid, node.eve.gid)
    yield base
    shutil.rmtree(base)


def run(node: ShifterNode, image: Path, script: str) -> subprocess.CompletedProcess[str]:
    return node.run(f"--image=local:{image}", "/bin/sh", "-c", script, user=node.eve)


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o744])
def test_a_directory_the_user_cannot_list_or_enter_is_no_image(node: ShifterNode, place: Path, mode: int) -> None:
    image = base_tree(place / "locked/inner").parent
    image.chmod(mode)
    done = run(node, image, "true")
    assert done.returncode == 125
    assert "with your rights" in done.stderr
    prepared = node.as_root("setupRoot", "-u", node.eve.name, "local", str(image))
    assert prepared.returncode == 1
    assert "with your rights" in prepared.stderr
    if mode == 0o700:
        assert run(node, image / "inner", "true").returncode == 125


@pytest.mark.parametrize("name", ["etc", "var", "opt", "made", "srv"])
def test_a_closed_directory_stays_closed_where_the_container_has_one_too(
    node: ShifterNode, place: Path, name: str
) -> None:
    """The container's own directory has mode 0755: it must not stand in for the closed one."""
    tree = place / "tree"
    shutil.rmtree(tree / name, ignore_errors=True)
    shutil.copytree(place / "closed", tree / name)
    (tree / name).chmod(0o700)
    node.configure(
        allowLocalChroot="1", siteFs="/usr/share:/opt/share;/usr/share:/made/share",
        sitePreMountHook=str(node.add_program("hook", "#!/bin/sh\nmkdir -p made\n")),
    )
    done = run(node, tree, f"cat /{name}/secret")
    assert SECRET not in done.stdout
    assert done.returncode != 0


@pytest.mark.parametrize("name", ["etc/lure", "lure", "var/lure", "etc", "var", "home"])
@pytest.mark.parametrize("absolute", [True, False])
def test_links_lead_nowhere_but_into_the_container(
    node: ShifterNode, place: Path, name: str, absolute: bool
) -> None:
    lure = place / "tree" / name
    if lure.exists():
        shutil.rmtree(lure)
    lure.symlink_to(place / "closed" if absolute else "../closed")
    assert SECRET not in run(node, place / "tree", f"cat /{name}/secret /closed/secret").stdout


@pytest.mark.parametrize("path", ["/proc/self/cwd", "/proc/self/root", "/proc/self/fd/3", "UDI_MOUNT"])
def test_no_path_leads_into_the_building_site(node: ShifterNode, place: Path, path: str) -> None:
    """What root stands in and has open while it builds, and what it mounts at udiMount, is not the user's to name."""
    shown = {name: f"{name}:{name}" for name in ("/usr", "/bin", "/lib", "/lib64")}
    node.configure(allowLocalChroot="1", siteFs=";".join(shown.values()))
    node.udi_mount.mkdir(exist_ok=True)
    command = node.command(f"--image=local:{path.replace('UDI_MOUNT', str(node.udi_mount))}", "/bin/ls", "/")
    done = node.as_user(command, user=node.eve, cwd=str(place))
    # Without openat2 the link of a process's root is read as text, which names the node's.
    assert not {"root", "upper", "work", "image", "cache", "directory"} & set(done.stdout.split()) or (
        node.hidden and path == "/proc/self/root")
    if path == "UDI_MOUNT":
        assert done.returncode == 0, done.stderr


def test_setuid_and_device_files_are_harmless(node: ShifterNode, place: Path) -> None:
    tree = place / "tree"
    os.chown(tree / "bin/id", 0, 0)
    (tree / "bin/id").chmod(0o6755)
    os.mknod(tree / "zero", 0o020666, os.makedev(1, 5))
    (tree / "zero").chmod(0o666)
    assert run(node, tree, "id -u").stdout == f"{node.eve.uid}\n"
    assert run(node, tree, "head -c1 /zero").returncode != 0


def test_a_race_for_an_entry_is_never_won(node: ShifterNode, place: Path) -> None:
    """The user exchanges a directory and a link to a closed one while the container is built."""
    tree = place / "tree"
    (tree / "bait").mkdir()
    (tree / "lure").symlink_to(place / "closed")
    (tree / "etc/bait").mkdir()
    (tree / "etc/lure").symlink_to(place / "closed")
    for path in (tree / "bait", tree / "etc/bait", tree / "etc"):
        os.chown(path, node.eve.uid, node.eve.gid)
    swap = (
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\nwhile True:\n for at in ('', 'etc/'):\n"
        "  libc.renameat2(-100, (sys.argv[1] + at + 'bait').encode(), -100, (sys.argv[1] + at + 'lure').encode(), 2)"
    )
    swapper = subprocess.Popen(
        ["/usr/bin/python3", "-c", swap, f"{tree}/"], user=node.eve.uid, group=node.eve.gid, extra_groups=[]
    )
    try:
        for _attempt in range(100):
            done = run(node, tree, "cat /bait/secret /lure/secret /etc/bait/secret /etc/lure/secret")
            assert SECRET not in done.stdout
    finally:
        swapper.kill()
        swapper.wait()


def test_a_directory_of_countless_entries_is_refused(node: ShifterNode, place: Path) -> None:
    many = place / "tree/etc/many"
    many.mkdir()
    for number in range(5000):
        (many.parent / f"file{number}").touch()
    done = run(node, place / "tree", "true")
    assert done.returncode == 125
    assert "more than 4096 entries" in done.stderr
