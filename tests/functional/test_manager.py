# SPDX-License-Identifier: BSD-3-Clause
"""The use cases on a real store: what a client of the API sees over the life of a pull."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.config import Configuration, parse_configuration
from shifter_imagegw.errors import InvalidReference, NotFound, PermissionDenied, RequestError
from shifter_imagegw.images import FAILURE, INIT, PENDING, PULLING, READY, Image, image_object, queue_entry
from shifter_imagegw.manager import ImageManager
from shifter_imagegw.session import Session
from shifter_imagegw.store import ImageStore, open_store

START = 1_700_000_000.0
ID = "a" * 64
ALICE = Session("cluster", 1000, 100, "alice", "users")
BOB = Session("cluster", 2000, 100, "bob", "users")
CAROL = Session("cluster", 3000, 300, "carol", "staff")


class Clock:
    now = START

    def __call__(self) -> float:
        return self.now


class PlainSealer:
    """Sealing is auth.py's; here only that what is stored is what was sealed."""

    def seal(self, tokens: Mapping[str, str], system: str) -> str:
        return f"sealed for {system}: {sorted(tokens)}"

    def unseal(self, text: str, system: str) -> Mapping[str, str]:
        raise AssertionError("the API never opens logins")


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    document = {
        "Platforms": {
            name: {"accesstype": "local", "local": {"imageDir": "/images"}, "mungeSocketPath": "/x", "admins": ["root"]}
            for name in ("cluster", "other")
        },
        "Locations": {"docker.io": {"remotetype": "dockerv2"}},
        "DefaultImageLocation": "docker.io",
        "DefaultImageFormat": "squashfs",
        "CacheDirectory": "/c",
        "ExpandDirectory": "/e",
        "MongoDBURI": f"sqlite://{tmp_path}/images.sqlite",
        "Metrics": True,
        "pullsPerUser": 5,
    }
    return parse_configuration(json.dumps(document).encode(), Path("x"), {})


@pytest.fixture
def store(configuration: Configuration) -> Iterator[ImageStore]:
    opened = open_store(configuration.store_uri)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manager(configuration: Configuration, store: ImageStore, clock: Clock) -> ImageManager:
    groups = {3000: frozenset({77})}
    return ImageManager(configuration, store, PlainSealer(), lambda uid: groups.get(uid, frozenset()), clock)


def finish(store: ImageStore, clock: Clock, image_id: str = ID, **changes: Any) -> Image:
    """What a worker does with the next pull."""
    pull = store.claim("w", clock(), 60, ("cluster", "other"))
    assert pull is not None
    store.progress(pull, clock(), 60, status=PULLING, status_message="Pulling layers")
    values: dict[str, Any] = {
        "env": ("A=b",), "private": False, "user_acl": (), "group_acl": (), "requested_by": pull.requested_by,
        "requested_user_acl": pull.requested_user_acl, "requested_group_acl": pull.requested_group_acl,
    }  # fmt: skip
    result = Image(pull.system, pull.itype, image_id=image_id, **{**values, **changes})
    image = store.complete(pull, result, store.ready_by_id(pull.system, pull.itype, image_id), clock())
    assert image is not None
    return image


def private(manager: ImageManager, store: ImageStore, clock: Clock) -> None:
    """alpine:latest, pulled by alice with her login, for herself."""
    manager.pull(ALICE, "docker", "alpine")
    finish(store, clock, private=True, user_acl=(1000,), group_acl=())


def test_the_answers_to_a_polling_client(manager: ImageManager, store: ImageStore, clock: Clock) -> None:
    first = image_object(manager.pull(ALICE, "docker", "alpine", [1, 2], [3]))
    assert (first["status"], first["id"], first["last_pull"], first["tag"]) == (INIT, "MISSING", "MISSING", [])
    assert (first["userACL"], first["groupACL"]) == ([1, 2, 1000], [3, 100])
    assert manager.pull(ALICE, "docker", "alpine", [1, 2], [3]).status == PENDING
    clock.now += 1
    finish(store, clock)
    last = image_object(manager.pull(ALICE, "docker", "alpine", [1, 2], [3]))
    assert (last["status"], last["id"], last["tag"], last["userACL"]) == (READY, ID, ["alpine:latest"], [])
    clock.now += 100
    assert manager.pull(ALICE, "docker", "alpine", [1, 2], [3]).status == READY
    clock.now += 300
    assert manager.pull(ALICE, "docker", "alpine", [1, 2], [3]).status == INIT


def test_everybody_joins_one_pull(manager: ImageManager, store: ImageStore) -> None:
    manager.pull(ALICE, "docker", "alpine")
    assert manager.pull(BOB, "docker", "alpine:latest").status == PENDING
    assert [queue_entry(pull) for pull in manager.queue(CAROL)] == [{"status": PENDING, "image": "alpine:latest"}]
    assert manager.queue(replace(ALICE, system="other")) == []


def test_logins_are_stored_sealed_only(manager: ImageManager, store: ImageStore) -> None:
    session = replace(ALICE, tokens={"default": "alice:secret"})
    answer = manager.pull(session, "docker", "alpine")
    stored = store.get(answer.record_id)
    assert stored is not None
    assert stored.sealed_tokens == "sealed for cluster: ['default']"
    assert "secret" not in repr(session)
    assert "sealed" not in json.dumps(image_object(answer))


def test_lookup_moves_the_expiration_and_counts(manager: ImageManager, store: ImageStore, clock: Clock) -> None:
    manager.pull(ALICE, "docker", "alpine")
    image = finish(store, clock, expiration=clock() - 5)
    found = manager.lookup(BOB, "docker", "alpine")
    assert found.image_id == ID
    stored = store.get(image.record_id)
    assert stored is not None
    assert stored.expiration == START + 90 * 86400
    clock.now += 30
    manager.lookup(BOB, "docker", "alpine:latest")
    assert [(metric.user, metric.tag, metric.id) for metric in store.metrics("cluster", 10)] == [
        ("bob", "alpine:latest", ID)
    ] * 2


def test_a_lookup_that_cannot_be_recorded_is_answered(
    manager: ImageManager, store: ImageStore, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager.pull(ALICE, "docker", "alpine")
    finish(store, clock, expiration=clock() - 5)
    with closing(sqlite3.connect(tmp_path / "images.sqlite")) as damaged:
        # What a full disk and a read-only file have in common: reading works, writing does not.
        damaged.execute("CREATE TRIGGER full BEFORE INSERT ON metrics BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
        damaged.execute("CREATE TRIGGER ro BEFORE UPDATE ON images BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
    assert manager.lookup(BOB, "docker", "alpine").image_id == ID
    assert "disk is full" in caplog.text
    assert store.metrics("cluster", 10) == []


@pytest.mark.parametrize("reference", ["alpine", "none", "alpine:other"])
def test_denied_and_absent_look_the_same(
    manager: ImageManager, store: ImageStore, clock: Clock, reference: str
) -> None:
    private(manager, store, clock)
    with pytest.raises(NotFound, match=r"^image not found$"):
        manager.lookup(BOB, "docker", reference)
    assert store.metrics("cluster", 10) == []


def test_list_shows_what_the_caller_may_read(manager: ImageManager, store: ImageStore, clock: Clock) -> None:
    private(manager, store, clock)
    manager.pull(BOB, "docker", "busybox")
    finish(store, clock, "b" * 64)
    manager.pull(BOB, "docker", "staffonly")
    finish(store, clock, "c" * 64, private=True, group_acl=(77,))
    assert {image.image_id for image in manager.list_images(ALICE)} == {ID, "b" * 64}
    assert {image.image_id for image in manager.list_images(BOB)} == {"b" * 64}
    assert {image.image_id for image in manager.list_images(CAROL)} == {"b" * 64, "c" * 64}
    assert manager.list_images(replace(ALICE, system="other")) == []


def test_a_strangers_pull_of_a_private_image_tells_nothing_and_tries_for_itself(
    manager: ImageManager, store: ImageStore, clock: Clock
) -> None:
    private(manager, store, clock)
    answer = image_object(manager.pull(BOB, "docker", "alpine"))
    assert answer["status"] == INIT
    assert (answer["id"], answer["ENV"], answer["userACL"]) == ("MISSING", "MISSING", [])
    assert manager.lookup(ALICE, "docker", "alpine").image_id == ID
    pull = store.claim("w", clock(), 60, ("cluster",))
    assert pull is not None
    store.fail(pull, "registry refused", clock(), denied=True)
    assert manager.pull(BOB, "docker", "alpine").status == FAILURE
    assert manager.pull(ALICE, "docker", "alpine").status == READY
    assert manager.lookup(ALICE, "docker", "alpine").image_id == ID


def test_a_joiner_of_a_private_pull_sees_no_details(manager: ImageManager, store: ImageStore, clock: Clock) -> None:
    manager.pull(ALICE, "docker", "alpine")
    pull = store.claim("w", clock(), 60, ("cluster",))
    assert pull is not None
    store.progress(pull, clock(), 60, status=PULLING, status_message="Pulling layers: 5/9 bytes", private=True)
    assert manager.pull(ALICE, "docker", "alpine").status_message == "Pulling layers: 5/9 bytes"
    seen = manager.pull(BOB, "docker", "alpine")
    assert (seen.status, seen.status_message) == (PULLING, None)


def test_the_same_reference_is_another_image_on_another_system(
    manager: ImageManager, store: ImageStore, clock: Clock
) -> None:
    private(manager, store, clock)
    elsewhere = replace(BOB, system="other")
    assert manager.pull(elsewhere, "docker", "alpine").status == INIT
    with pytest.raises(NotFound):
        manager.lookup(elsewhere, "docker", "alpine")


def test_refused_requests(manager: ImageManager) -> None:
    with pytest.raises(NotFound, match="system 'nowhere' is not served here"):
        manager.pull(replace(ALICE, system="nowhere"), "docker", "alpine")
    with pytest.raises(RequestError, match="are imported, not pulled"):
        manager.pull(ALICE, "custom", "alpine")
    with pytest.raises(RequestError, match="image type 'local' is unknown"):
        manager.lookup(ALICE, "local", "alpine")
    with pytest.raises(InvalidReference, match="not configured"):
        manager.pull(ALICE, "docker", "elsewhere.example/alpine")
    with pytest.raises(RequestError, match="empty or longer"):
        manager.pull(ALICE, "docker", "x" * 2000)
    with pytest.raises(RequestError, match="not UTF-8"):
        manager.lookup(ALICE, "docker", "x\udcff")
    for ids in ([-1], [2**32 - 1]):
        with pytest.raises(RequestError, match="not a valid id"):
            manager.pull(ALICE, "docker", "alpine", ids)
    with pytest.raises(RequestError, match="at most 1000"):
        manager.pull(ALICE, "docker", "alpine", [], range(1001))
    assert manager.queue(ALICE) == []


def test_one_user_cannot_fill_the_queue(manager: ImageManager) -> None:
    for number in range(5):
        manager.pull(ALICE, "docker", f"image:{number}")
    with pytest.raises(PermissionDenied, match="you have 5 pulls in progress on cluster"):
        manager.pull(ALICE, "docker", "image:6")
    assert manager.pull(ALICE, "docker", "image:1").status == PENDING
    assert manager.pull(BOB, "docker", "image:6").status == INIT


def test_admins_are_matched_exactly(manager: ImageManager) -> None:
    assert manager.is_admin(replace(ALICE, user="root"))
    assert not manager.is_admin(replace(ALICE, user="roo"))
    assert not manager.is_admin(replace(ALICE, user="root", system="nowhere"))
