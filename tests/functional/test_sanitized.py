# SPDX-License-Identifier: BSD-3-Clause
"""The C that Python can call, under the address and undefined behaviour sanitizers: its own tests once more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.installation import ROOT

# The sanitizers' own memory is not what it measures.
MEASURES_MEMORY = "tests/security/test_layer_hostile.py::test_memory_of_a_hundred_thousand_entries"
FLAGS = "-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
SUITES = {
    "parsers": [f"tests/unit/test_udiroot_{name}.py" for name in ("config", "environ", "image", "options", "volumes")],
    "conversion": [
        "tests/security/test_layer_hostile.py",
        "tests/security/test_archive_damage.py",
        "tests/functional/test_merge_sharing.py",
    ],
}


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout whose extensions are built with the sanitizers."""
    copy = tmp_path_factory.mktemp("sanitized")
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    present = [name for name in files if (ROOT / name).is_file()]
    packed = subprocess.run(["tar", "-cf", "-", *present], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-xf", "-", "-C", str(copy)], input=packed, check=True)
    environment = {**os.environ, "CFLAGS": FLAGS, "LDFLAGS": "-fsanitize=address,undefined"}
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j2"]
    subprocess.run(build, cwd=copy, check=True, capture_output=True, env=environment)
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_no_finding(sanitized: Path, suite: str) -> None:
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True).stdout
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--deselect", MEASURES_MEMORY, *SUITES[suite]],
        cwd=sanitized, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "LD_PRELOAD": library.strip(), "ASAN_OPTIONS": "detect_leaks=0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
