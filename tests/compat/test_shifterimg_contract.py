# SPDX-License-Identifier: BSD-3-Clause
"""What scripts and the launcher rely on: formats, URLs and files of the historic client (gateway contract, 15)."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.munged import Munged
from tests.scriptedgateway import IMAGE_ID, LoginNode, Reply, image, in_flight, login_node, scripted_gateway
from udiroot.shifterimg import logins
from udiroot.shifterimg.munge import Munge

PROGRESS = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d Pulling Image: %s, status: %s"


@pytest.fixture
def node(munge: Munged, tmp_path: Path) -> LoginNode:
    return login_node(munge, tmp_path)


@pytest.mark.parametrize(
    ("typed", "segments"),
    [
        ("alpine", "docker/alpine"),
        ("docker:ubuntu:24.04", "docker/ubuntu%3A24.04"),
        ("alice/solver:1.2", "docker/alice%2Fsolver%3A1.2"),
        ("docker:host:5000/a/b_c-d+e", "docker/host%3A5000%2Fa%2Fb_c-d%2Be"),
        ("a@sha256:" + "0" * 64, "docker/a%40sha256%3A" + "0" * 64),
        ("custom:mine:1", "custom/mine%3A1"),
    ],
)
def test_urls(node: LoginNode, typed: str, segments: str) -> None:
    """Type and tag are single segments, the URL ends in a slash, and the client adds no version (15.3)."""
    with scripted_gateway(node.munge, lookup=image()) as gateway:
        node.configure(gateway.url)
        assert node.run("lookup", typed).returncode == 0
        node.configure(f"{gateway.url}/")
        node.run("lookup", typed)
    assert [(call.method, call.path) for call in gateway.calls] == [("GET", f"/api/lookup/mycluster/{segments}/")] * 2


def test_lists_have_no_image_in_their_url(node: LoginNode) -> None:
    with scripted_gateway(node.munge, list={"list": []}, autoexpire={"status": []}) as gateway:
        node.configure(gateway.url)
        assert node.run("images").returncode == 0
        assert node.run("autoexpire").returncode == 0
    assert [call.path for call in gateway.calls] == ["/api/list/mycluster/", "/api/autoexpire/mycluster/"]
    assert {call.headers["authentication"][:6] for call in gateway.calls} == {"MUNGE:"}


def test_the_line_of_images(node: LoginNode) -> None:
    stamp = time.mktime((2026, 11, 23, 17, 59, 23, 0, 0, -1)) + 0.5
    records = [image(last_pull=stamp, tag=["b:1", "alpine:latest"]), image(tag=[]), image(tag="Zeta", itype="custom")]
    with scripted_gateway(node.munge, list={"list": records}) as gateway:
        node.configure(gateway.url)
        lines = node.run("images").stdout.split("\n")
    assert lines[1] == "mycluster  docker     READY    468b48e386   2026-11-23T17:59:23 alpine:latest                 "
    assert [line[64:].rstrip() for line in lines] == ["Zeta", "alpine:latest", "b:1", ""]
    assert lines[0].startswith("mycluster  custom     READY    468b48e386   ")


def test_lookup_prints_the_id_alone(node: LoginNode) -> None:
    """The launcher takes the first line without a colon, and insists on status 0."""
    with scripted_gateway(node.munge, lookup=image()) as gateway:
        node.configure(gateway.url)
        done = node.run("lookup", "docker:alpine:latest")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{IMAGE_ID}\n", "")


def test_the_launchers_environment_will_do(node: LoginNode) -> None:
    """No HOME, no LANG, no TERM, nothing at all."""
    with scripted_gateway(node.munge, lookup=image()) as gateway:
        node.configure(gateway.url)
        done = subprocess.run(
            node.command("lookup", "docker:alpine"), env={}, capture_output=True, text=True, timeout=120, cwd="/"
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{IMAGE_ID}\n", "")


def test_slashes_may_be_escaped(node: LoginNode) -> None:
    body = json.dumps({"list": [image(tag=["alice/solver:1"])]}).replace("/", "\\/").encode()
    with scripted_gateway(node.munge, list=Reply(200, body)) as gateway:
        node.configure(gateway.url)
        assert "alice/solver:1 " in node.run("images").stdout


@pytest.mark.parametrize(
    "in_between", ["MISSING", "INIT", "PENDING", "PULLING", "EXAMINATION", "CONVERSION", "TRANSFER"]
)
def test_the_states_that_keep_a_pull_going(node: LoginNode, in_between: str) -> None:
    with scripted_gateway(node.munge, pull=[in_flight(in_between), image()]) as gateway:
        node.configure(gateway.url)
        done = node.run("pull", "alice/solver:1.2")
    name = "docker:alice/solver:1.2"
    assert done.returncode == 0
    assert re.fullmatch(PROGRESS % (name, in_between) + "\n" + PROGRESS % (name, "READY") + "\n", done.stdout)
    assert len(gateway.calls) == 2


def test_lists_of_ids_are_comma_separated_strings(node: LoginNode) -> None:
    with scripted_gateway(node.munge, pull=image()) as gateway:
        node.configure(gateway.url)
        assert node.run("--user", "1,2", "--user", "3", "--group", "4", "pull", "x").returncode == 0
        assert node.run("pull", "x").returncode == 0
    assert [call.body for call in gateway.calls] == [b'{"allowed_uids":"1,2,3","allowed_gids":"4"}', b""]


def test_verbose_shows_raw_answers(node: LoginNode) -> None:
    refused = Reply(404, {"status": 404, "error": "image not found", "message": "Not Found: x"})
    with scripted_gateway(node.munge, list={"list": []}, lookup=refused, expire={"status": True}) as gateway:
        node.configure(gateway.url)
        assert node.run("-v", "images").stdout == 'Message: {"list": []}\n'
        assert node.run("--verbose", "expire", "x").stdout == 'Message: {"status": true}\n'
        assert node.run("expire", "x").stdout == ""
        lines = node.run("-v", "lookup", "x").stdout.splitlines()
    assert lines[0] == "Got response: 404"
    assert lines[1].startswith('Message: {"status": 404, "error": "image not found"')


@pytest.mark.parametrize(
    ("mode", "answer", "status"),
    [
        ("images", {"list": []}, 0),
        ("images", {"list": [image(tag=[])]}, 0),
        ("lookup x", image(), 0),
        ("lookup x", Reply(404, {"status": 404, "error": "image not found"}), 1),
        ("pull x", image(), 0),
        ("pull x", in_flight("FAILURE", "no such tag"), 1),
        ("pullnb x", in_flight("CONVERSION"), 0),
        ("pullnb x", image(), 0),
        ("pullnb x", in_flight("FAILURE"), 1),
        ("expire x", {"status": True}, 0),
        ("expire x", {"status": False}, 1),
        ("expire x", {"status": None}, 1),
        ("autoexpire", {"status": [IMAGE_ID]}, 0),
        ("autoexpire", {"status": False}, 1),
    ],
)
def test_exit_statuses(node: LoginNode, mode: str, answer: object, status: int) -> None:
    """0 done, 1 it did not work, 2 wrong usage (docs/adr/0004-exit-status.md corrects 15.8)."""
    verbs = dict.fromkeys(("list", "lookup", "pull", "expire", "autoexpire"), answer)
    with scripted_gateway(node.munge, **verbs) as gateway:
        node.configure(gateway.url)
        done = node.run(*mode.split())
    assert done.returncode == status
    assert (done.stderr == "") == (status == 0)


def test_a_file_of_the_historic_client_is_read(munge: Munged, tmp_path: Path) -> None:
    lines = [
        "# logins",
        f"mycluster:default={munge.credential('alice:secret')}",
        f"mycluster:registry.example:5000={munge.credential('bob:pw:with:colons')}",
        f"elsewhere:default={munge.credential('carl:x')}",
    ]
    file = tmp_path / ".udiRoot/.cred"
    file.parent.mkdir(mode=0o700)
    file.write_text("".join(f"{line}\n" for line in lines))
    file.chmod(0o600)
    warnings: list[str] = []
    found = logins.payload(str(tmp_path), "mycluster", Munge(str(munge.socket)), warnings.append)
    assert json.loads(found) == {
        "authorized_locations": {"default": "alice:secret", "registry.example:5000": "bob:pw:with:colons"}
    }
    assert warnings == []
    logins.store(str(tmp_path), "mycluster:default", "MUNGE:new:", warnings.append)
    assert file.read_text().splitlines() == [lines[0], lines[2], lines[3], "mycluster:default=MUNGE:new:"]
