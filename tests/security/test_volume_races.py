# SPDX-License-Identifier: BSD-3-Clause
"""Volumes whose source or target is turned to another place while the launcher works (sec-11, sec-60, sec-62;
W-25, W-29).

A process of the user exchanges names without a pause, tens of thousands of times; the launcher must never lose once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts import MARK
from tests.security.attacks import swapping
from tests.shifternode import ShifterNode, image_id

IMAGE = f"--image=id:{image_id('base')}"
EVERY_KERNEL = True


@pytest.fixture
def place(node: ShifterNode) -> Iterator[Path]:
    """A directory of alice's in /tmp, and on the node a site mount with what nobody but root can reach."""
    place = Path(f"/tmp/shifter-races-{MARK}")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    site = node.base / "race-site"
    shutil.rmtree(site, ignore_errors=True)
    (site / "closed/inner").mkdir(parents=True)
    (site / "closed/inner/secret").write_text("secret\n")
    (site / "closed").chmod(0o700)
    node.configure(siteFs=f"{site}:/site")
    yield place
    shutil.rmtree(place)
    assert sorted(site.iterdir()) == [site / "closed"]


def give_to_alice(node: ShifterNode, place: Path) -> None:
    for path in (place, *place.rglob("*")):
        os.chown(path, node.alice.uid, node.alice.gid, follow_symlinks=False)


def outcomes(node: ShifterNode, text: str, script: str) -> set[str]:
    """What many starts printed: each ended well or was refused with one line, which counts as ''."""
    found = set()
    for _ in range(100):
        done = node.run(IMAGE, f"--volume={text}", "/bin/sh", "-c", script)
        assert done.returncode in (0, 125), done.stderr
        if done.returncode == 125:
            assert done.stderr.count("\n") == 1
        found.add(done.stdout)
    return found


@pytest.mark.parametrize("parent", [False, True])
def test_sec11_sec60_a_source_turned_to_what_the_user_cannot_reach(
    node: ShifterNode, place: Path, parent: bool
) -> None:
    """There is one look-up, with his rights: none of 10⁵ exchanges falls between it and the mount."""
    (place / "own/inner").mkdir(parents=True)
    (place / "own/inner/secret").write_text("own\n")
    (place / "own/secret").write_text("own\n")
    (place / "link").symlink_to("/site/closed" if parent else "/site/closed/inner")
    give_to_alice(node, place)
    with swapping(place / "own", place / "link", node.alice, at_least=100_000):
        source = place / "own/inner" if parent else place / "own"
        found = outcomes(node, f"{source}:/shown", "cat /shown/secret")
    assert found == {"own\n", ""}  # both ways were taken, and neither led there


def test_sec11_a_source_that_climbs_stays_in_the_container(node: ShifterNode, place: Path) -> None:
    """Directories move away from below the one that the walk stands in, so that ".." passes by the container's root."""
    (place / "a/b/c").mkdir(parents=True)
    (place / "moved").mkdir()
    up = "/".join([".."] * 20)
    (place / "up").symlink_to(f"a/b/c/{up}{node.base}")
    give_to_alice(node, place)
    with swapping(place / "a/b", place / "moved", node.alice):
        assert outcomes(node, f"{place}/up:/shown", "ls /shown") == {""}


def test_sec11_a_target_turned_to_a_protected_place(node: ShifterNode, place: Path) -> None:
    (place / "target").mkdir()
    (place / "target/passwd").touch()
    (place / "link").symlink_to("/etc")
    (place / "forged").write_text("root::0:0:forged:/:/bin/sh\n")
    give_to_alice(node, place)
    with swapping(place / "target", place / "link", node.alice):
        found = outcomes(node, f"{place}/forged:{place}/target/passwd", "grep -c forged /etc/passwd; true")
    assert found == {"0\n", ""}


def test_w29_a_missing_target_is_never_created_on_the_host(node: ShifterNode, place: Path) -> None:
    (place / "target").mkdir()
    (place / "link").symlink_to("/site")
    give_to_alice(node, place)
    with swapping(place / "target", place / "link", node.alice):
        assert outcomes(node, f"/srv:{place}/target/new", "echo started") == {""}
    assert not list((place / "target").iterdir())


def test_sec62_a_target_turned_to_a_directory_of_the_site(node: ShifterNode, place: Path) -> None:
    (place / "target").mkdir()
    (place / "link").symlink_to("/site/")
    (place / "mine").mkdir()
    (place / "mine/planted").touch()
    give_to_alice(node, place)
    with swapping(place / "target", place / "link", node.alice):
        found = outcomes(node, f"{place}/mine:{place}/target", "ls /site")
    assert found == {"closed\n", ""}
