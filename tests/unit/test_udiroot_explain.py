# SPDX-License-Identifier: BSD-3-Clause
"""The records of `shifter --explain` as text and JSON; tests/system/test_explain.py has the launcher."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot.explain import Incomplete, as_json, as_text, read_explanation

ROOT = Path(__file__).parents[2]
RECORDS = [
    *("image", "0" * 64, "request", "docker:x", "user", "alice", "modules", "m,n,", "workdir", "/srv"),
    *("prepared", "yes", "shell", "/bin/zsh"),
    *("word", "/bin/sh", "word", "", "word", "a b"),
    *("step", "bind", "/home", "/h", " nosuid nodev private", "siteFs"),
    *("step", "root", "", "/", " nosuid", "one tree"),
    *("userhook", "/opt/hook", "variable", "PATH=/a=b:/c", "caller:siteEnvAppend", "variable", "EMPTY=", "--env"),
    "end",
]


def encoded(records: list[str]) -> bytes:
    return "".join(f"{record}\0" for record in records).encode("utf-8", "surrogateescape")


def test_every_record_in_json() -> None:
    told = json.loads(as_json(read_explanation(encoded(RECORDS))))
    assert told == {
        "image": "0" * 64, "request": "docker:x", "user": "alice", "modules": ["m", "n"], "workdir": "/srv",
        "prepared": True, "shell": "/bin/zsh",
        "command": ["/bin/sh", "", "a b"], "userhooks": ["/opt/hook"],
        "mounts": [
            {
                "kind": "bind", "source": "/home", "target": "/h", "flags": ["nosuid", "nodev", "private"],
                "reason": "siteFs",
            },
            {"kind": "root", "source": "", "target": "/", "flags": ["nosuid"], "reason": "one tree"},
        ],
        "environment": {
            "PATH": {"value": "/a=b:/c", "origins": ["caller", "siteEnvAppend"]},
            "EMPTY": {"value": "", "origins": ["--env"]},
        },
    }  # fmt: skip


def test_text_is_for_a_terminal() -> None:
    text = as_text(read_explanation(encoded(["variable", "A=\x1b[31m\nB=2\udcff", "--env", *RECORDS])))
    assert "  bind       /home -> /h [nosuid nodev private]: siteFs\n" in text
    assert "  PATH=/a=b:/c [caller, siteEnvAppend]" in text
    assert "A=\\x1b[31m\\nB=2\\udcff [--env]" in text
    assert all(line.isprintable() for line in text.split("\n"))


@given(st.integers(0, len(RECORDS) - 1))
def test_what_ends_early_is_incomplete(length: int) -> None:
    with pytest.raises(Incomplete):
        read_explanation(encoded(RECORDS[:length]))


def test_what_is_no_explanation() -> None:
    command = [sys.executable, "-c", "from udiroot.cli import main; main()", "explain", "json"]
    done = subprocess.run(command, input="nonsense\0", capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert "different versions" in done.stderr
    assert subprocess.run([*command[:-1], "yaml"], capture_output=True, cwd=ROOT).returncode == 2
