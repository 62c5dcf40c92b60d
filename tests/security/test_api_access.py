# SPDX-License-Identifier: BSD-3-Clause
"""Who gets what from the API (security register sec-31, sec-72): nothing without a credential or with a wrong one,
nothing of others' private images; and no secrets in answers, logs or database.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shifter_imagegw.config import load_configuration
from shifter_imagegw.errors import ConfigurationError
from shifter_imagegw.images import READY, Image
from shifter_imagegw.store import ImageStore, open_store
from tests.gatewayserver import GatewayServer, gateway_server, write_configuration
from tests.munged import Munged, munged

ROUTES = [
    ("GET", "/api/list/{}/"),
    ("GET", "/api/lookup/{}/docker/a:1/"),
    ("POST", "/api/pull/{}/docker/a:1/"),
    ("POST", "/api/doimport/{}/custom/a:1/"),
    ("GET", "/api/expire/{}/docker/a:1/"),
    ("GET", "/api/autoexpire/{}/"),
    ("GET", "/api/queue/{}/"),
    ("GET", "/api/metrics/{}/"),
]
SECRET = "hunter2-of-alice"
PRIVATE_ID = "ef" * 32


@pytest.fixture(scope="module")
def foreign() -> Iterator[Munged]:
    with munged() as server:
        yield server


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, munge: Munged, foreign: Munged) -> Path:
    path = write_configuration(tmp_path_factory.mktemp("gateway"), munge.socket, ImportUsers="all")
    document = json.loads(path.read_text())
    document["Platforms"]["foreign"] = {
        **document["Platforms"]["cluster"], "mungeSocketPath": str(foreign.socket), "admins": []
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def gateway(config: Path) -> Iterator[GatewayServer]:
    with gateway_server(config, "--workers", "2") as server:
        yield server


@pytest.fixture(scope="module")
def store(config: Path) -> Iterator[ImageStore]:
    opened = open_store(load_configuration(config).store_uri)
    opened.insert(
        Image("cluster", "docker", "private:1", READY, tags=("private:1",), image_id=PRIVATE_ID, last_pull=time.time(),
              env=("TOKEN=inside",), private=True, user_acl=(1000,), group_acl=(), revision=1, slot="private")
    )  # fmt: skip
    yield opened
    opened.close()


def refused(gateway: GatewayServer, method: str, path: str, credential: str | None, status: int = 401) -> None:
    answer = gateway.request(method, path.format("cluster"), credential)
    assert answer.status == status, answer.body
    assert set(answer.json) == {"status", "error", "message"}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nothing_is_served_without_a_good_credential(
    gateway: GatewayServer, munge: Munged, foreign: Munged, store: ImageStore, method: str, path: str
) -> None:
    before = store.with_status(("READY", "PENDING", "INIT"))
    used = munge.credential()
    gateway.get("/api/list/cluster/", used)
    fresh = munge.credential()
    middle = len(fresh) // 2
    forged = fresh[:middle] + ("A" if fresh[middle] != "A" else "B") + fresh[middle + 1 :]
    for credential in (
        None, "", "MUNGE:", "garbage", "MUNGE:" + "A" * 200 + ":", used, forged, foreign.credential(),
        munge.credential("", "--restrict-uid=1"), "good:root:root:x:0:0",
    ):  # fmt: skip
        refused(gateway, method, path, credential)
    assert store.with_status(("READY", "PENDING", "INIT")) == before


def test_each_platform_has_its_own_key(gateway: GatewayServer, munge: Munged, foreign: Munged) -> None:
    assert gateway.get("/api/list/foreign/", foreign.credential()).status == 200
    assert gateway.get("/api/list/foreign/", munge.credential()).status == 401
    # Whoever is root on one cluster is no admin of another.
    assert gateway.get("/api/expire/foreign/docker/a:1", foreign.credential()).json == {"status": False}


def test_a_credential_works_in_one_request_only(gateway: GatewayServer, munge: Munged) -> None:
    credential = munge.credential()
    answers = [gateway.get("/api/list/cluster/", credential).status for _ in range(4)]
    assert answers == [200, 401, 401, 401]


def test_a_credential_is_decoded_once_per_request(gateway: GatewayServer, munge: Munged) -> None:
    for method, path in ROUTES:
        status = gateway.request(method, path.format("cluster"), munge.credential(uid=1001)).status
        assert status != 401, path


def test_a_header_given_twice_authenticates_nobody(gateway: GatewayServer, munge: Munged) -> None:
    first, second = munge.credential(uid=1), munge.credential(uid=2)
    request = (
        f"GET /api/list/cluster/ HTTP/1.1\r\nHost: x\r\nauthentication: {first}\r\nauthentication: {second}\r\n\r\n"
    )
    assert gateway.raw(request.encode()).startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 "))


def test_a_large_payload_does_no_harm(gateway: GatewayServer, munge: Munged) -> None:
    random = os.urandom(75_000).hex()  # so that munge cannot make it small
    assert gateway.get("/api/list/cluster/", munge.credential(random[:100_000])).status == 200
    answer = gateway.get("/api/list/cluster/", munge.credential(os.urandom(500_000)))
    assert answer.status == 431
    assert gateway.get("/api/health/").status == 200


def test_reading_is_for_whoever_is_listed(gateway: GatewayServer, munge: Munged, store: ImageStore) -> None:
    path = "/api/lookup/cluster/docker/private:1"
    assert gateway.get(path, munge.credential(uid=1000)).json["id"] == PRIVATE_ID
    denied, absent = (
        gateway.get(path, munge.credential(uid=1001)),
        gateway.get("/api/lookup/cluster/docker/privat2:1", munge.credential(uid=1001)),
    )
    assert denied.status == absent.status == 404
    assert denied.body.replace(b"private", b"") == absent.body.replace(b"privat2", b"")
    # Not even for admins.
    assert gateway.get(path, munge.credential()).status == 404


def test_a_pull_shows_nothing_of_somebody_elses_private_image(
    gateway: GatewayServer, munge: Munged, store: ImageStore
) -> None:
    answer = gateway.post("/api/pull/cluster/docker/private:1", munge.credential(uid=1001))
    assert answer.json["status"] == "INIT"
    assert PRIVATE_ID.encode() not in answer.body
    assert b"inside" not in answer.body
    assert b"1000" not in answer.body


def test_logins_are_nowhere_readable(gateway: GatewayServer, munge: Munged, store: ImageStore, config: Path) -> None:
    payload = json.dumps({"authorized_locations": {"default": f"alice:{SECRET}"}})
    answer = gateway.post("/api/pull/cluster/docker/sealed:1", munge.credential(payload, uid=1000))
    assert answer.status == 200
    (pull,) = store.pulls("cluster", "docker", "sealed:1")
    assert (pull.sealed_tokens or "").startswith("MUNGE:")
    for file in config.parent.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file
    assert SECRET.encode() not in answer.body


@pytest.mark.parametrize("environment", [{}, {"SHIFTER_TEST_MOCK_AUTHENTICATION": "yes"}])
def test_mock_authentication_cannot_be_configured(tmp_path: Path, munge: Munged, environment: dict[str, str]) -> None:
    path = write_configuration(tmp_path, munge.socket, Authentication="mock")
    with pytest.raises(ConfigurationError, match="tests only"):
        load_configuration(path, environment)
    done = subprocess.run(
        [sys.executable, "-I", "-m", "shifter_imagegw", "--config", str(path), "serve", "--bind", "127.0.0.1:0"],
        capture_output=True, text=True, env={**os.environ, **environment}, timeout=60,
    )  # fmt: skip
    assert (done.returncode, "tests only" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    "path",
    [
        "/api/lookup/cluster/docker/a:1",
        "/api/list/cluster/",
        "/api/queue/cluster/",
        "/api/expire/cluster/docker/private:1",
        "/api/autoexpire/cluster/",
    ],
)
def test_a_get_changes_no_image(gateway: GatewayServer, munge: Munged, store: ImageStore, path: str) -> None:
    before = store.with_status((READY, "PENDING", "EXPIRED", "EXPIRING"))
    for uid in (0, 1001):
        gateway.get(path, munge.credential(uid=uid))
    assert store.with_status((READY, "PENDING", "EXPIRED", "EXPIRING")) == before


@pytest.mark.parametrize("evil", ["%0d%0aSet-Cookie:x=1", "%1b[31m", "<script>", "%00", "..%2f..%2fetc", "'; DROP"])
def test_what_a_caller_sends_stays_data(gateway: GatewayServer, munge: Munged, evil: str) -> None:
    for path in (f"/api/lookup/cluster/docker/{evil}", f"/api/list/{evil}/", f"/api/lookup/cluster/{evil}/x"):
        request = f"GET {path.replace(' ', '%20')} HTTP/1.1\r\nHost: x\r\nauthentication: {munge.credential()}\r\n\r\n"
        head, _, body = gateway.raw(request.encode()).partition(b"\r\n\r\n")
        assert head.split()[1] in (b"400", b"404")
        assert b"Set-Cookie" not in head
        assert b"Content-Type: application/json" in head
        assert set(json.loads(body)) == {"status", "error", "message"}


def test_every_line_of_the_log_is_one_record(gateway: GatewayServer, munge: Munged) -> None:
    gateway.get("/api/lookup/cluster/docker/x%0a{%22level%22:%22forged%22}", munge.credential())
    assert all(record["level"] != "forged" for record in gateway.log_records)
