# SPDX-License-Identifier: BSD-3-Clause
"""What a bench found: rows with ours, the peers, the floor and the goal; as a table and as JSON."""

from __future__ import annotations

import json
import operator
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN_WIDTH = 140
HEADER = ("what", "ours", "compared with", "value", "ratio", "goal", "reached")


@dataclass(frozen=True)
class Goal:
    """``ours`` must be at most (for rates: at least) ``factor`` times the floor, a peer, or one of the unit."""

    factor: float
    of: str | None = None  # "floor", the name of a peer, or None for an absolute figure
    at_least: bool = False

    def text(self, unit: str) -> str:
        """As printed in the table."""
        sign = ">=" if self.at_least else "<="
        return f"{sign} {self.factor:g} {unit}" if self.of is None else f"{sign} {self.factor:g} x {self.of}"

    def reached(self, row: Row) -> bool | None:
        """None when what it is compared with was not measured."""
        reference = 1.0 if self.of is None else row.floor if self.of == "floor" else row.peers.get(self.of)
        if row.ours is None or reference is None:
            return None
        compare = operator.ge if self.at_least else operator.le
        return bool(compare(row.ours, self.factor * reference))


@dataclass
class Row:
    """One measurement. Peers that are not on this machine have the value None."""

    name: str
    unit: str
    ours: float | None
    peers: Mapping[str, float | None] = field(default_factory=dict)
    floor: float | None = None
    goals: Sequence[Goal] = ()

    def reached(self) -> bool | None:
        """True when all goals are, False when one is missed, None when nothing could be compared."""
        answers = [goal.reached(self) for goal in self.goals]
        if False in answers:
            return False
        return True if answers and None not in answers else None

    def as_json(self) -> dict[str, Any]:
        """The object of the operating interface."""
        return {
            "name": self.name, "unit": self.unit, "ours": self.ours, "peers": dict(self.peers), "floor": self.floor,
            "goal": " and ".join(goal.text(self.unit) for goal in self.goals) or None, "reached": self.reached(),
        }  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """A table of its own: what has no single figure of ours beside others. None stands for absent."""

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str | float | None]]

    def texts(self) -> list[list[str]]:
        """The lines as they are printed."""
        return [[cell if isinstance(cell, str) else figure(cell) for cell in line] for line in self.lines]


def median(samples: Mapping[str, Sequence[float]], name: str) -> float | None:
    """The median of one contender's samples; None when it was absent."""
    return statistics.median(samples[name]) if samples.get(name) else None


def machine(versions: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """This machine and the tools compared with; ``versions``: tool -> command whose first line of output tells."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo)
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"))
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line
    )
    return {
        "cpu": model.group(1) if model else platform.processor(),
        "cores": os.cpu_count(),
        "memory_mb": int(memory.group(1)) // 1024 if memory else None,
        "kernel": platform.release(),
        "distribution": release.get("PRETTY_NAME", "").strip('"'),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "revision": _version(
            ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "describe", "--always", "--dirty"]
        ),
        "tools": {tool: _version(command) for tool, command in versions.items()},
    }


def load() -> float:
    """How many processes want to run on this machine, over the last minute."""
    return round(os.getloadavg()[0], 2)


def _version(command: Sequence[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    environment = {"USER": "bench", **os.environ}  # without it ch-run says nothing
    done = subprocess.run(list(command), check=False, capture_output=True, text=True, env=environment)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "present"


def figure(value: float | None, unit: str = "") -> str:
    """A number as short as it can be without losing its meaning; "absent" for None."""
    if value is None:
        return "absent"
    digits = 0 if value >= 100 or value == int(value) else 1 if value >= 10 else 2
    return f"{value:.{digits}f}{' ' + unit if unit else ''}"


def print_tables(about: Mapping[str, Any], rows: Sequence[Row], grids: Sequence[Grid] = ()) -> None:
    """The tables on standard output; ratios are ours divided by the other."""
    print(f"Machine: {describe(about)}")
    for tool, version in about["tools"].items():
        print(f"  {tool}: {version or 'absent'}")
    _print(HEADER, table(rows))
    for grid in grids:
        print(f"\n{grid.title}")
        _print(grid.header, grid.texts())
    sys.stdout.flush()


def describe(about: Mapping[str, Any]) -> str:
    """The machine in one line."""
    return (
        f"{about['cores']} x {about['cpu']}, {about['memory_mb']} MB, {about['distribution']}, "
        f"Linux {about['kernel']}, load {about['load_before']} before and {about['load_after']} after"
    )


def table(rows: Sequence[Row]) -> list[list[str]]:
    """Lines of cells below ``HEADER``: one for each that a row is compared with."""
    lines: list[list[str]] = []
    for row in rows:
        others = [*row.peers.items(), *([("floor", row.floor)] if row.floor is not None else [])]
        reached = {True: "yes", False: "no", None: "-"}[row.reached()]
        goal = " and ".join(goal.text(row.unit) for goal in row.goals)
        first = (row.name, figure(row.ours, row.unit))
        for number, (name, value) in enumerate(others or [("-", None)]):
            ratio = f"{row.ours / value:.3g}" if row.ours is not None and value else "-"
            shown = figure(value, row.unit) if name != "-" else "-"
            tail = (goal, reached) if number == 0 else ("", "")
            lines.append([*(first if number == 0 else ("", "")), name, shown, ratio, *tail])
    return lines


def _print(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]
    print()
    for line in (header, ["-" * width for width in widths], *lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def write_markdown(path: Path, about: Mapping[str, Any], rows: Sequence[Row], grids: Sequence[Grid]) -> None:
    """The same as a section of docs/benchmarks.md."""
    tools = ", ".join(f"{tool} ({version or 'absent'})" for tool, version in about["tools"].items())
    text = (
        f"Machine: {describe(about)}. Revision {about['revision']}, {about['date']}, medians of {about['rounds']} "
        f"rounds (pull: less for the largest image and the table of readers). Tools: {tools}."
    )
    parts = [textwrap.fill(text, MARKDOWN_WIDTH), _markdown(HEADER, table(rows))]
    for grid in grids:
        parts += [f"{grid.title}:", _markdown(grid.header, grid.texts())]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *lines))


def write_json(path: Path, about: Mapping[str, Any], rows: Sequence[Row], grids: Sequence[Grid] = ()) -> None:
    """The same for machines."""
    document: dict[str, Any] = {"machine": dict(about), "rows": [row.as_json() for row in rows]}
    if grids:
        document["tables"] = [asdict(grid) for grid in grids]
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
