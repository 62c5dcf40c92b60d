# SPDX-License-Identifier: BSD-3-Clause
"""The gateway's side of the interoperability checklist (gateway contract, section 16) and the status codes of section
2.8, against a whole running gateway. The numbers are those of the checklist; 15 (records of older gateways) is the
stores' (tests/functional/test_store_contract.py), 16 the configuration's, 17 the client's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.config import load_configuration
from shifter_imagegw.images import FAILURE, READY, Image
from shifter_imagegw.store import ImageStore, open_store
from tests.gatewayserver import Answer, GatewayServer, gateway_server, write_configuration
from tests.munged import Munged
from tests.registryserver import RegistryServer, registry_server, tar_of

KEYS = {
    "id", "system", "itype", "tag", "status", "userACL", "groupACL", "ENV", "ENTRY", "WORKDIR", "LABELS", "last_pull",
    "status_message",
}  # fmt: skip
IN_PROGRESS = {"MISSING", "INIT", "PENDING", "PULLING", "EXAMINATION", "CONVERSION", "TRANSFER"}
LAYER = tar_of({"etc/": b"", "etc/os-release": b"ID=test\n"})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry"), token_users={"ann": "se:cret"}) as server:
        for repository, tag in (
            ("public/app", "1"),
            ("public/app", "twin"),
            ("public/acl", "1"),
            ("private/app", "1"),
            ("public/crowd", "1"),
        ):
            # One image per repository: a private copy of a public image would be public.
            config = {"Env": ["PATH=/bin"], "WorkingDir": "/srv", "Labels": {"repository": repository}}
            server.push_image(repository, tag, [LAYER], config=config)
        yield server


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, munge: Munged, registry: RegistryServer) -> Path:
    locations = {"reg": {"remotetype": "dockerv2", "url": registry.url, "authentication": "http"}}
    path = write_configuration(
        tmp_path_factory.mktemp("gateway"), munge.socket, Locations=locations, DefaultImageLocation="reg", Metrics=True
    )
    document = json.loads(path.read_text())
    document["Platforms"]["second"] = document["Platforms"]["cluster"]
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def gateway(config: Path) -> Iterator[GatewayServer]:
    with gateway_server(config, "--workers", "2", "--with-workers", "1") as server:
        yield server


@pytest.fixture(scope="module")
def store(config: Path) -> Iterator[ImageStore]:
    opened = open_store(load_configuration(config).store_uri)
    yield opened
    opened.close()


class Client:
    """What the historic client does: a credential per request, polling by repeating the POST."""

    def __init__(self, gateway: GatewayServer, munge: Munged, uid: int, logins: dict[str, str] | None = None) -> None:
        self.gateway = gateway
        self.munge = munge
        self.uid = uid
        self.payload = json.dumps({"authorized_locations": logins}) if logins else ""

    def credential(self) -> str:
        return self.munge.credential(self.payload, uid=self.uid)

    def get(self, path: str) -> Answer:
        return self.gateway.get(path, self.credential())

    def post(self, path: str, body: str = "") -> Answer:
        return self.gateway.post(path, self.credential(), body, **{"Content-type": "application/json"})

    def pull(self, tag: str, body: str = "", system: str = "cluster") -> list[dict[str, Any]]:
        """All answers until the status is none of those in progress."""
        path = f"/api/pull/{system}/docker/{tag.replace('/', '%2F').replace(':', '%3A')}/"
        answers: list[dict[str, Any]] = []
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            answers.append(self.post(path, body).json)
            if answers[-1]["status"] not in IN_PROGRESS:
                return answers
            time.sleep(0.1)
        raise AssertionError(f"still {answers[-1]}:\n{self.gateway.log[-3000:]}")


@pytest.fixture
def alice(gateway: GatewayServer, munge: Munged) -> Client:
    return Client(gateway, munge, 500)


def ready(store: ImageStore, reference: str, **changes: Any) -> Image:
    values: dict[str, Any] = {
        "status": READY, "tags": (reference,), "image_id": "ab" * 32, "last_pull": time.time(), "revision": 1,
        "private": False, "user_acl": (), "group_acl": (), "slot": f"contract {reference} {changes}", **changes,
    }  # fmt: skip
    system = values.pop("system", "cluster")
    return store.insert(Image(system, "docker", reference, **values))


def test_01_urls_with_and_without_slash_raw_and_escaped(alice: Client, store: ImageStore) -> None:
    ready(store, "urls/a:1")
    forms = [f"/api/lookup/cluster/docker/{tag}{end}" for tag in ("urls/a:1", "urls%2Fa%3A1") for end in ("", "/")]
    assert [alice.get(form).json["id"] for form in forms] == ["ab" * 32] * 4


def test_02_content_type_and_length_to_the_letter(alice: Client) -> None:
    for answer in (alice.get("/api/list/cluster/"), alice.post("/api/pull/cluster/docker/public%2Fapp%3A1/")):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["content-length"] == str(len(answer.body))
        assert not {"transfer-encoding", "content-encoding"} & set(answer.headers)


def test_03_all_keys_always(alice: Client, store: ImageStore) -> None:
    ready(store, "keys:1", image_id=None)
    image = alice.get("/api/lookup/cluster/docker/keys:1").json
    assert set(image) == KEYS
    assert (image["id"], image["ENV"], image["LABELS"]) == ("MISSING", "MISSING", "MISSING")
    for answer in alice.pull("public/app:1"):
        assert set(answer) == KEYS
        assert isinstance(answer["id"], str)
        assert isinstance(answer["status"], str)
        assert isinstance(answer["last_pull"], float) or answer["last_pull"] == "MISSING"


def test_04_and_05_errors_and_refusals(alice: Client) -> None:
    unknown = alice.get("/api/list/unknown/")
    assert (unknown.status, set(unknown.json)) == (404, {"status", "error", "message"})
    expire = alice.get("/api/expire/cluster/docker/x:1/")
    assert (expire.status, expire.json) == (200, {"status": False})
    metrics = alice.get("/api/metrics/cluster/?limit=5")
    assert (metrics.status, metrics.json) == (200, [])


def test_06_the_body_is_json_and_ids_are_text(gateway: GatewayServer, alice: Client) -> None:
    path = "/api/pull/cluster/docker/body:1"
    sent = '{"allowed_uids":"1000,1001","allowed_gids":"1002"}'
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = gateway.post(path, alice.credential(), sent, **form).json
    assert (answer["userACL"], answer["groupACL"]) == ([1000, 1001, 500], [1002, 500])
    assert gateway.post(path, alice.credential(), b"").status == 200


def test_07_a_pull_from_its_first_answer_to_ready(alice: Client) -> None:
    answers = alice.pull("public/app:1")
    assert answers[-1]["status"] == READY
    assert {answer["status"] for answer in answers[:-1]} <= IN_PROGRESS
    again = alice.pull("public/app:1")
    assert (len(again), again[0]["id"]) == (1, answers[-1]["id"])


def test_08_lists_of_a_public_image(alice: Client) -> None:
    answers = alice.pull("public/acl:1", '{"allowed_uids":"1000","allowed_gids":"1001"}')
    assert (answers[0]["userACL"], answers[0]["groupACL"]) == ([1000, 500], [1001, 500])
    assert (answers[-1]["status"], answers[-1]["userACL"], answers[-1]["groupACL"]) == (READY, [], [])


def test_08_lists_of_a_private_image(gateway: GatewayServer, munge: Munged, config: Path) -> None:
    owner = Client(gateway, munge, 500, {"default": "ann:se:cret"})
    final = owner.pull("private/app:1", '{"allowed_uids":"1000"}')[-1]
    assert (final["status"], final["userACL"]) == (READY, [1000, 500])
    meta = (config.parent / "images" / f"{final['id']}.meta").read_text().splitlines()
    assert {"USERACL: 1000,500", "PRIVATE: 1"} <= set(meta)
    path = "/api/lookup/cluster/docker/private%2Fapp%3A1/"
    assert [Client(gateway, munge, uid).get(path).status for uid in (500, 1000, 1003)] == [200, 200, 404]


def test_09_one_job_for_all_who_ask_and_two_tags_for_one_content(
    gateway: GatewayServer, munge: Munged, alice: Client
) -> None:
    path = "/api/pull/cluster/docker/public%2Fcrowd%3A1/"
    credentials = [munge.credential(uid=uid) for uid in range(3000, 3012)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda credential: gateway.post(path, credential).json, credentials))
    assert {answer["status"] for answer in answers} <= {*IN_PROGRESS, READY}
    alice.pull("public/crowd:1")
    assert gateway.log.count('"pull of public/crowd:1 on cluster: READY"') == 1
    first, twin = alice.pull("public/app:1")[-1], alice.pull("public/app:twin")[-1]
    assert first["id"] == twin["id"]
    assert set(twin["tag"]) >= {"public/app:1", "public/app:twin"}


def test_10_a_tag_moves_within_its_system(alice: Client, store: ImageStore) -> None:
    ready(store, "public/app:1", image_id="cd" * 32, system="second")
    old = ready(store, "public/acl:1", image_id="ef" * 32, last_pull=1.0)
    alice.pull("public/acl:1")
    found = store.get(old.record_id)
    assert found is not None
    assert "public/acl:1" in found.tags  # the record pulled last is the answer as long as nothing new is pulled
    assert alice.get("/api/lookup/second/docker/public%2Fapp%3A1/").json["id"] == "cd" * 32


def test_11_credentials_serve_once(gateway: GatewayServer, munge: Munged) -> None:
    credential = munge.credential()
    assert [gateway.get("/api/list/cluster/", credential).status for _ in range(2)] == [200, 401]


def test_12_a_lookup_moves_the_expiration_and_a_denied_one_does_not(
    gateway: GatewayServer, munge: Munged, store: ImageStore, alice: Client
) -> None:
    seen = ready(store, "expiry:1", expiration=1.0)
    closed = ready(store, "closed:1", expiration=1.0, private=True, user_acl=(1,))
    alice.get("/api/lookup/cluster/docker/expiry")  # :latest is not :1
    assert store.get(seen.record_id) == seen
    alice.get("/api/lookup/cluster/docker/expiry:1")
    assert alice.get("/api/lookup/cluster/docker/closed:1").status == 404
    moved, kept = store.get(seen.record_id), store.get(closed.record_id)
    assert moved is not None
    assert kept is not None
    assert (moved.expiration or 0) > time.time() + 89 * 86400
    assert kept.expiration == 1.0
    recorded = gateway.get("/api/metrics/cluster/?limit=1", munge.credential()).json
    assert [(metric["uid"], metric["tag"]) for metric in recorded] == [(500, "expiry:1")]


def test_13_and_14_files_of_an_image(alice: Client, config: Path, registry: RegistryServer) -> None:
    answer = alice.pull("public/app:1")[-1]
    for suffix in ("squashfs", "meta"):
        assert (config.parent / "images" / f"{answer['id']}.{suffix}").stat().st_mode & 0o777 == 0o600
    assert (registry.root / "docker/registry/v2/blobs/sha256" / answer["id"][:2] / answer["id"]).is_dir()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("GET", "/api/lookup/cluster/docker/", None, 404),
        ("GET", "/api/lookup/cluster/docker/absent:9", None, 404),
        ("GET", "/api/list/unknown/", None, 404),
        ("GET", "/api/lookup/unknown/docker/a:1", None, 404),
        ("POST", "/api/pull/unknown/docker/a:1", None, 404),
        ("GET", "/api/expire/unknown/docker/a:1", None, 404),
        ("GET", "/api/autoexpire/unknown/", None, 404),
        ("GET", "/api/autoexpire/cluster/", None, 200),
        ("POST", "/api/pull/cluster/docker/a:1", "{", 400),
        ("POST", "/api/pull/cluster/docker/a:1", '{"allowed_uids":"alice"}', 400),
        ("POST", "/api/doimport/cluster/custom/a:1", '{"filepath":"/x","format":"squashfs"}', 403),
        ("GET", "/api/metrics/cluster/?limit=many", None, 400),
        ("POST", "/api/list/cluster/", None, 405),
        ("GET", "/api/pull/cluster/docker/a:1", None, 405),
        ("HEAD", "/api/list/cluster/", None, 405),
    ],
)
def test_status_codes(alice: Client, method: str, path: str, body: str | None, status: int) -> None:
    answer = alice.gateway.request(method, path, alice.credential(), body)
    assert answer.status == status
    if method != "HEAD" and status != 200:
        assert answer.json["status"] == status


@pytest.mark.parametrize("path", ["list/cluster/", "queue/cluster/", "lookup/cluster/docker/a:1", "metrics/cluster/"])
def test_status_of_requests_without_a_good_credential(gateway: GatewayServer, path: str) -> None:
    assert [gateway.get(f"/api/{path}", credential).status for credential in (None, "MUNGE:bad:")] == [401, 401]


def test_a_failed_pull_ends_the_polling_and_says_why(alice: Client) -> None:
    final = alice.pull("absent/image:1")[-1]
    assert final["status"] == FAILURE
    assert "absent/image" in final["status_message"]
    assert alice.pull("absent/image:1")[0]["status"] == FAILURE
    queue = alice.get("/api/queue/cluster/").json["list"]
    assert {"status": FAILURE, "image": "absent/image:1"} in queue
