# SPDX-License-Identifier: BSD-3-Clause
"""The command line: options anywhere, usage errors, help that needs nothing, documentation that is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from udiroot.shifterimg import cli, modes
from udiroot.shifterimg.options import Options

PAGE = (Path(__file__).resolve().parents[2] / "docs/shifterimg.md").read_text()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the command line made of its words, instead of doing it."""
    calls: list[tuple[Any, ...]] = []

    def start(*call: Any) -> int:
        calls.append(call)
        return 0

    monkeypatch.setattr(modes, "start", start)
    return calls


@pytest.mark.parametrize(
    "line",
    [
        "--user bob,ann -g wheel -v --json pull alpine",
        "pull --user bob,ann -g wheel -v --json alpine",
        "pull alpine -u bob,ann --group wheel --verbose --json",
        "-v --user=bob,ann pull --group=wheel --json alpine",
    ],
)
def test_options_before_and_after_the_mode_are_the_same(line: str, started: list[tuple[Any, ...]]) -> None:
    assert cli.run(line.split()) == 0
    assert started == [("pull", Options(True, True, ("bob,ann",), ("wheel",)), ("alpine",))]


def test_lists_on_both_sides_add_up(started: list[tuple[Any, ...]]) -> None:
    assert cli.run(["-u", "ann", "-u", "bob", "pull", "-u", "cleo", "x"]) == 0
    assert started[0][1].users == ("ann", "bob", "cleo")


def test_words_too_many_are_ignored_aloud(started: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["lookup", "alpine", "second"]) == 0
    assert started == [("lookup", Options(), ("alpine",))]
    assert capsys.readouterr().err == "shifterimg: the word 'second' is ignored\n"


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("", "Must specify mode (images, lookup, pull)!"),
        ("--user bob", "Must specify mode (images, lookup, pull)!"),
        ("frobnicate", "Invalid mode specified"),
        ("--frobnicate images", "Missing an argument!"),
        ("images --user", "Missing an argument!"),
        ("pull", "Missing an argument!"),
        ("--user", "Missing an argument!"),
    ],
)
def test_wrong_usage(line: str, first: str, started: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(first)
    assert "\nUsage: shifterimg " in err
    assert started == []


def test_the_munge_socket_is_for_tests_only(started: list[tuple[Any, ...]]) -> None:
    assert cli.run(["--munge-socket", "/tmp/s", "images"]) == 2
    assert started == []


@pytest.mark.parametrize("line", ["--help", "-h", "pull --help", "--version"])
def test_help_needs_nothing_and_imports_little(line: str) -> None:
    heavy = ["socket", "ssl", "http.client", "json", "ctypes", "pymunge", "requests", "udiroot._core", "email.message"]
    if line == "--version":
        heavy = ["udiroot._core", "pymunge", "requests"]
    script = (
        "import sys\nfrom udiroot.shifterimg import cli\n"
        f"status = cli.run({line.split()!r})\n"
        f"sys.exit(repr((status, [name for name in {heavy!r} if name in sys.modules])))"
    )
    # -S and the path by hand: an editable installation's own finder imports more than the program does.
    path = [entry for entry in sys.path if entry.endswith("site-packages")]
    root = Path(cli.__file__).resolve().parents[2]
    script = f"import sys\nsys.path += {[*path, str(root)]!r}\n{script}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "(0, [])"
    assert done.stdout.startswith(("Usage: shifterimg ", "shifterimg "))


def _options(command: click.Command) -> set[str]:
    return {
        name for parameter in command.params if isinstance(parameter, click.Option) and not parameter.hidden
        for name in parameter.opts
    }  # fmt: skip


def test_every_mode_and_option_is_documented() -> None:
    commands = {"": cli.program, **cli.program.commands}
    words = set(re.findall(r"`([^`\n]+)`", PAGE))
    mentioned = {word for text in words for word in re.split(r"[ ,=|\[\]]+", text)}
    assert {name for command in commands.values() for name in _options(command)} | {"--help", "-h"} <= mentioned
    assert set(cli.program.commands) <= mentioned
    assert {word for word in mentioned if word.startswith("--")} <= {
        name for command in commands.values() for name in _options(command)
    } | {"--help"}
