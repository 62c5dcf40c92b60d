# SPDX-License-Identifier: BSD-3-Clause
"""What surrounds the launcher: the node's mounts, names that resemble each other, odd images, leftovers. The sec-
numbers are those of the security requirements."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests import oldkernel
from tests.accounts import MARK, User
from tests.security.attacks import calls_of, traced
from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"
EVERY_KERNEL = True


def refused(node: ShifterNode, *arguments: str, **options: User) -> str:
    return node.refused(*arguments, "/bin/true", **options)


def prepare(node: ShifterNode, *options: str) -> subprocess.CompletedProcess[str]:
    return node.as_root("setupRoot", "-u", node.alice.name, *options, "id", image_id("base"))


def apart(node: ShifterNode, script: str) -> subprocess.CompletedProcess[str]:
    """A script of root in a mount namespace apart; `$ALICE COMMAND` is hers, `$SHIFTER` the launcher as hers."""
    alice = f"setpriv --reuid {node.alice.uid} --regid {node.alice.gid} --clear-groups"
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script], check=False, capture_output=True, text=True, cwd="/", timeout=60,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "ALICE": alice, "SHIFTER": f"{alice} {node.program('shifter')}"},
        preexec_fn=partial(oldkernel.hide, node.hidden),
    )  # fmt: skip


# sec-10, sec-61: names that begin with the names of others


@contextmanager
def sibling(node: ShifterNode) -> Iterator[Path]:
    """A directory of the node whose name begins as that of udiMount, with something mounted."""
    place = node.udi_mount.with_name(f"{node.udi_mount.name}X")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", f"test-{MARK}", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


def test_sec10_a_sibling_of_the_mount_point_is_none_of_it(node: ShifterNode) -> None:
    """W-13: a mount on it made every start fail."""
    with sibling(node) as place:
        assert node.script("echo runs") == "runs\n"
        assert prepare(node).returncode == 0
        assert node.as_root("unsetupRoot").returncode == 0
        assert os.path.ismount(place)


def test_sec61_a_target_that_leads_to_the_sibling_is_in_the_container(node: ShifterNode) -> None:
    """A target only had to begin with the text of the mount point."""
    tree = base_tree(node.base / "sibling-tree")
    (tree / "out").symlink_to(f"..{node.udi_mount}X")
    (tree / "up").symlink_to(f"/../../..{node.udi_mount}X/made")
    node.add_image("sibling", tree)
    image = f"--image=id:{image_id('sibling')}"
    with sibling(node) as place:
        for target in ("/out", "/out/made", "/up"):
            assert "dangling" in refused(node, image, f"-V/srv/data:{target}")
        assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "target", ["/etc", "/etc/", "//etc", "/etc/x", "/var", "/var/tmp/x", "/opt/udiImage/x", "/opt/"]
)
def test_sec10_protected_targets_in_every_spelling(node: ShifterNode, target: str) -> None:
    assert "volume map" in refused(node, IMAGE, f"-V/srv/data:{target}")
    twin = target.rstrip("/") + "x"
    if target in ("/etc", "/var", "/opt/"):
        assert node.run(IMAGE, f"-V/srv/data:{twin}", "/bin/cat", f"{twin}/file").stdout == "from the image\n"


# sec-20: what the launcher reads for its caller


@pytest.mark.parametrize("name", ["self/maps", "self/smaps", "thread-self/maps", "self/fd/../stat", "version"])
def test_sec20_no_procfs_is_read_as_the_callers_file(node: ShifterNode, name: str) -> None:
    """There the kernel takes us for the process itself, and lets it see what its user cannot: where its memory lies."""
    for path in (f"/proc/{name}", f"/proc/../proc/{name}"):
        said = refused(node, f"--env-file={path}", IMAGE, "/bin/true")
        assert said.startswith(f"shifter: the environment file {path} is on procfs")


def test_variables_can_come_through_a_pipe(node: ShifterNode) -> None:
    command = f"echo PIPED=1 | {node.program('shifter')} --env-file=/dev/stdin {IMAGE} /bin/printenv PIPED"
    done = node.as_user(["/bin/sh", "-c", command])
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


# sec-06, sec-07: what an image carries besides files


def test_sec06_marks_of_overlayfs_in_an_image_redirect_nothing(node: ShifterNode) -> None:
    tree = base_tree(node.base / "marked-tree")
    (tree / "secret").mkdir()
    (tree / "secret/file").write_text("secret\n")
    (tree / "srv/data/plain").write_text("plain\n")
    for family in ("trusted", "user"):
        for name, value in (("redirect", b"/secret"), ("opaque", b"y"), ("metacopy", b"")):
            os.setxattr(tree / "srv/data", f"{family}.overlay.{name}", value)
    os.setxattr(tree / "srv/data/file", "trusted.overlay.redirect", b"/secret/file")
    os.setxattr(tree / "srv/data/file", "trusted.overlay.metacopy", b"")
    node.add_image("marked", tree)
    assert node.script("cat /srv/data/file", image="marked") == "from the image\n"
    node.configure(mountUdiRootWritable="1")
    shown = node.script("cat /srv/data/file /proc/self/mountinfo", image="marked")
    assert shown.startswith("from the image\n")
    line = next(line for line in shown.splitlines() if " - overlay " in line)
    assert {"nosuid", "nodev"} <= set(line.split()[5].split(","))
    assert "userxattr" in line or "redirect_dir=nofollow" in line
    # Before Linux 5.11 and 4.19 the kernel did not know the first options, and after them the first two.
    show = ["/bin/cat", "/srv/data/plain", "/srv/data/file", "/proc/self/mountinfo"]
    command = node.command(f"--image=id:{image_id('marked')}", *show)
    mounts = [arguments for _process, name, arguments in calls_of(node, command) if name == "mount"]
    first = next(number for number, arguments in enumerate(mounts, 1) if '"overlay"' in arguments)
    for last in (first, first + 1):
        fault = f"inject=mount:error=EINVAL:when={first}..{last}"
        done = traced(node, command, "-o", "/dev/null", "-e", fault)
        assert done.stdout.startswith("plain\n"), done.stderr
        assert "secret" not in done.stdout  # the marked file itself may be refused
        assert "redirect_dir=nofollow" in next(line for line in done.stdout.splitlines() if " - overlay " in line)
    done = traced(node, command, "-o", "/dev/null", "-e", f"inject=mount:error=EINVAL:when={first}..{first + 2}")
    assert (done.returncode, done.stdout) == (125, ""), "no overlay without any of them"


def test_sec07_nothing_gives_rights_whatever_way_it_comes_in(node: ShifterNode) -> None:
    """Setuid, setgid and capabilities of files of the image, of the site, and of a volume; devices of a site."""
    tree = base_tree(node.base / "rights-tree")
    site = node.base / "rights-site"
    site.mkdir(exist_ok=True)
    for place in (tree / "srv", site):
        shutil.copy(tree / "bin/cat", place / "setuid")
        (place / "setuid").chmod(0o6755)
        shutil.copy(tree / "bin/cat", place / "capable")
        (place / "capable").chmod(0o755)
        subprocess.run(["setcap", "cap_setuid,cap_dac_override+ep", str(place / "capable")], check=True)
        os.mknod(place / "zero", 0o020666, os.makedev(1, 5))
        (place / "zero").chmod(0o666)
    node.add_image("rights", tree)
    node.configure(siteFs=f"{site}:/site;{site}:/rec:rec")
    image = f"--image=id:{image_id('rights')}"
    for shown in ("/srv", "/site", "/rec", "/volume"):
        for program in ("setuid", "capable"):
            command = [f"{shown}/{program}", "/proc/self/status"]
            status = node.run(image, "-V/site:/volume", *command).stdout
            assert f"Uid:\t{node.alice.uid}\t{node.alice.uid}\t{node.alice.uid}\t{node.alice.uid}\n" in status, command
            assert f"Gid:\t{node.alice.gid}\t{node.alice.gid}\t{node.alice.gid}\t{node.alice.gid}\n" in status, command
            assert "CapEff:\t0000000000000000\n" in status, command
        assert node.run(image, "-V/site:/volume", "/bin/head", "-c1", f"{shown}/zero").returncode == 1
    shutil.rmtree(site)


# sec-12, sec-13, sec-14, sec-24: trees that are not as expected


def test_sec12_system_directories_that_are_missing_are_made(node: ShifterNode) -> None:
    tree = base_tree(node.base / "bare-tree")
    for name in ("etc", "proc", "tmp", "var", "opt", "srv"):
        shutil.rmtree(tree / name)
    node.add_image("bare", tree)
    shown = node.script("cat /proc/self/comm; ls -d /sys/kernel /dev/null /tmp /var/tmp /etc/passwd", image="bare")
    assert shown == "cat\n/dev/null\n/etc/passwd\n/sys/kernel\n/tmp\n/var/tmp\n"


def test_sec13_a_proc_that_is_none_is_noticed(node: ShifterNode) -> None:
    """Before anything of it is believed: here it is a tmpfs with the right names."""
    script = f"mount -t tmpfs -o mode=755 {MARK} /proc; mkdir /proc/self; exec $SHIFTER {IMAGE} /bin/true"
    done = apart(node, script)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1), done.stderr


@pytest.mark.parametrize(
    "place", ["/proc/self/fd/{}", "/proc/1/cwd", "/proc/self/cwd/..", "/proc/self/root/..", "/dev/fd/{}"]
)
def test_sec14_no_magic_link_leads_a_working_directory_out(node: ShifterNode, place: str) -> None:
    held = [os.open("/", os.O_RDONLY | os.O_DIRECTORY), os.open(node.base, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        for number in (*held, 3, 9):
            path = place.format(number)
            identifier = node.images / f"{image_id('led')}.meta"
            if not identifier.exists():
                node.add_image("led", node.base / "tree")
            identifier.write_text(f"FORMAT: squashfs\nWORKDIR: {path}\n")
            for options in ((IMAGE, f"--workdir={path}"), (f"--image=id:{image_id('led')}", "--workdir")):
                script = "pwd -P; cd ../../../../../../..; cat etc/os-release"
                done = node.run(*options, "/bin/sh", "-c", script, pass_fds=held, cwd=str(node.base))
                # The walk of old kernels takes such a link for text, which may name a directory of the container.
                assert done.stdout in ("/\nNAME=TestImage\n", "/proc\nNAME=TestImage\n"), (path, done.stderr)
    finally:
        for fd in held:
            os.close(fd)


def test_sec24_libraries_that_a_site_adds_go_where_the_container_has_them(node: ShifterNode) -> None:
    """A module puts files at paths that the image chose: links there lead to the container's own places."""
    outside = node.base / "outside-libraries"
    outside.mkdir(exist_ok=True)
    tree = base_tree(node.base / "libraries-tree")
    (tree / "usr").mkdir(exist_ok=True)
    (tree / "usr/lib").symlink_to(f"../../../..{outside}")
    (tree / "usr/local").symlink_to("/srv")
    node.add_image("libraries", tree)
    node.configure("module_gpu_siteFs=/usr/share:/usr/local/driver:ro;/etc/hostname:/usr/local/driver.so:ro")
    image = f"--image=id:{image_id('libraries')}"
    shown = node.run(image, "--module=gpu", "/bin/ls", "-d", "/srv/driver", "/srv/driver.so")
    assert shown.returncode == 0, shown.stderr
    node.configure("module_gpu_siteFs=/usr/share:/usr/lib/driver:ro")
    assert "dangling" in refused(node, image, "--module=gpu")
    assert list(outside.iterdir()) == []


# sec-16, sec-76: state


@pytest.mark.parametrize("kind", ["file", "link", "fifo", "foreign directory", "open directory"])
def test_sec16_state_of_somebody_else_is_not_used(node: ShifterNode, kind: str, tmp_path: Path) -> None:
    trap = Path(f"/tmp/shifter-trap-{MARK}")
    trap.mkdir(exist_ok=True)
    if kind == "file":
        node.state.write_text("")
    elif kind == "link":
        node.state.symlink_to(trap)
    elif kind == "fifo":
        os.mkfifo(node.state)
    else:
        node.state.mkdir()
        node.state.chmod(0o700 if kind == "foreign directory" else 0o777)
    os.chown(node.state, node.eve.uid, node.eve.gid, follow_symlinks=False)
    os.chown(trap, node.eve.uid, node.eve.gid)
    try:
        assert node.script("echo runs") == "runs\n"
        done = prepare(node)
        assert done.returncode == 1
        assert str(node.state) in done.stderr
        assert list(trap.iterdir()) == []
    finally:
        trap.rmdir()
        if node.state.is_dir() and not node.state.is_symlink():
            node.state.rmdir()
        else:
            node.state.unlink()


@pytest.mark.parametrize("owner", ["root, open to all", "the caller"])
def test_sec16_a_forged_environment_is_no_answer_to_which_image(node: ShifterNode, owner: str) -> None:
    """Where nothing names an image: what only root can have written counts, and only with a namespace behind it."""
    assert prepare(node).returncode == 0
    real = next(node.state.glob("*/*"))
    name, plan = f"{real.parent.name}/{real.name}", (real / "plan").read_text()
    assert node.run("/bin/true").returncode == 0
    assert node.as_root("unsetupRoot").returncode == 0
    forged = node.state / name
    (forged / "holders").mkdir(parents=True)
    for file, text in (("plan", plan), ("ns", ""), ("ready", ""), ("hosts", ""), ("holders/node", "")):
        (forged / file).write_text(text)
    try:
        for path in (node.state, *node.state.rglob("*")):
            path.chmod(0o700 if owner == "the caller" else 0o777)
            os.chown(path, *((node.alice.uid, node.alice.gid) if owner == "the caller" else (0, 0)))
        assert "no container is prepared here" in refused(node)
        for path in (node.state, *node.state.rglob("*")):  # root's, and yet nothing is behind it
            path.chmod(0o700)
            os.chown(path, 0, 0)
        assert "no container is prepared here" in refused(node)
    finally:
        shutil.rmtree(node.state)


def test_sec76_what_a_crash_left_is_healed(node: ShifterNode) -> None:
    """An environment that was never finished, and one that lost its namespace; then a job that works."""
    assert prepare(node, "-J", "1@n1").returncode == 0
    environment = next(node.state.glob("*/*"))
    subprocess.run(["umount", str(environment / "ns")], check=True)
    command = node.command(IMAGE, "/bin/true")
    assert "setns" not in [name for _process, name, _arguments in calls_of(node, command)]
    (environment.parent / f"{node.alice.uid}.99").mkdir()
    assert prepare(node, "-J", "2@n1").returncode == 0
    assert len(list(node.state.glob("*/*"))) == 1
    assert "setns" in [name for _process, name, _arguments in calls_of(node, command)]
    assert node.as_root("unsetupRoot", "-J", "2@n1").returncode == 0
    assert not node.state.exists()


# sec-17, sec-18: namespaces


@pytest.mark.parametrize("propagation", ["shared", "slave", "private"])
def test_sec17_nothing_travels_to_the_host(node: ShifterNode, propagation: str) -> None:
    """Neither when it ends well, nor when its user kills it at some moment."""
    site = node.base / "travelling"
    site.mkdir(exist_ok=True)
    node.configure(siteFs=f"{site}:/site:slave;{site}:/other:rec", mountPropagationStyle="slave")
    done = apart(node, f"""
        mount --make-r{propagation} /
        before=$(grep {MARK} /proc/self/mountinfo)
        $SHIFTER {IMAGE} -V/srv/data:/mine /bin/cat /mine/file || exit 1
        for moment in 0 0.002 0.004 0.006 0.008 0.01 0.015 0.02; do
            $SHIFTER {IMAGE} /bin/sleep 100 & sleep $moment
            until $ALICE sh -c "kill -9 $!"; do :; done; wait
        done 2>/dev/null
        test "$before" = "$(grep {MARK} /proc/self/mountinfo)"
    """)
    assert (done.returncode, done.stdout) == (0, "from the image\n"), done.stderr
    assert node.loop_devices() == []


def test_sec18_user_namespaces_are_not_used(node: ShifterNode) -> None:
    """So a node that forbids them gets the same containers by the same road."""
    made = calls_of(node, node.command(IMAGE, "/bin/true"))
    asked = [f"{name}({arguments})" for _, name, arguments in made if name in ("unshare", "clone", "clone3", "setns")]
    assert asked == ["unshare(CLONE_NEWNS)"]


# sec-19: the holes that the reference once closed


def test_sec19_the_holes_of_the_reference_are_closed(node: ShifterNode) -> None:
    tree = base_tree(node.base / "holes-tree")
    (tree / "root-link").symlink_to("/")
    (tree / "climbing").symlink_to("../../../../../..")
    node.add_image("holes", tree)
    image = f"--image=id:{image_id('holes')}"
    site = node.base / "holes-site"
    (site / "hers/inner").mkdir(parents=True, exist_ok=True)
    os.chown(site / "hers", node.alice.uid, node.alice.gid)
    (site / "hers").chmod(0o700)
    node.configure(siteFs=f"{site}:/site")
    for text in ("/srv/../../etc:/x", "srv/../../etc:/x", "/srv/data:/x/../../etc", "/root-link/srv/../etc:/x"):
        assert "volume map" in refused(node, image, f"-V{text}")
    for text in ("/root-link:/x", "/climbing:/x"):
        assert "whole container" in refused(node, image, f"-V{text}")
    assert node.run(image, "-V/climbing/srv/data:/x", "/bin/cat", "/x/file").stdout == "from the image\n"
    assert "Permission denied" in refused(node, image, "-V/site/hers/inner:/x", user=node.eve)
    assert node.run(image, "-V/site/hers/inner:/x", "/bin/true").returncode == 0
    flags = "volume map"
    for text in ("ro," * 40_000, "r" * 130_000, ":" * 130_000, "perNodeCache=size=" + "9" * 120_000):
        assert flags in refused(node, image, f"-V/srv/data:/x:{text}")
