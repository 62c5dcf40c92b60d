# SPDX-License-Identifier: BSD-3-Clause
"""A real Slurm of two nodes on this machine: munged, slurmctld and two slurmd with a key, ports and files of their own.

`slurmd -N` makes two nodes of one machine, with networks of their own where that matters (virtualnodes.py). A Slurm
that the machine may have is neither used nor touched.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.accounts import MARK, User
from tests.installation import ROOT
from tests.virtualnodes import BRIDGE_ADDRESS, VirtualNode

NODES = ("sn1", "sn2")
PATIENCE = 120  # seconds for what takes a moment on an idle machine

CONFIGURATION = """
ClusterName=test{mark}
SlurmctldHost={host}({controller})
SlurmctldPort={controller_port}
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=socket={base}/munge/socket
CredType=cred/munge
StateSaveLocation={base}/controller
SlurmctldPidFile={base}/controller/pid
SlurmdSpoolDir={base}/spool/%n
SlurmdPidFile={base}/spool/%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
PrologFlags=Alloc
PlugStackConfig={base}/plugstack.conf
NodeName={nodes[0]} NodeHostname={host} NodeAddr={addresses[0]} Port={ports[0]} CPUs=4
NodeName={nodes[1]} NodeHostname={host} NodeAddr={addresses[1]} Port={ports[1]} CPUs=4
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@dataclass
class SlurmCluster:
    base: Path
    prefix: Path  # of the installation whose programs the plug-in starts
    alice: User
    eve: User
    network: Sequence[VirtualNode] = ()  # one for each of NODES, or none: all on this machine's own
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def plugin(self) -> Path:
        return self.base / "lib/shifter_slurm.so"

    @property
    def conf(self) -> Path:
        return self.base / "slurm.conf"

    def home(self, user: User) -> Path:
        """A directory of the user's own, where his jobs run and write."""
        return self.base / "home" / user.name

    def use_plugin(self, *words: str, kind: str = "optional") -> None:
        """Writes plugstack.conf; every command and every prolog reads it anew, slurmd when it starts."""
        (self.base / "plugstack.conf").write_text(" ".join([kind, str(self.plugin), *words]) + "\n")

    def run(
        self, *command: str, user: User | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command of Slurm as an unprivileged user; returns whatever its status is."""
        who = user or self.alice
        variables = {"PATH": "/usr/bin:/bin", "SLURM_CONF": str(self.conf), "HOME": str(self.home(who)), **(env or {})}
        return subprocess.run(
            list(command),
            user=who.uid,
            group=who.gid,
            extra_groups=[who.gid],
            env=variables,
            cwd=self.home(who),
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def batch(self, script: str, *options: str, user: User | None = None, env: Mapping[str, str] | None = None) -> str:
        """Submits a bash script, waits for the job and returns what it wrote; the job must succeed."""
        who = user or self.alice
        output = self.home(who) / "job.out"
        output.unlink(missing_ok=True)
        path = self.home(who) / "job.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        # Not --wait, which looks only every few seconds.
        done = self.run("sbatch", "--parsable", f"--output={output}", *options, str(path), user=user, env=env)
        assert done.returncode == 0, done.stderr
        job = done.stdout.strip()
        await_true(lambda: self.state(job) not in {"PENDING", "RUNNING", "COMPLETING"}, f"job {job} does not end")
        self.await_idle()
        text = output.read_text() if output.exists() else ""
        assert self.state(job) == "COMPLETED", text
        return text

    def state(self, job: str) -> str:
        return self.run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").stdout.strip()

    def queue(self) -> str:
        """Every job that Slurm remembers."""
        return self.run("squeue", "--noheader", "--states=all", "--format=%i %T").stdout

    def node_states(self) -> set[str]:
        return set(self.run("sinfo", "--noheader", "--Node", "--format=%T").stdout.split())

    def await_idle(self) -> None:
        """Until the epilogs have run and both nodes are free for the next job; a drained node fails the test."""
        busy = {"completing", "allocated", "mixed"}
        await_true(lambda: not self.node_states() & busy, "the nodes are not free again")
        assert self.node_states() == {"idle"}, self.log()

    def log(self, *names: str) -> str:
        """What the daemons (slurmctld and the nodes) have written."""
        return "".join((self.base / "log" / name).read_text() for name in names or self.processes)

    def clear_logs(self) -> None:
        for name in self.processes:
            os.truncate(self.base / "log" / name, 0)

    def start(self, name: str, *command: str, user: str = "root") -> None:
        # O_APPEND: the logs are emptied between tests. A test run that is killed takes its daemons along.
        with (self.base / "log" / name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], user=user, group=user, extra_groups=[],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, start_new_session=True,
            )  # fmt: skip

    def start_node(self, node: str) -> None:
        command = ["slurmd", "-D", "-N", node, "-f", str(self.conf)]
        own = [each for each in self.network if each.name == node]
        self.start(node, *(own[0].inside(*command) if own else command))

    def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_true(condition: Callable[[], bool], failure: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Ports that nobody has at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _run(command: Sequence[str], **variables: str) -> None:
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def _build_plugin(cluster: SlurmCluster, flags: str) -> None:
    build = cluster.base / "build"
    cluster.plugin.parent.mkdir()
    _run(
        ["make", "-s", "-C", str(ROOT / "slurm_spank"), f"build={build}", f"PREFIX={cluster.prefix}",
         f"SYSCONFDIR={cluster.prefix}/etc"],
        CPPFLAGS=flags,
    )
    shutil.copy(build / "shifter_slurm.so", cluster.plugin)
    shutil.rmtree(build)


def _configure(cluster: SlurmCluster) -> None:
    owners = {"munge": "munge", "controller": "slurm", "log": "root", "spool": "root", "home": "root"}
    for name, owner in owners.items():
        (cluster.base / name).mkdir()
        shutil.chown(cluster.base / name, owner, owner)
    for node in NODES:
        (cluster.base / "spool" / node).mkdir()
    for user in (cluster.alice, cluster.eve):
        cluster.home(user).mkdir(mode=0o755)
        os.chown(cluster.home(user), user.uid, user.gid)
    key = cluster.base / "munge/key"
    key.touch(0o400)
    key.write_bytes(os.urandom(128))
    shutil.chown(key, "munge", "munge")
    controller_port, *ports = free_ports(3)
    cluster.conf.write_text(CONFIGURATION.format(
        mark=MARK, host=platform.node().split(".")[0], base=cluster.base, controller_port=controller_port, ports=ports,
        nodes=NODES, controller=BRIDGE_ADDRESS if cluster.network else "127.0.0.1",
        addresses=[each.address for each in cluster.network] or ["127.0.0.1"] * len(NODES),
    ))  # fmt: skip


def _start(cluster: SlurmCluster) -> None:
    munge = cluster.base / "munge"
    cluster.start(
        "munged", "munged", "--foreground", f"--key-file={munge}/key", f"--socket={munge}/socket",
        f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed", user="munge",
    )  # fmt: skip
    await_true((munge / "socket").exists, "munged did not start")
    cluster.start("slurmctld", "slurmctld", "-D", "-f", str(cluster.conf), user="slurm")
    for node in NODES:
        cluster.start_node(node)
    try:
        await_true(lambda: cluster.node_states() == {"idle"}, "the nodes did not come up")
    except AssertionError as failure:
        raise AssertionError(cluster.log()) from failure


@contextmanager
def slurm_cluster(
    name: str, prefix: Path, users: tuple[User, User], flags: str = "", network: Sequence[VirtualNode] = ()
) -> Iterator[SlurmCluster]:
    """A running cluster whose plug-in was built for `prefix`, with more preprocessor `flags`; removed at the end."""
    base = Path("/var/lib") / f"shifter-{name}-{MARK}"
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(mode=0o755)
    cluster = SlurmCluster(base, prefix, *users, network)
    try:
        _build_plugin(cluster, flags)
        _configure(cluster)
        cluster.use_plugin()
        _start(cluster)
        yield cluster
        cluster.await_idle()
    finally:
        for daemon in (*NODES, "slurmctld", "munged"):
            if daemon in cluster.processes:
                cluster.stop(daemon)
        shutil.rmtree(base)
