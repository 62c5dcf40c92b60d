# SPDX-License-Identifier: BSD-3-Clause
"""Environment algebra of the launcher (runtime contract, section 11)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot import _core


def test_set_replaces_or_adds_and_keeps_the_order() -> None:
    env = ["A=1", "PATH=/bin", "B=2"]
    assert _core.environ_set(env, "PATH=/x") == ["A=1", "PATH=/x", "B=2"]
    assert _core.environ_set(env, "C=3") == [*env, "C=3"]
    assert _core.environ_set(env, "A=") == ["A=", "PATH=/bin", "B=2"]
    assert _core.environ_set([], "A=b=c") == ["A=b=c"]


def test_names_match_exactly() -> None:
    env = ["PATH_2=a", "PAT=b", "PATH=c", "path=d"]
    assert _core.environ_get(env, "PATH") == "c"
    assert _core.environ_get(env, "PATH_") is None
    assert _core.environ_set(env, "PATH=x")[2] == "PATH=x"
    assert _core.environ_unset(env, "PATH") == ["PATH_2=a", "PAT=b", "path=d"]
    assert _core.environ_unset(env, "PA") == env


def test_append_and_prepend() -> None:
    assert _core.environ_append(["P=a"], "P=b") == ["P=a:b"]
    assert _core.environ_prepend(["P=a"], "P=b") == ["P=b:a"]
    for change in (_core.environ_append, _core.environ_prepend):
        assert change([], "P=b") == ["P=b"]
        assert change(["P="], "P=b") == ["P=b"]
        assert change(["P=a"], "P=") == ["P=a"]  # an empty element would be the current directory
        assert change(["P=a"], "P=x=y")[0].count("=") == 2


def test_a_name_given_twice_is_there_once() -> None:
    env = ["A=1", "B=2", "A=3", "A=4"]
    assert _core.environ_set(env, "A=9") == ["A=9", "B=2"]
    assert _core.environ_append(env, "A=9") == ["A=1:9", "B=2"]
    assert _core.environ_unset(env, "A") == ["B=2"]


def test_text_without_a_name_or_value_changes_nothing() -> None:
    env = ["A=1", "odd"]
    for change in (_core.environ_set, _core.environ_append, _core.environ_prepend):
        assert change(env, "odd") == env
        assert change(env, "") == env
    assert _core.environ_unset(env, "odd") == env


def test_the_sites_four_lists_in_their_order() -> None:
    env = ["PATH=/usr/bin", "GONE=1", "KEPT=1"]
    done = _core.environ_apply_site(
        env, ["PATH=/set", "GONE=2"], ["PATH=/last", "NEW=a"], ["PATH=/first"], ["GONE", "NEVER"]
    )
    assert done == ["PATH=/first:/set:/last", "KEPT=1", "NEW=a"]


def test_the_contracts_worked_example() -> None:
    """Section 11.2: the image, --env, a module, the site."""
    env = _core.environ_set(["PATH=/usr/bin:/bin"], "PATH=/usr/bin:/bin")
    env = _core.environ_set(env, "PATH=/userpath")
    env = _core.environ_apply_site(env, ["PATH=/modpath"], ["PATH=/modapp"], ["PATH=/modpre"], [])
    env = _core.environ_apply_site(env, [], ["PATH=/opt/udiImage/bin"], [], [])
    assert env == ["PATH=/modpre:/modpath:/modapp:/opt/udiImage/bin"]


def test_set_append_prepend_and_unset_on_top_of_an_image() -> None:
    env = ["PATH=/usr/bin", "TEST=1"]
    env = _core.environ_apply_site(env, ["SET=1"], ["PATH=/opt/udiImage/bin"], ["PATH=/sbin"], ["TEST"])
    assert sorted(env) == ["PATH=/sbin:/usr/bin:/opt/udiImage/bin", "SET=1"]


@pytest.mark.parametrize("text", ["", "A", "=", "=x", "A\nB=1", "A\x7f=1", "\t=1"])
def test_what_is_no_variable(text: str) -> None:
    with pytest.raises(_core.Error, match="write NAME=value"):
        _core.environ_check(text)


def test_what_is_a_variable() -> None:
    for text in ("A=", "A=b", "A b=c", "é=1", "A=\n\x1b"):
        _core.environ_check(text)


def read_file(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    with path.open("rb") as handle:
        return _core.environ_read_file(handle.fileno(), "my.env")


def test_an_env_file(tmp_path: Path) -> None:
    text = b"# comment\n\n  A=1  \n\t# B=2\nC=\nD='quoted text'\r\nE=a=b\n\xc3\xa9=\xff\nA=2"
    assert read_file(tmp_path / "f", text) == ["A=1", "C=", "D='quoted text'", "E=a=b", "é=\udcff", "A=2"]
    assert read_file(tmp_path / "f", b"") == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"A=1\n\nexport B\n", "my.env:3: "),
        (b"=x\n", "my.env:1: "),
        (b"A=1\0\n", "NUL"),
        (b"A=" + b"x" * (7 << 20), "longer than"),
    ],
)
def test_bad_env_files(tmp_path: Path, content: bytes, expected: str) -> None:
    with pytest.raises(_core.Error, match=expected):
        read_file(tmp_path / "f", content)


def test_an_env_file_that_cannot_be_read(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(_core.Error, match="Is a directory"):
            _core.environ_read_file(descriptor, "my.env")
    finally:
        os.close(descriptor)
    with pytest.raises(_core.Error, match="cannot read"):
        _core.environ_read_file(-1, "my.env")


NAMES = st.sampled_from(["A", "AB", "PATH", "B"])
VALUES = st.text(alphabet="x:=", max_size=3)
CHANGES = st.lists(st.tuples(st.sampled_from(["set", "append", "prepend", "unset"]), NAMES, VALUES), max_size=20)


@given(st.lists(st.tuples(NAMES, VALUES), unique_by=lambda item: item[0]), CHANGES)
def test_the_algebra_is_that_of_a_dictionary(start: list[tuple[str, str]], changes: list[tuple[str, str, str]]) -> None:
    model = dict(start)
    env = [f"{name}={value}" for name, value in start]
    for change, name, value in changes:
        old = model.get(name, "")
        if change == "unset":
            model.pop(name, None)
            env = _core.environ_unset(env, name)
            continue
        joined = [old, value] if change == "append" else [value, old]
        model[name] = value if change == "set" else ":".join(part for part in joined if part)
        operation = {"set": _core.environ_set, "append": _core.environ_append, "prepend": _core.environ_prepend}[change]
        env = operation(env, f"{name}={value}")
    assert env == [f"{name}={value}" for name, value in model.items()]
