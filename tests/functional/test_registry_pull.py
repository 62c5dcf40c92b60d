# SPDX-License-Identifier: BSD-3-Clause
"""The registry client against Debian's docker-registry: good paths of every kind of access."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shifter_imagegw.errors import (
    BlobTruncated,
    DigestMismatch,
    ManifestNotFound,
    RegistryDenied,
    RegistryError,
    RegistryUnreachable,
)
from shifter_imagegw.registry.client import HttpSettings, RegistryClient
from shifter_imagegw.registry.location import Location, Login
from shifter_imagegw.registry.manifest import OciPlatform, ResolvedImage
from shifter_imagegw.registry.reference import choose_location
from tests.registryserver import RegistryServer, digest_of, registry_server, tar_of
from tests.scriptedserver import Request, fake_image, scripted_server, serve_image

AMD64 = OciPlatform()
QUICK = HttpSettings(retries=1, backoff=0.01, connect_timeout=5, read_timeout=5)
LAYERS = [tar_of({"etc/": b"", "etc/one": b"1" * 5000}), tar_of({"etc/two": b"2" * 300000})]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("plain")) as server:
        yield server


@pytest.fixture(scope="module")
def token_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("token"), token_users={"ann": "pass:with:colons"}) as server:
        server.push_image("public/app", "v1", LAYERS)
        server.push_image("secret/app", "v1", LAYERS)
        yield server


def client(server: RegistryServer, login: Login | None = None, http: HttpSettings = QUICK) -> RegistryClient:
    return RegistryClient(Location("reg", server.url, ca_file=server.ca_file), login, http)


def blobs(registry_client: RegistryClient, repository: str, image: ResolvedImage) -> list[bytes]:
    found = []
    for layer in image.layers:
        with registry_client.open_blob(repository, layer) as chunks:
            found.append(b"".join(chunks))
    return found


@pytest.mark.parametrize(("docker", "compression"), [(False, "gzip"), (False, "none"), (False, "zstd"), (True, "gzip")])
def test_image_of_each_media_type_is_resolved_and_read(
    registry: RegistryServer, docker: bool, compression: str
) -> None:
    config = {
        "Env": ["A=1", "B="],
        "Cmd": None,
        "Entrypoint": ["/bin/sh", "-c"],
        "WorkingDir": "/w",
        "Labels": {"x": "y"},
    }
    pushed = registry.push_image("proj/sub/app", "v1", LAYERS, config=config, docker=docker, compression=compression)
    with client(registry) as registry_client:
        image = registry_client.resolve("proj/sub/app", "v1", AMD64)
        assert blobs(registry_client, "proj/sub/app", image) == list(pushed.blobs)
    assert (image.digest, image.manifest_digest, image.id) == (pushed.digest, pushed.digest, pushed.id)
    assert (image.config.env, image.config.entrypoint) == (("A=1", "B="), ("/bin/sh", "-c"))
    assert (image.config.cmd, image.config.workdir, image.config.labels) == ((), "/w", {"x": "y"})
    assert image.config.diff_ids == tuple(digest_of(layer) for layer in LAYERS)
    assert image.size == sum(len(blob) for blob in pushed.blobs)
    assert image.private is False


def test_digest_and_tag_lead_to_the_same_image(registry: RegistryServer) -> None:
    pushed = registry.push_image("by/digest", "v1", LAYERS)
    with client(registry) as registry_client:
        assert registry_client.resolve("by/digest", pushed.digest, AMD64) == registry_client.resolve(
            "by/digest", "v1", AMD64
        )


@pytest.mark.parametrize("docker", [False, True])
def test_index_gives_the_platform_entry_and_its_own_digest_as_id(registry: RegistryServer, docker: bool) -> None:
    arm = registry.push_image("multi/app", "arm", LAYERS[:1], architecture="arm64", docker=docker)
    amd = registry.push_image("multi/app", "amd", LAYERS, docker=docker)
    platforms = [
        (arm, {"os": "linux", "architecture": "arm64", "variant": "v8"}),
        (amd, {"os": "linux", "architecture": "amd64"}),
    ]
    digest = registry.push_index("multi/app", "v1", platforms, docker=docker)
    with client(registry) as registry_client:
        image = registry_client.resolve("multi/app", "v1", AMD64)
        assert (image.digest, image.manifest_digest) == (digest, amd.digest)
        assert registry_client.resolve("multi/app", "v1", OciPlatform("arm64")).manifest_digest == arm.digest
        with pytest.raises(ManifestNotFound, match="linux/ppc64le; available: linux/amd64, linux/arm64/v8"):
            registry_client.resolve("multi/app", "v1", OciPlatform("ppc64le"))


def test_image_id_is_what_skopeo_reports(registry: RegistryServer) -> None:
    image = registry.push_image("oracle/app", "amd", LAYERS)
    registry.push_index("oracle/app", "v1", [(image, {"os": "linux", "architecture": "amd64"})])
    for tag in ("amd", "v1"):
        command = ["skopeo", "inspect", "--tls-verify=false", f"docker://{registry.host}/oracle/app:{tag}"]
        reported = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        with client(registry) as registry_client:
            resolved = registry_client.resolve("oracle/app", tag, AMD64)
        assert resolved.digest == reported["Digest"]
        assert [layer.digest for layer in resolved.layers] == reported["Layers"]


def test_unknown_image_is_named(registry: RegistryServer) -> None:
    with client(registry) as registry_client, pytest.raises(ManifestNotFound, match=r"no/such:v9.*HTTP 404"):
        registry_client.resolve("no/such", "v9", AMD64)


def test_unreachable_registry_is_named() -> None:
    location = Location("gone.example", "http://127.0.0.1:9")
    with (
        RegistryClient(location, http=QUICK) as registry_client,
        pytest.raises(RegistryUnreachable, match=r"gone\.example.*Connection refused"),
    ):
        registry_client.resolve("a/b", "v1", AMD64)


def test_layers_are_read_by_several_threads_at_once(registry: RegistryServer) -> None:
    layers = [tar_of({f"file{n}": bytes([n]) * 400000}) for n in range(8)]
    pushed = registry.push_image("many/layers", "v1", layers, compression="none")
    with client(registry) as registry_client:
        image = registry_client.resolve("many/layers", "v1", AMD64)

        def read(number: int) -> bytes:
            with registry_client.open_blob("many/layers", image.layers[number]) as chunks:
                return b"".join(chunks)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(read, range(8))) == list(pushed.blobs)


def test_damaged_blob_is_found_at_the_end(registry: RegistryServer) -> None:
    pushed = registry.push_image("damaged/app", "v1", [tar_of({"d": b"damaged one" * 1000})])
    path = registry.blob_path(digest_of(pushed.blobs[0]))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with client(registry) as registry_client:
        image = registry_client.resolve("damaged/app", "v1", AMD64)
        with pytest.raises(DigestMismatch, match=f"{image.layers[0].digest}.*content has digest sha256:"):
            blobs(registry_client, "damaged/app", image)


def test_shortened_blob_is_refused(registry: RegistryServer) -> None:
    pushed = registry.push_image("short/app", "v1", [tar_of({"s": b"shortened one" * 1000})], compression="none")
    path = registry.blob_path(digest_of(pushed.blobs[0]))
    path.write_bytes(path.read_bytes()[:-100])
    with client(registry) as registry_client:
        image = registry_client.resolve("short/app", "v1", AMD64)
        with pytest.raises(BlobTruncated, match=image.layers[0].digest):
            blobs(registry_client, "short/app", image)


def test_missing_blob_is_named(registry: RegistryServer) -> None:
    pushed = registry.push_image("missing/app", "v1", [tar_of({"m": b"missing one"})])
    registry.blob_path(digest_of(pushed.blobs[0])).unlink()
    with client(registry) as registry_client:
        image = registry_client.resolve("missing/app", "v1", AMD64)
        with pytest.raises(RegistryError, match=f"{image.layers[0].digest} of missing/app: not served"):
            blobs(registry_client, "missing/app", image)


def test_tls_needs_the_authority_of_the_location(tmp_path: Path) -> None:
    with registry_server(tmp_path, tls=True) as server:
        pushed = server.push_image("proj/app", "v1", LAYERS)
        with client(server) as registry_client:
            image = registry_client.resolve("proj/app", "v1", AMD64)
            assert blobs(registry_client, "proj/app", image) == list(pushed.blobs)
        with (
            RegistryClient(Location("reg", server.url), http=QUICK) as stranger,
            pytest.raises(RegistryUnreachable, match=r"certificate not accepted.*sslcacert"),
        ):
            stranger.resolve("proj/app", "v1", AMD64)
        with RegistryClient(Location("reg", server.url, insecure=True), http=QUICK) as careless:
            assert careless.resolve("proj/app", "v1", AMD64) == image
        with (
            RegistryClient(Location("reg", server.url.replace("https", "http")), http=QUICK) as plain,
            pytest.raises(RegistryError),
        ):
            plain.resolve("proj/app", "v1", AMD64)


def test_basic_authentication(tmp_path: Path) -> None:
    with registry_server(tmp_path, users={"ann": "pass:with:colons"}) as server:
        server.push_image("proj/app", "v1", LAYERS)
        with client(server, Login.from_text("ann:pass:with:colons")) as registry_client:
            image = registry_client.resolve("proj/app", "v1", AMD64)
            assert (image.private, registry_client.private) == (True, True)
        with RegistryClient(
            Location("reg", server.url, auth_method="basic"), Login("ann", "pass:with:colons"), QUICK
        ) as direct:
            assert direct.resolve("proj/app", "v1", AMD64) == image
        with client(server) as anonymous, pytest.raises(RegistryDenied, match=r"needs a login.*shifterimg login"):
            anonymous.resolve("proj/app", "v1", AMD64)
        with (
            client(server, Login("ann", "sesame-wrong")) as wrong,
            pytest.raises(RegistryDenied, match="login was refused") as caught,
        ):
            wrong.resolve("proj/app", "v1", AMD64)
        assert "sesame" not in str(caught.value)


def test_open_repository_is_read_without_the_login(token_registry: RegistryServer) -> None:
    assert token_registry.token_server is not None
    token_registry.token_server.requests.clear()
    with client(token_registry, Login("ann", "pass:with:colons")) as registry_client:
        image = registry_client.resolve("public/app", "v1", AMD64)
        assert len(blobs(registry_client, "public/app", image)) == 2
    assert image.private is False
    query = {"account": ["a b"], "service": ["test-registry"], "scope": ["repository:public/app:pull"]}
    assert token_registry.token_server.requests == [(query, None)]  # one token served every request


def test_threads_share_one_token(token_registry: RegistryServer) -> None:
    assert token_registry.token_server is not None
    token_registry.token_server.requests.clear()
    with client(token_registry) as registry_client, ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda _: registry_client.resolve("public/app", "v1", AMD64), range(8)))
    assert len(set(map(repr, images))) == 1
    assert len(token_registry.token_server.requests) == 1


def test_closed_repository_is_read_with_the_login(token_registry: RegistryServer) -> None:
    assert token_registry.token_server is not None
    token_registry.token_server.requests.clear()
    with client(token_registry, Login("ann", "pass:with:colons")) as registry_client:
        image = registry_client.resolve("secret/app", "v1", AMD64)
        assert len(blobs(registry_client, "secret/app", image)) == 2
    assert image.private is True
    assert [header is None for _, header in token_registry.token_server.requests] == [True, False]


def test_closed_repository_without_or_with_a_wrong_login_is_denied(token_registry: RegistryServer) -> None:
    with client(token_registry) as anonymous, pytest.raises(RegistryDenied, match="needs a login"):
        anonymous.resolve("secret/app", "v1", AMD64)
    with (
        client(token_registry, Login("ann", "sesame-wrong")) as wrong,
        pytest.raises(RegistryDenied, match="login was refused") as caught,
    ):
        wrong.resolve("secret/app", "v1", AMD64)
    assert "sesame" not in str(caught.value)


def test_expired_token_is_renewed(tmp_path: Path) -> None:
    with registry_server(tmp_path, token_users={}, token_lifetime=1) as server:
        server.push_image("public/app", "v1", LAYERS)
        assert server.token_server is not None
        with client(server) as registry_client:
            image = registry_client.resolve("public/app", "v1", AMD64)
            first = len(server.token_server.requests)
            # The registry allows a minute of clock skew, so only our own clock can bring a second token request.
            while len(server.token_server.requests) == first:
                assert len(blobs(registry_client, "public/app", image)) == 2
                time.sleep(0.05)


def test_registry_that_hides_closed_repositories_is_asked_again_with_the_login() -> None:
    image = fake_image()

    def script(request: Request) -> None:
        sent = request.headers["Authorization"]
        if request.path.startswith("/token"):
            request.reply(200, b'{"token": "owner"}' if sent == login.basic_header() else b'{"token": "nobody"}')
        elif sent == "Bearer owner":
            serve_image(image)(request)
        elif sent == "Bearer nobody":
            request.reply(404)
        else:
            request.reply(401, b"", {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})

    login = Login("ann", "pw")
    with scripted_server(script) as server:
        with RegistryClient(Location("reg", server.url), login, QUICK) as owner:
            assert owner.resolve("hidden/app", "v1", AMD64).private is True
        with (
            RegistryClient(Location("reg", server.url), Login("ann", "x"), QUICK) as other,
            pytest.raises(ManifestNotFound),
        ):
            other.resolve("hidden/app", "v1", AMD64)


def test_revoked_token_is_replaced_once() -> None:
    image = fake_image()
    valid = ["t1"]

    def script(request: Request) -> None:
        if request.path.startswith("/token"):
            request.reply(200, json.dumps({"token": valid[0], "expires_in": 3600}).encode())
        elif request.headers["Authorization"] == f"Bearer {valid[0]}":
            serve_image(image)(request)
        else:
            request.reply(401, b"", {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})

    with scripted_server(script) as server, RegistryClient(Location("reg", server.url), http=QUICK) as registry_client:
        resolved = registry_client.resolve("proj/app", "v1", AMD64)
        valid[0] = "t2"
        assert blobs(registry_client, "proj/app", resolved) == [image.layer]
        assert len(server.headers_of("/token")) == 2


def test_registry_at_an_ipv6_address() -> None:
    image = fake_image()
    with scripted_server(serve_image(image), address="::1") as server:
        locations = {server.url.removeprefix("http://"): Location("six", server.url)}
        location, reference = choose_location(f"{next(iter(locations))}/proj/app:v1", locations, "none")
        with RegistryClient(location, http=QUICK) as registry_client:
            resolved = registry_client.resolve(reference.repository, reference.version, AMD64)
            assert blobs(registry_client, reference.repository, resolved) == [image.layer]
