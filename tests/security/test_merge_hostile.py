# SPDX-License-Identifier: BSD-3-Clause
"""Layers of a few kilobytes over which a conversion could sit for days: symlinks are walked, and directories merged,
again for every entry that leads through them.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from shifter_imagegw.errors import LayerError, LimitExceeded
from tests.layerarchive import go_on, merge_files
from tests.layers import Layer, convert

GIVEN_UP = "leads through so many symlinks and directories that it was given up"
LINKS = 38  # the kernel follows 40


def layer() -> Layer:
    return Layer(tarfile.GNU_FORMAT)


def chain(filling: str) -> Layer:
    """``l0`` leads to the directory ``l38``, by the longest way there is."""
    made = layer()
    for number in range(LINKS):
        made.symlink(f"l{number}", f"l{number + 1}{filling}")
    return made.directory(f"l{LINKS}").add(f"l{LINKS}/x")


def merge(directory: Path, *layers: Layer, check: Callable[[], None] = go_on) -> None:
    archives = [convert(made.bytes(), directory / f"{number}.layer") for number, made in enumerate(layers)]
    try:
        merge_files(archives, directory / "image", check)
    finally:
        for leftover in (*archives, directory / "image"):
            leftover.unlink(missing_ok=True)


@pytest.mark.parametrize("filling", ["/." * 2000, "/" * 4000], ids=["dots", "slashes"])
def test_hard_links_through_long_chains_of_symlinks(tmp_path: Path, filling: str) -> None:
    for count in (100, 20_000):
        newer = layer()
        for number in range(count):
            newer.hardlink(f"h{number}", "l0/x")
        if count == 100:
            merge(tmp_path, chain(filling), newer)
            continue
        with pytest.raises(LayerError, match=GIVEN_UP):
            merge(tmp_path, chain(filling), newer)


def test_many_symlinks_to_one_large_directory(tmp_path: Path) -> None:
    older, newer = layer(), layer()
    for number in range(16_000):
        older.add(f"d/f{number}").symlink(f"l{number}", "d")
        newer.add(f"l{number}/g{number}")
    with pytest.raises(LayerError, match=GIVEN_UP) as caught:
        merge(tmp_path, older, newer)
    assert str(caught.value.entry).startswith("l")


@pytest.mark.parametrize("what", ["links", "directories"])
def test_the_check_stops_what_would_take_long(tmp_path: Path, what: str) -> None:
    """Some thousand looks at whether to stop until such a merge is given up; the first that says so ends it."""
    older, newer = chain("/." * 2000) if what == "links" else layer(), layer()
    for number in range(20_000):
        if what == "links":
            newer.hardlink(f"h{number}", "l0/x")
        else:
            older.add(f"d/f{number}").symlink(f"l{number}", "d")
            newer.add(f"l{number}/g{number}")
    calls, last = 0, 1000

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls >= last:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        merge(tmp_path, older, newer, check=check)
    assert calls == last


def test_many_symlinks_to_missing_directories(tmp_path: Path) -> None:
    older, newer = layer().directory("d"), layer()
    for number in range(25_000):
        older.symlink(f"l{number}", f"d/n{number}")
        newer.add(f"l{number}/f")
    with pytest.raises(LayerError, match=GIVEN_UP):
        merge(tmp_path, older, newer)


@pytest.mark.parametrize("filling", ["/." * 2000, "/" * 4000], ids=["dots", "slashes"])
def test_entries_of_one_layer_below_long_chains(tmp_path: Path, filling: str) -> None:
    made = layer()
    for number in range(LINKS):
        made.symlink(f"l{number}", f".{filling}/l{number + 1}")
    made.directory(f"l{LINKS}")
    for number in range(20_000):
        made.add(f"l0/x{number}")
    with pytest.raises(LimitExceeded, match="lead through so many symbolic links"):
        convert(made.bytes(), tmp_path / "one.layer")
