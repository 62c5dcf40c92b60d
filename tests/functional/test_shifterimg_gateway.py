# SPDX-License-Identifier: BSD-3-Clause
"""shifterimg and the real gateway, over real HTTP with real credentials; the test plays the worker in the database."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.config import load_configuration
from shifter_imagegw.images import FAILURE, READY, Image
from shifter_imagegw.store import ImageStore, open_store
from tests.gatewayserver import SYSTEM, GatewayServer, gateway_server, write_configuration
from tests.munged import Munged
from tests.scriptedgateway import LoginNode, login_node

ID = "ab" * 32


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, munge: Munged) -> Path:
    return write_configuration(tmp_path_factory.mktemp("gateway"), munge.socket)


@pytest.fixture(scope="module")
def gateway(config: Path) -> Iterator[GatewayServer]:
    with gateway_server(config, "--workers", "1") as server:
        yield server


@pytest.fixture(scope="module")
def store(config: Path, gateway: GatewayServer) -> Iterator[ImageStore]:
    opened = open_store(load_configuration(config).store_uri)
    yield opened
    opened.close()


@pytest.fixture
def node(munge: Munged, tmp_path: Path, gateway: GatewayServer) -> LoginNode:
    node = login_node(munge, tmp_path)
    node.configure(f"http://127.0.0.1:{gateway.port}", system=SYSTEM)
    return node


def add(store: ImageStore, reference: str, status: str = READY, **changes: Any) -> None:
    values: dict[str, Any] = {
        "status": status, "tags": (reference,), "image_id": ID, "last_pull": time.time(), "env": ("PATH=/bin",),
        "private": False, "user_acl": (), "group_acl": (), "revision": 1, "slot": f"test {reference}", **changes,
    }  # fmt: skip
    store.insert(Image(SYSTEM, "docker", reference, **values))


def test_images_and_lookup(node: LoginNode, store: ImageStore) -> None:
    add(store, "alice/solver:1.2")
    add(store, "hidden:1", private=True, user_acl=(77,), image_id="cd" * 32)
    line = node.run("images").stdout
    assert line.startswith("cluster    docker     READY    ababababab   ")
    assert line.rstrip().endswith(" alice/solver:1.2")
    assert node.run("lookup", "alice/solver:1.2").stdout == f"{ID}\n"
    for absent in ("hidden:1", "nothing:1"):
        done = node.run("lookup", absent)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"docker:{absent}: not found: " in done.stderr


def test_a_version_is_added_by_the_gateway(node: LoginNode, store: ImageStore) -> None:
    add(store, "plain:latest", image_id="ef" * 32)
    assert node.run("lookup", "plain").stdout == "ef" * 32 + "\n"


def test_a_pull_from_the_first_state_to_its_failure(node: LoginNode, store: ImageStore) -> None:
    assert node.run("pullnb", "fails:1").stdout.endswith("docker:fails:1, status: INIT\n")
    assert "fails:1" in node.run("queue").stdout

    claimed = store.claim("test", time.time(), 60.0, [SYSTEM])
    assert claimed is not None
    assert claimed.pulltag == "fails:1"
    steps = {"PENDING": ("PULLING", "Pulling layers: 1/2 bytes"), "PULLING": (FAILURE, "no such image")}
    with subprocess.Popen(
        node.command("pull", "fails:1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        shown = []
        for line in client.stdout:
            shown.append(line.split()[-1])
            if shown[-1] in steps:
                status, message = steps[shown[-1]]
                store.progress(claimed, time.time(), 60.0, status=status, status_message=message)
        errors = client.stderr.read()
    assert (client.returncode, shown) == (1, ["PENDING", "PULLING", "FAILURE"])
    assert errors == "shifterimg: docker:fails:1: the pull ended with FAILURE: no such image\n"


def test_a_fresh_image_is_ready_at_once(node: LoginNode, store: ImageStore) -> None:
    add(store, "fresh:1", image_id="12" * 32)
    done = node.run("pull", "--json", "fresh:1")
    assert (done.returncode, json.loads(done.stdout)["id"]) == (0, "12" * 32)


def test_an_unknown_system(node: LoginNode, gateway: GatewayServer) -> None:
    node.configure(f"http://127.0.0.1:{gateway.port}", system="elsewhere")
    for words in (["images"], ["lookup", "x"], ["pull", "x"], ["queue"]):
        done = node.run(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert "not found: " in done.stderr


def test_a_verb_that_the_gateway_does_not_have(node: LoginNode) -> None:
    done = node.run("autoexpire")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("shifterimg: not supported by this gateway: ")
