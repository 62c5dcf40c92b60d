# SPDX-License-Identifier: BSD-3-Clause
"""The rows of tests/bench/api: look-ups, look-ups while images convert, the client's own time."""

from __future__ import annotations

import argparse
import statistics
import subprocess
from pathlib import Path

from tests.bench.commandline import finish, parse
from tests.bench.gateway import Gateway, remove_configuration
from tests.bench.images import ROOT3_NEXT, ensure_root3, ensure_small3
from tests.bench.lookups import Load, credentials, lookups, round_trips
from tests.bench.registry import BenchRegistry, bench_registry
from tests.bench.report import Goal, Row
from tests.bench.rounds import alternate, say, seconds
from tests.installation import Installation, installation
from tests.systemmunge import system_munged

AT_ONCE = 16
PROCESSES = 2
VERSIONS = {"munge": ["munge", "--version"], "curl": ["curl", "--version"]}


class ApiBench:
    """One run against one gateway with two API processes and one worker."""

    def __init__(self, options: argparse.Namespace, registry: BenchRegistry, product: Installation) -> None:
        self.options = options
        self.product = product
        self.gateway = Gateway(product, registry, product.base / "bench")
        self.image = ensure_root3(registry, options.cache)
        self.other = ROOT3_NEXT if options.quick else ensure_small3(registry, options.cache)
        self.credentials = 1500 if options.quick else 6000

    def rows(self) -> list[Row]:
        """All rows of the bench."""
        self.gateway.start(PROCESSES)
        try:
            self.gateway.pull(self.image)
            idle = [self.load() for _ in range(self.options.rounds)]
            return [*self.look_ups(idle), self.while_converting(idle), *self.client()]
        finally:
            self.gateway.stop()

    def load(self) -> Load:
        """As many look-ups as there are credentials."""
        say("making credentials")
        fresh = credentials(self.credentials)
        say(f"{len(fresh)} look-ups from {AT_ONCE} connections")
        found = lookups(self.gateway.port, f"/api/lookup/bench/docker/{self.image}/", fresh, AT_ONCE, 60)
        if found.failures:
            raise SystemExit(f"bench: {len(found.failures)} look-ups failed, the first with {found.failures[0]!r}")
        return found

    def look_ups(self, idle: list[Load]) -> list[Row]:
        """Rate and waiting times while nothing else happens."""
        peers = {"munge and unmunge, one at a time": round_trips(200)}
        rate = statistics.median(load.rate for load in idle)
        waits = [statistics.median(load.percentile(share) for load in idle) for share in (0.5, 0.99)]
        return [
            Row("look-ups with fresh credentials, 16 connections", "1/s", rate, peers,
                goals=(Goal(1500, at_least=True),)),
            Row("look-up, median", "ms", waits[0]),
            Row("look-up, 99 of 100", "ms", waits[1], goals=(Goal(20),)),
        ]  # fmt: skip

    def while_converting(self, idle: list[Load]) -> Row:
        """The same while the worker converts images."""
        fresh = credentials(self.credentials)
        command = [str(self.product.shifterimg), "pull", f"docker:{self.other}"]
        say("look-ups while an image converts")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as pull:
            found = Load()
            began = 0
            while pull.poll() is None and began < len(fresh):
                part = lookups(self.gateway.port, f"/api/lookup/bench/docker/{self.image}/",
                               fresh[began : began + 200], AT_ONCE, 60)  # fmt: skip
                began += 200
                found.taken += part.taken
                found.seconds += part.seconds
        peers = {"idle": statistics.median(load.rate for load in idle)}
        rate = found.rate if found.taken else None
        return Row("look-ups while images convert", "1/s", rate, peers, goals=(Goal(0.7, "idle", at_least=True),))

    def client(self) -> list[Row]:
        """What a user waits for at the prompt."""
        program = str(self.product.shifterimg)

        def run(*command: str) -> float:
            return seconds(lambda: subprocess.run(command, check=True, capture_output=True)) * 1000

        repeats = self.options.rounds * 5
        taken = alternate({
            "images": lambda: run(program, "images"),
            "help": lambda: run(program, "--help"),
            "python": lambda: run("/usr/bin/python3", "-I", "-c", "pass"),
        }, repeats)  # fmt: skip
        interpreter = {"python3 -c pass": statistics.median(taken["python"])}
        return [
            Row("shifterimg images", "ms", statistics.median(taken["images"]), interpreter, goals=(Goal(100),)),
            Row("shifterimg --help", "ms", statistics.median(taken["help"]), interpreter, goals=(Goal(80),)),
        ]


def main() -> None:
    """Make, measure, report."""
    options = parse("Measure the gateway's look-ups and the client.")
    cache: Path = options.cache
    with system_munged(), bench_registry(cache) as registry, installation() as product:
        try:
            rows = ApiBench(options, registry, product).rows()
        finally:
            remove_configuration(product)
    finish(options, VERSIONS, rows)
