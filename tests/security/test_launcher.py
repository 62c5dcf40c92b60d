# SPDX-License-Identifier: BSD-3-Clause
"""What a hostile caller, image or environment can try with the setuid launcher. The sec- numbers are those of the
security requirements; see docs/security.md."""

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
from typing import Any

import pytest

from tests import oldkernel
from tests.accounts import User
from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"
EVERY_KERNEL = True


def refused(node: ShifterNode, *arguments: str, **options: Any) -> str:
    done = node.run(*arguments, **options)
    assert done.returncode == 125, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return str(done.stderr)


# sec-01, sec-03, sec-05: only the site's images reach the kernel


@pytest.mark.parametrize("kind", ["ext4", "xfs", "iso9660"])
def test_sec01_an_image_that_is_not_squashfs_never_reaches_the_kernel(node: ShifterNode, kind: str) -> None:
    identifier = node.add_image("other-kind", node.base / "tree")
    image = node.images / f"{identifier}.squashfs"
    image.write_bytes(b"")
    os.truncate(image, 300 << 20)
    if kind == "iso9660":
        with image.open("r+b") as handle:
            handle.seek(32768)
            handle.write(b"\1CD001\1")
    else:
        subprocess.run([f"mkfs.{kind}", "-q", "-F" if kind == "ext4" else "-f", str(image)], check=True)
    assert "not a squashfs" in refused(node, f"--image=id:{identifier}", "/bin/true")


def test_sec01_another_format_in_the_metadata_is_refused(node: ShifterNode) -> None:
    identifier = node.add_image("format", node.base / "tree")
    (node.images / f"{identifier}.meta").write_text("FORMAT: ext4\n")
    assert "ext4" in refused(node, f"--image=id:{identifier}", "/bin/true")


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, b"sqsh"), (0, b"hsqt"), (28, b"\3"), (28, b"\5"), (30, b"\1"), (40, b"\xff" * 8), (40, b"\0\0\0\0\1")],
)
def test_sec02_a_superblock_that_is_none_is_refused(node: ShifterNode, offset: int, value: bytes) -> None:
    """Other orders of bytes and versions, more content than the file has; the gateway looks at all the rest."""
    identifier = node.add_image("crafted", node.base / "tree")
    with (node.images / f"{identifier}.squashfs").open("r+b") as handle:
        handle.seek(offset)
        handle.write(value)
    assert identifier in refused(node, f"--image=id:{identifier}", "/bin/true")


def test_sec02_a_truncated_image_is_refused(node: ShifterNode) -> None:
    identifier = node.add_image("short", node.base / "tree")
    os.truncate(node.images / f"{identifier}.squashfs", 8192)
    assert "cut short" in refused(node, f"--image=id:{identifier}", "/bin/true")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_sec01_a_store_that_others_can_write_is_refused(node: ShifterNode, mode: int) -> None:
    node.images.chmod(mode)
    try:
        assert str(node.images) in refused(node, IMAGE, "/bin/true")
    finally:
        node.images.chmod(0o700)


def test_sec01_an_image_file_of_a_user_or_writable_by_others_is_refused(node: ShifterNode) -> None:
    image = node.images / f"{node.add_image('owned', node.base / 'tree')}.squashfs"
    os.chown(image, node.eve.uid, node.eve.gid)
    refused(node, f"--image=id:{image_id('owned')}", "/bin/true")
    os.chown(image, 0, 0)
    image.chmod(0o666)
    refused(node, f"--image=id:{image_id('owned')}", "/bin/true")


def test_sec03_a_link_in_place_of_the_image_is_refused(node: ShifterNode) -> None:
    image = node.images / f"{node.add_image('linked', node.base / 'tree')}.squashfs"
    image.unlink()
    image.symlink_to(f"{image_id('base')}.squashfs")
    refused(node, f"--image=id:{image_id('linked')}", "/bin/true")


# sec-07: nothing in an image is worth a privilege


def test_sec07_setuid_and_device_files_of_an_image_are_harmless(node: ShifterNode) -> None:
    tree = base_tree(node.base / "hostile-tree")
    (tree / "bin/id").chmod(0o6755)
    device = tree / "srv/zero"
    if not device.exists():
        os.mknod(device, 0o020666, os.makedev(1, 5))
    device.chmod(0o666)
    node.add_image("hostile", tree)
    assert node.script("id -u; id -g", image="hostile").split() == [str(node.alice.uid), str(node.alice.gid)]
    assert node.run(f"--image=id:{image_id('hostile')}", "/bin/cat", "/srv/zero").returncode != 0


# sec-12: the image's own tree cannot redirect what we put into it


@pytest.mark.parametrize("link", ["/", "/../../../../..", "..", "etc", "/srv", "/proc/self/cwd", "nowhere"])
def test_sec12_system_directories_that_are_links_lead_nowhere(node: ShifterNode, link: str) -> None:
    tree = base_tree(node.base / "links-tree")
    for name in ("etc", "proc", "sys", "dev", "tmp", "var"):
        subprocess.run(["rm", "-rf", str(tree / name)], check=True)
        (tree / name).symlink_to(link)
    node.add_image("links", tree)
    before = sorted(Path("/").iterdir())
    output = node.script("cat /proc/self/comm; cat /etc/passwd | head -1; head -c1 /dev/zero | wc -c", image="links")
    assert output.startswith("cat\nroot:")
    assert sorted(Path("/").iterdir()) == before


def test_sec12_system_directories_that_are_files_are_replaced(node: ShifterNode) -> None:
    tree = base_tree(node.base / "files-tree")
    for name in ("etc", "proc", "tmp", "var", "dev", "sys"):
        subprocess.run(["rm", "-rf", str(tree / name)], check=True)
        (tree / name).write_text("a file\n")
    node.add_image("files", tree)
    assert node.script("cat /proc/self/comm", image="files") == "cat\n"


def test_sec11_a_site_mount_below_a_link_of_the_image_stays_inside(node: ShifterNode) -> None:
    tree = base_tree(node.base / "escape-tree")
    (tree / "out").symlink_to("/")
    (tree / "up").symlink_to("../../../../../..")
    (tree / "host").symlink_to(node.base)
    (tree / "conf").symlink_to("srv/../etc")
    node.add_image("escape", tree)
    node.configure(siteFs="/usr/share:/out/made-a;/usr/share:/up/made-b")
    assert node.script("ls -d /made-a /made-b", image="escape") == "/made-a\n/made-b\n"
    node.configure(siteFs="/usr/share:/host/made-c")
    assert "dangling" in refused(node, f"--image=id:{image_id('escape')}", "/bin/true")
    node.configure(siteFs="/etc/hostname:/conf/passwd")
    assert "/conf/passwd leads to /etc/passwd" in refused(node, f"--image=id:{image_id('escape')}", "/bin/true")
    assert not [name for name in ("made-a", "made-b") if Path("/", name).exists()]
    assert not (node.base / "made-c").exists()


def test_w29_nothing_is_created_on_a_file_system_of_the_host(node: ShifterNode) -> None:
    site = node.base / "host-directory"
    site.mkdir(exist_ok=True)
    node.configure(siteFs=f"{site}:/srv/data;/usr/share:/srv/data/made/here")
    assert "create it on the host" in refused(node, IMAGE, "/bin/true")
    assert list(site.iterdir()) == []


# sec-14: descriptors and working directory


def test_sec14_inherited_descriptors_are_closed(node: ShifterNode) -> None:
    held = [os.open("/", os.O_RDONLY | os.O_DIRECTORY), os.open("/etc/hostname", os.O_RDONLY)]
    try:
        listing = node.script("ls /proc/self/fd", pass_fds=held).split()
        assert len(listing) == 4  # 0, 1, 2 and the directory that ls itself reads
        for number in range(3, 21):
            done = node.run(f"--workdir=/proc/self/fd/{number}", IMAGE, "/bin/sh", "-c", "pwd", pass_fds=held)
            # The walk of old kernels takes such a link for text, which may name a directory of the container.
            assert done.stdout == "/\n" or (node.hidden and done.stdout.startswith("/proc"))
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
            while process.poll() is None:  # for a moment it may be root's in all its ids
                try:
                    process.kill()
                except PermissionError:
                    time.sleep(0.001)
            process.wait()
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
    client = node.base / "bin/shifterimg"
    client.write_text(f"#!/bin/sh\nexport > {seen}\necho {image_id('base')}\n")
    client.chmod(0o755)
    try:
        names = "--keepenv=LD_PRELOAD,LD_LIBRARY_PATH,TMPDIR,GCONV_PATH"
        done = node.run("--image=docker:not/indexed", names, "/bin/env", env=hostile)
    finally:
        client.unlink()
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


# identity, configuration, access


def test_root_cannot_use_the_launcher(node: ShifterNode) -> None:
    done = subprocess.run(node.command(IMAGE, "/bin/true"), check=False, capture_output=True, text=True, cwd="/")
    assert done.returncode == 125
    assert "root" in done.stderr


def test_gid_zero_cannot_use_the_launcher_and_never_comes_along(node: ShifterNode) -> None:
    refused(node, IMAGE, "/bin/true", user=User("x", node.alice.uid, 0))
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
        assert str(node.conf) in refused(node, IMAGE, "/bin/true")
    node.conf.unlink()
    assert str(node.conf) in refused(node, IMAGE, "/bin/true")


def test_an_account_the_site_does_not_know_is_refused(node: ShifterNode) -> None:
    assert "54321" in refused(node, IMAGE, "/bin/true", user=User("x", 54321, 54321))


def test_sec74_the_acl_holds_for_ids_too(node: ShifterNode) -> None:
    identifier = node.add_image("acl", node.base / "tree", f"USERACL: {node.alice.uid}\n")
    assert node.script("cat /etc/os-release", image="acl") == "NAME=TestImage\n"
    refused(node, f"--image=id:{identifier}", "/bin/true", user=node.eve)


def test_sec74_malformed_ids_are_refused(node: ShifterNode) -> None:
    good = image_id("base")
    for bad in (good.upper(), good[:-1], good + "0", "../" + good, good[:-1] + "/", "." * 64):
        refused(node, f"--image=id:{bad}", "/bin/true")


def test_sec74_an_image_without_metadata_is_refused(node: ShifterNode) -> None:
    identifier = node.add_image("bare", node.base / "tree")
    (node.images / f"{identifier}.meta").unlink()
    refused(node, f"--image=id:{identifier}", "/bin/true")


# sec-17, sec-27


def test_sec17_a_container_cannot_mount_or_see_the_old_root(node: ShifterNode) -> None:
    assert node.run(IMAGE, "/bin/mount", "-t", "tmpfs", "x", "/tmp").returncode != 0
    assert str(node.base) not in node.script("cat /proc/self/mountinfo")


def test_sec27_the_launcher_cannot_be_overwritten(node: ShifterNode) -> None:
    before = Path(node.program("shifter")).read_bytes()
    script = f"echo x > {node.program('shifter')}"
    assert node.as_user(["/bin/sh", "-c", script]).returncode != 0
    assert Path(node.program("shifter")).read_bytes() == before


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
