# SPDX-License-Identifier: BSD-3-Clause
"""The rows of tests/bench/pull: cold pulls of four images, re-pulls, and what they take besides time."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench import peers
from tests.bench.commandline import finish, parse
from tests.bench.extremes import ensure_big, ensure_tiny60
from tests.bench.gateway import Gateway, remove_configuration
from tests.bench.images import ROOT3_CHANGED, ROOT3_NEXT, ensure_root3, ensure_small3
from tests.bench.peers import CHAIN, FLOOR, Peer, PeerError, Source
from tests.bench.readback import ReadBack
from tests.bench.registry import BenchRegistry, bench_registry, tls_twin
from tests.bench.report import Goal, Grid, Row
from tests.bench.rounds import alternate, say
from tests.bench.watch import Place, Sample, middle, places
from tests.installation import Installation, installation
from tests.systemmunge import system_munged

OURS = "ours"
MANIFESTS = 64 * 1024  # what a re-pull may fetch besides the changed layer: manifest and configuration


@dataclass(frozen=True)
class Subject:
    """An image and what is asked of its pulls."""

    label: str
    ensure: Callable[[BenchRegistry, Path], str]
    goals: Sequence[Goal] = ()
    most_rounds: int = 100
    places: Sequence[str] = ("tmpfs", "disk")
    quick_places: Sequence[str] = ()


SUBJECTS = (
    Subject(
        "root3",
        ensure_root3,
        (Goal(1 / 10, CHAIN), Goal(1.5, FLOOR)),
        places=("tmpfs", "xfs", "disk"),
        quick_places=("tmpfs", "xfs", "disk"),
    ),
    Subject("small3", ensure_small3, (Goal(1 / 5, CHAIN), Goal(1.5, FLOOR)), quick_places=("tmpfs",)),
    Subject("tiny60", ensure_tiny60),
    # A tmpfs for it would have to hold blob, tree and image at once: 6 GB.
    Subject("big", ensure_big, most_rounds=3, places=("disk",)),
)
COSTS = (
    ("processor time", "s", "cpu_seconds"),
    ("memory of the largest process", "MB", "memory_mb"),
    ("most on disk at once, with the result", "MB", "disk_mb"),
    ("read from disk", "MB", "read_mb"),
    ("written to disk", "MB", "written_mb"),
    ("size of the result", "MB", "result_mb"),
)


class PullBench:
    """One run: contenders alternate, ours from an empty gateway each time."""

    def __init__(
        self, options: argparse.Namespace, registry: BenchRegistry, tls_host: str, product: Installation
    ) -> None:
        self.options = options
        self.registry = registry
        self.tls_host = tls_host
        self.product = product
        self.samples: list[Sample] = []  # ours, of all images and places
        self.rows: list[Row] = []

    def run(self, where: Mapping[str, Place]) -> None:
        """Fill the rows."""
        costs: list[Row] = []
        for subject in SUBJECTS:
            wanted = subject.quick_places if self.options.quick else subject.places
            if wanted:
                name = subject.ensure(self.registry, self.options.cache)
                for place in wanted:
                    costs += self.cold(subject, name, where[place])
        memory = max(sample.memory_mb for sample in self.samples)
        worst = max(self.samples, key=lambda sample: sample.scratch_mb / max(sample.result_mb, 0.001))
        self.rows += [
            Row("peak memory of the gateway's largest process", "MB", memory, goals=(Goal(150),)),
            Row("peak scratch space", "MB", worst.scratch_mb, {"result": worst.result_mb}, goals=(Goal(1, "result"),)),
        ]
        self.rows += costs

    def cold(self, subject: Subject, name: str, place: Place) -> list[Row]:
        """One image in one place: the row of its cold pull, for root3 those of the re-pull; returns what they took."""
        source = Source(self.registry, self.tls_host, name)
        repulls = RePulls(self.registry) if subject.label == "root3" else None
        contenders: dict[str, Callable[[], Sample | None]] = {OURS: lambda: self.ours(name, place, repulls)}
        given_up: set[str] = set()
        chosen = peers.QUICK if self.options.quick else peers.PEERS
        contenders.update({peer.name: partial(_attempt, peer, source, place, given_up) for peer in chosen})
        say(f"{subject.label} on {place.name}")
        found = alternate(contenders, min(self.options.rounds, subject.most_rounds))
        label = f"{subject.label}, {place.name}"
        row = _row(f"cold pull to READY, {label}", "s", found, "seconds", subject.goals)
        self.rows.append(row)
        if repulls is not None:
            self.rows += repulls.rows(label, row, middle(found[OURS], "cpu_seconds"))
        rows = [_row(f"{what}, {label}", unit, found, field) for what, unit, field in COSTS]
        return [row for row in rows if row.ours is not None]

    def ours(self, name: str, place: Place, repulls: RePulls | None) -> Sample:
        """A cold pull by a gateway that has nothing, and what ``repulls`` does with it afterwards."""
        place.empty()
        gateway = Gateway(self.product, self.registry, place.work)
        gateway.start()
        try:
            sample = gateway.measure(name, place)
            self.samples.append(sample)
            if repulls is not None:
                repulls.measure(gateway, place)
        finally:
            gateway.stop()
        return sample


class RePulls:
    """Pulls of an image of which all but a small top layer has been pulled before."""

    def __init__(self, registry: BenchRegistry) -> None:
        self.registry = registry
        self.samples: list[Sample] = []
        self.bytes: list[int] = []

    def measure(self, gateway: Gateway, place: Place) -> None:
        """The image gets a small layer on top (not counted); then that layer changes."""
        gateway.pull(ROOT3_NEXT)
        before = self.registry.sent()
        self.samples.append(gateway.measure(ROOT3_CHANGED, place))
        self.bytes.append(self.registry.sent() - before)

    def rows(self, label: str, cold: Row, cold_cpu: float | None) -> list[Row]:
        """Time, processor time and network of the last pull."""
        layer = self.registry.layer_files(ROOT3_CHANGED)[-1].stat().st_size
        allowed = "changed layer + 64 KiB"
        return [
            Row(f"re-pull, top layer changed, {label}", "s", middle(self.samples, "seconds"),
                {"own cold pull": cold.ours}, goals=(Goal(0.1, "own cold pull"),)),
            Row(f"re-pull, bytes from the registry, {label}", "kB", statistics.median(self.bytes) / 1e3,
                {allowed: (layer + MANIFESTS) / 1e3}, goals=(Goal(1, allowed),)),
            Row(f"re-pull, processor time of the gateway, {label}", "s", middle(self.samples, "cpu_seconds"),
                {"own cold pull": cold_cpu}),
        ]  # fmt: skip


def _attempt(peer: Peer, source: Source, place: Place, given_up: set[str]) -> Sample | None:
    if peer.name in given_up:
        return None
    try:
        return peer.measure(source, place)
    except PeerError as error:
        say(f"{peer.name} is absent for {source.name}: {error}")
        given_up.add(peer.name)
        return None


def _row(
    name: str, unit: str, found: Mapping[str, Sequence[Sample | None]], field: str, goals: Sequence[Goal] = ()
) -> Row:
    others = {peer: middle(samples, field) for peer, samples in found.items() if peer not in {OURS, FLOOR}}
    return Row(name, unit, middle(found[OURS], field), others, middle(found[FLOOR], field), goals)


def measure(
    options: argparse.Namespace, registry: BenchRegistry, product: Installation
) -> tuple[Sequence[Row], Sequence[Grid]]:
    """All rows; without --quick also the table of readers."""
    with tls_twin(registry, options.cache) as tls_host, places(product.base / "bench") as where:
        bench = PullBench(options, registry, tls_host, product)
        bench.run(where)
        return bench.rows, [] if options.quick else [ReadBack(options, registry, product, where["disk"]).grid()]


def main() -> None:
    """Make, measure, report."""
    options = parse("Measure pulls against other tools.")
    cache: Path = options.cache
    with system_munged(), bench_registry(cache) as registry, installation() as product:
        try:
            rows, grids = measure(options, registry, product)
        finally:
            remove_configuration(product)
    finish(options, peers.VERSIONS, rows, grids)
