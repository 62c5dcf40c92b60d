# SPDX-License-Identifier: BSD-3-Clause
"""The README's first command, as a newcomer types it; afterwards the machine is as it was."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import ROOT

QUICKSTART = ROOT / "extra/quickstart"
STATE = Path("/var/lib/shifter-quickstart")


def quickstart(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(QUICKSTART), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False, timeout=1200, cwd="/",
    )  # fmt: skip


def machine() -> dict[str, object]:
    """What the quickstart could leave behind."""
    programs = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(STATE) in (entry / "cmdline").read_text(errors="replace"):
                programs.append(entry.name)
        except OSError:
            continue
    return {
        "accounts": Path("/etc/passwd").read_text(),
        "groups": sorted(Path("/etc/group").read_text().splitlines()),
        "packages": subprocess.run(["dpkg-query", "-W"], check=True, capture_output=True, text=True).stdout,
        "directories": {
            name: sorted(map(str, Path(name).iterdir())) for name in ("/etc", "/opt", "/var/lib", "/home", "/run")
        },
        "mounts": Path("/proc/self/mounts").read_text(),
        "loop devices": subprocess.run(["losetup", "-nl"], check=True, capture_output=True, text=True).stdout,
        "programs": programs,
    }


@pytest.fixture
def before() -> Iterator[dict[str, object]]:
    found = machine()
    yield found
    quickstart("--remove")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_shows_everything_twice_and_goes_without_a_trace(before: dict[str, object]) -> None:
    first = quickstart("--slurm")
    assert first.returncode == 0, first.stdout
    assert 'PRETTY_NAME="Debian GNU/Linux' in first.stdout
    user = re.search(r"^uid=(\d+)\(shifter-demo\)", first.stdout, re.MULTILINE)
    assert user is not None, first.stdout
    assert int(user[1]) > 0
    assert re.search(rf"^Python 3\.\S+ as uid {user[1]}$", first.stdout, re.MULTILINE), first.stdout
    assert "extra/quickstart --remove" in first.stdout
    second = quickstart("--slurm")
    assert second.returncode == 0, second.stdout
    removed = quickstart("--remove")
    assert removed.returncode == 0, removed.stdout
    after = machine()
    for what, value in before.items():
        assert after[what] == value, what
    assert quickstart("--remove").returncode == 0


def test_wrong_usage_changes_nothing(before: dict[str, object]) -> None:
    for arguments in (("--bogus",), ("--prefix", "relative"), ("--image",)):
        done = quickstart(*arguments)
        assert done.returncode == 2, arguments
        assert "Usage: extra/quickstart" in done.stdout
    assert machine() == before
