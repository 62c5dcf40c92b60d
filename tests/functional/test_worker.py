# SPDX-License-Identifier: BSD-3-Clause
"""The pipeline against a real registry, store and munged; only the conversion of layers is stood in for."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.auth import MungeSealer
from shifter_imagegw.config import Configuration, load_configuration
from shifter_imagegw.errors import LeaseLost, PublishError, StoreError
from shifter_imagegw.images import FAILURE, READY, Image, image_object
from shifter_imagegw.manager import ImageManager
from shifter_imagegw.pipeline import Pipeline
from shifter_imagegw.platforms.local import LocalPlatform
from shifter_imagegw.session import Session
from shifter_imagegw.store import ImageStore, open_store
from shifter_imagegw.worker import Worker
from tests.gatewayserver import SYSTEM, write_configuration
from tests.layerengine import PlainEngine
from tests.munged import Munged
from tests.registryserver import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Pushed,
    RegistryServer,
    descriptor,
    digest_of,
    registry_server,
    tar_of,
)
from tests.scriptedserver import Request, fake_image, scripted_server, serve_image

ALICE = Session(SYSTEM, 1000, 100, "alice", "users", {"token": "ann:secret"})
BOB = Session(SYSTEM, 2000, 200, "bob", "users", {"token": "ann:secret"})
CAROL = Session(SYSTEM, 3000, 300, "carol", "users")
CONFIG = {
    "Env": ["PATH=/bin", "A=1"],
    "Entrypoint": ["/bin/sh"],
    "Cmd": ["-c"],
    "WorkingDir": "/w",
    "Labels": {"l": "1"},
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("plain")) as server:
        yield server


@pytest.fixture(scope="module")
def token_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("token"), token_users={"ann": "secret"}) as server:
        yield server


@dataclass
class Site:
    """A gateway without its processes: ``work`` does what a worker's thread does."""

    configuration: Configuration
    store: ImageStore
    engine: PlainEngine
    platform: LocalPlatform
    ahead: float = 0.0

    def clock(self) -> float:
        return time.time() + self.ahead

    @property
    def images(self) -> Path:
        return self.configuration.platforms[SYSTEM].image_directory

    @property
    def pipeline(self) -> Pipeline:
        sealer, groups = MungeSealer(self.configuration), dict.fromkeys([1000], frozenset({77}))
        return Pipeline(
            self.configuration, self.store, sealer, self.engine, {SYSTEM: self.platform},
            lambda uid: groups.get(uid, frozenset()), self.clock,
        )  # fmt: skip

    def pull(
        self, reference: str, session: Session = CAROL, uids: tuple[int, ...] = (), gids: tuple[int, ...] = ()
    ) -> Image:
        manager = ImageManager(
            self.configuration, self.store, MungeSealer(self.configuration), lambda _: frozenset(), self.clock
        )
        return manager.pull(session, "docker", reference, uids, gids)

    def claim(self) -> Image:
        claimed = self.store.claim("test", self.clock(), 60, [SYSTEM])
        assert claimed is not None
        return claimed

    def work(self) -> None:
        """Finish the oldest pull in the queue."""
        Worker(self.pipeline).attempt(self.claim())

    def pulled(self, reference: str, session: Session = CAROL, **acl: tuple[int, ...]) -> Image:
        """Pull and return how it ended."""
        started = self.pull(reference, session, **acl)
        self.work()
        ready = self.store.ready_by_tag(SYSTEM, "docker", reference)
        failed = self.store.get(started.record_id)
        found = failed if failed is not None and failed.status == FAILURE else ready
        assert found is not None
        return found

    def meta(self, image_id: str) -> dict[str, list[str]]:
        entries: dict[str, list[str]] = {}
        for line in (self.images / f"{image_id}.meta").read_text().splitlines():
            if line.startswith("#"):
                continue
            key, _, value = line.partition(": ")
            entries.setdefault(key.rstrip(":"), []).append(value)
        return entries

    def tag(self, reference: str) -> str | None:
        return self.platform.tagged("docker", reference)

    def parts(self) -> list[Path]:
        return list(self.images.rglob("*.part"))


@pytest.fixture
def make_site(
    tmp_path: Path, munge: Munged, registry: RegistryServer, token_registry: RegistryServer
) -> Iterator[Callable[..., Site]]:
    stores = []

    def make(environment: Mapping[str, str] | None = None, **changes: Any) -> Site:
        locations = {
            "plain": {"remotetype": "dockerv2", "url": registry.url},
            "token": {"remotetype": "dockerv2", "url": token_registry.url},
            **changes.pop("locations", {}),
        }
        http = {"retries": 1, "backoff": 0, "readTimeout": 20}
        path = write_configuration(
            tmp_path, munge.socket, Locations=locations, DefaultImageLocation="plain", http=http, **changes
        )
        configuration = load_configuration(path, environment or {})
        store = open_store(configuration.store_uri)
        stores.append(store)
        platform = LocalPlatform(SYSTEM, configuration.platforms[SYSTEM].image_directory)
        return Site(configuration, store, PlainEngine(configuration.cache_directory), platform)

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Iterator[Site]:
    made = make_site()
    yield made
    assert made.parts() == []
    assert made.engine.opened == []


def push(server: RegistryServer, repository: str, tag: str, content: bytes, **more: Any) -> Pushed:
    layers = more.pop("layers", [tar_of({"common": b"c" * 1000}), tar_of({"file": content})])
    return server.push_image(repository, tag, layers, config={**CONFIG, **more})


def test_a_public_image_becomes_files_a_tag_and_a_record(site: Site, registry: RegistryServer) -> None:
    pushed = push(registry, "public/app", "1", b"one")
    image = site.pulled("public/app:1", uids=(5,))
    assert (image.status, image.image_id, image.tags, image.private) == (READY, pushed.id, ("public/app:1",), False)
    shown = image_object(image)
    assert (shown["userACL"], shown["groupACL"]) == ([], [])
    assert (shown["ENV"], shown["ENTRY"], shown["WORKDIR"]) == (["PATH=/bin", "A=1"], ["/bin/sh"], "/w")
    assert shown["LABELS"] == "MISSING"
    assert image.expiration is not None
    assert image.expiration > time.time() + 89 * 86400
    assert site.meta(pushed.id) == {
        "FORMAT": ["squashfs"], "ENTRY": ["['/bin/sh']"], "CMD": ["['-c']"], "WORKDIR": ["/w"],
        "ENV": ["PATH=/bin", "A=1"],
    }  # fmt: skip
    assert site.tag("public/app:1") == pushed.id
    assert site.platform.exists(pushed.id, "squashfs")
    assert {path.stat().st_mode & 0o777 for path in site.images.glob("*.*")} == {0o600}


def test_labels_are_kept_where_the_site_wants_them(make_site: Callable[..., Site], registry: RegistryServer) -> None:
    push(registry, "labelled", "1", b"l")
    assert make_site({"ENABLE_LABELS": "1"}).pulled("labelled:1").labels == {"l": "1"}


def test_a_private_image_is_its_pullers_alone(site: Site, token_registry: RegistryServer) -> None:
    pushed = push(token_registry, "own/app", "1", b"private")
    image = site.pulled("token/own/app:1", ALICE)
    assert (image.status, image.private, image.user_acl, image.group_acl) == (READY, True, (1000,), ())
    meta = site.meta(pushed.id)
    assert (meta["PRIVATE"], meta["USERACL"], meta["GROUPACL"]) == (["1"], ["1000"], [""])
    assert image.sealed_tokens is None


def test_new_lists_change_metadata_and_record_without_a_transfer(site: Site, token_registry: RegistryServer) -> None:
    pushed = push(token_registry, "lists/app", "1", b"lists")
    site.pulled("token/lists/app:1", ALICE, uids=(5,))
    fetched = list(site.engine.fetched)
    site.ahead = 20
    image = site.pulled("token/lists/app:1", ALICE, uids=(6,), gids=(7,))
    assert (image.user_acl, image.group_acl) == ((6, 1000), (7, 100))
    meta = site.meta(pushed.id)
    assert (meta["USERACL"], meta["GROUPACL"]) == (["6,1000"], ["7,100"])
    assert site.engine.fetched == fetched
    assert len(site.store.ready(SYSTEM)) == 1


def test_a_stranger_with_a_login_is_added_and_nobody_is_lost(site: Site, token_registry: RegistryServer) -> None:
    pushed = push(token_registry, "added/app", "1", b"added")
    site.pulled("token/added/app:1", ALICE)
    image = site.pulled("token/added/app:1", BOB)
    assert image.user_acl == (1000, 2000)
    assert site.meta(pushed.id)["USERACL"] == ["1000,2000"]


def test_a_private_copy_does_not_close_a_public_image(
    site: Site, registry: RegistryServer, token_registry: RegistryServer
) -> None:
    pushed = push(registry, "base", "1", b"base")
    assert push(token_registry, "copy/base", "1", b"base").id == pushed.id
    site.pulled("base:1")
    image = site.pulled("token/copy/base:1", ALICE)
    assert (image.private, image.user_acl, set(image.tags)) == (False, (), {"base:1", "token/copy/base:1"})
    assert "PRIVATE" not in site.meta(pushed.id)


def test_a_public_image_whose_repository_was_closed_becomes_private(
    site: Site, token_registry: RegistryServer
) -> None:
    pushed = push(token_registry, "closed/app", "1", b"closed")
    image = site.pulled("token/closed/app:1", ALICE)
    open_to_all = {"private": False, "user_acl": (), "group_acl": (), "revision": (image.revision or 0) + 1}
    assert site.store.change_if(image, open_to_all)
    site.ahead = 1000
    image = site.pulled("token/closed/app:1", BOB)
    assert (image.private, image.user_acl) == (True, (2000,))
    assert site.meta(pushed.id)["USERACL"] == ["2000"]


def test_without_a_login_the_registry_says_no_and_only_that_caller_waits(
    site: Site, token_registry: RegistryServer
) -> None:
    push(token_registry, "denied/app", "1", b"denied")
    image = site.pulled("token/denied/app:1", CAROL)
    assert (image.status, image.denied) == (FAILURE, True)
    assert "denied/app" in (image.status_message or "")
    assert site.pulled("token/denied/app:1", ALICE).status == READY


def test_lists_stay_out_of_metadata_where_old_runtimes_need_it(
    make_site: Callable[..., Site], token_registry: RegistryServer
) -> None:
    pushed = push(token_registry, "old/app", "1", b"old")
    site = make_site({"DISABLE_ACL_METADATA": ""})
    assert site.pulled("token/old/app:1", ALICE).user_acl == (1000,)
    assert not {"PRIVATE", "USERACL", "GROUPACL"} & set(site.meta(pushed.id))


def test_two_tags_of_one_content_share_record_and_file(site: Site, registry: RegistryServer) -> None:
    pushed = push(registry, "twin", "a", b"twin")
    registry.push_document("twin", "b", pushed.manifest, pushed.media_type)
    site.pulled("twin:a")
    fetched = list(site.engine.fetched)
    image = site.pulled("twin:b")
    assert set(image.tags) == {"twin:a", "twin:b"}
    assert (site.tag("twin:a"), site.tag("twin:b")) == (pushed.id, pushed.id)
    assert len(site.store.ready(SYSTEM)) == 1
    assert site.engine.fetched == fetched


def test_a_tag_moves_with_the_registrys(site: Site, registry: RegistryServer) -> None:
    first = push(registry, "moving", "latest", b"first")
    site.pulled("moving:latest")
    second = push(registry, "moving", "latest", b"second")
    site.ahead = 400
    image = site.pulled("moving:latest")
    assert (image.image_id, image.tags) == (second.id, ("moving:latest",))
    assert site.tag("moving:latest") == second.id
    old = site.store.ready_by_id(SYSTEM, "docker", first.id)
    assert old is not None
    assert old.tags == ()


def test_a_layer_that_is_listed_twice_is_fetched_once(site: Site, registry: RegistryServer) -> None:
    layer = tar_of({"again": b"a" * 3000})
    push(registry, "twice", "1", b"", layers=[layer, tar_of({"other": b"o"}), layer])
    assert site.pulled("twice:1").status == READY
    assert len(site.engine.fetched) == len(set(site.engine.fetched)) == 2


def test_shared_layers_come_from_the_cache(site: Site, registry: RegistryServer) -> None:
    push(registry, "shared", "1", b"one version")
    push(registry, "shared", "2", b"another version")
    site.pulled("shared:1")
    site.pulled("shared:2")
    assert len(site.engine.fetched) == 3


@pytest.mark.parametrize(
    ("reference", "reason"),
    [("absent/app:1", "no such image"), ("token/own/absent:1", "absent"), ("refused:1", "connection|Connection")],
)
def test_a_failure_says_what_is_wrong(make_site: Callable[..., Site], reference: str, reason: str) -> None:
    site = make_site(locations={"refused": {"remotetype": "dockerv2", "url": "http://127.0.0.1:1"}})
    image = site.pulled(f"refused/{reference}" if reference.startswith("refused") else reference)
    assert image.status == FAILURE
    assert any(word in (image.status_message or "") for word in reason.split("|")), image.status_message


def test_a_layer_that_is_not_what_it_should_be_fails_the_pull(site: Site, registry: RegistryServer) -> None:
    pushed = push(registry, "damaged", "1", b"damaged layer")
    path = registry.blob_path(json.loads(pushed.manifest)["layers"][1]["digest"])
    path.write_bytes(bytes(len(path.read_bytes())))
    image = site.pulled("damaged:1")
    assert image.status == FAILURE
    assert "digest" in (image.status_message or "")
    assert not site.platform.exists(pushed.id, "squashfs")


def test_what_no_metadata_can_say_is_refused_before_a_transfer(site: Site, registry: RegistryServer) -> None:
    push(registry, "newline", "1", b"n", Env=["A=1\nUSERACL: 0"])
    image = site.pulled("newline:1")
    assert "line break" in (image.status_message or "")
    assert site.engine.fetched == []


def test_lists_that_make_the_metadata_too_long_are_refused_before_a_transfer(
    site: Site, token_registry: RegistryServer
) -> None:
    pushed = push(token_registry, "long/app", "1", b"long", Env=[f"V{n:04}={'x' * 90}" for n in range(2500)])
    image = site.pulled("token/long/app:1", ALICE, uids=tuple(range(4_000_000_000, 4_000_000_999)))
    assert image.status == FAILURE
    assert "ENTRYPOINT and CMD, 11" in (image.status_message or "")
    assert site.engine.fetched == []
    assert not site.platform.exists(pushed.id, "squashfs")


def test_nobody_is_added_to_lists_that_are_full(site: Site, token_registry: RegistryServer) -> None:
    pushed = push(token_registry, "full/app", "1", b"full")
    site.pulled("token/full/app:1", ALICE, uids=tuple(range(5000, 5999)))
    image = site.pulled("token/full/app:1", BOB)
    assert image.status == FAILURE
    assert "user list has 1001 entries" in (image.status_message or "")
    assert len(site.meta(pushed.id)["USERACL"][0].split(",")) == 1000


def test_an_error_nobody_thought_of_ends_the_pull_with_an_id(
    site: Site, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    push(registry, "bug", "1", b"bug")

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(site.engine, "merge", broken)
    text = site.pulled("bug:1").status_message or ""
    assert text.startswith("internal error ")
    assert "inside" not in text
    assert any(text.split()[2].rstrip(":") in record.getMessage() and record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"examiner": "/usr/bin/true"}, "examiner"), ({"DefaultImageFormat": "ext4"}, "ext4")],
)
def test_what_this_release_cannot_do_is_refused(
    make_site: Callable[..., Site], registry: RegistryServer, changes: dict[str, str], reason: str
) -> None:
    push(registry, "refusal", "1", b"r")
    site = make_site(**changes)
    image = site.pulled("refusal:1")
    assert (image.status, reason in (image.status_message or "")) == (FAILURE, True)


def test_workers_that_keep_dying_end_the_pull(site: Site, registry: RegistryServer) -> None:
    push(registry, "deadly", "1", b"d")
    site.pull("deadly:1")
    for _ in range(site.configuration.max_attempts):
        claimed = site.claim()
        site.store.change_leased(claimed, {"lease_expires": 0.0})
    site.work()
    record = site.store.get(claimed.record_id)
    assert record is not None
    assert (record.status, "3 workers ended" in (record.status_message or "")) == (FAILURE, True)


def test_the_first_broken_layer_ends_the_others_at_once(make_site: Callable[..., Site]) -> None:
    layers = [b"broken", b"endless"]
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [*map(digest_of, layers)]}}
    ).encode()
    image = fake_image(config=descriptor(OCI_CONFIG, config), layers=[descriptor(OCI_LAYER, layer) for layer in layers])

    def script(request: Request) -> None:
        if request.path.endswith(digest_of(layers[0])):
            request.reply(404)
        elif request.path.endswith(digest_of(layers[1])):
            request.head(200, {"Content-Length": str(len(layers[1]))})
            request.wfile.flush()
            server.over.wait(120)
        elif request.path.endswith(digest_of(config)):
            request.reply(200, config)
        else:
            request.reply(200, image.manifest, {"Content-Type": OCI_MANIFEST})

    with scripted_server(script) as server:
        site = make_site(locations={"scripted": {"remotetype": "dockerv2", "url": server.url}})
        began = time.monotonic()
        found = site.pulled("scripted/app:v1")
        assert (found.status, "404" in (found.status_message or "")) == (FAILURE, True)
        # The other layer's answer never comes; only its time-out would end the wait for it.
        assert time.monotonic() - began < site.configuration.http.read_timeout


@pytest.mark.parametrize("slow", ["manifests", "blobs"])
def test_a_registry_that_is_slow_for_ever_ends_the_pull(make_site: Callable[..., Site], slow: str) -> None:
    """It sends enough to be waited for, each time; only the pull as a whole has an end."""
    image = fake_image()

    def script(request: Request) -> None:
        if slow in request.path and not request.path.endswith(digest_of(image.config)):
            request.head(200, {"Content-Length": str(len(image.layer)), "Content-Type": OCI_MANIFEST})
            while not server.over.wait(0.05):
                request.wfile.write(b" ")
                request.wfile.flush()
        else:
            serve_image(image)(request)

    with scripted_server(script) as server:
        site = make_site(locations={"s": {"remotetype": "dockerv2", "url": server.url}}, pullTimeout=1)
        found = site.pulled("s/app:v1")
    phase = "Getting manifest" if slow == "manifests" else "Pulling layers: "
    assert found.status == FAILURE
    assert f"not finished after 0:00:01 hours (pullTimeout of this site), at: {phase}" in (found.status_message or "")


def test_lists_that_changed_meanwhile_are_settled_again(
    site: Site, token_registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = push(token_registry, "race/app", "1", b"race")
    site.pulled("token/race/app:1", ALICE)
    complete = site.store.complete
    seen: list[Image | None] = []

    def outrun(pull: Image, result: Image, basis: Image | None, now: float) -> Image | None:
        if not seen:
            assert basis is not None
            site.store.change_if(basis, {"user_acl": (9, 1000), "revision": (basis.revision or 0) + 1})
        seen.append(complete(pull, result, basis, now))
        return seen[-1]

    monkeypatch.setattr(site.store, "complete", outrun)
    image = site.pulled("token/race/app:1", BOB)
    assert seen[0] is None
    assert image.user_acl == (9, 1000, 2000)
    assert site.meta(pushed.id)["USERACL"] == ["9,1000,2000"]


@pytest.mark.parametrize(
    "error", [StoreError("down"), PublishError("disk"), LeaseLost("gone")], ids=lambda e: type(e).__name__
)
def test_a_pull_that_does_not_complete_leaves_tag_and_lists_as_recorded(
    site: Site, token_registry: RegistryServer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    repository = f"undone/{type(error).__name__.lower()}"
    first = push(token_registry, repository, "1", b"first" + repository.encode())
    reference = f"token/{repository}:1"
    site.pulled(reference, ALICE)
    second = push(token_registry, repository, "1", b"second" + repository.encode())
    token_registry.push_document(repository, "2", second.manifest, second.media_type)
    site.pulled(f"token/{repository}:2", ALICE)

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(site.store, "complete", fails)
    site.ahead = 400
    site.pull(reference, BOB)
    with contextlib.suppress(StoreError, LeaseLost):
        site.work()
    assert site.tag(reference) == first.id
    assert site.meta(second.id)["USERACL"] == ["1000"]


def test_a_first_pull_that_does_not_complete_leaves_no_tag(
    site: Site, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(registry, "nothing", "1", b"nothing")

    def fails(*_: object) -> None:
        raise PublishError("no")

    monkeypatch.setattr(site.store, "complete", fails)
    site.pull("nothing:1")
    site.work()
    assert site.tag("nothing:1") is None


def test_a_tag_that_a_predecessor_wrote_late_is_put_right(
    site: Site, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = push(registry, "late", "1", b"late")
    complete = site.store.complete

    def late(*arguments: Any) -> Image | None:
        site.platform.publish_tag("docker", "late:1", "0" * 64, "0" * 32, 1)
        return complete(*arguments)

    monkeypatch.setattr(site.store, "complete", late)
    site.pulled("late:1")
    assert site.tag("late:1") == pushed.id


def test_an_image_never_stands_beside_the_lists_of_an_earlier_time(
    site: Site, token_registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = push(token_registry, "stale/app", "1", b"stale")
    site.platform.publish_metadata(pushed.id, b"FORMAT: squashfs\n", "0" * 32, 1)
    publish = site.platform.publish_image
    beside: list[dict[str, list[str]]] = []

    def publish_image(image_id: str, image_format: str, part: Path) -> None:
        beside.append(site.meta(image_id))
        publish(image_id, image_format, part)

    monkeypatch.setattr(site.platform, "publish_image", publish_image)
    site.pulled("token/stale/app:1", ALICE)
    assert [(meta["PRIVATE"], meta["USERACL"]) for meta in beside] == [(["1"], [""])]
    assert site.meta(pushed.id)["USERACL"] == ["1000"]


def test_metadata_comes_after_the_image_and_before_tag_and_record(
    site: Site, token_registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(token_registry, "order/app", "1", b"order")
    order: list[str] = []
    owners = (
        (site.platform, "publish_image"),
        (site.platform, "publish_metadata"),
        (site.platform, "publish_tag"),
        (site.store, "complete"),
    )

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            order.append(name)
            return real(*arguments)

        return step

    for owner, name in owners:
        monkeypatch.setattr(owner, name, noted(name, getattr(owner, name)))
    site.pulled("token/order/app:1", ALICE)
    assert order == ["publish_image", "publish_metadata", "publish_tag", "complete"]


def test_pulls_of_one_content_at_the_same_time(make_site: Callable[..., Site], token_registry: RegistryServer) -> None:
    pushed = push(token_registry, "crowd/app", "0", b"crowd")
    tags = [str(number) for number in range(6)]
    for tag in tags[1:]:
        token_registry.push_document("crowd/app", tag, pushed.manifest, pushed.media_type)
    site = make_site()
    for number, tag in enumerate(tags):
        site.pull(f"token/crowd/app:{tag}", replace(ALICE, uid=5000 + number))
    threads = [threading.Thread(target=site.work) for _ in tags]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (image,) = site.store.ready(SYSTEM)
    assert set(image.tags) == {f"token/crowd/app:{tag}" for tag in tags}
    assert sorted(image.user_acl or ()) == [5000 + number for number in range(6)]
    assert sorted(site.meta(pushed.id)["USERACL"][0].split(",")) == [str(5000 + number) for number in range(6)]
    assert site.parts() == []
    assert site.engine.opened == []
