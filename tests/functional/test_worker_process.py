# SPDX-License-Identifier: BSD-3-Clause
"""Worker processes that are killed, stopped and outlived: no pull is lost, stuck or half published."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shifter_imagegw.images import FAILURE, PENDING
from shifter_imagegw.wakeup import Bell, Listener
from tests.gatewayserver import SYSTEM, write_configuration
from tests.heldworker import STEPS
from tests.munged import Munged
from tests.registryserver import RegistryServer, registry_server, tar_of
from tests.scriptedserver import Request, fake_image, scripted_server, serve_image
from tests.workersite import Site

MOMENTS = [f"{when}:{step}" for step in STEPS for when in ("before", "after") if (when, step) != ("before", "claim")]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        server.push_image("app", "1", [tar_of({"one": b"1" * 5000}), tar_of({"two": b"2" * 5000})])
        yield server


@pytest.fixture
def site(tmp_path: Path, munge: Munged, registry: RegistryServer) -> Iterator[Site]:
    locations = {"reg": {"remotetype": "dockerv2", "url": registry.url}}
    made = Site(write_configuration(tmp_path, munge.socket, Locations=locations, DefaultImageLocation="reg"))
    yield made
    made.store.close()


@pytest.mark.parametrize("moment", MOMENTS)
def test_whenever_a_worker_is_killed_another_finishes(site: Site, moment: str) -> None:
    pull = site.pull("app:1")
    with site.worker(moment) as first:
        site.await_held(first)
        first.kill()
        first.wait()
    half = site.debris()
    done = site.store.ready_by_tag(SYSTEM, "docker", "app:1")
    assert (done is not None) == (moment == "after:complete")
    site.expire_leases()
    for part in half:  # as old as a dead worker's are
        os.utime(part, (0, 0))
    with site.worker() as second:
        image = site.await_ready("app:1")
        site.check_published(image)
        site.until(lambda: site.debris() == [] and site.log.count(" serves ") == 2)
        second.terminate()
        assert second.wait(timeout=60) == 0
    assert image.record_id == pull.record_id
    assert len(site.store.ready(SYSTEM)) == 1
    assert site.store.queue(SYSTEM) == []


def test_a_lease_that_runs_out_is_taken_over(tmp_path: Path, munge: Munged, registry: RegistryServer) -> None:
    locations = {"reg": {"remotetype": "dockerv2", "url": registry.url}}
    config = write_configuration(
        tmp_path, munge.socket, Locations=locations, DefaultImageLocation="reg", leaseSeconds=2, maxAttempts=1
    )
    site = Site(config)
    pull = site.pull("app:1")
    with site.worker("before:merge_archives") as first:
        site.await_held(first)
        first.kill()
    with site.worker():
        record = site.until(lambda: (found := site.record(pull)).status == FAILURE and found)
        assert "1 workers ended" in record.status_message
        site.until(lambda: site.debris() == [])
    site.store.close()


def test_a_worker_that_lives_keeps_its_lease(tmp_path: Path, munge: Munged, registry: RegistryServer) -> None:
    locations = {"reg": {"remotetype": "dockerv2", "url": registry.url}}
    config = write_configuration(
        tmp_path, munge.socket, Locations=locations, DefaultImageLocation="reg", leaseSeconds=2
    )
    site = Site(config)
    pull = site.pull("app:1")
    with site.worker("before:merge_archives") as first:
        site.await_held(first)
        begun = site.record(pull).last_heartbeat or 0
        with site.worker():
            site.until(lambda: (site.record(pull).last_heartbeat or 0) > begun + 3)
            assert site.record(pull).attempts == 1
    site.store.close()


@pytest.mark.parametrize("moment", ["before:archive", "before:merge_archives"])
def test_a_worker_that_is_asked_to_stop_gives_its_pull_back(site: Site, moment: str) -> None:
    pull = site.pull("app:1")
    with site.worker(moment) as first:
        site.await_held(first)
        first.terminate()
        assert first.wait(timeout=60) == 0
    record = site.record(pull)
    assert (record.status, record.worker, record.attempts) == (PENDING, None, 0)
    assert site.debris() == []
    with site.worker():
        assert site.await_ready("app:1").record_id == pull.record_id


def test_a_registry_that_keeps_us_waiting_does_not_keep_us_from_stopping(tmp_path: Path, munge: Munged) -> None:
    image = fake_image()

    def blob(request: Request) -> None:
        request.head(200, {"Content-Length": str(len(image.layer))})
        request.wfile.flush()
        server.over.wait(120)

    with scripted_server(serve_image(image, blob)) as server:
        locations = {"reg": {"remotetype": "dockerv2", "url": server.url}}
        http = {"readTimeout": 100}
        site = Site(
            write_configuration(tmp_path, munge.socket, Locations=locations, DefaultImageLocation="reg", http=http)
        )
        pull = site.pull("app:1")
        with site.worker() as process:
            site.until(lambda: server.headers_of(image.layer_digest))
            process.terminate()
            assert process.wait(timeout=60) == 0
            assert not server.over.is_set()
        assert (site.record(pull).status, site.record(pull).attempts) == (PENDING, 0)
        site.store.close()


def test_idle_workers_stop_too(site: Site) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with site.worker() as process:
            site.until(lambda: "serves" in site.log)
            process.send_signal(number)
            assert process.wait(timeout=60) == 0
        (site.config.parent / "worker.log").unlink()


def test_failing_pulls_do_not_end_the_worker(site: Site) -> None:
    failing = [site.pull(f"absent{number}:1") for number in range(5)]
    site.pull("app:1")
    with site.worker() as process:
        site.await_ready("app:1")
        site.until(lambda: all(site.record(pull).status == FAILURE for pull in failing))
        assert process.poll() is None


def test_a_database_that_goes_away_comes_back(tmp_path: Path, munge: Munged, registry: RegistryServer) -> None:
    (tmp_path / "db").mkdir(mode=0o700)
    locations = {"reg": {"remotetype": "dockerv2", "url": registry.url}}
    config = write_configuration(
        tmp_path, munge.socket, Locations=locations, DefaultImageLocation="reg",
        MongoDBURI=f"sqlite://{tmp_path}/db/images.sqlite",
    )  # fmt: skip
    (tmp_path / "db").rename(tmp_path / "away")
    site = Site(config)
    with site.worker() as process:
        site.until(lambda: "no pull can be claimed" in site.log)
        (tmp_path / "away").rename(tmp_path / "db")
        site.pull("app:1")
        site.check_published(site.await_ready("app:1"))
        assert process.poll() is None
    site.store.close()


def test_parts_of_living_pulls_stay(site: Site) -> None:
    site.pull("app:1")
    with site.worker("after:merge_archives") as first:
        site.await_held(first)
        (part,) = site.debris()
        os.utime(part, (0, 0))
        stale = part.with_name(f".{'0' * 64}.squashfs.{'1' * 32}-1-{'2' * 8}.part")
        stale.write_bytes(b"")
        os.utime(stale, (0, 0))
        with site.worker():
            site.until(lambda: not stale.exists())
        assert part.exists()


def test_a_ring_wakes_and_nobody_listening_is_no_error(tmp_path: Path) -> None:
    bell = Bell(tmp_path)
    bell.ring()
    listener = Listener(tmp_path)
    second = Listener(tmp_path)
    assert not listener.wait(0)
    bell.ring()
    assert listener.wait(60)
    assert not second.wait(0)
    for _ in range(100_000):
        bell.ring()
    assert second.wait(0)
    listener.close()
    second.close()
    bell.ring()
    assert (tmp_path / "pull-queued").stat().st_mode & 0o777 == 0o600


def test_the_log_has_one_object_per_line(site: Site) -> None:
    site.pull("app:1")
    with site.worker():
        site.await_ready("app:1")
        site.until(lambda: "READY" in site.log)
    records = [json.loads(line) for line in site.log.splitlines()]
    assert {"READY" in record["message"] for record in records} == {True, False}
    assert all({"time", "level", "logger", "process"} <= set(record) for record in records)
