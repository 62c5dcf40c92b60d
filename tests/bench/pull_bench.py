# SPDX-License-Identifier: BSD-3-Clause
"""The rows of tests/bench/pull: cold pulls of two images, a re-pull, memory and scratch space."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from tests.bench import peers
from tests.bench.commandline import finish, parse
from tests.bench.gateway import Gateway, Usage, remove_configuration
from tests.bench.images import ensure_root3, ensure_small3
from tests.bench.registry import BenchRegistry, bench_registry
from tests.bench.report import Goal, Row, median
from tests.bench.rounds import Contender, alternate
from tests.installation import Installation, installation
from tests.systemmunge import system_munged

FASTER = {"root3": 10, "small3": 5}  # times faster than the chain of tools (design, "Numbers to reach")


class PullBench:
    """One run: contenders alternate, ours from an empty gateway each time."""

    def __init__(self, options: argparse.Namespace, registry: BenchRegistry, product: Installation) -> None:
        self.options = options
        self.registry = registry
        self.gateway = Gateway(product, registry, product.base / "bench")
        self.usages: list[Usage] = []
        self.repulls: list[float] = []

    def ours(self, name: str, then: str | None) -> float:
        """A cold pull; ``then``: an image pulled next, timed apart."""
        self.gateway.start()
        try:
            taken, usage = self.gateway.pull_watched(name)
            self.usages.append(usage)
            if then is not None:
                self.repulls.append(self.gateway.pull(then))
        finally:
            self.gateway.stop()
        return taken

    def cold(self, label: str, name: str, then: str | None = None) -> Row:
        """The row of one image."""
        work = self.options.cache / "work"
        contenders: dict[str, Contender] = {"ours": lambda: self.ours(name, then)}
        if not peers.absent("skopeo", "umoci", "mksquashfs"):
            for chain, compression in peers.MKSQUASHFS.items():
                if chain == peers.CHAIN or not self.options.quick:
                    contenders[chain] = lambda c=compression: peers.chain_pull(self.registry, name, work, c)  # type: ignore[misc]
        if not peers.absent("igzip", "tar2sqfs"):
            layers = self.registry.layer_files(name)
            contenders["floor"] = lambda: peers.floor(layers, work)
        samples = alternate(contenders, self.options.rounds)
        measured = [chain for chain in peers.MKSQUASHFS if not self.options.quick or chain == peers.CHAIN]
        return Row(
            f"cold pull to READY, {label}",
            "s",
            median(samples, "ours"),
            {chain: median(samples, chain) for chain in measured},
            median(samples, "floor"),
            (Goal(1 / FASTER[label], peers.CHAIN), Goal(1.5, "floor")),
        )

    def rows(self) -> list[Row]:
        """All rows of the bench."""
        root3 = ensure_root3(self.registry, self.options.cache)
        rows = [self.cold("root3", root3, "bench/root3:next")]
        repull, own = statistics.median(self.repulls), {"own cold pull": rows[0].ours}
        rows.append(
            Row("re-pull, one small layer changed, root3", "s", repull, own, goals=(Goal(0.1, "own cold pull"),))
        )
        if not self.options.quick:
            rows.append(self.cold("small3", ensure_small3(self.registry, self.options.cache)))
        memory = max(usage.peak_memory_mb for usage in self.usages)
        worst = max(self.usages, key=lambda usage: usage.peak_scratch_mb / max(usage.result_mb, 0.001))
        rows.append(Row("peak memory of the gateway's largest process", "MB", memory, goals=(Goal(150),)))
        scratch, result = worst.peak_scratch_mb, {"result": worst.result_mb}
        rows.append(Row("peak scratch space", "MB", scratch, result, goals=(Goal(1.0, "result"),)))
        return rows


def main() -> None:
    """Make, measure, report."""
    options = parse("Measure pulls against other tools.")
    cache: Path = options.cache
    with system_munged(), bench_registry(cache) as registry, installation() as product:
        try:
            rows = PullBench(options, registry, product).rows()
        finally:
            remove_configuration(product)
    finish(options, peers.VERSIONS, rows)
