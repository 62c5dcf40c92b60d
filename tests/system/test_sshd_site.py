# SPDX-License-Identifier: BSD-3-Clause
"""What the site decides about the sshd of containers, and the directory with the programs that it shows."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sshclosure import BUILDER, source
from tests.sshpair import Pair, listeners


@pytest.fixture
def own_tree(pair: Pair) -> Iterator[Path]:
    """A copy of the closure that a test can change."""
    tree = pair.node.base / "changed-udiImage"
    shutil.copytree(pair.closure, tree)
    pair.node.configure(optUdiImage=str(tree))
    yield tree
    pair.node.as_root("unsetupRoot")
    shutil.rmtree(tree)


def test_the_port_is_the_one_of_the_sites_sshd_config(pair: Pair, own_tree: Path) -> None:
    config = own_tree / "etc/sshd_config"
    config.write_text(config.read_text().replace("Port 1204", "  port=2345"))
    client = own_tree / "etc/ssh_config"
    client.write_text("Host elsewhere\n    Port 99\n")
    pair.prepare()
    assert {line.split()[3].rpartition(":")[2] for line in listeners(pair.nodes[0])} == {"2345"}
    assert pair.ssh(0, "true").returncode == 0
    said = pair.shifter(0, "ssh", "-G", "elsewhere").stdout.splitlines()
    assert "port 99" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: (tree / "etc/sshd_config").write_text("Port 22\n"), "Port must be from 1024 to 65535"),
        (lambda tree: (tree / "etc/sshd_config").unlink(), "etc/sshd_config"),
        (lambda tree: (tree / "etc/sshd_config").chmod(0o666), "etc/sshd_config"),
        (lambda tree: (tree / "etc/sshd_config").write_text("Nonsense yes\n"), "Bad configuration option: Nonsense"),
        (lambda tree: (tree / "sbin/sshd").unlink(), "cannot execute /opt/udiImage/sbin/sshd"),
        (lambda tree: (tree / "sbin/sshd").write_bytes(b"#!/bin/false\n"), "it ended at once"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_sites_tree_is_told(pair: Pair, own_tree: Path, change: object, words: str) -> None:
    change(own_tree)  # type: ignore[operator]
    done = pair.set_up(0)
    assert done.returncode == 1
    assert words in done.stderr
    assert pair.watchers() == []


def test_bad_secrets_and_a_missing_tree_are_refused(pair: Pair) -> None:
    for secret in ("", "5A" * 32, "5a" * 31, "5a" * 33, "x" * 64, "ssh-ed25519 AAAA"):
        done = pair.set_up(0, secret=secret)
        assert (done.returncode, done.stdout) == (1, "")
        assert "not 64 hex digits" in done.stderr
    pair.node.configure()
    done = pair.set_up(0)
    assert "optUdiImage is not set; build its directory with extra/build-udiimage" in done.stderr


# ----------------------------------------------------------------------------------------------------------------------
# extra/build-udiimage


def contents(tree: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(tree)): (
            path.lstat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        )
        for path in sorted(tree.rglob("*"))
    }  # fmt: skip


def test_the_closure_is_complete_reproducible_and_keeps_what_the_site_changed(closure: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    for _time in (1, 2):
        subprocess.run([str(BUILDER), *source(), "--port=4321", str(again)], check=True, umask=0o077)
        (again / "lib/ssh/libold.so").touch()
        (again / "lib64").mkdir(exist_ok=True)
        manifest = again / "etc/manifest"
        manifest.write_text(f"0  lib/ssh/libold.so  libold.so\n{manifest.read_text()}")
    subprocess.run([str(BUILDER), *source(), str(again)], check=True)
    assert "Port 4321" in (again / "etc/sshd_config").read_text()
    found, expected = contents(again), contents(closure)
    assert found.pop("lib64")
    del found["etc/sshd_config"], expected["etc/sshd_config"]
    assert found == expected
    lines = (closure / "etc/manifest").read_text().splitlines()
    listed = [line.split("  ") for line in lines if not line.startswith("#")]
    assert {name: digest for digest, name, _ in listed} == {
        name: digest for name, (_, digest) in expected.items() if digest and not name.startswith("etc/")
    }
    for name, (mode, _) in expected.items():
        assert mode & 0o6066 == 0o044, name
    for _, name, _ in listed:
        if not name.startswith("lib/"):
            command = ["patchelf", "--print-interpreter", "--print-rpath", str(closure / name)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            assert [Path(line).parts[:5] for line in said] == [("/", "opt", "udiImage", "lib", "ssh")] * 2
