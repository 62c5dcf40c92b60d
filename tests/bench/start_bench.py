# SPDX-License-Identifier: BSD-3-Clause
"""The rows of tests/bench/start: private and prepared starts, many at once, system calls, setupRoot."""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench.commandline import finish, parse
from tests.bench.gateway import remove_configuration
from tests.bench.node import PULLED, USER, Node, bench_node
from tests.bench.report import Goal, Grid, Row, median
from tests.bench.rounds import Contender, alternate, say
from tests.bench.runner import Runner
from tests.installation import installation

PEERS = ("crun", "bubblewrap", "ch-run")
VERSIONS = {
    "crun": ["crun", "--version"],
    "bubblewrap": ["bwrap", "--version"],
    "ch-run": ["ch-run", "--version"],
    "strace": ["strace", "--version"],
}
NUMPY = ("/usr/bin/python3", "-c", "import numpy")
AT_ONCE = 128
CROWDS = (1, 8, 32, AT_ONCE)
# crun refuses the hybrid layout of control groups; without the second hierarchy, in a namespace of its own, it works.
PURE_CGROUP_V1 = ("unshare", "-m", "sh", "-c", 'umount -l /sys/fs/cgroup/unified && exec "$@"', "sh")


class StartBench:
    """One run. Times are milliseconds from the start of the command to its end, measured by an idle parent."""

    def __init__(self, options: argparse.Namespace, node: Node) -> None:
        self.node = node
        self.rounds: int = options.rounds
        # Starts are short: several per round, their median counts.
        self.repeats = 5 if options.quick else 20
        self.user = Runner(node.uid, node.gid)
        self.root = Runner(0, 0)
        self.crun = Runner(0, 0, PURE_CGROUP_V1 if Path("/sys/fs/cgroup/unified").is_mount() else ())

    def close(self) -> None:
        """End the helpers."""
        self.user.close()
        self.root.close()
        self.crun.close()

    def repeated(self, runner: Runner, argv: Sequence[str], before: Callable[[], None] | None = None) -> Contender:
        """Median milliseconds of a few starts."""

        def measure() -> float:
            taken = []
            for _ in range(self.repeats):
                if before is not None:
                    before()
                taken.append(runner.seconds(argv) * 1000)
            return statistics.median(taken)

        return measure

    def floor_command(self, *command: str) -> list[str]:
        """The same start by the C floor."""
        return [str(self.node.floor), str(self.node.image()), str(self.node.work / "mnt"), *command]

    def peers(self) -> dict[str, tuple[Runner, list[str]]]:
        """Commands of those that are here and work here, on the expanded tree of the same image."""
        tree = str(self.node.tree)
        commands = {
            "crun": (self.crun, ["/usr/bin/crun", "--cgroup-manager=disabled", "run", "-b", str(self.node.bundle),
                                 "shifter-bench-@"]),
            "bubblewrap": (self.user, ["/usr/bin/bwrap", "--ro-bind", tree, "/", "--dev", "/dev", "--proc", "/proc",
                                       "--", "/bin/true"]),
            "ch-run": (self.user, ["/usr/bin/ch-run", tree, "--", "/bin/true"]),
        }  # fmt: skip
        present = {}
        for name, (runner, argv) in commands.items():
            if Path(argv[0]).exists() and runner.works(argv):
                present[name] = (runner, argv)
            else:
                say(f"{name} is absent or does not work here")
        return present

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While another container of the same image runs."""
        holder = subprocess.Popen(
            self.node.shifter("/bin/sh", "-c", "echo ready; exec sleep 3600"),
            user=self.node.uid, group=self.node.gid, extra_groups=[], cwd="/",
            env={"PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != "ready\n":
                raise SystemExit("bench: shifter does not start the image")
            yield
        finally:
            holder.kill()
            holder.wait()

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """While setupRoot holds the environment for a job."""
        self.root.seconds(self.node.prepare("bench@node"))
        try:
            yield
        finally:
            self.root.seconds(self.node.release("bench@node"))

    def first_starts(self) -> list[Row]:
        """Nothing of the image is mounted on the node, its file is in the page cache."""
        pulled = self.node.shifter("/bin/true", image=PULLED)
        contenders: dict[str, Contender] = {
            "ours": self.repeated(self.user, self.node.shifter("/bin/true"), self.node.await_idle),
            "pulled": self.repeated(self.user, pulled, self.node.await_idle),
            "floor": self.repeated(self.root, self.floor_command("/bin/true"), self.node.await_idle),
            **{name: self.repeated(*command) for name, command in self.peers().items()},
        }
        samples = alternate(contenders, self.rounds)
        peers = {name: median(samples, name) for name in PEERS}
        return [
            Row("private start, first on the node", "ms", median(samples, "ours"), peers, median(samples, "floor"),
                (Goal(1.3, "floor"),)),
            Row("private start, first on the node, pulled image", "ms", median(samples, "pulled"), {},
                median(samples, "floor"), (Goal(1.0, "floor"),)),
        ]  # fmt: skip

    def later_starts(self) -> list[Row]:
        """The image is in use on the node; and the same in a prepared environment."""
        with self.in_use():
            later = alternate({
                "true": self.repeated(self.user, self.node.shifter("/bin/true")),
                "numpy": self.repeated(self.user, self.node.shifter(*NUMPY)),
            }, self.rounds)  # fmt: skip
        with self.prepared():
            ready = alternate({
                "true": self.repeated(self.user, self.node.shifter("/bin/true")),
                "host /bin/true": self.repeated(self.user, ["/bin/true"]),
                "floor": self.repeated(self.user, [str(self.node.change_ids), "/bin/true"]),
                "numpy": self.repeated(self.user, self.node.shifter(*NUMPY)),
            }, self.rounds)  # fmt: skip
        prepared_numpy = {"prepared environment": median(ready, "numpy")}
        host = {"host /bin/true": median(ready, "host /bin/true")}
        return [
            Row("private start while the image is in use", "ms", median(later, "true"), goals=(Goal(5),)),
            Row("import numpy while the image is in use", "ms", median(later, "numpy"), prepared_numpy,
                goals=(Goal(1.1, "prepared environment"),)),
            Row("start in a prepared environment", "ms", median(ready, "true"), host, median(ready, "floor"),
                goals=(Goal(1.7, "host /bin/true"),)),
        ]  # fmt: skip

    def at_once(self) -> list[Row]:
        """Many ranks of one node; loop devices are counted while the containers run."""
        devices = 0
        taken = []
        for turn in range(self.rounds):
            say(f"round {turn + 1}/{self.rounds}: {AT_ONCE} at once")
            self.node.await_idle()
            taken.append(self.user.seconds(self.node.shifter("/bin/true"), AT_ONCE))
        with self.in_use(), self.in_use():
            devices = self.node.loop_devices()
        rate = AT_ONCE / statistics.median(taken)
        return [
            Row(f"{AT_ONCE} simultaneous starts", "starts/s", rate, goals=(Goal(300, at_least=True),)),
            Row("loop devices for containers of one image", "devices", float(devices), goals=(Goal(1),)),
        ]

    def crowds(self) -> Grid:
        """Starts per second, many at once: ours with nothing mounted before, and in a prepared environment."""

        def rate(command: tuple[Runner, list[str]], number: int, before: Callable[[], object]) -> float:
            before()
            return number / command[0].seconds(command[1], number)

        ours = (self.user, self.node.shifter("/bin/true"))
        others = {"floor": (self.root, self.floor_command("/bin/true")), **self.peers()}
        found: dict[str, list[float | None]] = {name: [] for name in ("private", "prepared", "floor", *PEERS)}
        for number in CROWDS:
            contenders = {
                name: partial(rate, command, number, self.node.await_idle)
                for name, command in {"private": ours, **others}.items()
            }
            samples = alternate(contenders, self.rounds)
            with self.prepared():
                samples.update(alternate({"prepared": partial(rate, ours, number, lambda: None)}, self.rounds))
            for name, rates in found.items():
                rates.append(median(samples, name))
        header = ("Starts per second", *(f"{number} at once" for number in CROWDS))
        return Grid("Starts at once", header, [[name, *rates] for name, rates in found.items()])

    def setup_root(self) -> Row:
        """The prolog's set-up on a node where nothing is prepared."""

        def measure() -> float:
            self.node.await_idle()
            taken = self.root.seconds(self.node.prepare("bench@node")) * 1000
            self.root.seconds(self.node.release("bench@node"))
            return taken

        samples = [measure() for _ in range(self.rounds * self.repeats)]
        return Row("setupRoot", "ms", statistics.median(samples), goals=(Goal(15),))

    def system_calls(self) -> list[Row]:
        """What strace(1) sees of one private start before the command's own exec."""
        self.node.await_idle()
        command = ["strace", "-f", "-u", USER, *self.node.shifter("/bin/true")]
        traced = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stderr
        # With -f every line of a second process is marked by its pid.
        calls = re.findall(r"^(?:\[pid +\d+\] )?(\w+)\(", traced, re.MULTILINE)
        execs = [number for number, call in enumerate(calls) if call in {"execve", "execveat"}]
        forks = [call for call in calls[: execs[-1]] if call in {"fork", "vfork", "clone", "clone3"}]
        return [
            Row("system calls before exec", "calls", float(execs[-1] - execs[0] - 1), goals=(Goal(250),)),
            Row("processes executed per start", "processes", float(len(execs) - 1), goals=(Goal(1),)),
            Row("forks per start", "forks", float(len(forks)), goals=(Goal(0),)),
        ]

    def rows(self) -> list[Row]:
        """All rows of the bench."""
        return [*self.first_starts(), *self.later_starts(), *self.at_once(), self.setup_root(), *self.system_calls()]


def main() -> None:
    """Make, measure, report."""
    options = parse("Measure container starts against other tools and a C floor.")
    with installation() as product:
        try:
            with bench_node(product, options.cache) as node:
                bench = StartBench(options, node)
                rows = bench.rows()
                grids = [bench.crowds()]
                bench.close()
        finally:
            remove_configuration(product)
    finish(options, VERSIONS, rows, grids)
