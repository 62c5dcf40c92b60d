# SPDX-License-Identifier: BSD-3-Clause
"""The command line of `shifter` (runtime contract, section 7.1)."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot import _core

NOTHING: dict[str, Any] = {
    "action": "run", "image": None, "volumes": [], "modules": None, "entrypoint": False, "entrypoint_program": None,
    "workdir": False, "workdir_path": None, "environ": [], "env_file": None, "clear_environ": False, "kept": [],
    "explain": None, "verbose": False,
    "command": [],
}  # fmt: skip


def parse(*arguments: str) -> dict[str, Any]:
    """What differs from an empty command line."""
    found = _core.parse_options(["shifter", *arguments])
    return {key: value for key, value in found.items() if value != NOTHING[key]}


def refused(*arguments: str) -> str:
    with pytest.raises(_core.Error) as caught:
        parse(*arguments)
    assert str(caught.value).endswith("(shifter --help)")
    return str(caught.value)


def test_every_option_in_every_form() -> None:
    assert parse() == {}
    for arguments in (["--image=x"], ["--image", "x"], ["-i", "x"], ["-ix"], ["-i", "y", "--image=x"]):
        assert parse(*arguments) == {"image": "x"}
    for arguments in (["--volume=/a:/b", "-V", "/c:/d"], ["--volume", "/a:/b", "-V/c:/d"]):
        assert parse(*arguments) == {"volumes": ["/a:/b", "/c:/d"]}
    for arguments in (["--module=m,n"], ["-m", "x", "-m", "m,n"]):
        assert parse(*arguments) == {"modules": "m,n"}
    for name in ("--entrypoint", "--entry"):
        assert parse(name) == {"entrypoint": True}
        assert parse(f"{name}=/p x") == {"entrypoint": True, "entrypoint_program": "/p x"}
        assert parse(name, "/p") == {"entrypoint": True, "command": ["/p"]}
    for name in ("--workdir", "-w"):
        assert parse(name) == {"workdir": True}
        assert parse(name, "/p") == {"workdir": True, "command": ["/p"]}
    for argument in ("--workdir=/x", "-w/x"):
        assert parse(argument) == {"workdir": True, "workdir_path": "/x"}
    for arguments in (["--clearenv"], ["-E"]):
        assert parse(*arguments) == {"clear_environ": True}
    for arguments in (["--verbose"], ["-v"], ["-vv"]):
        assert parse(*arguments) == {"verbose": True}
    assert parse("--env-file", "f", "--env-file=g") == {"env_file": "g"}
    assert parse("-n") == {}
    assert parse("-nvEi", "x") == {"verbose": True, "clear_environ": True, "image": "x"}


def test_variables_replace_each_other_and_may_be_empty() -> None:
    assert parse("-e", "A=1", "--env=B=", "--env", "A=x=y") == {"environ": ["A=x=y", "B="]}


def test_explain() -> None:
    assert parse("--explain", "json") == {"explain": "text", "command": ["json"]}
    assert parse("--explain=json", "--explain") == {"explain": "text"}
    assert parse("--explain=json") == {"explain": "json"}


def test_kept_variables_add_up() -> None:
    assert parse("--keepenv=A,B", "--keepenv", "TMPDIR") == {"kept": ["A", "B", "TMPDIR"]}


def test_help_and_version() -> None:
    for arguments in (["--help"], ["-h"], ["-h", "--nonsense"], ["--image=x", "--help", "ls"]):
        assert _core.parse_options(["shifter", *arguments])["action"] == "help"
    assert _core.parse_options(["shifter", "--version"])["action"] == "version"
    assert _core.parse_options(["shifter", "--check-config"])["action"] == "check-config"


def test_options_end_at_the_first_word_that_is_none() -> None:
    assert parse("-v", "ls", "-l", "--image=x") == {"verbose": True, "command": ["ls", "-l", "--image=x"]}
    assert parse("--", "-v") == {"command": ["-v"]}
    assert parse("--", "--", "-v") == {"command": ["--", "-v"]}
    assert parse("-", "-v") == {"command": ["-", "-v"]}
    assert parse("", "-v") == {"command": ["", "-v"]}


def test_unambiguous_beginnings_of_long_options() -> None:
    assert parse("--im=x", "--vol", "/a:/b", "--work") == {"image": "x", "volumes": ["/a:/b"], "workdir": True}
    assert "--ver" in refused("--ver")
    assert "--e" in refused("--e")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--nonsense"], "unknown or ambiguous option --nonsense "),
        (["--nonsense=value"], "unknown or ambiguous option --nonsense "),
        (["-x"], "unknown option -x "),
        (["-vx"], "unknown option -x "),
        (["--image"], "option --image needs a value "),
        (["-i"], "option -i needs a value "),
        (["-vi"], "option -i needs a value "),
        (["--env-file"], "option --env-file needs a value "),
        (["--clearenv=x"], "option --clearenv takes no value "),
        (["--help=x"], "option --help takes no value "),
        (["--version=x"], "option --version takes no value "),
        (["--image="], "option --image has an empty value "),
        (["--module="], "option --module has an empty value "),
        (["--volume="], "option --volume has an empty value "),
        (["-V/a:/b", "-V", ""], "option --volume has an empty value "),
        (["--workdir="], "option --workdir has an empty value "),
        (["--entrypoint="], "option --entrypoint has an empty value "),
        (["--env-file="], "option --env-file has an empty value "),
        (["--env=A"], "option --env: 'A' sets no variable"),
        (["--env", "=x"], "option --env: '=x' has no name"),
        (["--explain=yaml"], "option --explain: 'yaml' is neither text nor json"),
        (["--explain="], "option --explain: '' is neither"),
        (["--keepenv=A,,B"], "option --keepenv: 'A,,B' is no list"),
        (["--keepenv="], "option --keepenv: '' is no list"),
        (["--keepenv=A=1"], "option --keepenv: 'A=1' is no list"),
        (["-e", "A\nB=1"], "option --env: the variable name in 'A?B=1' has a control character"),
    ],
)
def test_errors_name_the_option(arguments: list[str], expected: str) -> None:
    assert refused(*arguments).startswith(expected)


def test_sec21_odd_argument_vectors() -> None:
    assert _core.parse_options([]) == NOTHING
    assert _core.parse_options([""]) == NOTHING
    assert "\x1b" not in refused("--\x1b[31m")
    assert len(refused("--" + "x" * 10**6)) < 500


def test_a_parse_leaves_nothing_for_the_next_one() -> None:
    refused("-vvx")
    assert parse("-E", "ls") == {"clear_environ": True, "command": ["ls"]}


def test_the_help_text_names_every_option_variable_and_status() -> None:
    text = _core.options_help
    for option in (
        "-i, --image=", "-V, --volume=", "-m, --module=", "--entrypoint", "--entry)", "-w, --workdir", "-e, --env=",
        "--env-file=", "-E, --clearenv", "-v, --verbose", "--version", "-h, --help", "125", "126", "127",
        "SHIFTER_VOLUME", "SHIFTER_MODULE", "SHIFTER_IMAGETYPE", "SHIFTER_IMAGEREQUEST", "SLURM_SPANK_",
    ):  # fmt: skip
        assert option in text, option
    assert max(map(len, text.splitlines())) <= 120
    assert not re.search(r"[ \t]\n", text)


@given(st.lists(st.text(alphabet="-viVwmeEnhx=a/: ", max_size=8), max_size=6))
def test_no_command_line_crashes(arguments: list[str]) -> None:
    with suppress(_core.Error):
        found = _core.parse_options(["shifter", *arguments])
        assert found["command"] == arguments[len(arguments) - len(found["command"]) :]
