# SPDX-License-Identifier: BSD-3-Clause
"""The API as clients meet it: a real server, a real munged, real HTTP (gateway contract, section 2)."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shifter_imagegw.app import create_app
from shifter_imagegw.config import load_configuration
from shifter_imagegw.images import FAILURE, READY, Image
from shifter_imagegw.store import ImageStore, Metric, open_store
from tests.gatewayserver import GatewayServer, free_port, gateway_server, http_server, write_configuration
from tests.munged import Munged, munged

KEYS = {
    "id", "system", "itype", "tag", "status", "userACL", "groupACL", "ENV", "ENTRY", "WORKDIR", "LABELS", "last_pull",
    "status_message",
}  # fmt: skip
ID = "ab" * 32


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, munge: Munged) -> Path:
    return write_configuration(tmp_path_factory.mktemp("gateway"), munge.socket, Metrics=True, ImportUsers=["root"])


@pytest.fixture(scope="module")
def gateway(config: Path) -> Iterator[GatewayServer]:
    with gateway_server(config, "--workers", "1") as server:
        yield server


@pytest.fixture(scope="module")
def store(config: Path) -> Iterator[ImageStore]:
    opened = open_store(load_configuration(config).store_uri)
    yield opened
    opened.close()


@pytest.fixture
def client(config: Path) -> FlaskClient:
    return create_app(load_configuration(config)).test_client()


def ready(store: ImageStore, reference: str, **changes: Any) -> Image:
    values: dict[str, Any] = {
        "status": READY, "tags": (reference,), "image_id": ID, "last_pull": time.time(), "env": ("PATH=/bin",),
        "private": False, "user_acl": (), "group_acl": (), "revision": 1, "slot": f"test {reference}", **changes,
    }  # fmt: skip
    return store.insert(Image("cluster", values.pop("itype", "docker"), reference, **values))


def test_the_root_is_a_help_text(gateway: GatewayServer) -> None:
    answer = gateway.get("/")
    assert (answer.status, answer.body) == (200, b"{lookup,pull,expire,list}")


def test_health_needs_no_credential(gateway: GatewayServer) -> None:
    answer = gateway.get("/api/health/")
    assert answer.status == 200
    assert answer.json["status"] == "ok"
    assert answer.json["version"]


def test_answers_have_exactly_this_type_and_a_length(gateway: GatewayServer, munge: Munged) -> None:
    for answer in (
        gateway.get("/api/list/cluster/", munge.credential()),
        gateway.get("/api/list/cluster/"),
        gateway.get("/nowhere"),
        gateway.post("/api/pull/cluster/docker/a/", munge.credential(), "{"),
        gateway.request("DELETE", "/api/list/cluster/"),
    ):
        assert answer.headers["content-type"] == "application/json"
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert "transfer-encoding" not in answer.headers
        assert "content-encoding" not in answer.headers


def test_a_pull_begins_with_the_first_state_and_goes_on(gateway: GatewayServer, munge: Munged) -> None:
    path = "/api/pull/cluster/docker/first%3A1/"
    first = gateway.post(path, munge.credential(uid=4001)).json
    assert set(first) == KEYS
    assert first == {
        "id": "MISSING", "system": "cluster", "itype": "docker", "tag": [], "status": "INIT", "userACL": [],
        "groupACL": [], "ENV": "MISSING", "ENTRY": "MISSING", "WORKDIR": "MISSING", "LABELS": "MISSING",
        "last_pull": "MISSING", "status_message": "MISSING",
    }  # fmt: skip
    again = gateway.post(path, munge.credential(uid=4001))
    assert again.json["status"] == "PENDING"
    assert isinstance(again.json["last_pull"], float)
    assert b'"last_pull":1' in again.body
    assert b"." in again.body.partition(b'"last_pull":')[2].partition(b",")[0]


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", None])
def test_a_body_is_json_whatever_it_claims_to_be(
    gateway: GatewayServer, munge: Munged, content_type: str | None
) -> None:
    path = f"/api/pull/cluster/docker/typed:{str(content_type).rpartition('/')[2]}"
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = json.dumps({"allowed_uids": "1000,1001", "allowed_gids": [1002], "other": 1})
    answer = gateway.post(path, munge.credential(uid=500), body, **headers)
    assert (answer.json["userACL"], answer.json["groupACL"]) == ([1000, 1001, 500], [1002, 500])


@pytest.mark.parametrize("body", [None, "", "  ", "{}", "[]", "null", "3", '"text"', '{"allowed_uids": null}'])
def test_bodies_that_say_nothing(gateway: GatewayServer, munge: Munged, body: str | None) -> None:
    answer = gateway.post("/api/pull/cluster/docker/nothing:1", munge.credential(uid=501), body)
    assert (answer.status, answer.json["userACL"], answer.json["groupACL"]) == (200, [], [])


@pytest.mark.parametrize(
    "body",
    [
        "{", b"\xff", "nonsense", '{"allowed_uids": ""}', '{"allowed_uids": "1,,2"}', '{"allowed_uids": "a"}',
        '{"allowed_uids": "-1"}', '{"allowed_gids": [true]}', '{"allowed_gids": ["1"]}', '{"allowed_gids": [1.0]}',
        '{"allowed_gids": {}}', '{"allowed_gids": 5}', '{"allowed_uids": "4294967296"}', '{"allowed_gids": [-5]}',
        '{"allowed_uids": "99999999999999999999"}', "[" * 100_000, '{"allowed_uids": "\u0661"}',
    ],
)  # fmt: skip
def test_bodies_that_make_no_sense(gateway: GatewayServer, munge: Munged, body: str | bytes) -> None:
    data = body.encode() if isinstance(body, str) else body
    answer = gateway.post("/api/pull/cluster/docker/senseless", munge.credential(), data)
    assert answer.status == 400, answer.body
    assert set(answer.json) == {"status", "error", "message"}


def test_a_body_that_is_too_large(gateway: GatewayServer, munge: Munged) -> None:
    big = b'{"allowed_uids": "' + b"1," * 2_000_000 + b'1"}'
    assert gateway.post("/api/pull/cluster/docker/big", munge.credential(), big).status == 413
    chunked = b"POST /api/pull/cluster/docker/big HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nauthentication: "
    chunked += munge.credential().encode() + b"\r\n\r\n" + b"40000\r\n" + b"1" * 0x40000 + b"\r\n" * 2
    chunked += b"40000\r\n" + b"1" * 0x40000 + b"\r\n0\r\n\r\n"
    assert gateway.raw(chunked).startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 "))


@pytest.mark.parametrize("form", ["plain", "escaped", "half"])
@pytest.mark.parametrize("end", ["", "/"])
def test_the_same_tag_in_all_its_forms(
    gateway: GatewayServer, munge: Munged, store: ImageStore, form: str, end: str
) -> None:
    reference = "reg.example:5000/team/app+x:v1"
    if store.ready_by_tag("cluster", "docker", reference) is None:
        ready(store, reference)
    path = {
        "plain": reference,
        "escaped": "reg.example%3A5000%2Fteam%2Fapp%2Bx%3Av1",
        "half": "reg.example:5000%2fteam/app%2bx%3av1",
    }[form]
    answer = gateway.get(f"/api/lookup/cluster/docker/{path}{end}?x=1", munge.credential())
    assert (answer.status, answer.json["tag"], answer.json["id"]) == (200, [reference], ID)


def test_a_path_is_decoded_once(gateway: GatewayServer, munge: Munged, store: ImageStore) -> None:
    ready(store, "odd%2Fname:1", itype="custom")
    assert gateway.get("/api/lookup/cluster/custom/odd%252Fname%3A1/", munge.credential()).status == 200
    assert gateway.get("/api/lookup/cluster/custom/odd%2Fname%3A1/", munge.credential()).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/api", "/api/", "/api/nothing/cluster/", "/api/lookup/cluster/docker", "/api/lookup/cluster/docker/",
        "/api/lookup/cluster", "/api/list", "/api/list/", "/api/list/cluster/docker", "/api/queue/cluster/docker/x/",
        "/api/list//", "/api/lookup/cluster%2Fdocker%2Fa", "/API/list/cluster/", "/static/x",
        "/api/metrics/cluster/x",
    ],
)  # fmt: skip
def test_urls_outside_the_grammar(gateway: GatewayServer, path: str) -> None:
    answer = gateway.get(path)
    assert answer.status == 404
    assert answer.json["status"] == 404
    assert answer.json["message"].startswith("Not Found: http://127.0.0.1")


def test_a_slash_inside_a_segment_does_not_end_it(gateway: GatewayServer, munge: Munged) -> None:
    assert gateway.get("/api/list/cluster%2F/", munge.credential()).status == 404
    assert gateway.get("/api/lookup/cluster/docker%2Fx/a", munge.credential()).status == 400


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "POST"])
@pytest.mark.parametrize("path", ["/", "/api/list/cluster/", "/api/lookup/cluster/docker/a:1", "/api/health/"])
def test_other_methods(gateway: GatewayServer, method: str, path: str) -> None:
    answer = gateway.request(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


def test_a_path_that_is_no_text(gateway: GatewayServer, munge: Munged) -> None:
    answer = gateway.get("/api/lookup/cluster/docker/%ff%fe", munge.credential())
    assert (answer.status, answer.json["error"]) == (400, "the path is not UTF-8")


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/api/lookup/cluster/docker/absent:1", 404, "image not found"),
        ("/api/lookup/cluster/local/x", 400, "image type 'local'"),
        ("/api/list/elsewhere/", 404, "system 'elsewhere' is not served here"),
    ],
)
def test_errors_say_why(gateway: GatewayServer, munge: Munged, path: str, status: int, error: str) -> None:
    answer = gateway.get(path, munge.credential())
    assert (answer.status, answer.json["status"]) == (status, status)
    assert answer.json["error"].startswith(error)


@pytest.mark.parametrize("reference", ["UPPER/x", "unknown.example/x", "a" * 1030, "x:bad%20tag", "x%00y"])
def test_references_that_cannot_be_pulled(gateway: GatewayServer, munge: Munged, reference: str) -> None:
    assert gateway.post(f"/api/pull/cluster/docker/{reference}", munge.credential()).status == 400


@pytest.mark.parametrize("host", ["", "a b", "x" * 300, "[::1", "a/../b", "evil.example:99999", "<b>", "\u00e9"])
def test_whatever_the_host_header_says(gateway: GatewayServer, host: str) -> None:
    request = f"GET /nowhere HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    head, _, body = gateway.raw(request).partition(b"\r\n\r\n")
    assert (head.split()[1], json.loads(body)["status"]) in ((b"404", 404), (b"400", 400))


def test_head_of_nothing_is_nothing(gateway: GatewayServer) -> None:
    assert gateway.request("HEAD", "/nowhere").status == 404


def test_requests_that_are_not_http(gateway: GatewayServer) -> None:
    for request, status in (
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 300_000 + b"\r\n\r\n", b"431"),
    ):
        head, _, body = gateway.raw(request).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + status), head
        assert b"\r\nContent-Type: application/json\r\n" in head
        assert json.loads(body)["status"] == int(status)


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: x", b"NONSENSE\r\n\r\n"], ids=["idle", "slow", "lingering"]
)
def test_slow_clients_do_not_hold_up_the_others(gateway: GatewayServer, sent: bytes) -> None:
    """Five times as many as there are threads, none of whom needs a credential."""
    slow = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(80)]
    try:
        for connection in slow:
            connection.sendall(sent)
        began = time.monotonic()
        assert gateway.get("/").status == 200
        assert gateway.get("/").status == 200
        assert time.monotonic() - began < 10
    finally:
        for connection in slow:
            connection.close()


def test_a_request_that_arrives_in_pieces_is_answered(gateway: GatewayServer, munge: Munged) -> None:
    request = f"POST /api/pull/cluster/docker/pieces:1 HTTP/1.1\r\nauthentication: {munge.credential()}\r\n"
    whole = f"{request}X: {'y' * 100_000}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    for cuts in ([1, 20, len(whole) - 3], [len(whole) - 5, len(whole) - 4], [60_000]):
        whole = whole.replace(whole.split(b"authentication: ")[1].split(b"\r\n")[0], munge.credential().encode())
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as connection:
            for start, end in zip([0, *cuts], [*cuts, len(whole)]):
                connection.sendall(whole[start:end])
                time.sleep(0.2)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_clients_that_send_nothing_do_not_hold_up_the_end(config: Path) -> None:
    for moment in (0.0, 0.05, 0.3):
        with gateway_server(config) as server:
            idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(150)]
            time.sleep(moment)
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 8  # they have ten seconds for what they have begun
            for connection in idle:
                connection.close()


def test_the_waiting_room_has_an_end(gateway: GatewayServer) -> None:
    first = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
    more = []
    try:
        for _ in range(300):
            more.append(socket.create_connection(("127.0.0.1", gateway.port)))
        assert first.recv(1) == b""  # it waited longest
        more[-1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        more[-1].settimeout(30)
        assert more[-1].recv(65536).startswith(b"HTTP/1.1 200 ")
    finally:
        for connection in (first, *more):
            connection.close()


def test_lists_and_queues(gateway: GatewayServer, munge: Munged, store: ImageStore) -> None:
    ready(store, "shown:1")
    ready(store, "hidden:1", private=True, user_acl=(77,), image_id="cd" * 32)
    shown = {tag for image in gateway.get("/api/list/cluster", munge.credential()).json["list"] for tag in image["tag"]}
    assert "shown:1" in shown
    assert "hidden:1" not in shown
    gateway.post("/api/pull/cluster/docker/queued:1", munge.credential(uid=4002))
    queue = gateway.get("/api/queue/cluster", munge.credential()).json["list"]
    assert {"status": "PENDING", "image": "queued:1"} in queue


def test_metrics_are_for_admins(gateway: GatewayServer, munge: Munged, store: ImageStore) -> None:
    for number in range(12):
        store.add_metric(Metric("alice", 500, "cluster", "docker", f"m:{number}", ID, 1e9 + number))
    store.add_metric(Metric("alice", 500, "other", "docker", "foreign:1", ID, 1e9))
    path = "/api/metrics/cluster/"
    assert gateway.get(path, munge.credential(uid=4003)).json == []
    everything = gateway.get(f"{path}?limit=9999", munge.credential()).json
    assert {metric["system"] for metric in everything} == {"cluster"}
    assert len(gateway.get(path, munge.credential()).json) == 10
    assert set(everything[0]) == {"user", "uid", "system", "type", "tag", "id", "time"}
    assert gateway.get(f"{path}?limit=2", munge.credential()).json == everything[-2:]
    assert gateway.get(f"{path}?limit=0", munge.credential()).json == []
    assert gateway.get(f"{path}?limit=-3", munge.credential()).json == []
    for limit in ("x", "", "1.5", "1e3", "9" * 30):
        assert gateway.get(f"{path}?limit={limit}", munge.credential()).status == 400


def test_verbs_of_later_releases_do_nothing_and_say_so(
    gateway: GatewayServer, munge: Munged, store: ImageStore
) -> None:
    image = ready(store, "kept:1")
    expire, autoexpire = "/api/expire/cluster/docker/kept:1/", "/api/autoexpire/cluster/"
    body = '{"filepath": "/etc/passwd", "format": "squashfs"}'
    for path in (expire, autoexpire):
        answer = gateway.get(path, munge.credential(uid=4004))
        assert (answer.status, answer.json) == (200, {"status": False})
        refused = gateway.get(path, munge.credential())
        assert (refused.status, "not in this version" in refused.json["error"]) == (501, True)
    path = "/api/doimport/cluster/custom/x:1/"
    assert gateway.post(path, munge.credential(uid=4004), body).status == 403
    assert gateway.post(path, munge.credential(), body).status == 501
    assert store.get(image.record_id) == image


def test_every_request_has_a_line_in_the_log_and_no_secrets(gateway: GatewayServer, munge: Munged) -> None:
    credential = munge.credential('{"authorized_locations": {"default": "alice:hunter2"}}', uid=4005)
    gateway.get("/api/lookup/cluster/docker/logged%0a%1b:1/?limit=1", credential)
    record = next(entry for entry in gateway.log_records if "logged%0a" in entry["message"])
    expected = {"level": "info", "method": "GET", "status": 404, "uid": 4005, "logger": "shifter_imagegw.access"}
    assert {key: record[key] for key in expected} == expected
    assert record["path"] == "/api/lookup/cluster/docker/logged%0a%1b:1/"
    assert isinstance(record["ms"], float)
    assert "MUNGE:" not in gateway.log
    assert "hunter2" not in gateway.log


def test_a_bug_shows_an_id_and_nothing_else(
    client: FlaskClient, munge: Munged, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr("shifter_imagegw.manager.ImageManager.list_images", broken)
    answer = client.get("/api/list/cluster/", headers={"authentication": munge.credential()})
    assert answer.status_code == 500
    assert answer.content_type == "application/json"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    error_id = answer.get_json()["error"].split()[2].rstrip(":")
    assert any(error_id in record.getMessage() and record.exc_info for record in caplog.records)


def test_the_server_outlives_munged_and_the_database(tmp_path: Path) -> None:
    with munged() as own:
        (tmp_path / "db").mkdir(mode=0o700)
        config = write_configuration(tmp_path, own.socket, MongoDBURI=f"sqlite://{tmp_path}/db/images.sqlite")
        with gateway_server(config, "--workers", "1") as gateway:
            (tmp_path / "db").rename(tmp_path / "gone")
            lost = gateway.get("/api/health/")
            assert (lost.status, "database" in lost.json["error"]) == (503, True)
            (tmp_path / "gone").rename(tmp_path / "db")
            assert gateway.get("/api/health/").status == 200
            credential = own.credential()
            own.stop()
            absent = gateway.get("/api/list/cluster/", credential)
            assert (absent.status, "munged" in absent.json["error"]) == (503, True)
            own.start()
            assert gateway.get("/api/list/cluster/", own.credential()).status == 200


def test_a_sites_own_gunicorn(tmp_path: Path, munge: Munged) -> None:
    config = write_configuration(tmp_path, munge.socket)
    port = free_port()
    command = [
        sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--backlog", "2048", "--workers", "2",
        "--access-logfile", str(tmp_path / "access.log"), "--no-control-socket", "shifter_imagegw.api:app",
    ]  # fmt: skip
    environment = {"GWCONFIG": str(config), "HOME": "/nonexistent"}
    with http_server(command, port, tmp_path / "gunicorn.log", environment) as server:
        assert server.get("/api/list/cluster/", munge.credential()).json == {"list": []}
        assert server.get("/api/lookup/cluster/docker/a%2Fb%3A1/", munge.credential()).status == 404
    assert "GET /api/list/cluster/" in (tmp_path / "access.log").read_text()


def test_without_a_configuration_the_application_says_where_it_looked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import shifter_imagegw.api

    monkeypatch.setenv("GWCONFIG", str(tmp_path / "absent.json"))
    with pytest.raises(Exception, match=r"absent\.json"):
        _ = shifter_imagegw.api.app


def test_a_failure_is_shown_with_its_reason(gateway: GatewayServer, munge: Munged, store: ImageStore) -> None:
    store.insert(
        Image("cluster", "docker", "failed:1", FAILURE, status_message="no such image", last_pull=time.time(),
              requested_by=4006, user_acl=(), group_acl=())
    )  # fmt: skip
    answer = gateway.post("/api/pull/cluster/docker/failed:1", munge.credential(uid=4006)).json
    assert (answer["status"], answer["status_message"], answer["id"]) == ("FAILURE", "no such image", "MISSING")


def test_files_of_the_gateway_are_for_its_account_only(gateway: GatewayServer, config: Path) -> None:
    assert gateway.process.poll() is None
    modes = {path.name: path.stat().st_mode & 0o077 for path in config.parent.glob("images.sqlite*")}
    assert modes
    assert set(modes.values()) == {0}
    assert os.access(config, os.R_OK)
