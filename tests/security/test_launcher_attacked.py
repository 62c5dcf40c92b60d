# SPDX-License-Identifier: BSD-3-Clause
"""A launcher that its user, or somebody else, disturbs while it works: images and paths that are exchanged, loop
devices that are taken away, tracing. The sec- numbers are those of the security requirements."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import oldkernel
from tests.accounts import MARK
from tests.security.attacks import ROOT, calls_of, swapping, traced
from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"
EVERY_KERNEL = True
SHOW = ["/bin/cat", "/etc/os-release"]


def outcomes(node: ShifterNode, image: str, times: int) -> set[str]:
    """What starts of the image printed; '' stands for a refusal with one line."""
    found = set()
    for _ in range(times):
        done = node.run(image, *SHOW)
        assert (done.returncode, done.stderr.count("\n")) in ((0, 0), (125, 1)), done.stderr
        found.add(done.stdout)
    return found


@pytest.fixture
def foreign(node: ShifterNode) -> Iterator[Path]:
    """A good image that is nobody's business: eve's, in a directory of hers."""
    place = Path(f"/tmp/shifter-foreign-{MARK}")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    tree = base_tree(node.base / "foreign-tree")
    (tree / "etc/os-release").write_text("NAME=Foreign\n")
    made = node.images / f"{node.add_image('foreign', tree)}.squashfs"
    for suffix in ("squashfs", "meta"):
        shutil.copy(made.with_suffix(f".{suffix}"), place / f"{image_id('attacked')}.{suffix}")
    for path in (place, *place.iterdir()):
        os.chown(path, node.eve.uid, node.eve.gid)
    yield place
    shutil.rmtree(place)


@pytest.mark.parametrize("kind", ["link", "foreign file"])
def test_sec03_the_image_is_exchanged_while_it_is_opened(node: ShifterNode, foreign: Path, kind: str) -> None:
    """Only who owns the store can do that; the kernel still gets the file that was checked, or none."""
    name = f"{node.add_image('attacked', node.base / 'tree')}.squashfs"
    other = node.images / "other"
    other.unlink(missing_ok=True)
    if kind == "link":
        other.symlink_to(foreign / name)
    else:
        shutil.copy(foreign / name, other)
        os.chown(other, node.eve.uid, node.eve.gid)
    with swapping(node.images / name, other, ROOT):
        found = outcomes(node, f"--image=id:{image_id('attacked')}", 60)
    assert found <= {"NAME=TestImage\n", ""}
    other.unlink(missing_ok=True)


def test_sec03_a_parent_of_the_image_is_exchanged_while_it_is_opened(node: ShifterNode, foreign: Path) -> None:
    top = node.base / "exchanged"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir()
    node.add_image("attacked", node.base / "tree")
    (top / "images").mkdir()
    for suffix in ("squashfs", "meta"):
        shutil.copy2(node.images / f"{image_id('attacked')}.{suffix}", top / "images")
    (top / "link").symlink_to(foreign)
    node.configure(imagePath=str(top / "images"))
    with swapping(top / "images", top / "link", ROOT):
        found = outcomes(node, f"--image=id:{image_id('attacked')}", 60)
    assert found <= {"NAME=TestImage\n", ""}
    shutil.rmtree(top)


def test_sec05_a_running_container_keeps_its_image(node: ShifterNode) -> None:
    """The gateway replaces files by renaming: what runs shows the old one, what starts the new one."""
    node.add_image("replaced", node.base / "tree")
    image = f"--image=id:{image_id('replaced')}"
    script = "echo in; read go; cat /etc/os-release /srv/data/file"
    running = node.start(image, "/bin/sh", "-c", script)
    assert running.stdout is not None
    assert running.stdout.readline() == "in\n"
    for path in (f"{image_id('replaced')}.squashfs", f"{image_id('replaced')}.meta"):
        assert node.as_user(["/bin/sh", "-c", f"echo x > {node.images}/{path}"]).returncode != 0
    tree = base_tree(node.base / "replacing-tree")
    (tree / "etc/os-release").write_text("NAME=Replaced\n")
    new = node.images / f"{node.add_image('new', tree)}.squashfs"
    new.rename(node.images / f"{image_id('replaced')}.squashfs")
    assert node.run(image, *SHOW).stdout == "NAME=Replaced\n"
    assert running.communicate("go\n", timeout=60)[0] == "NAME=TestImage\nfrom the image\n"


# Loop devices


def test_sec04_many_starts_at_once_of_several_images(node: ShifterNode) -> None:
    """256 launches, a device for each image and no more, and none is left."""
    images = [f"crowd-{number}" for number in range(4)]
    for name in images:
        node.add_image(name, node.base / "tree")
    running = [node.start(f"--image=id:{image_id(images[number % 4])}", *SHOW) for number in range(256)]
    assert {process.communicate(timeout=120) for process in running} == {("NAME=TestImage\n", "")}
    assert node.loop_devices() == []


# Takes whatever loop device is free, until standard input ends.
GRABBER = textwrap.dedent(
    """
    import fcntl, os, select, sys
    backing = os.open(sys.argv[1], os.O_RDONLY)
    taken = 0
    with open("/dev/loop-control", "rb") as control:
        while not select.select([0], [], [], 0)[0]:
            number = fcntl.ioctl(control, 0x4C82)
            try:
                with open(f"/dev/loop{number}", "rb") as device:
                    fcntl.ioctl(device, 0x4C00, backing)
                    taken += 1
                    fcntl.ioctl(device, 0x4C01, 0)
            except OSError:
                pass
    print(taken)
    """
)


def test_sec04_somebody_else_takes_the_free_loop_device(node: ShifterNode) -> None:
    """Between the question which one is free and its use; then the next one serves."""
    node.add_image("contended", node.base / "tree")
    grabber = subprocess.Popen(
        ["/usr/bin/python3", "-c", GRABBER, str(node.conf)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        found = outcomes(node, f"--image=id:{image_id('contended')}", 40)
    finally:
        taken = int(grabber.communicate("", timeout=60)[0])
    assert found == {"NAME=TestImage\n"}
    assert taken > 100


def test_sec04_no_loop_device_is_free(node: ShifterNode) -> None:
    done = traced(node, node.command(IMAGE, *SHOW), "-o", "/dev/null", "-e", "inject=ioctl:error=ENOSPC")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
    assert "no free loop device" in done.stderr


def test_sec04_a_list_of_devices_that_lies(node: ShifterNode, tmp_path: Path) -> None:
    """The kernel's list only says where to look: what a device shows, and that it is one, the device itself tells."""
    image = node.images / f"{image_id('base')}.squashfs"
    zeros = node.base / "zeros"
    zeros.write_bytes(bytes(image.stat().st_size))
    attach = ["losetup", "--find", "--show", "--read-only", str(zeros)]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    number, size = device.removeprefix("/dev/loop"), image.stat().st_size // 1024
    lists = [
        "", "\n\n", "major minor  #blocks  name\n\n", "7", f"7 {number}", f"7 {number} {size} loop\n" * 3,
        f"7 -1 {size} x\n7 4294967295 {size} x\n7 99999999999999999999 {size} x\n7 1048575 {size} x\n",
        f"7 {number} -1 x\n7 {number} 99999999999999999999999 x\n4294967303 {number} {size} x\n",
        f"7 {number} {size} " + "x" * 100_000, f"\x00\n7 {number} {size}", "\xff" * 5000, f"a b c\n7 {number} {size}",
    ]  # fmt: skip
    listed, user = tmp_path / "partitions", node.alice
    script = (
        f"mount --bind {listed} /proc/partitions && cd / && "
        f'exec setpriv --reuid={user.uid} --regid={user.gid} --clear-groups -- "$@"'
    )
    own = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *node.command(IMAGE, *SHOW)]
    try:
        for text in lists:
            listed.write_bytes(text.encode("latin-1"))
            done = subprocess.run(
                own, check=False, capture_output=True, text=True, timeout=60,
                preexec_fn=partial(oldkernel.hide, node.hidden),
            )  # fmt: skip
            assert (done.returncode, done.stdout, done.stderr) == (0, "NAME=TestImage\n", ""), text[:100]
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        zeros.unlink()
    assert node.loop_devices() == []


# sec-20, sec-27: a launcher that is stopped by its user, and looked into

ATTACKER = textwrap.dedent(
    """
    import ctypes, json, os, random, signal, subprocess, sys, time
    libc = ctypes.CDLL(None, use_errno=True)
    class iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    buffer = ctypes.create_string_buffer(8)
    own = iovec(ctypes.addressof(buffer), 8)

    def attack(pid):
        won = []
        pidfd = os.pidfd_open(pid)
        if libc.ptrace(0x4206, pid, None, None) == 0:
            won.append("ptrace")
        for fd in (0, 1, 3, 4, 5, 6):
            taken = libc.syscall(438, pidfd, fd, 0)
            if taken >= 0:
                won.append(f"pidfd_getfd {fd}")
                os.close(taken)
        for name, mode in (("mem", os.O_RDWR), ("environ", os.O_RDONLY), ("maps", os.O_RDONLY), ("exe", os.O_RDONLY),
                           ("exe", os.O_WRONLY), ("auxv", os.O_RDONLY), ("cwd", os.O_RDONLY), ("root", os.O_RDONLY),
                           ("fd/3", os.O_RDONLY), ("fd/4", os.O_RDONLY), ("ns/mnt", os.O_RDONLY)):
            try:
                os.close(os.open(f"/proc/{pid}/{name}", mode))
                won.append(f"{name} {mode}")
            except OSError:
                pass
        for address in (0x400000, 0x555555554000):
            for call in (libc.process_vm_readv, libc.process_vm_writev):
                other = iovec(address, 8)
                if call(pid, ctypes.byref(own), 1, ctypes.byref(other), 1, 0) > 0:
                    won.append("process_vm")
        os.close(pidfd)
        return won

    stopped = {"shifter": 0, "other": 0}
    won = set()
    for number in range(int(sys.argv[1])):
        process = subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, 0.02))
        try:
            os.kill(process.pid, signal.SIGSTOP)
            while open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()[0] not in "TZ":
                time.sleep(0.0005)
        except OSError:
            pass
        try:
            if open(f"/proc/{process.pid}/comm").read() == "shifter\\n":
                stopped["shifter"] += 1
                won.update(attack(process.pid))
            else:
                stopped["other"] += 1
            process.send_signal(signal.SIGCONT)
        except OSError:
            pass
        while True:  # for a moment it may be root's in all its ids, and then only this session's SIGCONT gets through
            try:
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
                break
            except PermissionError:
                time.sleep(0.001)
        process.wait()
    plain = subprocess.Popen(["/bin/sleep", "60"])
    time.sleep(0.05)
    control = set(attack(plain.pid))
    plain.kill()
    print(json.dumps([stopped["shifter"], sorted(won), len(control)]))
    """
)


def test_sec20_a_stopped_launcher_shows_nothing_and_takes_nothing(node: ShifterNode) -> None:
    """At whatever phase its user stops it: no ptrace, memory, descriptor, nor its file to write to (sec-27)."""
    before = Path(node.program("shifter")).read_bytes()
    command = ["/usr/bin/python3", "-c", ATTACKER, "150", *node.command(IMAGE, "/bin/sleep", "60")]
    done = node.as_user(command)
    assert done.returncode == 0, done.stderr
    stopped, won, control = json.loads(done.stdout)
    assert won == []
    assert stopped > 10
    assert control > 8  # the same attacks work on a process that is the user's
    assert Path(node.program("shifter")).read_bytes() == before
    assert node.loop_devices() == []


@pytest.fixture
def checker(node: ShifterNode) -> Iterator[None]:
    """What --explain and --check-config execute."""
    tool = node.base / "sbin/udiroot"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    yield
    tool.unlink()
    tool.parent.rmdir()


@pytest.mark.usefixtures("checker")
@pytest.mark.parametrize("words", [(IMAGE, "/bin/true"), ("--explain", IMAGE), ("--check-config",)])
def test_sec20_tracing_is_forbidden_after_each_change_of_rights(node: ShifterNode, words: tuple[str, ...]) -> None:
    """A change of effective ids sets what fs.suid_dumpable says: prctl(2), PR_SET_DUMPABLE."""
    waiting, changes = "", 0
    for _, name, arguments in calls_of(node, node.command(*words)):
        if name in ("setresuid", "setresgid"):
            real, effective, saved = arguments.split(", ")
            tried = (effective, saved) == ("0", "-1")  # at the end, in vain
            if not tried and (real == "-1" or real == effective != "0"):  # else the effective one stays, root's
                waiting, changes = f"{name}({arguments})", changes + 1
        elif name == "prctl" and arguments.startswith("PR_SET_DUMPABLE, SUID_DUMP_DISABLE"):
            waiting = ""
        elif name not in ("setgroups", "getuid", "getgid", "geteuid"):
            assert waiting == "", name
    assert (waiting, changes > 3) == ("", True)


def test_sec27_a_container_cannot_write_to_the_launcher_that_started_it(node: ShifterNode) -> None:
    node.configure(siteFs=f"{node.base}/bin:/launcher")
    for name in ("/launcher/shifter", "/proc/self/exe", "/proc/$$/exe"):
        assert "cannot create" in node.run(IMAGE, "/bin/sh", "-c", f"echo x > {name}").stderr
    assert Path(node.program("shifter")).stat().st_mode & 0o7777 == 0o4755
    assert node.script("echo runs") == "runs\n"
