# SPDX-License-Identifier: BSD-3-Clause
"""Installs the product once per test session, through the same `make install` that sites use."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Installation:
    """Where the product under test lies; every component of `base` belongs to root, as the trust checks demand."""

    base: Path

    @property
    def prefix(self) -> Path:
        return self.base / "opt"

    @property
    def sysconfdir(self) -> Path:
        return self.base / "etc"

    @property
    def shifter(self) -> Path:
        return self.prefix / "bin/shifter"

    @property
    def shifterimg(self) -> Path:
        return self.prefix / "bin/shifterimg"

    @property
    def imagegw(self) -> Path:
        return self.prefix / "sbin/shifter-imagegw"

    def make(self, verb: str) -> None:
        """Runs `make VERB` for this prefix; CalledProcessError with the output attached when it fails."""
        subprocess.run(
            ["make", "--no-print-directory", verb, f"PREFIX={self.prefix}", f"SYSCONFDIR={self.sysconfdir}"],
            cwd=ROOT,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextmanager
def installation() -> Iterator[Installation]:
    """An installed product below a directory of this checkout's own, so that two checkouts do not meet."""
    digest = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]
    base = Path("/var/lib") / f"shifter-test-{digest}"
    base.mkdir(mode=0o755, exist_ok=True)
    product = Installation(base)
    product.make("install")
    try:
        yield product
    finally:
        product.make("uninstall")
        for leftover in (product.sysconfdir, base):
            if leftover.is_dir() and not any(leftover.iterdir()):
                leftover.rmdir()
