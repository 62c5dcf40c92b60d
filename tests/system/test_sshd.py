# SPDX-License-Identifier: BSD-3-Clause
"""The sshd of prepared containers, between two nodes with networks of their own.

test_slurm_sshd.py has the same in jobs.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.accounts import User
from tests.killed import Hit, KillAfter
from tests.nodestate import processes
from tests.shifternode import ShifterNode, image_id
from tests.sshclosure import BUILDER, source, ssh_closure
from tests.virtualnodes import VirtualNode, hosts_file, virtual_nodes

SECRET = "5a" * 32
PORT = 1204
DIRECTORY = "/var/shifterSsh"

# A shell that needs no library: it runs one program by its path, or says what it was given.
TINY = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    char *words[64], *next = argc > 2 && strcmp(argv[1], "-c") == 0 ? argv[2] : argv[1];
    int count = 0;
    for (char *word; count < 63 && (word = strsep(&next, " ")) != NULL; words[count++] = word)
        continue;
    words[count] = NULL;
    if (words[0] != NULL && words[0][0] == '/')
        return execv(words[0], words);
    printf("tiny %u %s %s\n", (unsigned)getuid(), words[0], getenv("SHIFTER_IMAGE"));
    return 0;
}
"""


@pytest.fixture(scope="module")
def closure() -> Iterator[Path]:
    with ssh_closure() as directory:
        yield directory


@pytest.fixture(scope="module")
def network() -> Iterator[list[VirtualNode]]:
    with virtual_nodes("n1", "n2") as nodes:
        yield nodes


@dataclass
class Pair:
    node: ShifterNode
    nodes: list[VirtualNode]
    closure: Path

    def set_up(
        self, where: int, *, job: str = "7", image: str = "base", secret: str = SECRET, user: User | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What the prolog of a job does on one of the nodes."""
        who, virtual = user or self.node.alice, self.nodes[where]
        account = pwd.getpwuid(who.uid).pw_name
        command = self.setup(account, who, f"{job}@{virtual.name}", image)
        return virtual.run(*command, input=self.told(secret))

    def setup(self, account: str, who: User, holder: str, image: str = "base") -> list[str]:
        ids = ["-u", account, "-U", str(who.uid), "-G", str(who.gid)]
        return [self.node.program("setupRoot"), *ids, "-J", holder, "-N", "@-", "-s", "@-", "id", image_id(image)]

    def told(self, secret: str = SECRET) -> str:
        """On standard input."""
        return " ".join(f"{each.name}/1" for each in self.nodes) + f"\n{secret}\n"

    def watchers(self) -> list[int]:
        return watchers((self.node.alice, self.node.eve))

    def prepare(self, *, job: str = "7", image: str = "base", secret: str = SECRET, user: User | None = None) -> None:
        for where in range(len(self.nodes)):
            done = self.set_up(where, job=job, image=image, secret=secret, user=user)
            assert (done.returncode, done.stderr) == (0, "")

    def release(self, where: int, job: str = "7") -> None:
        done = self.nodes[where].run(self.node.program("unsetupRoot"), "-J", f"{job}@{self.nodes[where].name}")
        assert (done.returncode, done.stderr) == (0, "")

    def shifter(
        self, where: int, *command: str, job: str = "7", image: str = "base", user: User | None = None, input: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """`shifter COMMAND` in the job on a node."""
        virtual = self.nodes[where]
        return virtual.run(
            "env", "-i", "PATH=/usr/bin:/bin", f"SLURM_JOB_ID={job}", f"SLURMD_NODENAME={virtual.name}",
            *self.node.command(f"--image=id:{image_id(image)}", *command), user=user or self.node.alice, input=input,
        )  # fmt: skip

    def ssh(
        self, where: int, *words: str, job: str = "7", image: str = "base", user: User | None = None
    ) -> subprocess.CompletedProcess[str]:
        """ssh to the other node; nobody is there to answer a question."""
        return self.shifter(
            where, "ssh", "-oBatchMode=yes", self.nodes[1 - where].name, *words, job=job, image=image, user=user
        )


@pytest.fixture
def pair(node: ShifterNode, network: list[VirtualNode], closure: Path) -> Iterator[Pair]:
    hosts = node.base / "etc/files/hosts"
    hosts.write_text(hosts_file(network))
    node.configure(optUdiImage=str(closure))
    try:
        yield Pair(node, network, closure)
    finally:
        node.as_root("unsetupRoot")
        hosts.unlink()
        assert watchers((node.alice, node.eve)) == []
        assert all(listeners(each) == [] for each in network)


def watchers(users: Sequence[User]) -> list[int]:
    """Those above processes of these users; without any, they end."""
    command = ["pgrep", "-u", ",".join(str(user.uid) for user in users), "-f", "sshd"]
    found = subprocess.run(command, check=False, capture_output=True, text=True).stdout.split()
    parents = {int(Path(f"/proc/{word}/stat").read_text().rpartition(")")[2].split()[1]) for word in found}
    return sorted(parent for parent in parents if Path(f"/proc/{parent}/comm").read_text() == "shifter-sshd\n")


def listeners(node: VirtualNode) -> list[str]:
    return node.run("ss", "-Htln").stdout.splitlines()


def processes_of(user: User, name: str) -> list[int]:
    command = ["pgrep", "-u", str(user.uid), "-f", name]
    return [int(word) for word in subprocess.run(command, check=False, capture_output=True, text=True).stdout.split()]


def await_gone(user: User, name: str) -> None:
    deadline = time.monotonic() + 20
    while processes_of(user, name):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ----------------------------------------------------------------------------------------------------------------------
# From one container into the other


def test_a_directory_in_place_of_an_image_has_one_too(pair: Pair) -> None:
    """What earlier versions made of `--ccm`: a container of the node itself, here of a directory, with an sshd."""
    node = pair.node
    node.configure(optUdiImage=str(pair.closure), allowLocalChroot="1")
    tree = str(node.base / "tree")
    for virtual in pair.nodes:
        command = pair.setup(node.alice.name, node.alice, f"7@{virtual.name}")[:-2]
        done = virtual.run(*command, "local", tree, input=pair.told())
        assert (done.returncode, done.stderr) == (0, "")
    there = pair.nodes[0].run(
        "env", "-i", "PATH=/usr/bin:/bin", "SLURM_JOB_ID=7", f"SLURMD_NODENAME={pair.nodes[0].name}",
        *node.command("ssh", "-oBatchMode=yes", pair.nodes[1].name, "printenv SHIFTER_IMAGE; cat /etc/os-release"),
        user=node.alice, input="",
    )  # fmt: skip
    assert (there.returncode, there.stdout) == (0, f"{tree}\nNAME=TestImage\n"), there.stderr
    pair.release(0)
    pair.release(1)



def test_ssh_goes_from_a_container_into_the_one_of_the_other_node_without_a_question(pair: Pair) -> None:
    pair.prepare()
    look = "cat /srv/data/file /var/hostsfile; id -u; readlink /proc/self/ns/net; cat /proc/self/status"
    done = pair.ssh(0, look)
    assert done.returncode == 0, done.stderr
    home = pwd.getpwuid(pair.node.alice.uid).pw_dir
    assert done.stderr == f"Could not chdir to home directory {home}: No such file or directory\n"
    lines = done.stdout.splitlines()
    assert lines[:4] == ["from the image", "n1", "n2", str(pair.node.alice.uid)]
    namespaces = [Path(f"/run/netns/{each.namespace}").stat().st_ino for each in pair.nodes]
    assert lines[4] == f"net:[{namespaces[1]}]"
    status = dict(line.split(":\t", 1) for line in lines[5:] if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    back = pair.ssh(1, "readlink /proc/self/ns/net; ssh -oBatchMode=yes n2 readlink /proc/self/ns/net")
    assert back.stdout == f"net:[{namespaces[0]}]\nnet:[{namespaces[1]}]\n"
    assert pair.ssh(0, "exit 3").returncode == 3


def test_a_session_is_in_the_container_that_shifter_enters_and_has_its_variables(pair: Pair) -> None:
    pair.node.add_image("variables", pair.node.base / "tree", 'ENV: FROM_IMAGE=a b "c" \\d#e\nENV: PATH=/bin:/srv\n')
    pair.node.configure(optUdiImage=str(pair.closure), siteEnv="BY_SITE=s", siteEnvAppend="PATH=/opt/udiImage/bin")
    pair.prepare(image="variables")
    found = dict(line.split("=", 1) for line in pair.ssh(0, "env", image="variables").stdout.splitlines())
    assert found["FROM_IMAGE"] == 'a b "c" \\d#e'
    assert found["PATH"] == "/bin:/srv:/opt/udiImage/bin"
    assert found["BY_SITE"] == "s"
    assert found["SHIFTER_IMAGE"] == image_id("variables")
    ours = pair.shifter(1, "readlink", "/proc/self/ns/mnt", image="variables").stdout
    assert ours.startswith("mnt:")
    assert pair.ssh(0, "readlink /proc/self/ns/mnt", image="variables").stdout == ours


def test_files_go_through_sftp_and_scp(pair: Pair) -> None:
    pair.prepare()
    copied = Path(f"/tmp/shifter-sshd-{os.getpid()}")
    try:
        done = pair.shifter(0, "/opt/udiImage/bin/scp", "-oBatchMode=yes", "n2:/srv/data/file", str(copied))
        assert done.returncode == 0, done.stderr
        assert copied.read_text() == "from the image\n"
    finally:
        copied.unlink(missing_ok=True)


def test_an_image_without_library_and_shell_of_the_account_is_entered_too(pair: Pair, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    compiler = ["gcc", "-static", "-O2", "-x", "c", "-o", str(tree / "bin/sh"), "-"]
    subprocess.run(compiler, input=TINY, text=True, check=True)
    pair.node.add_image("tiny", tree)
    passwd = pair.node.base / "etc/files/passwd"
    kept = passwd.read_text()
    name = pwd.getpwuid(pair.node.alice.uid).pw_name
    passwd.write_text("".join(
        line.rpartition(":")[0] + ":/usr/bin/fish\n" if line.startswith(f"{name}:") else line
        for line in kept.splitlines(keepends=True)
    ))  # fmt: skip
    try:
        pair.prepare(image="tiny")
        done = pair.ssh(0, "hello", image="tiny")
        assert done.stdout == f"tiny {pair.node.alice.uid} hello {image_id('tiny')}\n", done.stderr
        assert pair.shifter(0, "/bin/sh", "-c", "ours", image="tiny").stdout.startswith("tiny")
    finally:
        passwd.write_text(kept)


# ----------------------------------------------------------------------------------------------------------------------
# Who may log in, and whom ssh believes


def key(pair: Pair, where: int, name: str, job: str = "7") -> str:
    return pair.shifter(where, "cat", f"{DIRECTORY}/{name}", job=job).stdout


def public_half(private: str, place: Path) -> str:
    """As OpenSSH's own tool reads it."""
    place.touch(0o600)
    place.write_text(private)
    return subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", str(place)], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_keys_are_equal_on_the_nodes_of_a_job_and_different_in_every_job(pair: Pair, tmp_path: Path) -> None:
    pair.prepare()
    host, user = (key(pair, 0, name) for name in ("host_key", "id_ed25519"))
    assert (host, user) == (key(pair, 1, "host_key"), key(pair, 1, "id_ed25519"))
    publics = [public_half(text, tmp_path / f"key{index}") for index, text in enumerate((host, user))]
    assert key(pair, 0, "authorized_keys").split() == publics[1].split()
    assert pair.shifter(0, "cat", "/etc/ssh/ssh_known_hosts").stdout == f"[*]:{PORT} {publics[0]}\n"
    found = {host, user}
    for where in (0, 1):
        pair.release(where)
    for job, secret in (("8", SECRET), ("7", "6b" * 32)):
        assert pair.set_up(0, job=job, secret=secret).returncode == 0
        found |= {key(pair, 0, "host_key", job), key(pair, 0, "id_ed25519", job)}
        pair.release(0, job)
    assert len(found) == 6


def test_nobody_but_the_user_can_read_the_keys_and_nobody_can_change_what_sshd_relies_on(pair: Pair) -> None:
    pair.prepare()
    script = f"stat -c '%a %u %n' {DIRECTORY} {DIRECTORY}/*; touch {DIRECTORY}/x {DIRECTORY}/authorized_keys"
    done = pair.shifter(0, "/bin/sh", "-c", script)
    alice = pair.node.alice.uid
    modes = {line.rpartition("/")[2]: line.rsplit(" ", 1)[0] for line in done.stdout.splitlines()}
    assert modes == {
        "shifterSsh": "755 0", "sshd_config": "644 0", "authorized_keys": "644 0", "passwd": "644 0",
        "host_key": f"600 {alice}", "id_ed25519": f"600 {alice}",
    }  # fmt: skip
    assert "/x': Read-only file system\n" in done.stderr
    assert "/authorized_keys': Permission denied\n" in done.stderr
    for name in ("host_key", "id_ed25519"):
        shown = f"{pair.node.udi_mount}{DIRECTORY}/{name}"
        seen = pair.node.as_user(["cat", shown], user=pair.node.eve)
        assert seen.returncode != 0
        assert seen.stdout == ""
    for process in processes_of(pair.node.alice, "sshd -D"):
        peek = pair.node.as_user(["cat", f"/proc/{process}/root{DIRECTORY}/id_ed25519"], user=pair.node.eve)
        assert peek.returncode != 0


def test_no_other_user_no_other_key_and_no_password_gets_in(pair: Pair, tmp_path: Path) -> None:
    pair.prepare()
    node, eve = pair.nodes[0], pair.node.eve
    own = tmp_path / "own"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(own)], check=True)
    stolen = tmp_path / "stolen"
    stolen.touch(0o600)
    stolen.write_text(key(pair, 0, "id_ed25519"))
    options = ["-F", "none", "-oBatchMode=yes", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"]

    def log_in(identity: Path, name: str) -> subprocess.CompletedProcess[str]:
        return node.run(
            "/usr/bin/ssh", *options, "-p", str(PORT), "-oIdentitiesOnly=yes", "-i", str(identity),
            f"{name}@{pair.nodes[1].address}", "true",
        )  # fmt: skip

    names = [pwd.getpwuid(user.uid).pw_name for user in (pair.node.alice, eve)]
    assert log_in(stolen, names[0]).returncode == 0  # the way in exists
    for identity, name in ((own, names[0]), (stolen, names[1]), (stolen, "root"), (own, names[1])):
        done = log_in(identity, name)
        assert done.returncode == 255
        # The only method on offer: neither password nor keyboard-interactive.
        assert "Permission denied (publickey)." in done.stderr
    # A container of eve's with the same image has no key at all.
    assert pair.shifter(0, "ls", DIRECTORY, user=eve, job="9").returncode != 0


def test_ssh_believes_only_nodes_of_the_job(pair: Pair) -> None:
    """Somebody else's sshd on that port of the other node, as on a node that two jobs share."""
    assert pair.set_up(0).returncode == 0
    assert pair.set_up(1, job="8", secret="6b" * 32, user=pair.node.eve).returncode == 0
    done = pair.ssh(0, "true")
    assert done.returncode == 255
    assert "IDENTIFICATION HAS CHANGED" in done.stderr


# ----------------------------------------------------------------------------------------------------------------------
# From the prolog to the epilog


def test_nothing_of_the_logins_outlives_the_release(pair: Pair) -> None:
    pair.prepare()
    alice = pair.node.alice
    first, last = (str(5000000 + os.getpid() + extra) for extra in (0, 10000000))
    # One stays in the foreground, one leaves its session and its parents.
    left = pair.ssh(0, f"(exec /bin/sleep {last} </dev/null >/dev/null 2>&1 &) ; exit 0")
    assert left.returncode == 0, left.stderr
    with subprocess.Popen(
        pair.nodes[0].inside(
            "env", "-i", "PATH=/usr/bin:/bin", "SLURM_JOB_ID=7", "SLURMD_NODENAME=n1",
            *pair.node.command(f"--image=id:{image_id('base')}", "ssh", "-oBatchMode=yes", "n2", f"sleep {first}"),
            user=alice,
        ), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as client:  # fmt: skip
        deadline = time.monotonic() + 30
        while len(processes_of(alice, f"^sleep {first}")) < 1:
            assert time.monotonic() < deadline
            assert client.poll() is None
            time.sleep(0.05)
        assert len(processes_of(alice, f"sleep {last}")) == 1
        pair.release(1)
        assert processes_of(alice, f"^(/bin/)?sleep ({first}|{last})") == []
        assert client.wait(30) == 255
    assert listeners(pair.nodes[1]) == []
    assert len(pair.watchers()) == 1
    pair.release(0)
    assert processes_of(alice, "sshd") == []
    assert pair.node.loop_devices() == []


def test_a_second_prolog_of_the_job_keeps_the_sshd_and_one_after_its_death_starts_another(pair: Pair) -> None:
    pair.prepare()
    before = processes_of(pair.node.alice, "sshd -D")
    assert len(before) == 2
    pair.prepare()
    assert processes_of(pair.node.alice, "sshd -D") == before
    for process in before:
        os.kill(process, signal.SIGKILL)
    await_gone(pair.node.alice, "sshd -D")
    assert pair.ssh(0, "true").returncode == 255
    while pair.watchers():
        time.sleep(0.05)
    pair.prepare()
    assert pair.ssh(0, "true").returncode == 0


def test_a_setup_killed_while_it_starts_sshd_leaves_none_that_nobody_knows(pair: Pair, tmp_path: Path) -> None:
    """At each call from the one that makes the watcher on."""
    tracer, node, alice = KillAfter(tmp_path), pair.nodes[0], pair.node.alice
    command = pair.setup(alice.name, alice, "7@n1")

    def run(number: int) -> Hit:
        done = node.run(*tracer.traced(number, command), input=pair.told())
        return tracer.outcome(number, done)

    assert not run(0).hit
    pair.release(0)
    made = tracer.last_fork()
    for number in range(made, made + 9):
        hit = run(number)
        pair.release(0)
        await_gone(alice, "sshd")
        deadline = time.monotonic() + 20
        while processes(pair.node):  # the watcher without its sshd as well
            assert time.monotonic() < deadline, hit
            time.sleep(0.02)
        assert pair.node.loop_devices() == [], hit


def test_the_user_can_end_his_sshd_but_not_what_watches_it(pair: Pair) -> None:
    pair.prepare()
    for watcher in pair.watchers():
        done = pair.node.as_user(["/bin/sh", "-c", f"kill -9 {watcher}"])
        assert "not permitted" in done.stderr
        assert Path(f"/proc/{watcher}/status").read_text().split("Uid:")[1].split()[:4] == ["0"] * 4
        # Nothing of the prolog's stays open: its lock, its pipes.
        kinds = {str(entry.readlink()) for entry in Path(f"/proc/{watcher}/fd").iterdir()}
        assert {kind.split(":")[0] for kind in kinds} == {"/dev/null", "pipe", "anon_inode"}


def test_an_occupied_port_is_told_and_nothing_stays(pair: Pair) -> None:
    assert pair.set_up(0).returncode == 0
    done = pair.set_up(0, job="8", secret="6b" * 32)
    assert done.returncode == 1
    assert "the container's sshd does not start: " in done.stderr
    assert f"Bind to port {PORT} on 0.0.0.0 failed: Address already in use" in done.stderr
    assert len(pair.watchers()) == 1
    assert pair.shifter(0, "/bin/true", job="8").returncode == 0


def test_without_dash_s_there_is_neither_key_nor_listener(pair: Pair) -> None:
    name = pwd.getpwuid(pair.node.alice.uid).pw_name
    done = pair.nodes[0].run(pair.node.program("setupRoot"), "-u", name, "-J", "7@n1", "id", image_id("base"))
    assert done.returncode == 0, done.stderr
    assert listeners(pair.nodes[0]) == []
    assert pair.shifter(0, "ls", DIRECTORY, "/etc/ssh").returncode != 0


# ----------------------------------------------------------------------------------------------------------------------
# What the site decides


@pytest.fixture
def own_tree(pair: Pair) -> Iterator[Path]:
    """A copy of the closure that a test can change."""
    tree = pair.node.base / "changed-udiImage"
    shutil.copytree(pair.closure, tree)
    pair.node.configure(optUdiImage=str(tree))
    yield tree
    pair.node.as_root("unsetupRoot")
    shutil.rmtree(tree)


def test_the_port_is_the_one_of_the_sites_sshd_config(pair: Pair, own_tree: Path) -> None:
    config = own_tree / "etc/sshd_config"
    config.write_text(config.read_text().replace("Port 1204", "  port=2345"))
    client = own_tree / "etc/ssh_config"
    client.write_text("Host elsewhere\n    Port 99\n")
    pair.prepare()
    assert {line.split()[3].rpartition(":")[2] for line in listeners(pair.nodes[0])} == {"2345"}
    assert pair.ssh(0, "true").returncode == 0
    said = pair.shifter(0, "ssh", "-G", "elsewhere").stdout.splitlines()
    assert "port 99" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: (tree / "etc/sshd_config").write_text("Port 22\n"), "Port must be from 1024 to 65535"),
        (lambda tree: (tree / "etc/sshd_config").unlink(), "etc/sshd_config"),
        (lambda tree: (tree / "etc/sshd_config").chmod(0o666), "etc/sshd_config"),
        (lambda tree: (tree / "etc/sshd_config").write_text("Nonsense yes\n"), "Bad configuration option: Nonsense"),
        (lambda tree: (tree / "sbin/sshd").unlink(), "cannot execute /opt/udiImage/sbin/sshd"),
        (lambda tree: (tree / "sbin/sshd").write_bytes(b"#!/bin/false\n"), "it ended at once"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_sites_tree_is_told(pair: Pair, own_tree: Path, change: object, words: str) -> None:
    change(own_tree)  # type: ignore[operator]
    done = pair.set_up(0)
    assert done.returncode == 1
    assert words in done.stderr
    assert pair.watchers() == []


def test_bad_secrets_and_a_missing_tree_are_refused(pair: Pair) -> None:
    for secret in ("", "5A" * 32, "5a" * 31, "5a" * 33, "x" * 64, "ssh-ed25519 AAAA"):
        done = pair.set_up(0, secret=secret)
        assert (done.returncode, done.stdout) == (1, "")
        assert "not 64 hex digits" in done.stderr
    pair.node.configure()
    done = pair.set_up(0)
    assert "optUdiImage is not set; build its directory with extra/build-udiimage" in done.stderr


# ----------------------------------------------------------------------------------------------------------------------
# extra/build-udiimage


def contents(tree: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(tree)): (
            path.lstat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        )
        for path in sorted(tree.rglob("*"))
    }  # fmt: skip


def test_the_closure_is_complete_reproducible_and_keeps_what_the_site_changed(closure: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    for _time in (1, 2):
        subprocess.run([str(BUILDER), *source(), "--port=4321", str(again)], check=True, umask=0o077)
        (again / "lib/ssh/libold.so").touch()
        (again / "lib64").mkdir(exist_ok=True)
        manifest = again / "etc/manifest"
        manifest.write_text(f"0  lib/ssh/libold.so  libold.so\n{manifest.read_text()}")
    subprocess.run([str(BUILDER), *source(), str(again)], check=True)
    assert "Port 4321" in (again / "etc/sshd_config").read_text()
    found, expected = contents(again), contents(closure)
    assert found.pop("lib64")
    del found["etc/sshd_config"], expected["etc/sshd_config"]
    assert found == expected
    lines = (closure / "etc/manifest").read_text().splitlines()
    listed = [line.split("  ") for line in lines if not line.startswith("#")]
    assert {name: digest for digest, name, _ in listed} == {
        name: digest for name, (_, digest) in expected.items() if digest and not name.startswith("etc/")
    }
    for name, (mode, _) in expected.items():
        assert mode & 0o6066 == 0o044, name
    for _, name, _ in listed:
        if not name.startswith("lib/"):
            command = ["patchelf", "--print-interpreter", "--print-rpath", str(closure / name)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            assert [Path(line).parts[:5] for line in said] == [("/", "opt", "udiImage", "lib", "ssh")] * 2
