# SPDX-License-Identifier: BSD-3-Clause
"""Two nodes with networks of their own, on which containers with an sshd are prepared."""

from __future__ import annotations

import pwd
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.accounts import User
from tests.shifternode import ShifterNode, image_id
from tests.sshclosure import ssh_closure
from tests.virtualnodes import VirtualNode, hosts_file, virtual_nodes

SECRET = "5a" * 32
PORT = 1204
DIRECTORY = "/var/shifterSsh"


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


def key(pair: Pair, where: int, name: str, job: str = "7") -> str:
    """A file of the sshd's, as the user reads it."""
    return pair.shifter(where, "cat", f"{DIRECTORY}/{name}", job=job).stdout
