# SPDX-License-Identifier: BSD-3-Clause
"""What shifterimg makes of image objects, good and odd ones."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot.shifterimg import images, output, progress
from udiroot.shifterimg.settings import ImageName

KEYS = ["id", "system", "itype", "tag", "status", "last_pull", "status_message", "image"]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)
RECORDS = st.dictionaries(st.sampled_from(KEYS), ANY_JSON)
IMAGE = ImageName("docker", "alice/solver:1.2")


@given(RECORDS)
def test_no_image_object_is_a_reason_to_crash(record: dict[str, Any]) -> None:
    lines = [*output.image_lines([record]), *output.queue_lines([record])]
    stream = io.StringIO()
    for shown in (progress.Lines(IMAGE, stream), progress.LiveLine(IMAGE, stream)):
        shown.show(record)
        shown.end()
    assert all(line.isprintable() for line in lines)
    assert stream.getvalue().replace("\r\x1b[2K", "").replace("\n", "").isprintable()
    identifier = images.identifier(record)
    assert identifier is None or identifier.isalnum()


@pytest.mark.parametrize("tag", ["ubuntu:14.04", ["ubuntu:14.04"], ["ubuntu:14.04", None, 7]])
def test_a_tag_is_a_string_or_a_list(tag: object) -> None:
    assert images.tags({"tag": tag}) == ["ubuntu:14.04"]


@pytest.mark.parametrize("tag", ["MISSING", None, [], "", 3, {"a": 1}])
def test_an_image_without_tags_has_no_line(tag: object) -> None:
    assert output.image_lines([{"tag": tag}]) == [] or tag == ""


def test_tags_are_sorted_bytewise() -> None:
    names = ["b", "a", "B", "é", "z:2", "z:10"]
    lines = output.image_lines([{"tag": names}])
    assert [line.split()[-1] for line in lines] == ["B", "a", "b", "z:10", "z:2", "é"]


@pytest.mark.parametrize("value", ["MISSING", None, 10**30, float("nan"), True, "x"])
def test_an_unknown_time_is_a_dash(value: object) -> None:
    (line,) = output.image_lines([{"tag": ["x"], "last_pull": value}])
    assert line.split()[4] == "-"


def test_control_characters_of_a_gateway_do_not_reach_the_terminal() -> None:
    (line,) = output.image_lines([{"tag": ["\x1b[2Jevil\n"], "system": "a\tb"}])
    assert "\\x1b[2Jevil\\n" in line
    assert line.startswith("a\\tb ")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (5 * 10**15, "5000.0 TB")],
)
def test_sizes(count: int, text: str) -> None:
    assert progress.size(count) == text


def test_the_rate_is_that_of_the_last_seconds_of_a_phase() -> None:
    now = [0.0]
    rate = progress.Rate(lambda: now[0])
    assert progress.describe("Pulling layers: 0/9000000 bytes", rate) == "Pulling layers 0 B of 9.0 MB"
    now[0] = 2.0
    layers = "Pulling layers: 4000000/9000000 bytes"
    assert progress.describe(layers, rate) == "Pulling layers 4.0 MB of 9.0 MB, 2.0 MB/s"
    now[0] = 8.0
    assert progress.describe(layers, rate).endswith("9.0 MB")
    now[0] = 9.0
    assert progress.describe("Converting image: 1/2 bytes", rate) == "Converting image 1 B of 2 B"
    assert progress.describe("Examining image", rate) == "Examining image"
    assert progress.describe("MISSING", rate) == ""


def test_a_line_per_state_where_nobody_watches() -> None:
    stream = io.StringIO()
    lines = progress.Lines(IMAGE, stream)
    for status in ("INIT", "PULLING", "PULLING", "READY"):
        lines.show({"status": status})
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == ["INIT", "PULLING", "READY"]


def test_the_live_line_fits_the_terminal_and_ends_as_the_contract_wants() -> None:
    stream = io.StringIO()
    line = progress.LiveLine(IMAGE, stream, lambda: 40)
    line.show({"status": "PULLING", "status_message": "Pulling layers: 4000000/9000000 bytes"})
    line.show({"status": "READY", "status_message": "Transferring image"})
    line.end()
    line.end()
    _, first, last = stream.getvalue().split("\r\x1b[2K")
    assert first == "PULLING: Pulling layers 4.0 MB of 9.0 MB"[:39]
    assert last.endswith(" Pulling Image: docker:alice/solver:1.2, status: READY\n")
