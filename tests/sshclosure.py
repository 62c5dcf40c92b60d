# SPDX-License-Identifier: BSD-3-Clause
"""OpenSSH for containers, built by extra/build-udiimage as a site would."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.accounts import MARK
from tests.installation import ROOT

BUILDER = ROOT / "extra/build-udiimage"


def source() -> list[str]:
    """Of the installed packages, or where there are none out of the distribution's archive."""
    return [] if Path("/usr/sbin/sshd").exists() else ["--download"]


@contextmanager
def ssh_closure(*options: str) -> Iterator[Path]:
    """A directory for optUdiImage; removed at the end."""
    target = Path("/var/lib") / f"shifter-udiimage-{MARK}"
    shutil.rmtree(target, ignore_errors=True)
    try:
        subprocess.run([str(BUILDER), *source(), *options, str(target)], check=True)
        yield target
    finally:
        shutil.rmtree(target)
