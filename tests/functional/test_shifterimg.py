# SPDX-License-Identifier: BSD-3-Clause
"""shifterimg against scripted gateways, with credentials of a real munged."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.munged import Munged
from tests.scriptedgateway import IMAGE_ID, LoginNode, Reply, image, in_flight, login_node, scripted_gateway
from tests.scriptedserver import Request
from tests.terminal import Terminal


@pytest.fixture
def node(munge: Munged, tmp_path: Path) -> LoginNode:
    return login_node(munge, tmp_path)


@contextlib.contextmanager
def dead_url() -> Iterator[str]:
    """A port that nobody listens on, and nobody else can take meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_every_request_has_a_fresh_credential_of_the_caller(node: LoginNode) -> None:
    pulled = [in_flight("INIT"), in_flight("PULLING"), image()]
    with scripted_gateway(node.munge, pull=pulled) as gateway:
        node.configure(gateway.url)
        done = node.run("pull", "alpine", "-u", "1000,1001", "-g", "1002")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.rpartition(" ")[2] for line in done.stdout.splitlines()] == ["INIT", "PULLING", "READY"]
    assert len(gateway.calls) == 3
    assert len({call.headers["authentication"] for call in gateway.calls}) == 3
    for call in gateway.calls:
        assert (call.method, call.path) == ("POST", "/api/pull/mycluster/docker/alpine/")
        assert call.body == b'{"allowed_uids":"1000,1001","allowed_gids":"1002"}'
        assert call.headers["Content-type"] == "application/json"
        assert (call.uid, call.payload) == (os.getuid(), "")


def test_a_failed_pull_says_why(node: LoginNode) -> None:
    with scripted_gateway(node.munge, pull=[in_flight("INIT"), in_flight("FAILURE", "manifest unknown")]) as gateway:
        node.configure(gateway.url)
        done = node.run("pull", "alpine:9")
    assert done.returncode == 1
    assert done.stderr == "shifterimg: docker:alpine:9: the pull ended with FAILURE: manifest unknown\n"
    assert done.stdout.splitlines()[-1].endswith("status: FAILURE")


def test_a_ready_image_is_not_polled(node: LoginNode) -> None:
    with scripted_gateway(node.munge, pull=image()) as gateway:
        node.configure(gateway.url)
        assert node.run("pull", "alpine").returncode == 0
    assert len(gateway.calls) == 1


@pytest.mark.parametrize(
    ("answer", "status"),
    [(in_flight("PENDING"), 0), (image(), 0), (in_flight("FAILURE", "no"), 1), (image(status="EXPIRED"), 1)],
)
def test_pullnb_asks_once(node: LoginNode, answer: object, status: int) -> None:
    with scripted_gateway(node.munge, pull=answer) as gateway:
        node.configure(gateway.url)
        done = node.run("pullnb", "alpine")
    assert done.returncode == status
    assert len(done.stdout.splitlines()) == len(gateway.calls) == 1


def test_json(node: LoginNode) -> None:
    queued = {"list": [{"status": "PULLING", "image": "alpine"}]}
    with scripted_gateway(
        node.munge, list={"list": [image()]}, lookup=image(), queue=queued, pull=[in_flight("INIT"), image()]
    ) as gateway:
        node.configure(gateway.url)
        assert json.loads(node.run("images", "--json").stdout) == [image()]
        assert json.loads(node.run("--json", "lookup", "alpine").stdout) == image()
        assert json.loads(node.run("queue", "--json").stdout) == queued["list"]
        done = node.run("pull", "--json", "alpine")
        assert (json.loads(done.stdout), done.stderr) == (image(), "")
        gateway.answers["pull"] = [in_flight("INIT"), image()]
        done = node.run("pull", "--json", "-v", "alpine")
    assert json.loads(done.stdout) == image()
    assert re.findall(r"status: (\w+)\n", done.stderr) == ["INIT", "READY"]


def test_queue_and_the_modes_of_administrators(node: LoginNode) -> None:
    queued = {"list": [{"status": "PULLING", "image": "alpine:latest"}, "nonsense"]}
    with scripted_gateway(
        node.munge, queue=queued, expire=[{"status": True}, {"status": False}, {"status": None}],
        autoexpire=[{"status": [IMAGE_ID]}, {"status": False}],
    ) as gateway:  # fmt: skip
        node.configure(gateway.url)
        assert node.run("queue").stdout == "PULLING      alpine:latest\n"
        expired = [node.run("expire", "alpine") for _ in range(3)]
        assert [done.returncode for done in expired] == [0, 1, 1]
        assert "administrator" in expired[1].stderr
        assert "no such image" in expired[2].stderr
        assert [node.run("autoexpire").returncode for _ in range(2)] == [0, 1]
        assert {done.stdout for done in expired} == {""}
    assert [call.path for call in gateway.calls][1] == "/api/expire/mycluster/docker/alpine/"


GARBAGE = [
    Reply(200, b"<html>hello</html>"),
    Reply(200, b"[]"),
    Reply(200, b'{"list":'),
    Reply(200, b"[" * 100_000),
    Reply(200, b"\xff\xfe"),
    Reply(200, {"unexpected": 1}),
    Reply(500, b"<h1>Internal Server Error</h1>"),
    Reply(502, b""),
    Reply(404, b"<h1>wrong server</h1>"),
    Reply(401, {"status": 401, "error": "credential rejected", "message": "x"}),
    Reply(503, {"status": 503, "error": "database gone", "message": "x"}),
    Reply(302, b"", {"Location": "http://elsewhere.invalid/"}),
    Reply(200, b"compressed", {"Content-Encoding": "gzip"}),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda reply: f"{reply.status}-{str(reply.body)[:12]}")
def test_a_broken_gateway_is_passed_over_and_named_if_it_is_the_only_one(node: LoginNode, garbage: Reply) -> None:
    with scripted_gateway(node.munge, list=garbage) as broken:
        node.configure(broken.url)
        done = node.run("images")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("shifterimg: failed to contact the image gateway: " + broken.url)
        assert "Traceback" not in done.stderr
        assert "elsewhere" not in done.stderr
        with scripted_gateway(node.munge, list={"list": [image()]}) as good:
            node.configure(broken.url, good.url)
            assert "alpine:latest" in node.run("images").stdout


@pytest.mark.parametrize("words", ["lookup x", "pull x", "pullnb x", "queue", "expire x", "autoexpire"])
def test_no_mode_believes_a_broken_gateway(node: LoginNode, words: str) -> None:
    verbs = ("lookup", "pull", "queue", "expire", "autoexpire")
    with scripted_gateway(node.munge, **dict.fromkeys(verbs, Reply(200, b"<html>hello</html>"))) as broken:
        node.configure(broken.url)
        done = node.run(*words.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert "is it an image gateway?" in done.stderr


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_refusal_is_final(node: LoginNode, status: int) -> None:
    no = Reply(status, {"status": status, "error": "image not found", "message": "Not Found: http://x/"})
    with scripted_gateway(node.munge, lookup=no) as one, scripted_gateway(node.munge, lookup=no) as two:
        node.configure(one.url, two.url)
        done = node.run("lookup", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("shifterimg: docker:x: not ") or status == 400
    assert "image not found" in done.stderr
    assert len(one.calls) + len(two.calls) == 1


@pytest.mark.parametrize("mode", ["pull", "pullnb", "expire", "images", "queue"])
def test_a_refusal_names_what_was_refused(node: LoginNode, mode: str) -> None:
    no = Reply(403, {"status": 403, "error": "you are not on the list", "message": "x"})
    with scripted_gateway(node.munge, pull=no, expire=no, list=no, queue=no) as gateway:
        node.configure(gateway.url)
        done = node.run(mode, "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not permitted: you are not on the list" in done.stderr


def test_unreachable_gateways_are_all_named(node: LoginNode) -> None:
    with dead_url() as one, dead_url() as two:
        node.configure(one, two, "http://no-such-host.invalid:5000", "ftp://x", "http://u:p@h")
        done = node.run("lookup", "x")
    assert (done.returncode, done.stdout) == (1, "")
    refused = f"{one}: connection failed: Connection refused"
    for part in (refused, f"{two}: ", "no-such-host.invalid", "ftp://x: not a URL", "http://u:p@h: not a URL"):
        assert part in done.stderr


def test_gateways_are_asked_in_random_order(node: LoginNode) -> None:
    with scripted_gateway(node.munge, lookup=image()) as one, scripted_gateway(node.munge, lookup=image()) as two:
        node.configure(one.url, two.url)
        for _ in range(40):
            node.run("lookup", "x")
            if one.calls and two.calls:
                break
    assert one.calls
    assert two.calls


def test_a_gateway_may_restart_during_a_pull(node: LoginNode) -> None:
    trouble = [Reply(503, {"status": 503}), Reply(502, b"starting")]
    with scripted_gateway(node.munge, pull=[in_flight("PULLING"), *trouble, image()]) as gateway:
        node.configure(gateway.url)
        done = node.run("pull", "x")
    assert done.returncode == 0
    assert done.stderr.count("trying again") == 1
    assert [line.rpartition(" ")[2] for line in done.stdout.splitlines()] == ["PULLING", "READY"]


def test_a_note_does_not_stand_in_the_live_line(node: LoginNode) -> None:
    with scripted_gateway(node.munge, pull=[in_flight("PULLING"), Reply(502, b"starting"), image()]) as gateway:
        node.configure(gateway.url)
        terminal = Terminal(node.command("pull", "x"), columns=200)
        assert terminal.finish() == 0
    lines = terminal.seen.decode().replace("\r\n", "\n").split("\n")
    assert [line.startswith("shifterimg: failed to contact") for line in lines] == [False, True, False, False]


def test_proxy_variables_are_not_used(node: LoginNode) -> None:
    with dead_url() as proxy, scripted_gateway(node.munge, lookup=image()) as gateway:
        node.configure(gateway.url)
        done = node.run("lookup", "x", env={"http_proxy": proxy, "HTTP_PROXY": proxy, "ALL_PROXY": proxy})
    assert done.stdout == f"{IMAGE_ID}\n"


def test_a_time_out_is_for_the_whole_request(node: LoginNode) -> None:
    def drip(request: Request) -> None:
        request.head(200, {"Content-Length": "100000"})
        with contextlib.suppress(OSError):
            while True:
                request.wfile.write(b" ")
                request.wfile.flush()
                time.sleep(0.1)

    with scripted_gateway(node.munge, lookup=drip) as gateway:
        node.configure(gateway.url, gatewayTimeout="1")
        done = node.run("lookup", "x")
    assert done.returncode == 1
    assert "no complete answer within" in done.stderr


@pytest.mark.parametrize("identifier", [None, "MISSING", "", 7, "../../etc", "a b", "docker:x", "\x1b[2J"])
def test_no_id_no_output(node: LoginNode, identifier: object) -> None:
    with scripted_gateway(node.munge, lookup=image(id=identifier)) as gateway:
        node.configure(gateway.url)
        done = node.run("lookup", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "gives no id" in done.stderr


def test_unknown_names_are_refused_before_any_request(node: LoginNode) -> None:
    with scripted_gateway(node.munge, pull=image()) as gateway:
        node.configure(gateway.url)
        for option in (["-u", "no-such-user"], ["-g", "no-such-group"], ["-u", ""]):
            done = node.run("pull", *option, "x")
            assert (done.returncode, done.stdout) == (2, "")
            assert "Traceback" not in done.stderr
    assert gateway.calls == []


@pytest.mark.parametrize("name", ["", "a b", "docker:", "id:0123", "local:/tmp", "x;y", "ä", "x\n", "\udcff"])
def test_impossible_images_are_wrong_usage(node: LoginNode, name: str) -> None:
    with scripted_gateway(node.munge, lookup=image(), pull=image()) as gateway:
        node.configure(gateway.url)
        for mode in ("lookup", "pull"):
            done = node.run(mode, name)
            assert (done.returncode, done.stdout) == (2, ""), done.stderr
            assert done.stderr.startswith("shifterimg: ")
            assert "Traceback" not in done.stderr
    assert gateway.calls == []


def test_no_munged(node: LoginNode, tmp_path: Path) -> None:
    command = [word.replace(str(node.munge.socket), str(tmp_path / "none")) for word in node.command("images")]
    with scripted_gateway(node.munge, list={"list": []}) as gateway:
        node.configure(gateway.url)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "munged" in done.stderr
    assert "Traceback" not in done.stderr
    assert gateway.calls == []


@pytest.mark.parametrize("words", [["\udcff"], ["--\udcff"], ["pull", "-u", "\udcff", "x"], ["login", "\udcff"]])
def test_bytes_that_are_no_text(node: LoginNode, words: list[str]) -> None:
    node.configure("http://127.0.0.1:9")
    done = node.run(*words, start_new_session=True)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", ["system", "imageGateway"])
def test_an_incomplete_configuration(node: LoginNode, missing: str) -> None:
    node.configure("http://127.0.0.1:9", **{missing: ""})
    done = node.run("images")
    assert done.returncode == 1
    assert f"no `{missing}`" in done.stderr


def test_a_configuration_of_another_account_is_read_but_not_one_that_others_can_write(node: LoginNode) -> None:
    with scripted_gateway(node.munge, lookup=image()) as gateway:
        node.configure(gateway.url, futureKey="1")
        os.chown(node.conf, 65534, 65534)
        assert node.run("lookup", "x").stdout == f"{IMAGE_ID}\n"
        assert "futureKey" in node.run("-v", "--json", "lookup", "x").stderr
        node.conf.chmod(0o664)
        done = node.run("lookup", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "can be written by others" in done.stderr


def test_help_and_version_need_no_configuration(node: LoginNode) -> None:
    node.conf.unlink()
    assert node.run("--help").stdout.startswith("Usage: shifterimg ")
    assert node.run("--version").stdout.startswith("shifterimg ")
    done = node.run("images")
    assert done.returncode == 1
    assert done.stderr.startswith("shifterimg: FAILED to parse udiRoot configuration.")


def test_output_that_cannot_be_written(node: LoginNode) -> None:
    with scripted_gateway(node.munge, list={"list": [image(tag=[f"t:{i}" for i in range(9000)])]}) as gateway:
        node.configure(gateway.url)
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                node.command("images"), stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
            )
        assert done.returncode == 1
        assert done.stderr == "shifterimg: reading or writing failed: [Errno 28] No space left on device\n"
        reader = subprocess.Popen(node.command("images"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert reader.stdout is not None
        assert reader.stderr is not None
        with reader:
            reader.stdout.readline()
            reader.stdout.close()
            assert reader.stderr.read() == b""
            assert reader.wait(60) == 1


def test_any_locale_will_do(node: LoginNode) -> None:
    with scripted_gateway(node.munge, list={"list": [image(tag=["é:1"])]}) as gateway:
        node.configure(gateway.url)
        for locale in ({}, {"LC_ALL": "POSIX"}, {"LC_ALL": "C.UTF-8"}, {"LC_ALL": "nonsense"}):
            done = node.run("images", env=locale, encoding="utf-8")
            assert done.returncode == 0
            assert " é:1" in done.stdout or " \\xe9:1" in done.stdout


def test_live_progress_on_a_terminal(node: LoginNode) -> None:
    layers = [in_flight("PULLING", f"Pulling layers: {done}000000/40000000 bytes") for done in (10, 20, 40)]
    with scripted_gateway(node.munge, pull=[in_flight("INIT"), *layers, image()]) as gateway:
        node.configure(gateway.url)
        terminal = Terminal(node.command("pull", "alpine"), columns=140)
        assert terminal.finish() == 0
    text = terminal.seen.decode()
    assert "Pulling layers 20.0 MB of 40.0 MB, " in text
    assert "MB/s" in text
    assert text.count("\n") == 1
    last = text.rstrip().split("\x1b[2K")[-1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d Pulling Image: docker:alpine, status: READY", last)


def test_an_interrupted_pull_goes_on(node: LoginNode) -> None:
    with scripted_gateway(node.munge, pull=in_flight("PULLING")) as gateway:
        node.configure(gateway.url)
        terminal = Terminal(node.command("pull", "alpine"))
        terminal.until(b"status: PULLING")
        os.write(terminal.master, b"\x03")
        assert terminal.finish() == 130
    last = terminal.seen.decode().splitlines()[-1]
    assert "the pull goes on at the gateway" in last
    assert last.startswith("shifterimg: docker:alpine: ")


def test_an_interruption_before_the_first_answer(node: LoginNode) -> None:
    asked = threading.Event()

    def wait(request: Request) -> None:
        asked.set()
        time.sleep(2)

    with scripted_gateway(node.munge, pull=wait) as gateway:
        node.configure(gateway.url)
        process = subprocess.Popen(node.command("pull", "x"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in messages
