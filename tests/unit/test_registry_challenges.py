# SPDX-License-Identifier: BSD-3-Clause
"""WWW-Authenticate headers as real and as hostile servers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_imagegw.registry.auth import Challenge, parse_challenges

PULL = "repository:p/a:pull"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            ['Bearer realm="https://a.example/token?x=1&y=a=b",service="s, t",scope="repository:p/a:pull"'],
            [Challenge("bearer", {"realm": "https://a.example/token?x=1&y=a=b", "service": "s, t", "scope": PULL})],
        ),
        (['Basic realm="a \\"quoted\\" realm"'], [Challenge("basic", {"realm": 'a "quoted" realm'})]),
        (
            ["BEARER  Realm = https://a.example/t , service=s"],
            [Challenge("bearer", {"realm": "https://a.example/t", "service": "s"})],
        ),
        (
            ['Basic realm="x", Bearer realm="y",service="z"'],
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y", "service": "z"})],
        ),
        (["Negotiate", 'Basic realm="x"'], [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
        (["Basic"], [Challenge("basic", {})]),
        (['Bearer realm="a",realm="b"'], [Challenge("bearer", {"realm": "a"})]),
        (['realm="nobody asked"'], []),
        (['Bearer realm="unfinished'], [Challenge("bearer", {}), Challenge("realm", {})]),
        (["", ",,,", '"', "\x00"], []),
    ],
)  # fmt: skip
def test_challenges_are_split(values: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(values) == expected


@given(st.lists(st.text(alphabet=' ,="\\abBearer\t\n', max_size=60), max_size=3))
def test_any_header_is_parsed_without_an_exception(values: list[str]) -> None:
    for challenge in parse_challenges(values):
        assert challenge.scheme == challenge.scheme.lower()
