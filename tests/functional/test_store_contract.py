# SPDX-License-Identifier: BSD-3-Clause
"""One contract, two stores: every test runs on SQLite and on a real server of the MongoDB protocol."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.errors import ConfigurationError, LeaseLost, StoreError
from shifter_imagegw.images import FAILURE, PENDING, PULLING, READY, Image, PullRequest
from shifter_imagegw.store import ImageStore, Metric, open_store
from tests.mongoserver import free_port, mongo_server

NOW = 1_700_000_000.0
LEASE = 60.0
SYSTEMS = ("cluster",)
ID_A, ID_B = "a" * 64, "b" * 64


@pytest.fixture(scope="session")
def mongo_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mongo_server(tmp_path_factory.mktemp("mongo")) as uri:
        yield uri


@pytest.fixture(params=["sqlite", "mongodb"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], ImageStore]]:
    """Opens the same database, each time with connections of its own."""
    stores: list[ImageStore] = []

    def opener() -> ImageStore:
        if request.param == "sqlite":
            stores.append(open_store(f"sqlite://{tmp_path}/images.sqlite"))
        else:
            stores.append(open_store(request.getfixturevalue("mongo_uri"), database_name(tmp_path)))
        return stores[-1]

    yield opener
    for store in stores:
        store.close()


def database_name(tmp_path: Path) -> str:
    return "t" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]


@pytest.fixture
def store(open_again: Callable[[], ImageStore]) -> ImageStore:
    return open_again()


def request(reference: str = "alpine:3", uid: int = 1000, itype: str = "docker") -> PullRequest:
    return PullRequest("cluster", itype, reference, uid, 100)


def start(store: ImageStore, reference: str = "alpine:3", now: float = NOW, uid: int = 1000) -> Image:
    return store.start_pull(request(reference, uid).record(now, "squashfs"), now)


def claim(store: ImageStore, worker: str = "w1", now: float = NOW) -> Image:
    pull = store.claim(worker, now, LEASE, SYSTEMS)
    assert pull is not None
    return pull


def result(image_id: str = ID_A, **changes: Any) -> Image:
    values: dict[str, Any] = {
        "env": ("PATH=/bin",),
        "private": False,
        "user_acl": (),
        "group_acl": (),
        "format": "squashfs",
    }
    values.update(changes)
    return Image("cluster", "docker", image_id=image_id, **values)


def pulled(store: ImageStore, reference: str, image_id: str = ID_A, now: float = NOW, **changes: Any) -> Image:
    start(store, reference, now)
    pull = claim(store, now=now)
    image = store.complete(pull, result(image_id, **changes), store.ready_by_id("cluster", "docker", image_id), now)
    assert image is not None
    return image


def test_start_pull_stores_a_pending_record_with_the_historic_fields(store: ImageStore) -> None:
    pull = start(store)
    stored = store.get(pull.record_id)
    assert stored is not None
    assert stored == pull
    assert (stored.status, stored.pulltag, stored.arch, stored.remotetype) == (PENDING, "alpine:3", "amd64", "dockerv2")
    assert store.pulls("cluster", "docker", "alpine:3") == [pull]


def test_a_second_pull_of_the_reference_joins_the_first(store: ImageStore) -> None:
    first = start(store)
    assert start(store, uid=2000, now=NOW + 1) == first
    assert len(store.queue("cluster")) == 1


def test_first_opening_by_many_at_once_succeeds(open_again: Callable[[], ImageStore]) -> None:
    stores = [open_again() for _ in range(12)]
    barrier = threading.Barrier(len(stores))

    def ping(store: ImageStore) -> None:
        barrier.wait()
        store.ping()

    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(ping, stores))


def test_simultaneous_pulls_of_one_reference_make_one_record(open_again: Callable[[], ImageStore]) -> None:
    stores = [open_again() for _ in range(8)]
    barrier = threading.Barrier(len(stores))

    def pull(number: int) -> str:
        barrier.wait()
        return start(stores[number], uid=1000 + number).record_id

    with ThreadPoolExecutor(len(stores)) as pool:
        records = set(pool.map(pull, range(len(stores))))
    assert len(records) == 1
    assert len(stores[0].queue("cluster")) == 1


def test_simultaneous_claims_hand_every_pull_to_one_worker(open_again: Callable[[], ImageStore]) -> None:
    stores = [open_again() for _ in range(6)]
    for number in range(12):
        start(stores[0], f"image:{number}")
    barrier = threading.Barrier(len(stores))

    def claim_all(number: int) -> list[str]:
        barrier.wait()
        claimed = []
        while len(stores[number].queue("cluster")) and (
            pull := stores[number].claim(f"w{number}", NOW, LEASE, SYSTEMS)
        ):
            claimed.append(pull.record_id)
        return claimed

    with ThreadPoolExecutor(len(stores)) as pool:
        claimed = [record for records in pool.map(claim_all, range(len(stores))) for record in records]
    leftover = []
    while (pull := stores[0].claim("last", NOW, LEASE, SYSTEMS)) is not None:
        leftover.append(pull.record_id)
    assert len(claimed) == len(set(claimed))
    assert len({*claimed, *leftover}) == len(claimed) + len(leftover) == 12


def test_claim_takes_the_oldest_pull_of_the_systems_it_serves(store: ImageStore) -> None:
    start(store, "late:1", now=NOW + 5)
    start(store, "early:1", now=NOW)
    assert store.claim("w", NOW + 9, LEASE, ("elsewhere",)) is None
    assert claim(store, now=NOW + 9).pulltag == "early:1"
    assert claim(store, now=NOW + 9).pulltag == "late:1"
    assert store.claim("w", NOW + 9, LEASE, SYSTEMS) is None


def test_a_lease_that_is_extended_is_not_claimed_and_one_that_expired_is(store: ImageStore) -> None:
    start(store)
    first = claim(store, "w1")
    store.progress(first, NOW + 50, LEASE, status=PULLING, status_message="Pulling layers")
    assert store.claim("w2", NOW + 100, LEASE, SYSTEMS) is None
    second = claim(store, "w2", NOW + 111)
    assert (second.record_id, second.worker, second.attempts, second.status) == (first.record_id, "w2", 2, PULLING)


def test_whoever_lost_the_lease_cannot_change_the_record_any_more(store: ImageStore) -> None:
    start(store)
    lost = claim(store, "w1")
    held = claim(store, "w2", NOW + LEASE + 1)
    with pytest.raises(LeaseLost):
        store.progress(lost, NOW + 99, LEASE)
    with pytest.raises(LeaseLost):
        store.fail(lost, "no", NOW + 99)
    with pytest.raises(LeaseLost):
        store.complete(lost, result(), None, NOW + 99)
    store.release(lost)
    assert store.get(held.record_id) == held


def test_a_worker_that_claims_its_own_expired_lease_again_has_lost_the_first_one(store: ImageStore) -> None:
    start(store)
    before = claim(store, "w1")
    claim(store, "w1", NOW + LEASE + 1)
    with pytest.raises(LeaseLost):
        store.progress(before, NOW + 70, LEASE)


def test_release_puts_a_pull_back_without_counting_the_attempt(store: ImageStore) -> None:
    start(store)
    store.release(claim(store, "w1"))
    again = claim(store, "w2")
    assert (again.attempts, again.worker) == (1, "w2")


def test_completion_makes_the_pull_the_image_record(store: ImageStore) -> None:
    pull = start(store)
    image = pulled_from(store, now=NOW + 7)
    stored = store.ready_by_tag("cluster", "docker", "alpine:3")
    assert stored is not None
    assert stored.record_id == pull.record_id == image.record_id
    assert (stored.status, stored.image_id, stored.tags, stored.last_pull) == (READY, ID_A, ("alpine:3",), NOW + 7)
    assert (stored.env, stored.private, stored.user_acl) == (("PATH=/bin",), False, ())
    assert (stored.sealed_tokens, stored.worker, stored.lease_expires, stored.moved_tag) == (None, None, None, None)
    assert store.ready("cluster") == [stored]
    assert store.queue("cluster") == []


def pulled_from(store: ImageStore, now: float) -> Image:
    image = store.complete(claim(store, now=now), result(), None, now)
    assert image is not None
    return image


def test_the_old_image_stays_available_while_a_new_pull_runs(store: ImageStore) -> None:
    pulled(store, "alpine:3", ID_A)
    start(store, "alpine:3", NOW + 1000)
    pull = claim(store, now=NOW + 1000)
    ready = store.ready_by_tag("cluster", "docker", "alpine:3")
    assert ready is not None
    assert ready.image_id == ID_A
    store.complete(pull, result(ID_B), None, NOW + 1001)
    ready = store.ready_by_tag("cluster", "docker", "alpine:3")
    assert ready is not None
    assert ready.image_id == ID_B


def test_the_same_id_under_another_reference_is_one_record_with_two_tags(store: ImageStore) -> None:
    first = pulled(store, "alpine:3")
    second = pulled(store, "alpine:latest", now=NOW + 9, private=True, user_acl=(1,), group_acl=(2,))
    assert second.record_id == first.record_id
    (stored,) = store.ready("cluster")
    assert stored.tags == ("alpine:3", "alpine:latest")
    assert (stored.private, stored.user_acl, stored.group_acl, stored.last_pull) == (True, (1,), (2,), NOW + 9)
    assert store.queue("cluster") == []


def test_completion_on_an_outdated_view_of_the_image_changes_nothing(store: ImageStore) -> None:
    seen = pulled(store, "one:1")
    pulled(store, "two:1", now=NOW + 1)
    start(store, "three:1", NOW + 2)
    pull = claim(store, now=NOW + 2)
    assert store.complete(pull, result(), replace(seen, moved_tag=None), NOW + 2) is None
    assert store.complete(pull, result(), None, NOW + 2) is None
    assert store.get(pull.record_id) is not None
    fresh = store.ready_by_id("cluster", "docker", ID_A)
    assert store.complete(pull, result(), fresh, NOW + 2) is not None
    assert [image.tags for image in store.ready("cluster")] == [("one:1", "two:1", "three:1")]


def test_simultaneous_completions_of_one_id_end_in_one_record(open_again: Callable[[], ImageStore]) -> None:
    stores = [open_again() for _ in range(6)]
    for number in range(len(stores)):
        start(stores[0], f"image:{number}", NOW + number)
    pulls = [claim(stores[0], f"w{number}", NOW + 10) for number in range(len(stores))]
    barrier = threading.Barrier(len(stores))

    def complete(number: int) -> None:
        own = stores[number]
        barrier.wait()
        while own.complete(pulls[number], result(), own.ready_by_id("cluster", "docker", ID_A), NOW + 11) is None:
            pass

    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(complete, range(len(stores))))
    (image,) = stores[0].ready("cluster")
    assert set(image.tags) == {f"image:{number}" for number in range(len(stores))}
    assert stores[0].queue("cluster") == []


def test_a_tag_moves_from_every_other_image_of_its_type_only(store: ImageStore) -> None:
    pulled(store, "x:1", ID_A)
    store.start_pull(request("x:1", itype="custom").record(NOW, "squashfs"), NOW)
    store.complete(claim(store), result("c" * 64), None, NOW)
    pulled(store, "x:1", ID_B, NOW + 400)
    docker, custom = (store.ready_by_tag("cluster", itype, "x:1") for itype in ("docker", "custom"))
    assert docker is not None
    assert custom is not None
    assert (docker.image_id, custom.image_id) == (ID_B, "c" * 64)
    old = store.ready_by_id("cluster", "docker", ID_A)
    assert old is not None
    assert old.tags == ()
    assert store.ready_by_id("elsewhere", "docker", ID_A) is None


def test_repair_finishes_a_tag_move_that_was_cut_short(store: ImageStore) -> None:
    old = pulled(store, "x:1", ID_A)
    new = pulled(store, "y:1", ID_B, NOW + 1)
    for image in (store.get(old.record_id), store.get(new.record_id)):
        assert image is not None
    newer = store.get(new.record_id)
    assert newer is not None
    assert store.change_if(newer, {"tags": ("y:1", "x:1"), "moved_tag": "x:1", "last_pull": NOW + 2, "revision": 9})
    found = store.ready_by_tag("cluster", "docker", "x:1")
    assert found is not None
    assert found.image_id == ID_B
    store.repair(NOW + 3, 300)
    assert [image.image_id for image in store.holders_of_tag("cluster", "docker", "x:1")] == [ID_B]
    assert store.with_moved_tag() == []


def test_failure_keeps_the_reason_and_drops_the_logins(store: ImageStore) -> None:
    store.start_pull(replace(request().record(NOW, "squashfs"), sealed_tokens="sealed"), NOW)
    pull = claim(store)
    assert pull.sealed_tokens == "sealed"
    store.fail(pull, "registry refused", NOW + 3, denied=True)
    (failed,) = store.pulls("cluster", "docker", "alpine:3")
    assert (failed.status, failed.status_message, failed.last_pull) == (FAILURE, "registry refused", NOW + 3)
    assert failed.denied
    assert failed.sealed_tokens is None
    assert [entry.status for entry in store.queue("cluster")] == [FAILURE]


def test_a_new_pull_replaces_the_callers_failure_but_not_what_was_denied_to_others(store: ImageStore) -> None:
    for uid in (1, 2):
        start(store, uid=uid)
        store.fail(claim(store), "denied", NOW, denied=True)
    pull = start(store, uid=1)
    records = store.pulls("cluster", "docker", "alpine:3")
    assert {(record.status, record.requested_by) for record in records} == {(PENDING, 1), (FAILURE, 2)}
    assert pull.requested_by == 1


def test_repair_forgets_failures_past_their_time(store: ImageStore) -> None:
    start(store)
    store.fail(claim(store), "no", NOW)
    store.repair(NOW + 299, 300)
    assert len(store.queue("cluster")) == 1
    store.repair(NOW + 301, 300)
    assert store.queue("cluster") == []


def test_expiration_moves_without_disturbing_anybody(store: ImageStore) -> None:
    image = pulled(store, "x:1")
    seen = store.get(image.record_id)
    assert seen is not None
    store.set_expiration(seen, NOW + 5.5)
    assert store.get(image.record_id) == replace(seen, expiration=NOW + 5.5)
    assert store.change_if(seen, {"workdir": "/w", "revision": 2})
    changed = store.get(image.record_id)
    assert changed is not None
    assert changed.expiration == NOW + 5.5


def test_metrics_come_back_newest_last(store: ImageStore) -> None:
    for number in range(5):
        store.add_metric(Metric("alice", 500, "cluster", "docker", f"x:{number}", ID_A, NOW + number))
    store.add_metric(Metric("alice", 500, "other", "docker", "y:1", ID_A, NOW))
    assert [metric.tag for metric in store.metrics("cluster", 2)] == ["x:3", "x:4"]


def test_what_one_process_writes_another_reads(open_again: Callable[[], ImageStore]) -> None:
    image = pulled(open_again(), "x:1")
    assert open_again().ready_by_tag("cluster", "docker", "x:1") == replace(image, moved_tag=None)


def test_hostile_names_stay_data(store: ImageStore) -> None:
    name = "x'); DROP TABLE images; --\x01{$gt: ''}\\ü"
    start(store, name)
    assert [record.pulltag for record in store.queue("cluster")] == [name]
    assert store.ready_by_tag("cluster", "docker", name) is None


def test_ping_answers(store: ImageStore) -> None:
    store.ping()


class TestRecordsOfEarlierGateways:
    """Section 5.1: string tags, SUCCESS, null lists, missing keys; written with the driver, as they would be."""

    @pytest.fixture
    def images(self, mongo_uri: str, tmp_path: Path) -> Iterator[Any]:
        import pymongo

        name = database_name(tmp_path)
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongo_uri)
        self.store = open_store(mongo_uri, name)
        yield client[name]["images"]
        client.close()
        self.store.close()

    def test_are_found_and_listed(self, images: Any) -> None:
        common = {"system": "cluster", "itype": "docker", "format": "squashfs"}
        images.insert_one({**common, "status": "SUCCESS", "tag": "one:1", "id": ID_A, "userACL": None})
        images.insert_one({**common, "status": "READY", "tag": ["two:1"], "id": ID_B, "last_pull": 5})
        one = self.store.ready_by_tag("cluster", "docker", "one:1")
        assert one is not None
        assert (one.status, one.tags, one.user_acl, one.private) == (READY, ("one:1",), None, None)
        assert len(self.store.ready("cluster")) == 2

    def test_gain_tags_and_lose_them(self, images: Any) -> None:
        document = {"system": "cluster", "itype": "docker", "status": "SUCCESS", "tag": "one:1", "id": ID_A}
        images.insert_one(document)
        image = pulled(self.store, "two:1")
        assert image.tags == ("one:1", "two:1")
        assert images.count_documents({"system": "cluster"}) == 1
        pulled(self.store, "one:1", ID_B)
        assert {record.image_id: record.tags for record in self.store.ready("cluster")} == {
            ID_A: ("two:1",),
            ID_B: ("one:1",),
        }

    def test_in_flight_without_a_lease_are_not_claimed_and_give_way_when_dead(self, images: Any) -> None:
        stuck = {"system": "cluster", "itype": "docker", "status": "PULLING", "pulltag": "x:1", "last_heartbeat": 1.0}
        images.insert_one({**stuck, "tag": []})
        assert self.store.claim("w", NOW, LEASE, SYSTEMS) is None
        assert start(self.store, "x:1").status == PENDING
        assert [record.status for record in self.store.pulls("cluster", "docker", "x:1")] == [PENDING]


@pytest.mark.parametrize("uri", ["", "sqlite://relative", "postgres://x/", "mongodb://", "/var/lib/x"])
def test_an_uri_of_another_kind_is_a_configuration_error(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="MongoDBURI"):
        open_store(uri, "Shifter")


def test_mongodb_needs_a_database_name() -> None:
    with pytest.raises(ConfigurationError, match='"MongoDB"'):
        open_store("mongodb://localhost/")


def test_a_directory_that_is_not_there_is_a_store_error_naming_the_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"{tmp_path}/none/x.sqlite: No such file"):
        open_store(f"sqlite://{tmp_path}/none/x.sqlite").ping()


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"hello" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        open_store(f"sqlite://{tmp_path}/x.sqlite").ping()


def test_a_server_that_is_not_there_is_a_store_error_without_the_password() -> None:
    store = open_store(f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=200", "Shifter")
    with pytest.raises(StoreError, match=r"MongoDB at 127\.0\.0\.1"):
        store.ping()
    store.close()


def test_the_database_file_is_the_gateways_alone(tmp_path: Path) -> None:
    open_store(f"sqlite://{tmp_path}/x.sqlite").ping()
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(
        (path.name for path in tmp_path.iterdir()), 0o600
    )
