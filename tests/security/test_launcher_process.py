# SPDX-License-Identifier: BSD-3-Clause
"""The process that a hostile caller makes of the setuid launcher: its descriptors, tracers, arguments, variables,
limits, signals. The sec- numbers are those of the security requirements; see docs/security.md."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests import oldkernel
from tests.shifternode import ShifterNode, image_id

IMAGE = f"--image=id:{image_id('base')}"
EVERY_KERNEL = True


# sec-14: descriptors and working directory


def test_sec14_inherited_descriptors_are_closed(node: ShifterNode) -> None:
    held = [os.open("/", os.O_RDONLY | os.O_DIRECTORY), os.open("/etc/hostname", os.O_RDONLY)]
    try:
        listing = node.script("ls /proc/self/fd", pass_fds=held).split()
        assert len(listing) == 4  # 0, 1, 2 and the directory that ls itself reads
        for number in range(3, 21):
            done = node.run(f"--workdir=/proc/self/fd/{number}", IMAGE, "/bin/sh", "-c", "pwd", pass_fds=held)
            # The walk of old kernels reads such a link as text, and can come by what it holds itself: in the container.
            assert done.stdout == "/\n" or (node.hidden and done.stdout.startswith("/proc")), number
    finally:
        for fd in held:
            os.close(fd)


def test_a_process_managers_socket_is_kept(node: ShifterNode) -> None:
    read, write = os.pipe()
    try:
        env = {"PATH": "/bin", "PMI_FD": str(read)}
        assert f"{read}\n" in node.script("ls /proc/self/fd", env=env, pass_fds=[read])
    finally:
        os.close(read)
        os.close(write)


# What a strange parent hands down: capabilities(7)


@pytest.mark.parametrize("bits", ["", "+no_setuid_fixup", "+keep_caps_locked"])
def test_the_secure_bits_are_locked_whatever_the_callers_were(node: ShifterNode, bits: str) -> None:
    ids = ["--reuid", str(node.alice.uid), "--regid", str(node.alice.gid), "--clear-groups"]
    show = node.command(IMAGE, "/bin/setpriv", "--dump")
    inherited = [f"--securebits={bits}"] if bits else []
    done = subprocess.run(["setpriv", *ids, *inherited, "--", *show], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert found["Securebits"] == "noroot,noroot_locked,no_setuid_fixup_locked,keep_caps_locked,0xc0"
    capabilities = ("Inheritable capabilities", "Ambient capabilities", "Capability bounding set")
    assert {found[name] for name in capabilities} == {"[none]"}


@pytest.mark.parametrize("bits", ["+no_setuid_fixup,+no_setuid_fixup_locked", "+noroot_locked"])
def test_secure_bits_that_are_locked_otherwise_end_the_start(node: ShifterNode, bits: str) -> None:
    ids = ["--reuid", str(node.alice.uid), "--regid", str(node.alice.gid), "--clear-groups"]
    command = ["setpriv", *ids, f"--securebits={bits}", "--", *node.command(IMAGE, "/bin/true")]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == (
        "shifter: cannot set the secure bits, which a parent has locked in another way: Operation not permitted\n"
    )


# sec-20: the unprivileged phase cannot be driven from outside


def test_sec20_the_launcher_cannot_be_traced_while_it_is_privileged(node: ShifterNode) -> None:
    tracer = textwrap.dedent(
        """
        import ctypes, os, subprocess, sys, time
        libc = ctypes.CDLL(None, use_errno=True)
        won = 0
        for delay in range(0, 40):
            process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            end = time.monotonic() + 0.02
            while time.monotonic() < end and process.poll() is None:
                try:
                    name = open(f"/proc/{process.pid}/comm").read()
                    before = os.readlink(f"/proc/{process.pid}/exe")
                except OSError:
                    before = ""
                if before.endswith("/shifter") and libc.ptrace(0x4206, process.pid, 0, 0) == 0:
                    won += 1
                for name in ("mem", "environ", "maps"):
                    try:
                        with open(f"/proc/{process.pid}/{name}", "rb") as handle:
                            if os.readlink(f"/proc/{process.pid}/exe").endswith("/shifter"):
                                won += 1
                    except OSError:
                        pass
            while process.poll() is None:
                try:
                    process.kill()
                except PermissionError:  # on old kernels nobody can kill it while it makes a loop device
                    pass
        print(won)
        """
    )
    done = node.as_user(["/usr/bin/python3", "-c", tracer, *node.command(IMAGE, "/bin/true")])
    assert done.stdout == "0\n", done.stderr


# sec-21, sec-22, sec-26: the process state given to us


def launch(node: ShifterNode, argv: list[bytes], prepare: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """Executes the launcher with a raw argument vector; its status and what it wrote to standard error."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(write, 2)
            oldkernel.become(node.alice, node.hidden)
            prepare()
            libc = ctypes.CDLL(None)
            vector = (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
            libc.execve(node.program("shifter").encode(), vector, (ctypes.c_char_p * 1)(None))
        finally:
            os._exit(99)
    os.close(write)
    with os.fdopen(read) as errors:
        text = errors.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def test_sec21_an_empty_argument_vector_is_harmless(node: ShifterNode) -> None:
    status, text = launch(node, [])
    assert status == 125
    assert text.startswith("shifter: ")


def test_sec21_escape_codes_in_names_do_not_reach_the_terminal(node: ShifterNode) -> None:
    status, text = launch(node, [b"\x1b]0;x\x07", b"--image=id:\x1b[31m", b"/bin/true"])
    assert status == 125
    assert "\x1b" not in text


def test_sec22_loader_variables_do_not_reach_the_launcher(node: ShifterNode) -> None:
    hostile = {
        "LD_PRELOAD": "/tmp/evil.so", "LD_LIBRARY_PATH": "/tmp", "LD_AUDIT": "/tmp/evil.so", "GCONV_PATH": "/tmp",
        "GLIBC_TUNABLES": "glibc.malloc.check=3", "MALLOC_TRACE": "/tmp/trace", "LOCPATH": "/tmp", "PATH": "/tmp",
        "BASH_ENV": "/tmp/evil", "ENV": "/tmp/evil", "IFS": "/", "TZ": "/tmp/evil", "RES_OPTIONS": "debug",
    }
    done = node.run(IMAGE, "/bin/env", env=hostile)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    names = {line.split("=")[0] for line in done.stdout.splitlines()}
    assert not {"LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GLIBC_TUNABLES"} & names
    assert "BASH_ENV" in names


def test_sec22_variables_that_are_kept_reach_nothing_but_the_command(node: ShifterNode) -> None:
    """An object to preload that is there would be loaded by whatever program of ours got the variable."""
    hostile = {
        "LD_PRELOAD": "/no/such/object.so", "LD_LIBRARY_PATH": "/srv", "TMPDIR": "/srv/tmp", "GCONV_PATH": "/srv",
        "PATH": "/bin",
    }  # fmt: skip
    seen = node.base / "seen-by-client"
    seen.touch()
    seen.chmod(0o666)
    with node.client(f"#!/bin/sh\nexport > {seen}\necho {image_id('base')}\n"):
        names = "--keepenv=LD_PRELOAD,LD_LIBRARY_PATH,TMPDIR,GCONV_PATH"
        done = node.run("--image=docker:not/indexed", names, "/bin/env", env=hostile)
    assert done.returncode == 0, done.stderr
    # The loader of the container's own program, and nobody before it, misses the object.
    assert done.stderr.count("/no/such/object.so") == 1
    assert {f"{name}={value}" for name, value in hostile.items()} <= set(done.stdout.splitlines())
    assert not [line for line in seen.read_text().splitlines() if "LD_" in line or "/srv" in line]
    seen.unlink()


def test_sec26_closed_standard_descriptors(node: ShifterNode) -> None:
    for first, last in ((0, 1), (1, 2), (0, 2), (0, 3)):
        command = [b"shifter", IMAGE.encode(), b"/bin/true"]
        status, _text = launch(node, command, partial(os.closerange, first, last))
        assert status == 0, (first, last)


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 3), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0), (resource.RLIMIT_STACK, 512 * 1024), (resource.RLIMIT_SIGPENDING, 0),
    ],
)
def test_sec26_low_limits_end_in_success_or_a_clean_refusal(node: ShifterNode, limit: int, value: int) -> None:
    status, text = launch(
        node, [b"shifter", IMAGE.encode(), b"/bin/true"], lambda: resource.setrlimit(limit, (value, value))
    )
    assert status in (0, 125, 127), text  # NOFILE=3: the command's own loader cannot open its libraries


def test_sec26_limits_are_the_callers_again_in_the_container(node: ShifterNode) -> None:
    def low() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 8192))
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, 60))

    limits = node.script("cat /proc/self/limits", preexec_fn=low)
    assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max file size")] == [["4096", "8192"]]
    assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files")] == [["50", "60"]]


def test_sec26_a_deleted_or_unreadable_directory_is_no_obstacle(node: ShifterNode) -> None:
    for mode in (0o755, 0o000):
        place = Path(f"/tmp/shifter-cwd-{os.getpid()}")
        place.mkdir()
        os.chown(place, node.alice.uid, node.alice.gid)
        place.chmod(mode)
        done = subprocess.run(
            ["/bin/sh", "-c", f"rmdir {place}; exec setpriv --reuid {node.alice.uid} --regid {node.alice.gid} "
             f"--clear-groups {node.program('shifter')} {IMAGE} /bin/sh -c pwd"],
            cwd=place, check=False, capture_output=True, text=True,
        )
        assert (done.returncode, done.stdout) == (0, "/\n"), done.stderr


def test_sec26_ignored_and_blocked_signals_pass_through(node: ShifterNode) -> None:
    def odd() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

    status = node.run(IMAGE, "/bin/cat", "/proc/self/status", preexec_fn=odd, restore_signals=False).stdout
    fields = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    assert int(fields["SigBlk"], 16) == 1 << (signal.SIGUSR1 - 1)
    assert int(fields["SigIgn"], 16) & 1 << (signal.SIGCHLD - 1)
    assert not int(fields["SigIgn"], 16) & 1 << (signal.SIGPIPE - 1)
