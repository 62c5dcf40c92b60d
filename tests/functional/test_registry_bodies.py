# SPDX-License-Identifier: BSD-3-Clause
"""Interrupted, slow, wrong and endless answers: the client continues where it can and gives up where it must."""

from __future__ import annotations

import email.utils
import threading
import time

import pytest

from shifter_imagegw.errors import (
    BlobTruncated,
    DigestMismatch,
    ManifestInvalid,
    RegistryError,
    RegistryUnreachable,
)
from shifter_imagegw.registry.client import HttpSettings, RegistryClient
from shifter_imagegw.registry.location import Location
from shifter_imagegw.registry.manifest import OciPlatform
from tests.registryserver import OCI_MANIFEST, digest_of
from tests.scriptedserver import FakeImage, Request, Script, ScriptedServer, fake_image, scripted_server, serve_image

IMAGE = fake_image()
QUICK = HttpSettings(retries=2, backoff=0.01, connect_timeout=5, read_timeout=5)
IMPATIENT = HttpSettings(retries=1, backoff=0.01, connect_timeout=5, read_timeout=0.2)


def pull(server: ScriptedServer, http: HttpSettings = QUICK) -> bytes:
    """Resolve and read the only layer of the image that the server has."""
    with RegistryClient(Location("reg", server.url), http=http) as client:
        image = client.resolve("proj/app", "v1", OciPlatform())
        with client.open_blob("proj/app", image.layers[0]) as chunks:
            return b"".join(chunks)


def in_turn(*scripts: Script) -> Script:
    """A script that answers each request with the next of ``scripts``; the last one stays."""
    left = list(scripts)

    def script(request: Request) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(request)

    return script


def cut_at(position: int, image: FakeImage = IMAGE) -> Script:
    """The whole length is promised, the connection ends after ``position`` bytes."""

    def script(request: Request) -> None:
        request.head(200, {"Content-Length": str(len(image.layer))})
        request.wfile.write(image.layer[:position])
        request.hang_up()

    return script


def ranged(request: Request) -> None:
    """Serve the rest that was asked for."""
    start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
    size = len(IMAGE.layer)
    request.reply(206, IMAGE.layer[start:], {"Content-Range": f"bytes {start}-{size - 1}/{size}"})


def whole(request: Request) -> None:
    request.reply(200, IMAGE.layer)


def status(code: int, **headers: str) -> Script:
    def script(request: Request) -> None:
        request.reply(code, b"{}", {name.replace("_", "-"): value for name, value in headers.items()})

    return script


def test_dropped_connection_continues_with_a_range() -> None:
    with scripted_server(serve_image(IMAGE, in_turn(cut_at(100000), ranged))) as server:
        assert pull(server) == IMAGE.layer
        ranges = [headers.get("Range") for headers in server.headers_of(IMAGE.layer_digest)]
    assert ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize("again", [whole, in_turn(status(416), whole)], ids=["ignored", "refused"])
def test_server_without_ranges_sends_the_whole_again(again: Script) -> None:
    with scripted_server(serve_image(IMAGE, in_turn(cut_at(100000), again))) as server:
        assert pull(server) == IMAGE.layer


def test_range_at_the_wrong_place_is_not_used() -> None:
    def shifted(request: Request) -> None:
        size = len(IMAGE.layer)
        request.reply(206, IMAGE.layer[5:], {"Content-Range": f"bytes 5-{size - 1}/{size}"})

    with scripted_server(serve_image(IMAGE, in_turn(cut_at(100000), shifted, whole))) as server:
        assert pull(server) == IMAGE.layer


def test_change_between_two_connections_is_found() -> None:
    def other(request: Request) -> None:
        request.reply(200, b"x" * len(IMAGE.layer))

    with (
        scripted_server(serve_image(IMAGE, in_turn(cut_at(100000), other))) as server,
        pytest.raises(DigestMismatch, match=IMAGE.layer_digest),
    ):
        pull(server)


def test_server_that_always_drops_is_given_up() -> None:
    with scripted_server(serve_image(IMAGE, cut_at(100000))) as server:
        with pytest.raises(
            BlobTruncated, match=r"in the middle of the answer; .* only 100000 of 250000 bytes arrived in all attempts"
        ):
            pull(server)
        assert len(server.headers_of(IMAGE.layer_digest)) == QUICK.retries + 1


def test_one_byte_per_connection_is_no_progress() -> None:
    def one_more(request: Request) -> None:
        asked = request.headers.get("Range", "bytes=0-")
        start, size = int(asked[6:-1]), len(IMAGE.layer)
        request.head(206 if start else 200, {"Content-Range": f"bytes {start}-{size - 1}/{size}"})
        request.wfile.write(IMAGE.layer[start : start + 1])
        request.hang_up()

    with scripted_server(serve_image(IMAGE, one_more)) as server:
        with pytest.raises(BlobTruncated):
            pull(server)
        assert len(server.headers_of(IMAGE.layer_digest)) == QUICK.retries + 1


def test_real_progress_earns_new_attempts() -> None:
    image = fake_image(b"z" * 100000)

    def some_more(request: Request) -> None:
        asked = request.headers.get("Range", "bytes=0-")
        start, size = int(asked[6:-1]), len(image.layer)
        request.head(206 if start else 200, {"Content-Range": f"bytes {start}-{size - 1}/{size}"})
        request.wfile.write(image.layer[start : start + 10000])
        request.hang_up()

    generous = HttpSettings(retries=1, backoff=0.01, connect_timeout=5, read_timeout=5, resume_credit=10000)
    with scripted_server(serve_image(image, some_more)) as server:
        assert pull(server, generous) == image.layer


def test_body_longer_than_promised_by_the_manifest() -> None:
    def longer(request: Request) -> None:
        request.head(200, {"Connection": "close"})
        request.wfile.write(IMAGE.layer + b"more")
        request.hang_up()

    with (
        scripted_server(serve_image(IMAGE, longer)) as server,
        pytest.raises(BlobTruncated, match=r"more than the 250000 bytes"),
    ):
        pull(server)


def test_body_of_another_announced_length_is_not_even_read() -> None:
    def announced(request: Request) -> None:
        request.reply(200, IMAGE.layer[:-1])

    with (
        scripted_server(serve_image(IMAGE, announced)) as server,
        pytest.raises(BlobTruncated, match=r"249999 bytes offered, the manifest promises 250000"),
    ):
        pull(server)


def test_chunked_body_that_ends_early_is_truncated() -> None:
    def chunked(request: Request) -> None:
        request.head(200, {"Transfer-Encoding": "chunked"})
        request.wfile.write(b"5\r\nlayer\r\n0\r\n\r\n")

    with (
        scripted_server(serve_image(IMAGE, chunked)) as server,
        pytest.raises(BlobTruncated, match="only 5 of 250000 bytes"),
    ):
        pull(server)


def test_wrong_content_of_the_right_length_is_a_digest_mismatch() -> None:
    with (
        scripted_server(serve_image(IMAGE, lambda r: r.reply(200, b"L" + IMAGE.layer[1:]))) as server,
        pytest.raises(DigestMismatch, match=f"{IMAGE.layer_digest} of proj/app: the content has digest sha256:"),
    ):
        pull(server)


def test_content_encoding_is_not_undone() -> None:
    """Storage services label stored gzip layers so; the digest is that of the bytes as sent."""
    with scripted_server(
        serve_image(IMAGE, lambda r: r.reply(200, IMAGE.layer, {"Content-Encoding": "gzip"}))
    ) as server:
        assert pull(server) == IMAGE.layer


def test_empty_blob_of_size_zero_is_read() -> None:
    image = fake_image(b"")
    with scripted_server(serve_image(image)) as server:
        assert pull(server) == b""


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_passing_failures_are_repeated(code: int) -> None:
    good = serve_image(IMAGE)
    with scripted_server(in_turn(status(code), status(code, Retry_After="0"), good)) as server:
        assert pull(server) == IMAGE.layer


def test_lasting_failure_ends_after_all_attempts() -> None:
    with scripted_server(status(503)) as server:
        with pytest.raises(RegistryUnreachable, match=r"proj/app:v1: .*HTTP 503"):
            pull(server)
        assert len(server.requests) == QUICK.retries + 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_long_pause_that_a_registry_asks_for_is_reported_not_waited(form: str) -> None:
    value = "86400" if form == "seconds" else email.utils.formatdate(time.time() + 86400, usegmt=True)
    with scripted_server(status(429, Retry_After=value)) as server:
        with pytest.raises(RegistryUnreachable, match=r"too many requests.*HTTP 429.*come back in 86[34]\d\d seconds"):
            pull(server)
        assert len(server.requests) == 1


def test_closing_the_client_ends_its_pauses() -> None:
    asked = threading.Event()

    def busy(request: Request) -> None:
        request.reply(503)
        asked.set()

    patient = HttpSettings(retries=9, backoff=3600, max_backoff=3600)
    with scripted_server(busy) as server, RegistryClient(Location("reg", server.url), http=patient) as client:

        def close() -> None:
            asked.wait()
            client.close()

        thread = threading.Thread(target=close)
        thread.start()
        with pytest.raises(RegistryUnreachable, match="HTTP 503"):
            client.resolve("proj/app", "v1", OciPlatform())
        thread.join()


def test_silent_server_ends_with_a_time_out() -> None:
    def silent(request: Request) -> None:
        server.over.wait()

    with (
        scripted_server(silent) as server,
        pytest.raises(RegistryUnreachable, match=r"proj/app:v1: .*timed out"),
    ):
        pull(server, IMPATIENT)


def test_dripping_body_ends() -> None:
    def drip(request: Request) -> None:
        request.head(200, {"Content-Length": str(len(IMAGE.layer))})
        while not server.over.wait(0.1):
            request.wfile.write(b"l")

    with (
        scripted_server(serve_image(IMAGE, drip)) as server,
        pytest.raises(BlobTruncated, match="arrived in all attempts"),
    ):
        pull(server, IMPATIENT)


def test_blob_below_the_minimum_rate_is_left() -> None:
    def slow(request: Request) -> None:
        request.head(200, {"Content-Length": str(len(IMAGE.layer))})
        while not server.over.wait(0.01):
            request.wfile.write(b"l" * 10)

    choosy = HttpSettings(retries=0, connect_timeout=5, read_timeout=0.2, min_rate=1, min_blob_rate=1 << 20)
    with scripted_server(serve_image(IMAGE, slow)) as server, pytest.raises(BlobTruncated, match="seconds of waiting"):
        pull(server, choosy)


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1"]
)
def test_dripping_header_or_chunk_size_ends(start: bytes) -> None:
    def drip(request: Request) -> None:
        request.wfile.write(start)
        while not server.over.wait(0.1):
            request.wfile.write(b"0" if start.endswith(b"1") else b"H")

    with scripted_server(drip) as server, pytest.raises(RegistryUnreachable):
        pull(server, IMPATIENT)


def test_endless_manifest_is_cut_off() -> None:
    def endless(request: Request) -> None:
        request.head(200, {"Content-Type": OCI_MANIFEST, "Connection": "close"})
        while not server.over.is_set():
            request.wfile.write(b" " * 65536)

    with (
        scripted_server(endless) as server,
        pytest.raises(RegistryError, match="longer than the limit of 4194304 bytes"),
    ):
        pull(server)


def test_garbage_instead_of_http_is_reported() -> None:
    def garbage(request: Request) -> None:
        request.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        request.hang_up()

    with scripted_server(garbage) as server, pytest.raises(RegistryUnreachable):
        pull(server)


def test_manifest_connection_lost_in_the_middle_is_repeated() -> None:
    def cut(request: Request) -> None:
        request.head(200, {"Content-Length": "1000", "Content-Type": OCI_MANIFEST})
        request.wfile.write(b"{")
        request.hang_up()

    with scripted_server(in_turn(cut, serve_image(IMAGE))) as server:
        assert pull(server) == IMAGE.layer


@pytest.mark.parametrize("header", [digest_of(b"something else"), "sha512:" + "0" * 128])
def test_digest_header_must_match_the_manifest(header: str) -> None:
    headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": header}
    with (
        scripted_server(lambda r: r.reply(200, IMAGE.manifest, headers)) as server,
        pytest.raises(DigestMismatch, match=r"proj/app:v1: the manifest has digest"),
    ):
        pull(server)


def test_malformed_digest_header_is_refused() -> None:
    headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": "sha256:../../etc"}
    with (
        scripted_server(lambda r: r.reply(200, IMAGE.manifest, headers)) as server,
        pytest.raises(ManifestInvalid, match="Docker-Content-Digest"),
    ):
        pull(server)


def test_manifest_asked_by_digest_must_have_it() -> None:
    with (
        scripted_server(serve_image(IMAGE)) as server,
        RegistryClient(Location("reg", server.url), http=QUICK) as client,
    ):
        wanted = digest_of(b"another image")
        with pytest.raises(DigestMismatch, match=f"{IMAGE.digest} instead of {wanted}"):
            client.resolve("proj/app", wanted, OciPlatform())


def test_configuration_must_match_its_descriptor() -> None:
    def script(request: Request) -> None:
        if "/manifests/" in request.path:
            request.reply(200, IMAGE.manifest, {"Content-Type": OCI_MANIFEST})
        else:
            request.reply(200, IMAGE.config.replace(b"amd64", b"arm64"))

    with (
        scripted_server(script) as server,
        pytest.raises(DigestMismatch, match=f"configuration {digest_of(IMAGE.config)}"),
    ):
        pull(server)


def test_url_prefix_of_the_location_is_honoured() -> None:
    with scripted_server(serve_image(IMAGE)) as server:
        with RegistryClient(Location("reg", f"{server.url}/prefix/"), http=QUICK) as client:
            client.resolve("proj/app", "v1", OciPlatform())
        assert server.paths[0] == "/prefix/v2/proj/app/manifests/v1"


def test_mirror_is_asked_first_and_left_when_it_fails() -> None:
    with scripted_server(serve_image(IMAGE)) as origin, scripted_server(serve_image(IMAGE)) as mirror:
        location = Location("reg", origin.url, mirrors=(mirror.url,))
        with RegistryClient(location, http=QUICK) as client:
            image = client.resolve("proj/app", "v1", OciPlatform())
            with client.open_blob("proj/app", image.layers[0]) as chunks:
                assert b"".join(chunks) == IMAGE.layer
        assert (len(origin.requests), len(mirror.requests)) == (0, 3)
    with scripted_server(serve_image(IMAGE)) as origin, scripted_server(status(404)) as mirror:
        location = Location("reg", origin.url, mirrors=(mirror.url, "http://127.0.0.1:9"))
        with RegistryClient(location, http=QUICK) as client:
            image = client.resolve("proj/app", "v1", OciPlatform())
            with client.open_blob("proj/app", image.layers[0]) as chunks:
                assert b"".join(chunks) == IMAGE.layer


def test_origin_continues_what_a_mirror_began() -> None:
    with (
        scripted_server(serve_image(IMAGE, ranged)) as origin,
        scripted_server(serve_image(IMAGE, cut_at(100000))) as mirror,
        RegistryClient(Location("reg", origin.url, mirrors=(mirror.url,)), http=QUICK) as client,
    ):
        image = client.resolve("proj/app", "v1", OciPlatform())
        with client.open_blob("proj/app", image.layers[0]) as chunks:
            assert b"".join(chunks) == IMAGE.layer
        assert [headers["Range"] for headers in origin.headers_of("blobs")] == ["bytes=100000-"]


def test_plain_registry_behind_an_https_url_is_explained() -> None:
    with (
        scripted_server(serve_image(IMAGE)) as server,
        pytest.raises(RegistryUnreachable, match=r"no TLS spoken there; .* url must say http://"),
    ):
        pull(ScriptedServer(server.url.replace("http", "https")))


def test_what_a_server_says_instead_of_http_stays_out_of_the_message() -> None:
    def echo(request: Request) -> None:
        request.wfile.write(b"SECRET from the request\r\n")
        request.hang_up()

    with scripted_server(echo) as server, pytest.raises(RegistryUnreachable, match="not proper HTTP") as caught:
        pull(server)
    assert "SECRET" not in str(caught.value)


def test_leaving_a_blob_early_is_quiet() -> None:
    with (
        scripted_server(serve_image(IMAGE)) as server,
        RegistryClient(Location("reg", server.url), http=QUICK) as client,
    ):
        image = client.resolve("proj/app", "v1", OciPlatform())
        with client.open_blob("proj/app", image.layers[0]) as chunks:
            assert next(chunks)
        with client.open_blob("proj/app", image.layers[0]) as chunks:
            assert b"".join(chunks) == IMAGE.layer
