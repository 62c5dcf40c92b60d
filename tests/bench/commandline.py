# SPDX-License-Identifier: BSD-3-Clause
"""What all benches have in common on the command line (design: operating interface)."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.report import Grid, Row, load, machine, print_tables, write_json, write_markdown

ROOT = Path(__file__).resolve().parents[2]


def parse(description: str) -> argparse.Namespace:
    """Options, root, packages, cache directory."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="one round of each, the smaller image only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables there, as Markdown")
    parser.add_argument("--rounds", type=int, help="how often each contender runs (default 5; 1 with --quick)")
    parser.add_argument("--cache", type=Path, default=Path("/var/tmp/shifter-bench"), metavar="DIR",
                        help="keeps the images between runs (default %(default)s)")  # fmt: skip
    options = parser.parse_args()
    if os.geteuid() != 0:
        os.execvp("sudo", ["sudo", "--", sys.executable, str(Path(sys.argv[0]).resolve()), *sys.argv[1:]])
    os.umask(0o022)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that it removes what it has made
    groups = ("--build", "--run", "--bench", "--slurm")
    subprocess.run([str(ROOT / "extra/install-deps"), *groups], check=True, stdout=sys.stderr)
    options.cache.mkdir(parents=True, exist_ok=True)
    options.load_before = load()
    options.rounds = options.rounds or (1 if options.quick else 5)
    return options


def finish(
    options: argparse.Namespace,
    versions: Mapping[str, Sequence[str]],
    rows: Sequence[Row],
    grids: Sequence[Grid] = (),
) -> None:
    """Print and write what was found."""
    about = {**machine(versions), "load_before": options.load_before, "load_after": load(), "rounds": options.rounds}
    print_tables(about, rows, grids)
    if options.json is not None:
        write_json(options.json, about, rows, grids)
    if options.markdown is not None:
        write_markdown(options.markdown, about, rows, grids)
