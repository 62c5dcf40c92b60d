# SPDX-License-Identifier: BSD-3-Clause
"""The checker of udiRoot.conf beside the programs whose complaints it foretells."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.installation import Installation
from tests.shifternode import ShifterNode, image_id
from udiroot.check import Problem, check

NOBODY = 65534


@pytest.fixture
def client(node: ShifterNode) -> Iterator[Path]:
    """What stands for the installed client in the node's prefix."""
    path = node.base / "bin/shifterimg"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    (node.base / "sbin").mkdir()
    (node.base / "sbin/setupRoot").symlink_to("../bin/setupRoot")
    yield path
    path.unlink()
    (node.base / "sbin/setupRoot").unlink()
    (node.base / "sbin").rmdir()


def errors(node: ShifterNode) -> list[Problem]:
    return [problem for problem in check(node.conf, installed=True) if problem.severity == "error"]


@pytest.mark.usefixtures("client")
def test_a_node_that_works_has_only_notes(node: ShifterNode) -> None:
    found = check(node.conf, installed=True)
    assert {(p.severity, p.key) for p in found} == {
        ("note", key)
        for key in ("loopMount", "modprobePath", "insmodPath", "cpPath", "mvPath", "chmodPath", "ddPath")
    }
    assert node.run(f"--image=id:{image_id('base')}", "/bin/true").returncode == 0


def _move(path: Path) -> Callable[[], None]:
    path.rename(path.with_name("moved"))

    def undo() -> None:
        path.with_name("moved").replace(path)

    return undo


def _mode(path: Path, mode: int) -> Callable[[], None]:
    before = path.stat().st_mode & 0o7777
    path.chmod(mode)
    return lambda: path.chmod(before)


def _owner(path: Path, uid: int) -> Callable[[], None]:
    os.chown(path, uid, 0)
    return lambda: os.chown(path, 0, 0)


def _link(path: Path) -> Callable[[], None]:
    path.mkdir(exist_ok=True)
    path.rename(path.with_name("real"))
    path.symlink_to("real")

    def undo() -> None:
        path.unlink()
        path.with_name("real").replace(path)

    return undo


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("key", "breakage"),
    [
        ("imagePath", lambda node: _mode(node.images, 0o777)),
        ("imagePath", lambda node: _owner(node.images, node.eve.uid)),
        ("imagePath", lambda node: _link(node.images)),
        ("imagePath", lambda node: _move(node.images)),
        ("udiMount", lambda node: _link(node.udi_mount)),
        ("etcPath", lambda node: _move(node.base / "etc/files")),
        ("etcPath", lambda node: _move(node.base / "etc/files/group")),
        ("etcPath", lambda node: _mode(node.base / "etc/files/nsswitch.conf", 0o666)),
        ("etcPath", lambda node: _owner(node.base / "etc/files", node.eve.uid)),
        ("udiRootPath", lambda node: _mode(node.base / "bin/shifter", 0o755)),
        ("", lambda node: _mode(node.conf, 0o664)),
        ("", lambda node: _mode(node.conf, 0o600)),
        ("", lambda node: _owner(node.conf, node.eve.uid)),
    ],
)
def test_what_stops_the_launcher_is_foretold(
    node: ShifterNode, key: str, breakage: Callable[[ShifterNode], Callable[[], None]]
) -> None:
    assert errors(node) == []
    undo = breakage(node)
    try:
        assert {problem.key for problem in errors(node)} == {key}
        assert node.run(f"--image=id:{image_id('base')}", "/bin/true").returncode == 125
    finally:
        undo()


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("siteFs", {"siteFs": "/no-such:/x"}),
        ("usersToImport", {"populateEtcDynamically": "1", "usersToImport": "no.such.user"}),
        ("mountUdiRootWritable", {"rootfsType": "ramfs", "mountUdiRootWritable": "1"}),
        ("udiMount", {"udiMount": "/no/such/place"}),
        ("maxGroupCount", {"maxGroupCount": "few"}),
        ("defaultModules", {"defaultModules": "unheard-of"}),
    ],
)
def test_values_that_stop_the_launcher_are_foretold(node: ShifterNode, key: str, settings: dict[str, str]) -> None:
    node.configure(**settings)
    assert {problem.key for problem in errors(node)} == {key}
    assert node.run(f"--image=id:{image_id('base')}", "/bin/true").returncode == 125


@pytest.mark.usefixtures("client")
def test_an_unknown_key_is_an_error_here_and_a_remark_of_the_launcher(node: ShifterNode) -> None:
    node.configure("sitefs=/x\n")
    (problem,) = errors(node)
    assert "did you mean 'siteFs'" in problem.message
    done = node.run("-v", f"--image=id:{image_id('base')}", "/bin/true")
    assert done.returncode == 0
    assert "did you mean 'siteFs'" in done.stderr


@pytest.fixture
def installed_conf(product: Installation) -> Iterator[Path]:
    path = product.sysconfdir / "udiRoot.conf"
    before = path.read_text() if path.exists() else None
    secret = product.base / "closed/etc"
    secret.mkdir(parents=True)
    secret.parent.chmod(0o700)
    path.write_text(f"udiRootPath={product.prefix}\netcPath={secret}\nsitefs=/x\n")
    path.chmod(0o644)
    yield path
    secret.rmdir()
    secret.parent.rmdir()
    path.unlink()
    if before is not None:
        path.write_text(before)


def _run(command: list[str], user: int) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": "/nowhere", "LD_PRELOAD": "/nowhere", "PYTHONHOME": "/nowhere"}
    return subprocess.run(
        command, user=user, group=user, extra_groups=[], env=environment, cwd="/", capture_output=True, text=True
    )


def test_shifter_runs_the_installed_checker_with_no_right_of_root(product: Installation, installed_conf: Path) -> None:
    asked = _run([str(product.shifter), "--check-config"], NOBODY)
    assert asked.returncode == 1
    unseen = f"{product.base}/closed/etc cannot be looked at by uid {NOBODY}"
    assert f"{installed_conf}:2: warning: etcPath: {unseen}" in asked.stdout
    assert f"{installed_conf}:3: error: unknown key 'sitefs'" in asked.stdout
    assert f"{installed_conf}: error: udiMount: is not set" in asked.stdout
    own = _run([str(product.prefix / "sbin/udiroot"), "check"], NOBODY)
    assert (own.returncode, own.stdout) == (asked.returncode, asked.stdout)


def test_root_may_ask_too_and_sees_more(product: Installation, installed_conf: Path) -> None:
    asked = _run([str(product.shifter), "--check-config"], 0)
    assert asked.returncode == 1
    assert f"{installed_conf}:2: error: etcPath: {product.base}/closed/etc has no file passwd" in asked.stdout


def test_a_missing_checker_is_a_clear_error(node: ShifterNode) -> None:
    done = node.run("--check-config")
    assert (done.returncode, done.stdout) == (125, "")
    assert f"{node.base}/sbin/udiroot" in done.stderr
