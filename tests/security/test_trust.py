# SPDX-License-Identifier: BSD-3-Clause
"""The way to a path, in the C that the launcher runs: who could have written what lies on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from udiroot import _core


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of root's on a way that is root's; /tmp would not do."""
    with TemporaryDirectory(dir="/var/lib", prefix="shifter-trust-") as name:
        place = Path(name)
        (place / "own/deep").mkdir(parents=True)
        (place / "own/file").touch()
        yield place


def refusal(path: Path | str, follow: bool = True) -> str:
    with pytest.raises(_core.Error) as caught:
        _core.check_trust(str(path), 0, "root", follow)
    return str(caught.value)


def test_a_way_of_roots_alone_is_trusted_with_and_without_links(place: Path) -> None:
    (place / "link").symlink_to("own/../own")
    (place / "absolute").symlink_to(place / "link")
    plain = ("own", "own/deep", "own/file", "own/deep/.", "own//deep/", "own/deep/..")
    for name in (*plain, "link/deep", "absolute/file"):
        _core.check_trust(f"{place}/{name}", 0, "root", True)
    _core.check_trust("/", 0, "root", False)


def test_a_way_begins_at_the_root(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for path in ("own", "own/file", "./own", ""):
        assert refusal(path) == f"cannot open {path}: Invalid argument"


@pytest.mark.parametrize("end", ["", "/deep", "/deep/.", "/file", "/deep/../file"])
def test_whoever_could_write_above_is_named_with_the_place(place: Path, end: str) -> None:
    (place / "link").symlink_to("own")
    own = place / "own"
    for path in (f"{own}{end}", f"{place}/link{end}"):
        os.chown(own, 12345, -1)
        assert refusal(path) == f"cannot trust {path}: {own} belongs to uid 12345; it must belong to root"
        os.chown(own, 0, -1)
        own.chmod(0o1777)
        assert f"cannot trust {path}: {own} can be written by others (mode 1777)" in refusal(path)
        own.chmod(0o755)


def test_an_account_besides_root_may_own_the_way(place: Path) -> None:
    os.chown(place / "own", 12345, -1)
    _core.check_trust(f"{place}/own/deep", 12345, "gateway", False)
    with pytest.raises(_core.Error, match="it must belong to root or other"):
        _core.check_trust(f"{place}/own/deep", 12346, "other", False)


def test_links_are_refused_where_they_must_not_be(place: Path) -> None:
    (place / "link").symlink_to("own")
    (place / "round").symlink_to("round")
    assert "leads through the symbolic link 'link'; name the place itself" in refusal(place / "link/deep", follow=False)
    assert refusal(place / "round").startswith(f"cannot open {place}/round")


@pytest.mark.parametrize("end", ["/.", "/..", "/x", "/./"])
def test_a_file_has_nothing_below_it(place: Path, end: str) -> None:
    assert refusal(f"{place}/own/file{end}").startswith(f"cannot open {place}/own/file{end}")


def test_what_is_missing_or_no_absolute_path_is_said(place: Path) -> None:
    assert refusal(place / "own/none/x") == f"cannot open {place}/own/none/x, at 'none': No such file or directory"
    for path in ("", "own", "/" + "a" * 300, "/x" * 3000):
        assert refusal(path).startswith("cannot open ")
