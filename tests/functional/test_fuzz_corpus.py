# SPDX-License-Identifier: BSD-3-Clause
"""What fuzzing found worth keeping, once more, under the sanitizers of the usual compiler."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.installation import ROOT
from udiroot import _core

FUZZ = ROOT / "tests/fuzz"
TARGETS = ("layer", "overlay", "merge", "image")
PARSERS = tuple(sorted(source.name[: -len("_fuzz.c")] for source in (FUZZ / "runtime").glob("*_fuzz.c")))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fuzz targets with a main that runs the files it is given."""
    out = tmp_path_factory.mktemp("fuzz")
    build = ["make", "-s", "-j2", "-C", str(FUZZ), "CC=gcc", f"OUT={out}", "replay"]
    done = subprocess.run(build, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return out


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS + PARSERS)
def test_nothing_is_found_again(programs: Path, target: str) -> None:
    inputs = [path for kind in ("corpus", "findings") for path in sorted((FUZZ / kind / target).glob("*"))]
    assert inputs
    halves = [inputs[0::2], inputs[1::2]]
    environment = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"}
    running = [
        subprocess.Popen(
            [programs / f"{target}_replay", *half],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="backslashreplace",
        )
        for half in halves
    ]  # fmt: skip
    ends = [program.communicate()[1][-4000:] for program in running]
    assert [(program.returncode, end) for program, end in zip(running, ends) if program.returncode != 0] == []


def test_the_fuzzer_knows_every_target_and_every_key() -> None:
    told = subprocess.run([FUZZ / "run", "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert [target for target in TARGETS + PARSERS if f"\n  {target} " not in told] == []
    words = (FUZZ / "runtime/config.dict").read_text()
    assert [key for key in _core.config_keys() if f'"{key.replace("<name>", "a")}=' not in words] == []
