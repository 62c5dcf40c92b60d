# SPDX-License-Identifier: BSD-3-Clause
"""Whose images reach the kernel, and who may start them: the trust rules of the image store and of udiRoot.conf
(sec-01, sec-03, sec-10, sec-67, sec-68, sec-74; W-10, W-17, W-24)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shifternode import ShifterNode, image_id

SHOW = ["/bin/cat", "/etc/os-release"]
SHOWN = "NAME=TestImage\n"
EVERY_KERNEL = True
BASE = f"--image=id:{image_id('base')}"


def refused(node: ShifterNode, *arguments: str) -> str:
    return node.refused(*arguments, *SHOW)


def starts(node: ShifterNode, *arguments: str) -> bool:
    done = node.run(*arguments, *SHOW)
    return (done.returncode, done.stdout) == (0, SHOWN)


def publish(node: ShifterNode, name: str, meta: str) -> str:
    """The image `base` once more, under another id."""
    identifier = image_id(name)
    shutil.copy2(node.images / f"{image_id('base')}.squashfs", node.images / f"{identifier}.squashfs")
    (node.images / f"{identifier}.meta").write_text(f"FORMAT: squashfs\n{meta}")
    return identifier


@pytest.fixture
def store(node: ShifterNode) -> Iterator[Path]:
    """A second image store two directories deep, holding the image `base`; configured."""
    top = node.base / "store"
    path = top / "images"
    path.mkdir(parents=True, mode=0o755)
    for suffix in ("squashfs", "meta"):
        shutil.copy2(node.images / f"{image_id('base')}.{suffix}", path)
    node.configure(imagePath=str(path))
    yield path
    shutil.rmtree(top)


def own(path: Path, uid: int) -> None:
    for entry in (path, *path.rglob("*")):
        os.chown(entry, uid, uid)


def test_the_store_may_belong_to_the_gateways_account(node: ShifterNode, store: Path) -> None:
    gateway = node.eve
    assert starts(node, BASE)
    own(store, gateway.uid)
    assert f"{store} belongs to uid {gateway.uid}; it must belong to root" in refused(node, BASE)
    for owner in (gateway.name, str(gateway.uid)):
        node.configure(imagePath=str(store), imageOwner=owner)
        assert starts(node, BASE)
    own(store.parent, gateway.uid)
    assert starts(node, BASE)
    node.configure(imagePath=str(store), imageOwner=node.alice.name)
    assert f"root or {node.alice.name}" in refused(node, BASE)
    node.configure(imagePath=str(store), imageOwner="no-such-account")
    assert "no-such-account" in refused(node, BASE)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o702])
def test_sec01_every_parent_of_the_store_is_closed_to_others(node: ShifterNode, store: Path, mode: int) -> None:
    store.parent.chmod(mode)
    message = refused(node, BASE)
    assert f"{store.parent} can be written by others (mode {mode:04o})" in message
    assert str(store) in message


def test_sec03_no_component_of_the_store_is_a_link(node: ShifterNode, store: Path) -> None:
    link = node.base / "link"
    try:
        for target, path in ((store, link), (store.parent, link / "images")):
            link.symlink_to(target)
            node.configure(imagePath=str(path))
            assert "symbolic link 'link'" in refused(node, BASE)
            link.unlink()
        assert "No such file" in refused(node, BASE)
        link.write_text("")
        node.configure(imagePath=str(link))
        assert "not a directory" in refused(node, BASE)
    finally:
        link.unlink(missing_ok=True)


def test_sec10_a_sibling_with_a_longer_name_is_another_store(node: ShifterNode, store: Path) -> None:
    sibling = store.with_name("images2")
    sibling.mkdir()
    sibling.chmod(0o777)
    assert starts(node, BASE)


@pytest.mark.parametrize("suffix", ["meta", "squashfs"])
def test_sec01_files_of_the_store_are_regular_and_trusted(node: ShifterNode, store: Path, suffix: str) -> None:
    path = store / f"{image_id('base')}.{suffix}"
    content = path.read_bytes()
    os.chown(path, node.alice.uid, 0)
    assert str(path) in refused(node, BASE)
    os.chown(path, 0, 0)
    path.chmod(0o620)
    assert str(path) in refused(node, BASE)
    path.unlink()
    elsewhere = store.parent / "elsewhere"
    elsewhere.write_bytes(content)
    path.symlink_to(elsewhere)
    assert str(path) in refused(node, BASE)
    path.unlink()
    path.mkdir()
    assert "not a regular file" in refused(node, BASE)
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert "not a regular file" in refused(node, BASE)
    path.unlink()
    path.write_bytes(content)
    assert starts(node, BASE)


def test_the_tag_index_is_as_trusted_as_the_images(node: ShifterNode, store: Path) -> None:
    kind = store / "tags/testbox/docker"
    kind.mkdir(parents=True)
    entry = kind / "x%3Alatest"
    entry.write_text(f"{image_id('base')}\n")
    image = "--image=docker:x"
    assert starts(node, image)
    for directory in (kind, kind.parent, kind.parent.parent):
        directory.chmod(0o1777)
        assert str(directory) in refused(node, image)
        directory.chmod(0o755)
    os.chown(entry, node.eve.uid, 0)
    assert str(entry) in refused(node, image)
    os.chown(entry, 0, 0)
    entry.rename(store / "real")
    entry.symlink_to(store / "real")
    assert str(entry) in refused(node, image)
    entry.unlink()
    kind.rename(store / "docker")
    kind.symlink_to(store / "docker")
    assert str(kind) in refused(node, image)


@pytest.mark.parametrize(
    "content",
    [
        "", image_id("base"), image_id("base") + "\n\n", image_id("base").upper() + "\n",
        "../" + image_id("base")[3:] + "\n", "x" * 64 + "\n", image_id("base") + "\n" + image_id("base") + "\n",
        "\0" * 65,
    ],
)  # fmt: skip
def test_a_damaged_index_entry_is_an_error(node: ShifterNode, store: Path, content: str) -> None:
    kind = store / "tags/testbox/docker"
    kind.mkdir(parents=True)
    (kind / "x%3Alatest").write_text(content)
    assert "entry of x:latest is damaged" in refused(node, "--image=x")


def test_sec74_denied_and_absent_read_the_same(node: ShifterNode) -> None:
    """Also sec-68: an image that is marked private and has no list is nobody's, not everybody's."""
    def message(name: str, **meta: str) -> str:
        identifier = image_id(name)
        if meta:
            publish(node, name, meta["text"])
        return refused(node, f"--image=id:{identifier}").replace(identifier, "ID")

    absent = message("never")
    assert absent == message("theirs", text=f"USERACL: {node.eve.uid}\n")
    assert absent == message("nobodys", text="PRIVATE: 1\nUSERACL: \n")
    assert absent == message("closed", text=f"PRIVATE: 1\nGROUPACL: {node.eve.gid}\n")
    (node.images / f"{image_id('theirs')}.squashfs").unlink()
    assert absent == message("theirs")
    (node.images / f"{image_id('closed')}.meta").unlink()
    assert absent == message("closed")


@pytest.mark.parametrize(
    "meta",
    [
        "USERACL: bob\n", "USERACL: -1\n", f"USERACL: {','.join('7' * 1001)}\n", "CMD: ['a\n", "ENV: A=\0\n",
        "USERACL: {uid}\nENV: A=x\nUSERACL: \n",
    ],
)  # fmt: skip
def test_sec67_damaged_metadata_fails_closed(node: ShifterNode, meta: str) -> None:
    identifier = publish(node, "damaged", meta.replace("{uid}", str(node.eve.uid)))
    message = refused(node, f"--image=id:{identifier}")
    assert identifier in message
    assert "pull the image again" in message


def test_setup_root_keeps_the_same_access_lists(node: ShifterNode) -> None:
    identifier = publish(node, "hers", f"PRIVATE: 1\nUSERACL: {node.eve.uid}\n")
    done = node.as_root("setupRoot", "-u", node.alice.name, "id", identifier)
    assert done.returncode == 1
    assert "not available" in done.stderr


# udiRoot.conf


def test_the_configuration_belongs_to_root(node: ShifterNode) -> None:
    os.chown(node.conf, node.eve.uid, 0)
    assert f"belongs to uid {node.eve.uid}" in refused(node, BASE)
    assert node.as_root("setupRoot", "-u", node.alice.name, "id", image_id("base")).returncode == 1
    os.chown(node.conf, 0, 0)
    assert starts(node, BASE)


def test_a_key_of_a_newer_version_stops_nothing(node: ShifterNode) -> None:
    node.configure("useOverlayFsMode=1\nsitefs=/x:/y")
    assert node.run(BASE, *SHOW).stderr == ""
    shown = node.run("--verbose", BASE, *SHOW).stderr
    assert "unknown key 'useOverlayFsMode'" in shown
    assert "unknown key 'sitefs'; did you mean 'siteFs'?" in shown


def test_a_bad_value_stops_everything_but_help(node: ShifterNode) -> None:
    node.configure("siteFs=relative:/x")
    assert f"{node.conf}:" in refused(node, BASE)
    assert node.run("--help").returncode == 0


def test_unsetup_works_without_a_loop_mount(node: ShifterNode) -> None:
    node.configure(loopMount="")
    assert node.as_root("unsetupRoot").returncode == 0
