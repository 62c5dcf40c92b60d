# SPDX-License-Identifier: BSD-3-Clause
"""Nobody gets a layer out of the cache by naming it: its digest and diff_id are no secrets, its content is one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.images import FAILURE, READY
from shifter_imagegw.registry.client import HttpSettings, RegistryClient
from shifter_imagegw.registry.location import Location, Login
from shifter_imagegw.registry.manifest import Descriptor
from tests.gatewayserver import SYSTEM
from tests.munged import Munged
from tests.pulledsite import PulledSite, make_site
from tests.registryserver import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Pushed,
    RegistryServer,
    compress,
    descriptor,
    digest_of,
    registry_server,
    tar_of,
)
from tests.scriptedserver import Request, Script, ScriptedServer, scripted_server

SECRET = tar_of({"secret": b"top secret" * 20_000})
BLOB = compress(SECRET, "gzip")
HARMLESS = tar_of({"harmless": b"h" * 1000})
OWNER = {"plain": "ann:secret"}
QUICK = HttpSettings(retries=1, backoff=0.01, connect_timeout=5, read_timeout=5)


@dataclass(frozen=True)
class Named:
    """An image whose documents name layers that its repository need not have."""

    manifest: bytes
    config: bytes

    @classmethod
    def of(cls, *layers: tuple[dict[str, Any], str]) -> Named:
        """``layers``: descriptor and diff_id of each."""
        rootfs = {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config),
            "layers": [layer for layer, _ in layers],
        }
        return cls(json.dumps(manifest).encode(), config)


def answer(image: Named, blob: Script) -> Script:
    """A registry that has the documents; ``blob`` answers for layers."""

    def script(request: Request) -> None:
        if "/manifests/" in request.path:
            request.reply(200, image.manifest, {"Content-Type": OCI_MANIFEST})
        elif request.path.endswith(digest_of(image.config)):
            request.reply(200, image.config)
        else:
            blob(request)

    return script


FOREIGN = Named.of((descriptor(OCI_LAYER + "+gzip", BLOB), digest_of(SECRET)))


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("owners"), token_users={"ann": "secret"}) as server:
        yield server


@pytest.fixture
def private(owners: RegistryServer) -> Pushed:
    return owners.push_image("own/app", "1", [SECRET])


@pytest.fixture
def open_site(tmp_path: Path, munge: Munged, owners: RegistryServer, private: Pushed) -> Iterator[PulledSite]:
    """The owner has pulled his private image: its layer is in the cache."""
    site = make_site(tmp_path, munge, owners)
    owned = site.pulled(reference="own/app:1", tokens=OWNER)
    assert (owned.status, owned.private) == (READY, True)
    yield site
    site.store.close()


def beside(site: PulledSite, server: ScriptedServer) -> PulledSite:
    """The site with a second location."""

    def add(document: dict[str, Any]) -> None:
        document["Locations"]["other"] = {"remotetype": "dockerv2", "url": server.url}
        document["http"] = {"retries": 1, "backoff": 0.01}

    return site.changed(add)


def images(site: PulledSite) -> list[str]:
    return sorted(path.name for path in site.configuration.platforms[SYSTEM].image_directory.glob("*.squashfs"))


def refuse(status: int) -> Script:
    return lambda request: request.reply(status)


def send(request: Request) -> None:
    request.reply(200, BLOB)


def head_lies(request: Request) -> None:
    """There, but of another length than the manifest says: not that blob."""
    request.reply(200 if request.command == "HEAD" else 404, BLOB[1:] if request.command == "HEAD" else b"")


@pytest.mark.parametrize("blob", [*map(refuse, (403, 404, 405, 500, 501)), head_lies])
def test_a_manifest_that_names_a_foreign_layer_gets_nothing(open_site: PulledSite, blob: Script) -> None:
    before = images(open_site)
    with scripted_server(answer(FOREIGN, blob)) as server:
        site = beside(open_site, server)
        got = site.pulled(reference="other/mine:1")
        assert got.status == FAILURE
        assert "registry other" in (got.status_message or "")
        assert any(path.endswith(digest_of(BLOB)) for path in server.heads)
    assert images(site) == before
    site.store.close()


def test_a_digest_that_is_served_gives_no_content_that_is_only_claimed(open_site: PulledSite) -> None:
    before = images(open_site)
    mine = compress(HARMLESS, "gzip")
    claim = Named.of((descriptor(OCI_LAYER + "+gzip", mine), digest_of(SECRET)))
    with scripted_server(answer(claim, lambda request: request.reply(200, mine))) as server:
        site = beside(open_site, server)
        got = site.pulled(reference="other/mine:1")
        assert got.status == FAILURE
        assert f"not to its diff_id {digest_of(SECRET)}" in (got.status_message or "")
    assert images(site) == before
    site.store.close()


def test_a_repository_of_the_same_registry_gets_nothing(open_site: PulledSite, owners: RegistryServer) -> None:
    """The blob is on the registry, but not in this repository."""
    before = images(open_site)
    mine = owners.push_image("public/mine", "1", [HARMLESS])
    forged = owners.push_blob("public/mine", FOREIGN.config)
    assert forged == digest_of(FOREIGN.config)
    # The registry refuses a manifest with blobs that the repository lacks; one that was there before stays.
    linked = owners.root / "docker/registry/v2/repositories/public/mine/_layers/sha256"
    owners.push_blob("public/mine", BLOB)
    owners.push_document("public/mine", "2", FOREIGN.manifest, OCI_MANIFEST)
    (linked / digest_of(BLOB).partition(":")[2] / "link").unlink()
    assert open_site.pulled(reference="public/mine:1").image_id == mine.id
    got = open_site.pulled(reference="public/mine:2")
    assert got.status == FAILURE
    assert digest_of(BLOB) in (got.status_message or "")
    assert len(images(open_site)) == len(before) + 1


def test_the_documents_of_a_private_image_do_not_open_it(open_site: PulledSite, private: Pushed) -> None:
    """The very same manifest in a repository without the layer: the image file is there already."""
    before = images(open_site)
    copied = Named(private.manifest, private.config)
    with scripted_server(answer(copied, refuse(404))) as server:
        site = beside(open_site, server)
        got = site.pulled(reference="other/mine:1")
        assert got.status == FAILURE
        assert digest_of(BLOB) in (got.status_message or "")
        (record,) = site.store.ready(SYSTEM)
        assert (record.private, record.user_acl, record.tags) == (True, (3000,), ("own/app:1",))
    assert images(site) == before
    site.store.close()


@pytest.mark.parametrize("head", [200, 405])
def test_a_private_image_that_others_may_have_is_not_transferred_again(
    open_site: PulledSite, private: Pushed, head: int
) -> None:
    def blob(request: Request) -> None:
        request.reply(200 if request.command == "GET" else head, BLOB)

    with scripted_server(answer(Named(private.manifest, private.config), blob)) as server:
        site = beside(open_site, server)
        assert site.pulled(reference="other/mine:1").private is False
        assert len(server.headers_of(digest_of(BLOB))) == (head != 200)
        assert len(site.store.ready(SYSTEM)) == 1
        # Now that everybody may have it, nobody is asked any more.
        asked = len(server.heads)
        assert site.pulled(reference="other/mine:2").status == READY
        assert len(server.heads) == asked
    site.store.close()


def test_whoever_has_the_layer_shares_it(open_site: PulledSite, owners: RegistryServer) -> None:
    """A registry that has the blob says so, and nothing is transferred."""
    image = Named.of(
        (descriptor(OCI_LAYER + "+gzip", BLOB), digest_of(SECRET)),
        (descriptor(OCI_LAYER, HARMLESS), digest_of(HARMLESS)),
    )
    blobs = {digest_of(BLOB): BLOB, digest_of(HARMLESS): HARMLESS}
    with scripted_server(answer(image, lambda request: request.reply(200, blobs[request.path[-71:]]))) as server:
        site = beside(open_site, server)
        assert site.pulled(reference="other/theirs:1").status == READY
        assert server.headers_of(digest_of(BLOB)) == []
        assert len(server.headers_of(digest_of(HARMLESS))) == 1
        assert [path[-71:] for path in server.heads] == [digest_of(BLOB)]
    site.store.close()


@pytest.mark.parametrize("status", [405, 500, 501])
def test_a_registry_without_head_sends_the_layer_again(open_site: PulledSite, status: int) -> None:
    def blob(request: Request) -> None:
        request.reply(status) if request.command == "HEAD" else request.reply(200, BLOB)

    with scripted_server(answer(FOREIGN, blob)) as server:
        site = beside(open_site, server)
        assert site.pulled(reference="other/theirs:1").status == READY
        assert len(server.headers_of(digest_of(BLOB))) == 1
    site.store.close()


class TestHoldsBlob:
    LAYER = Descriptor(OCI_LAYER + "+gzip", digest_of(BLOB), len(BLOB))

    def test_at_a_real_registry(self, owners: RegistryServer, private: Pushed) -> None:
        public = owners.push_image("public/other", "1", [HARMLESS])
        location = Location("reg", owners.url)
        with RegistryClient(location, Login("ann", "secret"), QUICK) as client:
            assert client.holds_blob("own/app", self.LAYER)
            assert client.private
            assert not client.holds_blob("own/app", Descriptor(OCI_LAYER, digest_of(HARMLESS), len(HARMLESS)))
        with RegistryClient(location, None, QUICK) as stranger:
            assert not stranger.holds_blob("own/app", self.LAYER)
            blob = public.blobs[0]
            assert stranger.holds_blob("public/other", Descriptor(OCI_LAYER, digest_of(blob), len(blob)))
            assert not stranger.private
        with RegistryClient(location, Login("ann", "wrong"), QUICK) as stranger:
            assert not stranger.holds_blob("own/app", self.LAYER)

    def test_storage_elsewhere_is_asked_without_credentials(self) -> None:
        with scripted_server(lambda request: request.reply(200, BLOB)) as storage:

            def redirect(request: Request) -> None:
                if request.headers["Authorization"] is None:
                    request.reply(401, b"", {"WWW-Authenticate": "Basic"})
                else:
                    request.reply(307, b"", {"Location": f"{storage.url}/blob"})

            with scripted_server(redirect) as server:
                location = Location("reg", server.url, auth_method="basic")
                with RegistryClient(location, Login("ann", "secret"), QUICK) as client:
                    assert client.holds_blob("own/app", self.LAYER)
            assert (storage.heads, storage.requests) == (["/blob"], [])

    def test_urls_of_a_foreign_layer_prove_nothing(self) -> None:
        with scripted_server(lambda request: request.reply(200, BLOB)) as anywhere:
            layer = Descriptor(
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", self.LAYER.digest, self.LAYER.size,
                (f"{anywhere.url}/x",),
            )  # fmt: skip
            with scripted_server(refuse(404)) as server:
                location = Location("reg", server.url, foreign_layers=True)
                with RegistryClient(location, None, QUICK) as client:
                    assert not client.holds_blob("own/app", layer)
            assert anywhere.heads == []

    def test_a_mirror_is_asked_first_and_its_no_is_not_the_last_word(self) -> None:
        for status in (200, 404):
            with (
                scripted_server(refuse(404) if status == 404 else send) as mirror,
                scripted_server(send) as server,
                RegistryClient(Location("reg", server.url, mirrors=(mirror.url,)), None, QUICK) as client,
            ):
                assert client.holds_blob("own/app", self.LAYER)
            assert (len(mirror.heads), len(server.heads)) == (1, int(status == 404))

    def test_many_questions_use_the_connections_that_are_open(self) -> None:
        peers = set()

        def script(request: Request) -> None:
            peers.add(request.client_address)
            request.reply(200, BLOB)

        with scripted_server(script) as server, RegistryClient(Location("reg", server.url), None, QUICK) as client:
            for _ in range(20):
                assert client.holds_blob("own/app", self.LAYER)
        assert len(peers) == 1
