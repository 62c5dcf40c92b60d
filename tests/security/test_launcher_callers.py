# SPDX-License-Identifier: BSD-3-Clause
"""Processes around the launcher: odd callers, users of many groups, programs that run on the way, caches. The sec-
numbers are those of the security requirements."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import nodestate, oldkernel
from tests.accounts import MARK, User
from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"
EVERY_KERNEL = True


# Groups


def test_sec19_odd_lines_of_a_group_file_give_no_other_gid(node: ShifterNode) -> None:
    path = node.base / "etc/files/group"
    before = path.read_text()
    odd = [
        f"long:x:5001:{','.join(['member'] * 20_000)}", f"{'n' * 5000}:x:5002:", "neg:x:-1:", "hex:x:0x1389:",
        "empty:x::", "big:x:4294967297:", ":x:5003:", "colons:::::::::",
    ]  # fmt: skip
    path.write_text("\n".join(odd) + "\nlast:x:5004:")
    try:
        who = User(node.alice.name, node.alice.uid, node.alice.gid, (5001, 5002, 5004))
        shown = node.run(IMAGE, "/bin/cat", "/etc/group", user=who)
        names = {line.split(":")[2]: line.split(":")[0] for line in shown.stdout.splitlines()}
        assert names.get("5001") == "long", shown.stderr
        assert names.get("5002") == "n" * 5000
        assert "0" not in names
        assert "1" not in names
    finally:
        path.write_text(before)


# sec-21, sec-26: odd processes


def test_sec21_a_huge_name_of_the_program(node: ShifterNode) -> None:
    done = node.as_user(["n" * 100_000, IMAGE, "/bin/cat", "/etc/os-release"], executable=node.program("shifter"))
    assert (done.returncode, done.stdout) == (0, "NAME=TestImage\n"), done.stderr


@pytest.mark.parametrize("mask", [0o000, 0o777])
def test_sec26_no_umask_changes_what_root_makes(node: ShifterNode, mask: int) -> None:
    node.configure(siteFs="/usr/share:/new/place/deep")
    shown = node.script(
        "umask; stat -c %a /etc/passwd /etc/group /var/shifterConfig.json /new /new/place /",
        preexec_fn=lambda: os.umask(mask),
    )
    assert shown == f"{mask:04o}\n644\n644\n644\n755\n755\n755\n"


def test_sec26_huge_arguments_and_environments(node: ShifterNode) -> None:
    environment = {f"V{number}": "x" * 1000 for number in range(900)}
    words = ["w" * 1000] * 900
    done = node.run(IMAGE, "/bin/sh", "-c", "echo $# $V899 | wc -c", "sh", *words, env={"PATH": "/bin", **environment})
    assert (done.returncode, done.stdout) == (0, "1005\n"), done.stderr


def test_sec26_without_a_terminal_or_session(node: ShifterNode) -> None:
    assert node.script("cat /etc/os-release", start_new_session=True, stdin=subprocess.DEVNULL) == "NAME=TestImage\n"


# sec-22, sec-23, sec-25, sec-63: programs that run on the way


def test_sec23_programs_and_libraries_of_an_image_are_nothing_to_a_hook(node: ShifterNode) -> None:
    """Its ENV names them, its tree has them at every place a search could come by."""
    mark = Path(f"/tmp/shifter-hook-lured-{MARK}")
    tree = base_tree(node.base / "luring-programs")
    for place in (".", "bin", "usr/bin", "lib", "etc"):
        (tree / place).mkdir(parents=True, exist_ok=True)
        for name in ("touch", "evil.so", "sitecustomize.py", ".bashrc", "profile"):
            (tree / place / name).unlink(missing_ok=True)
            (tree / place / name).write_text(f"#!/bin/sh\n/bin/mkdir {mark}\n")
            (tree / place / name).chmod(0o755)
    variables = ["LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/lib:.", "PATH=.:/bin", "PYTHONPATH=/", "BASH_ENV=/profile"]
    node.add_image("luring-programs", tree, "".join(f"ENV: {text}\n" for text in variables))
    facts = node.base / "hook-facts"
    hook = node.add_program("hook", f"#!/bin/sh\ntouch made-by-host\nenv >> {facts}\necho cwd $PWD >> {facts}\n")
    node.configure(
        f"module_m_roothook={hook}", defaultModules="m", sitePreMountHook=str(hook), sitePostMountHook=str(hook)
    )
    done = node.run(f"--image=id:{image_id('luring-programs')}", "/bin/ls", "/made-by-host")
    assert (done.returncode, done.stdout) == (0, "/made-by-host\n"), done.stderr
    assert not mark.exists()
    lines = facts.read_text().splitlines()
    facts.unlink()
    assert lines.count("PATH=/usr/bin:/usr/sbin:/bin:/sbin") == 3
    assert lines.count(f"cwd {node.udi_mount}") == 3
    assert not [line for line in lines if line.startswith(("LD_", "PYTHON", "BASH"))]


TIOCSTI = "import fcntl, os, termios; fcntl.ioctl(os.open('/dev/tty', os.O_RDWR), termios.TIOCSTI, b'x')"


def test_sec25_a_hook_has_no_terminal_to_type_into(node: ShifterNode) -> None:
    """The command is the user's and has his terminal, as without a container; what root runs has none."""
    facts = node.base / "terminal-facts"
    hook = node.add_program("hook", f'#!/bin/sh\npython3 -c "{TIOCSTI}" 2> {facts}; tty >> {facts}; cat >> {facts}\n')
    node.configure(sitePreMountHook=str(hook))
    ids = f"setpriv --reuid {node.alice.uid} --regid {node.alice.gid} --clear-groups"
    command = f"{ids} {node.program('shifter')} {IMAGE} /bin/sh -c 'test -t 0 && echo has terminal'"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], input="typed\n", check=False, capture_output=True, text=True, cwd="/",
        preexec_fn=partial(oldkernel.hide, node.hidden), timeout=60,
    )  # fmt: skip
    assert "has terminal" in done.stdout
    shown = facts.read_text()
    assert "No such device or address" in shown
    assert "not a tty" in shown
    assert "typed" not in shown
    facts.unlink()


def test_sec63_no_shell_is_on_the_way(node: ShifterNode) -> None:
    """A tag that the index does not have: the client gets it as one word, at its greatest length too."""
    log, asked = node.base / "asked", node.base / "asked-words"
    asked.touch()
    asked.chmod(0o666)
    with node.client(f'#!/bin/dash\nprintf "%s|" "$@" > {asked}\necho {image_id("base")}\n') as client:
        for tag in ("-rf", "--help", "a_b.c+d-e@f:g", "a/b/../c", "..", "x" * 4000):
            trace = ["strace", "-f", "-o", str(log), "-s", "300", "-e", "trace=execve", "-u", node.alice.name]
            command = [*trace, *node.command(f"--image=docker:{tag}", "/bin/cat", "/etc/os-release")]
            done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/")
            assert (done.returncode, done.stdout) == (0, "NAME=TestImage\n"), (tag, done.stderr)
            word = asked.read_text().split("|")[1]
            assert word.startswith(f"docker:{tag}")
            programs = re.findall(r'execve\("([^"]*)"', log.read_text())
            assert programs == [node.program("shifter"), str(client), "/bin/cat"]
    asked.unlink()
    log.unlink()


# sec-75: many groups


@pytest.mark.parametrize("count", [33, 1200])
def test_sec75_a_user_of_many_groups_keeps_them_all(node: ShifterNode, count: int) -> None:
    path = node.base / "etc/files/group"
    before = path.read_text()
    groups = tuple(range(20_000, 20_000 + count))
    path.write_text("".join(f"g{gid}:x:{gid}:\n" for gid in groups) + f"own:x:{node.alice.gid}:\n")
    node.configure(maxGroupCount="31")
    try:
        who = User(node.alice.name, node.alice.uid, node.alice.gid, groups)
        shown = node.script("id -G; cat /etc/group", user=who)
    finally:
        path.write_text(before)
    kernel, *lines = shown.splitlines()
    assert {int(gid) for gid in kernel.split()} == {node.alice.gid, *groups}
    assert len(lines) == count + 1
    named = [line for line in lines if line.endswith(f":{who.name}")]
    assert len(named) == 31


# sec-77: caches


@pytest.fixture
def caches(node: ShifterNode) -> Iterator[Path]:
    place = node.base / "attacked-caches"
    place.mkdir(exist_ok=True)
    node.configure(
        perNodeCachePath=str(place), perNodeCacheSizeLimit="400m", mkfsXfsPath="/usr/sbin/mkfs.xfs"
    )
    yield place
    assert list(place.iterdir()) == []


def test_sec77_a_cache_is_its_users_alone(node: ShifterNode, caches: Path) -> None:
    """No name that others see, no setuid file and no device in it, no more than the site allows, nothing left."""
    cache = "--volume=/x:/cache:perNodeCache=size=310m"
    running = node.start(IMAGE, cache, "/bin/sh", "-c", "echo in; read go; cat /proc/self/mountinfo")
    assert running.stdout is not None
    assert running.stdout.readline() == "in\n"
    assert list(caches.iterdir()) == []
    for way in (f"/proc/{running.pid}/root/cache", f"/proc/{running.pid}/cwd"):
        assert node.as_user(["/bin/ls", way], user=node.eve).returncode != 0
    output, errors = running.communicate("go\n", timeout=60)
    assert running.returncode == 0, errors
    fields = next(line.split() for line in output.splitlines() if " /cache " in line)
    assert {"nosuid", "nodev"} <= set(fields[5].split(","))
    for size in ("401m", "15e", "1"):
        done = node.run(IMAGE, f"--volume=/x:/cache:perNodeCache=size={size}", "/bin/true")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1), done.stderr


@pytest.mark.parametrize("options", ["-U", "-Ur", "-Urmpf", "-Urniu"])
def test_sec18_a_user_namespace_gives_the_launcher_no_rights(node: ShifterNode, options: str) -> None:
    """There it is not setuid; it says so, also where the caller has no id of his own."""
    done = node.as_user(["unshare", options, *node.command(IMAGE, "/bin/true")])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1), done.stderr
    assert "namespace" in done.stderr or "root" in done.stderr


def test_sec18_neither_does_no_new_privs(node: ShifterNode) -> None:
    done = node.as_user(["setpriv", "--no-new-privs", *node.command(IMAGE, "/bin/true")])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1), done.stderr
    assert "no_new_privs" in done.stderr


@pytest.mark.parametrize("name", ["NOFILE", "NPROC", "AS", "DATA", "STACK"])
def test_sec26_every_limit_ends_in_a_container_or_a_clean_refusal(node: ShifterNode, name: str) -> None:
    """From one with which not even the loader starts, which is nobody's privilege, to one that is enough."""
    kind: int = getattr(resource, f"RLIMIT_{name}")
    loader = {127, -signal.SIGSEGV, -signal.SIGKILL, -signal.SIGBUS}
    for value in (0, 1, 2, 3, 4, 5, 6, 8, 10, 16, 1 << 16, 1 << 20, 3 << 20, 6 << 20):
        if value > 64 and name.startswith("N"):
            continue
        done = node.run(IMAGE, "/bin/true", preexec_fn=partial(resource.setrlimit, kind, (value, value)))
        if done.returncode == 125:
            assert done.stderr.count("\n") == 1, (value, done.stderr)
        else:
            assert done.returncode == 0 or done.returncode in loader, (value, done.stderr)
    nodestate.check_clean(node, name)


@pytest.mark.parametrize("text", ["{}x", "{} ", "0x{}", "-{}", "{}.0", "{},{}", "1{}0000000000", "4294967296", ""])
def test_sec14_no_odd_number_keeps_a_descriptor(node: ShifterNode, text: str) -> None:
    """PMI_FD is the one text of the caller that is read with root's rights."""
    ours, theirs = os.pipe()
    try:
        environment = {"PATH": "/bin", "PMI_FD": text.format(theirs, theirs)}
        done = node.run(IMAGE, "/bin/ls", "/proc/self/fd", env=environment, pass_fds=[theirs])
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stdout.split()) == (0, ["0", "1", "2", "3"]), done.stderr  # 3: of ls
