# SPDX-License-Identifier: BSD-3-Clause
"""The rows of tests/bench/job: batch jobs on a real Slurm of two nodes, with and without an image."""

from __future__ import annotations

import argparse
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.accounts import MARK, User, make_user
from tests.bench.commandline import finish, parse
from tests.bench.gateway import Gateway, remove_configuration
from tests.bench.images import ensure_root3
from tests.bench.registry import bench_registry
from tests.bench.report import Goal, Row, median
from tests.bench.rounds import alternate, say, seconds
from tests.installation import installation
from tests.slurmcluster import SlurmCluster, slurm_cluster
from tests.systemmunge import system_munged

STEPS = 5
NODES = 2
VERSIONS = {"slurm": ["slurmd", "-V"]}


@contextmanager
def users() -> Iterator[tuple[User, User]]:
    """Two accounts of the bench's own."""
    made = make_user(f"sh{MARK}p"), make_user(f"sh{MARK}q")
    try:
        yield made
    finally:
        for user in made:
            subprocess.run(["userdel", user.name], check=True)


class JobBench:
    """One run against one cluster and one gateway."""

    def __init__(self, options: argparse.Namespace, gateway: Gateway, cluster: SlurmCluster, image: str) -> None:
        self.rounds: int = options.rounds
        self.gateway = gateway
        self.cluster = cluster
        self.image = f"--image=docker:{image}"
        self.shifter = str(gateway.product.shifter)

    def requests(self) -> int:
        """Look-ups that the gateway has answered so far."""
        lines = (self.gateway.work / "gateway.log").read_text(encoding="utf-8").splitlines()
        return sum("/api/lookup/" in line for line in lines)

    def job(self, script: str, *options: str) -> float:
        """Seconds from sbatch to the end of the job."""
        return seconds(lambda: self.cluster.batch(script, f"--nodes={NODES}", *options))

    def step(self, *command: str) -> float:
        """Milliseconds of one step of two tasks, measured in a job that has the image."""
        timed = f"srun {' '.join(command)}"
        script = f"{timed}\nfor i in $(seq {STEPS}); do date +%s%N; {timed}; done; date +%s%N"
        lines = self.cluster.batch(script, f"--nodes={NODES}", self.image).splitlines()
        marks = [int(line) for line in lines if line.isdigit()]  # srun may have remarks
        return statistics.median(later - earlier for earlier, later in zip(marks, marks[1:])) / 1e6

    def rows(self) -> list[Row]:
        """All rows of the bench."""
        say("counting look-ups")
        before = self.requests()
        self.job(f"for i in $(seq {STEPS}); do srun {self.shifter} /bin/true; done", self.image)
        asked = self.requests() - before
        jobs = alternate({
            "image": lambda: self.job(f"srun {self.shifter} /bin/true", self.image),
            "none": lambda: self.job("srun /bin/true"),
        }, self.rounds)  # fmt: skip
        steps = alternate({
            "shifter": lambda: self.step(self.shifter, "/bin/true"),
            "true": lambda: self.step("/bin/true"),
        }, self.rounds)  # fmt: skip
        return [
            Row(f"look-ups of a job with {STEPS} steps on {NODES} nodes", "requests", float(asked), goals=(Goal(1),)),
            Row("job with an image, from sbatch to its end", "s", median(jobs, "image"),
                {"job without an image": median(jobs, "none")}),
            Row("srun shifter /bin/true", "ms", median(steps, "shifter"), {"srun /bin/true": median(steps, "true")}),
        ]  # fmt: skip


def main() -> None:
    """Make, measure, report."""
    options = parse("Measure batch jobs with and without an image.")
    cache: Path = options.cache
    with system_munged(), bench_registry(cache) as registry, installation() as product, users() as accounts:
        image = ensure_root3(registry, cache)
        gateway = Gateway(product, registry, product.base / "bench")
        try:
            gateway.start()
            gateway.pull(image)
            with slurm_cluster("bench", product.prefix, accounts) as cluster:
                rows = JobBench(options, gateway, cluster, image).rows()
        finally:
            gateway.stop()
            remove_configuration(product)
    finish(options, VERSIONS, rows)
