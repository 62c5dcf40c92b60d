# SPDX-License-Identifier: BSD-3-Clause
"""Nobody but root decides what root's hooks are and do. The sec- and W- numbers are those of the requirements."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"
EVERY_KERNEL = True
KEYS = ["sitePreMountHook", "sitePostMountHook", "roothook"]


def refused(node: ShifterNode) -> str:
    """What both programs say; neither has run anything."""
    done = node.run(IMAGE, "/bin/true")
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    prepared = node.as_root("setupRoot", "-u", node.alice.name, "id", image_id("base"))
    assert prepared.returncode == 1
    assert prepared.stderr.split(": ", 1)[1] == done.stderr.split(": ", 1)[1]
    return str(done.stderr)


@pytest.mark.parametrize("key", KEYS)
def test_w10_a_hook_that_somebody_else_could_have_written_is_not_run(node: ShifterNode, key: str) -> None:
    mark = node.base / "hook-ran"
    hook = node.add_program("hook", f"#!/bin/sh\ntouch {mark}\n")
    node.configure_hook(key, hook)
    for mode in (0o775, 0o757, 0o1777):
        hook.chmod(mode)
        assert f"{hook} can be written by others" in refused(node)
    hook.chmod(0o755)
    os.chown(hook, node.eve.uid, 0)
    assert f"{hook} belongs to uid {node.eve.uid}" in refused(node)
    os.chown(hook, 0, 0)
    hook.chmod(0o644)
    assert "is not an executable file" in refused(node)
    assert not mark.exists()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_w10_a_hook_in_a_directory_that_others_can_write_is_not_run(node: ShifterNode, mode: int) -> None:
    directory = node.base / "etc/loose/inner"
    directory.mkdir(parents=True, exist_ok=True)
    hook = node.add_program("loose/inner/hook", "#!/bin/sh\nexit 0\n")
    node.configure_hook("sitePreMountHook", hook)
    assert node.run(IMAGE, "/bin/true").returncode == 0
    directory.parent.chmod(mode)
    try:
        assert f"{directory.parent} can be written by others" in refused(node)
    finally:
        directory.parent.chmod(0o755)


def test_w10_a_link_is_as_good_as_where_it_lies_and_leads(node: ShifterNode) -> None:
    hook = node.add_program("hook", "#!/bin/sh\nexit 0\n")
    link = node.base / "etc/link"
    link.unlink(missing_ok=True)
    link.symlink_to(hook)
    node.configure_hook("sitePreMountHook", link)
    assert node.run(IMAGE, "/bin/true").returncode == 0
    foreign = Path("/tmp") / f"shifter-hook-{os.getpid()}"
    foreign.write_text("#!/bin/sh\nexit 0\n")
    foreign.chmod(0o755)
    try:
        link.unlink()
        link.symlink_to(foreign)
        assert "/tmp" in refused(node)
    finally:
        foreign.unlink()


@pytest.mark.parametrize("path", ["/dev/null", "/etc", "/nowhere/hook"])
def test_w10_what_is_no_program_is_not_run(node: ShifterNode, path: str) -> None:
    node.configure_hook("sitePreMountHook", path)
    assert "sitePreMountHook cannot be run" in refused(node)


# sec-22, sec-23, sec-26, sec-32: the process that a hook is

HOSTILE = {
    "LD_PRELOAD": "/tmp/evil.so", "LD_LIBRARY_PATH": "/tmp", "BASH_ENV": "/tmp/evil", "ENV": "/tmp/evil", "IFS": "/",
    "PATH": "/tmp", "PYTHONPATH": "/tmp", "BASH_FUNC_ls%%": "() { touch /tmp/evil; }", "SHELLOPTS": "xtrace",
    "PS4": "$(touch /tmp/evil)", "TZ": "/tmp/evil", "HOME": "/tmp", "POSIXLY_CORRECT": "1",
}  # fmt: skip
FACTS = """#!/bin/sh
exec > {facts}.new
/usr/bin/env
echo ids $(id -u):$(id -ru):$(id -g):$(id -rg):$(id -G)
echo umask $(umask)
echo directory $PWD
for fd in /proc/$$/fd/*; do echo descriptor $(readlink $fd); done
grep -E '^(Sig|CapEff|NoNewPrivs)' /proc/self/status
grep -E '^Max (cpu|file size|address|processes)' /proc/self/limits
( : < /dev/tty ) 2>/dev/null && echo terminal
mv {facts}.new {facts}
"""


def test_sec22_nothing_of_the_caller_reaches_a_hook(node: ShifterNode) -> None:
    facts = node.base / "facts"
    facts.unlink(missing_ok=True)
    node.add_image("hostile", base_tree(node.base / "hostile-tree"), "ENV: LD_PRELOAD=/evil.so\nENV: BASH_ENV=/evil\n")
    node.configure_hook("sitePostMountHook", node.add_program("hook", FACTS.format(facts=facts)))

    def odd() -> None:
        os.umask(0o777)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM})
        for limit in (resource.RLIMIT_CPU, resource.RLIMIT_NPROC, resource.RLIMIT_AS):
            resource.setrlimit(limit, (min(1 << 29, resource.getrlimit(limit)[1]), resource.getrlimit(limit)[1]))

    held = [os.open("/", os.O_RDONLY | os.O_DIRECTORY), *os.pipe()]
    try:
        done = node.run(
            f"--image=id:{image_id('hostile')}", "/bin/true", env={**HOSTILE, "PMI_FD": str(held[1])}, pass_fds=held,
            preexec_fn=odd, restore_signals=False,
        )  # fmt: skip
    finally:
        for fd in held:
            os.close(fd)
    assert done.returncode == 0, done.stderr
    assert not Path("/tmp/evil").exists()
    lines = facts.read_text().splitlines()
    environment = {line for line in lines if "=" in line.split(" ")[0]}
    assert environment - {f"PWD={node.udi_mount}"} == {"PATH=/usr/bin:/usr/sbin:/bin:/sbin", "LC_ALL=C.UTF-8"}
    assert "ids 0:0:0:0:0" in lines
    assert "umask 0022" in lines
    assert f"directory {node.udi_mount}" in lines
    assert "terminal" not in lines
    descriptors = [line.split(" ", 1)[1] for line in lines if line.startswith("descriptor")]
    assert descriptors[0] == "/dev/null"
    assert not [name for name in descriptors[3:] if not name.endswith(("/hook", "")) and name != "/"]
    assert "/" not in descriptors
    status = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert int(status["SigBlk"], 16) == int(status["SigIgn"], 16) & ~(1 << (signal.SIGPIPE - 1)) == 0
    limits = [line.split()[-3:-1] for line in lines if line.startswith(("Max cpu", "Max add", "Max proc"))]
    assert [soft for soft, _hard in limits] == [hard for _soft, hard in limits]


INHERITED = """#!/usr/bin/python3
import ctypes, json, os, resource
call = ctypes.CDLL(None).syscall
facts = {{
    "nice": os.getpriority(os.PRIO_PROCESS, 0), "policy": os.sched_getscheduler(0), "io": call(252, 1, 0),
    "processors": len(os.sched_getaffinity(0)), "slack": int(open("/proc/self/timerslack_ns").read()),
    "oom": int(open("/proc/self/oom_score_adj").read()), "personality": ctypes.CDLL(None).personality(-1),
    "keyring": call(250, 0, -3, 0), "memory": call(239, ctypes.byref(ctypes.c_int(-1)), None, 0, None, 0),
    "limits": {{name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name[:7] == "RLIMIT_"}},
}}
with open("{facts}", "w") as out:
    json.dump(facts, out)
"""


def hand_down() -> None:
    """All of it that a user may set without being root."""
    call = ctypes.CDLL(None).syscall
    call(250, 1, None)  # keyctl: a session keyring of his own
    call(251, 1, 0, 3 << 13)  # ioprio_set: idle
    ctypes.CDLL(None).personality(0x1000000)  # what time select(2) leaves
    ctypes.CDLL(None).prctl(29, 1 << 40)  # PR_SET_TIMERSLACK
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE, which a change of ids has taken: the next file is his own again
    Path("/proc/self/oom_score_adj").write_text("1000")
    for name, soft in (("STACK", 1 << 20), ("CORE", 1 << 30), ("NOFILE", 100), ("MEMLOCK", 0), ("SIGPENDING", 1)):
        number = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(number, (soft, resource.getrlimit(number)[1]))
    os.nice(19)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@pytest.mark.parametrize("key", KEYS)
def test_a_user_hands_nothing_down_that_slows_or_stops_a_hook(node: ShifterNode, key: str) -> None:
    facts = node.base / "facts"
    facts.unlink(missing_ok=True)
    node.configure_hook(key, node.add_program("hook", INHERITED.format(facts=facts)))
    done = node.run(IMAGE, "/bin/true", preexec_fn=hand_down)
    assert done.returncode == 0, done.stderr
    found = json.loads(facts.read_text())
    limits = found.pop("limits")
    keyring = found.pop("keyring")
    assert keyring not in (-1, ctypes.CDLL(None).syscall(250, 0, -3, 0))
    assert found == {
        "nice": 0, "policy": os.SCHED_OTHER, "io": 0, "processors": os.cpu_count(), "slack": 50000, "oom": 0,
        "personality": 0, "memory": 0,
    }  # fmt: skip
    soft = [limits[f"RLIMIT_{name}"][0] for name in ("STACK", "CORE", "NOFILE")]
    assert soft == [8 << 20, 0, 1024]
    for name in ("MEMLOCK", "SIGPENDING"):  # as far as this machine lets root go
        assert limits[f"RLIMIT_{name}"][0] == limits[f"RLIMIT_{name}"][1] != 0


def is_running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_hook_whose_launcher_is_killed_does_not_run_for_ever(node: ShifterNode) -> None:
    """Nor one whose launcher its user stops: nobody else is there to look at the clock."""
    begun = node.base / "begun"
    for last_words in ("KILL", "STOP"):
        begun.unlink(missing_ok=True)
        hook = node.add_program("hook", f"#!/bin/sh\necho $$ > {begun}.new\nmv {begun}.new {begun}\nexec sleep 1000\n")
        node.configure_hook("sitePreMountHook", hook)
        process = subprocess.Popen(
            node.command(IMAGE, "/bin/true"), user=node.alice.uid, group=node.alice.gid, extra_groups=[], cwd="/"
        )
        while not begun.exists():
            time.sleep(0.01)
        node.as_user(["/bin/sh", "-c", f"kill -{last_words} {process.pid}"])
        deadline = time.monotonic() + 30  # HOOK_SECONDS is 4 here
        while (runs := is_running(begun.read_text().strip())) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert not runs


def test_no_link_of_an_image_leads_a_hook_out_of_its_directory(node: ShifterNode) -> None:
    """The hooks of earlier versions ran before the image was merged in; scripts rely on it."""
    outside = node.base / "outside"
    outside.mkdir(exist_ok=True)
    tree = base_tree(node.base / "luring-tree")
    for name in ("global", "opt", "home", "mnt", "var"):
        subprocess.run(["rm", "-rf", str(tree / name)], check=True)
        (tree / name).symlink_to(outside)
    node.add_image("luring", tree)
    hook = node.add_program(
        "hook",
        "#!/bin/sh\nset -e\nmkdir -p global/u1 opt/site home var/x\necho x > mnt_file\n"
        "for name in global opt home mnt; do test ! -L $name; done\n! ls image 2>/dev/null\n",
    )  # fmt: skip
    node.configure(
        f"module_m_roothook={hook}", defaultModules="m", sitePreMountHook=str(hook), sitePostMountHook=str(hook),
        siteFs="/usr/share:/global/share",
    )
    done = node.run(f"--image=id:{image_id('luring')}", "/bin/ls", "/global")
    assert (done.returncode, done.stdout) == (0, "share\nu1\n"), done.stderr
    assert list(outside.iterdir()) == []


LURE = "#!/bin/sh\nset -e\nmkdir -p opt/site/lib\necho payload > opt/site/lib/file\n"


@pytest.mark.parametrize("key", ["sitePostMountHook", "roothook"])
def test_no_link_of_an_image_puts_a_mount_of_the_site_in_a_hooks_way(node: ShifterNode, key: str) -> None:
    """Scratch space of everybody, shown where the hook writes, would hold links of users: root would follow them."""
    scratch, outside = node.base / "open-scratch", node.base / "outside-scratch"
    for path in (scratch, outside):
        path.mkdir(exist_ok=True)
    scratch.chmod(0o1777)
    node.as_user(["ln", "-sfn", str(outside), str(scratch / "lib")], user=node.eve)
    (node.base / "one-file").write_text("of the site\n")
    tree = base_tree(node.base / "displacing-tree")
    (tree / "opt/site").mkdir()
    (tree / "scratch").symlink_to("/opt/site")
    node.add_image("displacing", tree)
    image = f"--image=id:{image_id('displacing')}"
    hook = node.add_program("hook", LURE)
    lines = f"siteFs={scratch}:/scratch\n"
    node.configure(lines + (f"module_m_roothook={hook}\ndefaultModules=m" if key == "roothook" else f"{key}={hook}"))
    done = node.run(image, "/bin/true", user=node.eve)
    assert (done.returncode, done.stdout) == (125, "")
    assert "/scratch leads to /opt/site in the container, over a link of the image" in done.stderr
    prepared = node.as_root("setupRoot", "-u", node.eve.name, "id", image_id("displacing"))
    assert prepared.returncode == 1
    assert list(outside.iterdir()) == []
    # Where no hook comes after, and for single files such as a driver's libraries, links are as good as ever.
    node.configure(f"{lines}sitePreMountHook={hook}")
    assert node.run(image, "/bin/readlink", "/opt/site/lib", user=node.eve).stdout == f"{outside}\n"
    node.configure(f"siteFs={node.base / 'one-file'}:/scratch/file\nsitePostMountHook={hook}")
    assert node.run(image, "/bin/cat", "/opt/site/file").stdout == "of the site\n"


def test_a_user_cannot_end_a_hook_half_way(node: ShifterNode) -> None:
    """He may end the launcher; what root has begun is then finished, in a namespace that goes with it."""
    mark = node.base / "finished"
    mark.unlink(missing_ok=True)
    begun = node.base / "begun"
    begun.unlink(missing_ok=True)
    hook = node.add_program("hook", f"#!/bin/sh\ntouch {begun}\nsleep 1\ntouch {mark}\n")
    node.configure_hook("sitePreMountHook", hook)
    node.kill_when(begun, IMAGE, "/bin/true")
    node.as_user(["pkill", "-9", "-f", str(hook)])
    deadline = time.monotonic() + 5
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert mark.exists()


def test_w24_a_hook_that_is_exchanged_while_it_is_started_is_one_or_the_other(node: ShifterNode) -> None:
    """Only root can do that; what runs is the file that was checked."""
    hook = node.add_program("hook", "#!/bin/sh\nexit 0\n")
    other = node.add_program("other", "#!/bin/sh\necho untrusted > made; exit 0\n")
    os.chown(other, node.eve.uid, node.eve.gid)
    node.configure_hook("sitePreMountHook", hook)
    swap = (
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\none, other = (name.encode() for name in sys.argv[1:])\n"
        "while True: libc.renameat2(-100, one, -100, other, 2)"
    )
    swapper = subprocess.Popen(["/usr/bin/python3", "-c", swap, str(hook), str(other)])
    outcomes = set()
    try:
        for _attempt in range(60):
            done = node.run(IMAGE, "/bin/ls", "/")
            outcomes.add(done.returncode)
            assert "made" not in done.stdout.split()
    finally:
        swapper.kill()
        swapper.wait()
    assert outcomes <= {0, 125}
    assert 0 in outcomes
