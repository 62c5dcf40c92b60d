# SPDX-License-Identifier: BSD-3-Clause
"""Redirects, token servers and foreign URLs that try to get credentials or to reach the inside (sec-46)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shifter_imagegw.errors import RegistryDenied, RegistryError
from shifter_imagegw.registry.address import AddressGuard
from shifter_imagegw.registry.client import HttpSettings, RegistryClient
from shifter_imagegw.registry.exchange import origin_of
from shifter_imagegw.registry.location import Location, Login
from shifter_imagegw.registry.manifest import OciPlatform
from tests.registryserver import DOCKER_LAYER, OCI_MANIFEST, descriptor, make_certificates
from tests.scriptedserver import Request, Script, ScriptedServer, fake_image, scripted_server, serve_image

IMAGE = fake_image()
LOGIN = Login("ann", "s3cret")
QUICK = HttpSettings(retries=1, backoff=0.01, connect_timeout=5, read_timeout=5)


def pull(location: Location, login: Login | None = LOGIN) -> bytes:
    with RegistryClient(location, login, QUICK) as client:
        image = client.resolve("proj/app", "v1", OciPlatform())
        with client.open_blob("proj/app", image.layers[0]) as chunks:
            return b"".join(chunks)


def behind_basic(script: Script) -> Script:
    """``script`` for requests with the login, a challenge for all others."""

    def guarded(request: Request) -> None:
        if request.headers["Authorization"] == LOGIN.basic_header():
            script(request)
        else:
            request.reply(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})

    return guarded


def redirect(target: str, status: int = 307) -> Script:
    return lambda request: request.reply(status, b"moved", {"Location": target})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_login_is_not_sent_to_another_port_after_a_redirect(status: int) -> None:
    with scripted_server(lambda r: r.reply(200, IMAGE.layer)) as storage:
        blob = redirect(f"{storage.url}/blob?signature=abc", status)
        with scripted_server(behind_basic(serve_image(IMAGE, blob))) as registry:
            assert pull(Location("reg", registry.url)) == IMAGE.layer
        assert storage.paths == ["/blob?signature=abc"]
        assert "Authorization" not in storage.requests[0][1]


def test_bearer_token_is_not_sent_to_another_port_after_a_redirect() -> None:
    def registry_script(request: Request) -> None:
        if request.path.startswith("/token"):
            request.reply(200, b'{"token": "t0ken"}')
        elif request.headers["Authorization"] == "Bearer t0ken":
            serve_image(IMAGE, redirect(f"{storage.url}/blob"))(request)
        else:
            request.reply(401, b"", {"WWW-Authenticate": f'Bearer realm="{registry.url}/token"'})

    with scripted_server(lambda r: r.reply(200, IMAGE.layer)) as storage, scripted_server(registry_script) as registry:
        assert pull(Location("reg", registry.url), None) == IMAGE.layer
        assert "Authorization" not in storage.requests[0][1]


def test_login_stays_dropped_when_a_redirect_leads_back() -> None:
    def registry_script(request: Request) -> None:
        if request.path == "/back":
            request.reply(200, IMAGE.layer)
        else:
            behind_basic(serve_image(IMAGE, redirect(f"{storage.url}/away")))(request)

    def lead_back(request: Request) -> None:
        redirect(f"{registry.url}/back")(request)

    with scripted_server(lead_back) as storage, scripted_server(registry_script) as registry:
        assert pull(Location("reg", registry.url)) == IMAGE.layer
        assert ["Authorization" in headers for headers in registry.headers_of("/back")] == [False]


def test_relative_redirect_within_the_registry_keeps_the_login() -> None:
    def registry_script(request: Request) -> None:
        if request.path == "/elsewhere":
            request.reply(200, IMAGE.layer)
        else:
            serve_image(IMAGE, redirect("/elsewhere"))(request)

    with scripted_server(behind_basic(registry_script)) as registry:
        assert pull(Location("reg", registry.url)) == IMAGE.layer


def test_challenge_of_a_redirect_target_does_not_get_the_login() -> None:
    trap: Script = behind_basic(lambda r: r.reply(200, IMAGE.layer))
    with (
        scripted_server(trap) as storage,
        scripted_server(serve_image(IMAGE, redirect(f"{storage.url}/x"))) as registry,
    ):
        with pytest.raises(RegistryDenied, match="the storage of the registry refused access"):
            pull(Location("reg", registry.url))
        assert all("Authorization" not in headers for _, headers in storage.requests + registry.requests)


def test_redirect_from_https_to_http_is_refused(tmp_path: Path) -> None:
    authority, *certificate = make_certificates(tmp_path)
    with scripted_server(lambda r: r.reply(200, IMAGE.layer)) as plain:
        blob = redirect(f"{plain.url}/blob?signature=abc")
        with (
            scripted_server(serve_image(IMAGE, blob), certificate=(certificate[0], certificate[1])) as registry,
            pytest.raises(RegistryError, match="refused the redirect from https") as caught,
        ):
            pull(Location("reg", registry.url, ca_file=authority))
        assert plain.requests == []
        assert "signature" not in str(caught.value)


def test_endless_redirects_end() -> None:
    with scripted_server(lambda r: redirect(r.path)(r)) as registry:
        with pytest.raises(RegistryError, match="more than 5 redirects"):
            pull(Location("reg", registry.url))
        assert len(registry.requests) == QUICK.max_redirects + 1


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd", "ftp://x/y", "gopher://x", "//", "http://", "http://user:pw@127.0.0.1/", "http://[::1/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1\\@x/", f"http://{'x' * 70}.example/", "http://127.0.0.1:0/",
        "javascript:alert(1)", "http://a b/", "http://\u0661/",
    ],
)  # fmt: skip
def test_redirect_to_something_else_than_http_is_refused(target: str) -> None:
    def script(request: Request) -> None:
        request.wfile.write(f"HTTP/1.1 302 x\r\nContent-Length: 0\r\nLocation: {target}\r\n\r\n".encode())

    with scripted_server(script) as registry, pytest.raises(RegistryError) as caught:
        pull(Location("reg", registry.url))
    assert "pw@" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "0.0.0.0",
        "[::]",
        "[::ffff:169.254.169.254]",
        "2852039166",
        "0xa9fea9fe",
        "224.0.0.1",
    ],
)
def test_redirect_to_a_special_address_is_refused(host: str) -> None:
    with (
        scripted_server(serve_image(IMAGE, redirect(f"http://{host}/latest/meta-data"))) as registry,
        pytest.raises(RegistryError, match=r"refused to connect to .* address"),
    ):
        pull(Location("reg", registry.url))


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]"])
def test_token_server_at_a_special_address_is_refused(host: str) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{host}/token"'}
    with (
        scripted_server(lambda r: r.reply(401, b"", challenge)) as registry,
        pytest.raises(RegistryError, match=r"refused to connect to .* link-local address"),
    ):
        pull(Location("reg", registry.url))


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "127.8.9.10", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "0.1.2.3"]
)
def test_loopback_is_refused_for_a_registry_elsewhere(address: str) -> None:
    with pytest.raises(RegistryError, match="refused to connect"):
        AddressGuard(["192.0.2.1"]).check(address, "storage.example")


@pytest.mark.parametrize(
    "host", ["localhost", "a.localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "LOCALHOST."]
)
def test_loopback_spellings_are_refused_also_behind_a_proxy(host: str) -> None:
    with pytest.raises(RegistryError, match="refused to connect"):
        AddressGuard(["192.0.2.1"]).check_literal(host)


@pytest.mark.parametrize("address", ["192.0.2.1", "10.1.2.3", "172.16.0.1", "2001:db8::1", "fd00::1"])
def test_private_networks_may_hold_the_storage(address: str) -> None:
    AddressGuard(["192.0.2.1"]).check(address, "storage.example")
    AddressGuard(["192.0.2.1"]).check_literal("storage.example")


def test_loopback_listener_sees_nothing_of_a_redirect_from_a_registry_elsewhere() -> None:
    """In a network namespace of its own, where the registry can have a routable address."""
    command = ["unshare", "--net", sys.executable, "-m", "tests.security.redirect_probe"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"loopback_requests": [], "error": "loopback", "registry_requests": 2}


def test_token_server_without_tls_is_refused_when_the_registry_has_it(tmp_path: Path) -> None:
    authority, *certificate = make_certificates(tmp_path)
    with scripted_server(lambda r: r.reply(200, b'{"token": "x"}')) as tokens:
        challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.url}/token"'}
        script: Script = lambda r: r.reply(401, b"", challenge)  # noqa: E731
        with (
            scripted_server(script, certificate=(certificate[0], certificate[1])) as registry,
            pytest.raises(RegistryError, match="token server without TLS"),
        ):
            pull(Location("reg", registry.url, ca_file=authority))
        assert tokens.requests == []


def test_login_is_not_sent_where_the_token_server_redirects_to() -> None:
    def registry_script(request: Request) -> None:
        request.reply(401, b"", {"WWW-Authenticate": f'Bearer realm="{tokens.url}/token",service="s"'})

    def token_script(request: Request) -> None:
        if request.headers["Authorization"]:
            redirect(f"{thief.url}/token")(request)
        else:
            request.reply(401)

    with scripted_server(lambda r: r.reply(401)) as thief, scripted_server(token_script) as tokens:
        with scripted_server(registry_script) as registry, pytest.raises(RegistryDenied):
            pull(Location("reg", registry.url))
        assert [headers.get("Authorization") for _, headers in thief.requests] == [None]


def test_unending_challenges_end() -> None:
    def script(request: Request) -> None:
        if request.path.startswith("/token"):
            request.reply(200, json.dumps({"token": f"t{len(registry.requests)}"}).encode())
        else:
            request.reply(401, b"", {"WWW-Authenticate": f'Bearer realm="{registry.url}/token"'})

    with scripted_server(script) as registry:
        with pytest.raises(RegistryDenied, match="login was refused"):
            pull(Location("reg", registry.url))
        assert len(registry.requests) < 10


@pytest.mark.parametrize(
    "reply",
    [
        b"", b"[]", b"{}", b'{"token": ""}', b'{"token": 5}', b'{"token": "a b"}', b'{"token": "a\\r\\nX: y"}',
        b"[" * 100000, b'{"token": "\\u00e4"}', b"\xff",
    ],
)  # fmt: skip
def test_unusable_token_reply_is_an_error_and_injects_no_header(reply: bytes) -> None:
    def script(request: Request) -> None:
        if request.path.startswith("/token"):
            request.reply(200, reply)
        else:
            request.reply(401, b"", {"WWW-Authenticate": f'Bearer realm="{registry.url}/token"'})

    with scripted_server(script) as registry, pytest.raises(RegistryError, match="no usable token"):
        pull(Location("reg", registry.url))


def test_login_and_token_stay_out_of_every_message() -> None:
    def script(request: Request) -> None:
        sent = request.headers["Authorization"] or ""
        request.reply(401, sent.encode(), {"WWW-Authenticate": 'Basic realm="s3cret"', "X-Echo": sent})

    with scripted_server(script) as registry, pytest.raises(RegistryDenied) as caught:
        pull(Location("reg", registry.url))
    assert "s3cret" not in str(caught.value)
    assert LOGIN.basic_header()[6:] not in str(caught.value)


def test_mirror_never_gets_the_login() -> None:
    with (
        scripted_server(behind_basic(serve_image(IMAGE))) as origin,
        scripted_server(lambda r: r.reply(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})) as mirror,
    ):
        assert pull(Location("reg", origin.url, mirrors=(mirror.url,))) == IMAGE.layer
        assert all("Authorization" not in headers for _, headers in mirror.requests)


@pytest.fixture
def foreign() -> Iterator[ScriptedServer]:
    with scripted_server(lambda r: r.reply(200, IMAGE.layer)) as server:
        yield server


@pytest.mark.parametrize("allowed", [False, True])
def test_foreign_layer_is_fetched_only_where_the_location_allows_it(foreign: ScriptedServer, allowed: bool) -> None:
    layer = {
        **descriptor(DOCKER_LAYER.replace("rootfs.diff", "rootfs.foreign.diff"), IMAGE.layer),
        "urls": [f"{foreign.url}/layer"],
    }
    image = fake_image(IMAGE.layer, layers=[layer])
    with scripted_server(behind_basic(serve_image(image, lambda r: r.reply(404)))) as registry:
        location = Location("reg", registry.url, foreign_layers=allowed)
        if allowed:
            assert pull(location) == IMAGE.layer
            assert all("Authorization" not in headers for _, headers in foreign.requests)
        else:
            with pytest.raises(RegistryError, match="not served"):
                pull(location)
            assert foreign.requests == []


@pytest.mark.parametrize(
    "url", ["http://[::1", "file:///etc/passwd", "", "http://a\uff0fb/", "http://169.254.169.254/x", "x"]
)
def test_foreign_url_of_another_kind_is_refused(url: str) -> None:
    media_type = DOCKER_LAYER.replace("rootfs.diff", "rootfs.foreign.diff")
    image = fake_image(IMAGE.layer, layers=[{**descriptor(media_type, IMAGE.layer), "urls": [url]}])
    with scripted_server(serve_image(image, lambda r: r.reply(404))) as registry, pytest.raises(RegistryError):
        pull(Location("reg", registry.url, foreign_layers=True))


@pytest.mark.parametrize(
    "realm", ["", "x", "http://[::1", "file:///x", "http://a\uff0fb/", "http://u:p@127.0.0.1/", "http://"]
)
def test_token_server_of_another_kind_is_refused(realm: str) -> None:
    def script(request: Request) -> None:
        challenge = f'HTTP/1.1 401 x\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer realm="{realm}"\r\n\r\n'
        request.wfile.write(challenge.encode())

    with scripted_server(script) as registry, pytest.raises(RegistryError):
        pull(Location("reg", registry.url))


def test_netrc_and_cookies_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password s3cret\n", encoding="ascii")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))

    def script(request: Request) -> None:
        headers = {"Content-Type": OCI_MANIFEST, "Set-Cookie": "a=b; Path=/"}
        request.reply(200, IMAGE.manifest, headers) if "manifests" in request.path else serve_image(IMAGE)(request)

    with scripted_server(script) as registry:
        assert pull(Location("reg", registry.url), None) == IMAGE.layer
        assert all(not {"Authorization", "Cookie"} & set(headers) for _, headers in registry.requests)


def test_origins_differ_in_scheme_host_or_port_only() -> None:
    assert origin_of("https://A.example/x") == origin_of("https://a.example:443/y")
    assert len({origin_of(f"{url}/") for url in ("http://a", "https://a", "https://b", "https://a:444")}) == 4
