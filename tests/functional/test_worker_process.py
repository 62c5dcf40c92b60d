# SPDX-License-Identifier: BSD-3-Clause
"""Worker processes that are killed, stopped and outlived: no pull is lost, stuck or half published."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.auth import MungeSealer
from shifter_imagegw.config import load_configuration
from shifter_imagegw.images import FAILURE, PENDING, Image
from shifter_imagegw.manager import ImageManager
from shifter_imagegw.platforms.local import LocalPlatform
from shifter_imagegw.session import Session
from shifter_imagegw.store import open_store
from shifter_imagegw.wakeup import Bell, Listener
from tests.gatewayserver import SYSTEM, write_configuration
from tests.heldworker import STEPS
from tests.munged import Munged
from tests.registryserver import RegistryServer, registry_server, tar_of
from tests.scriptedserver import Request, fake_image, scripted_server, serve_image

ROOT = Path(__file__).resolve().parents[2]
CAROL = Session(SYSTEM, 3000, 300, "carol", "users")
MOMENTS = [f"{when}:{step}" for step in STEPS for when in ("before", "after") if (when, step) != ("before", "claim")]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        server.push_image("app", "1", [tar_of({"one": b"1" * 5000}), tar_of({"two": b"2" * 5000})])
        yield server


@dataclass
class Site:
    """A gateway's files and records, and worker processes on them."""

    config: Path

    def __post_init__(self) -> None:
        self.configuration = load_configuration(self.config)
        self.store = open_store(self.configuration.store_uri)
        self.images = self.configuration.platforms[SYSTEM].image_directory

    def pull(self, reference: str) -> Image:
        bell = Bell(self.configuration.expand_directory)
        sealer = MungeSealer(self.configuration)
        manager = ImageManager(self.configuration, self.store, sealer, lambda _: frozenset(), on_queued=bell.ring)
        return manager.pull(CAROL, "docker", reference)

    @contextmanager
    def worker(self, *moments: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.config.parent / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.heldworker", str(self.config), *moments], cwd=ROOT,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def await_held(self, process: subprocess.Popen[bytes]) -> None:
        mark = self.config.parent / f"held-{process.pid}"
        self.until(mark.exists)

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.03)
        raise AssertionError(f"waited in vain:\n{self.log[-3000:]}")

    @property
    def log(self) -> str:
        return (self.config.parent / "worker.log").read_text(errors="replace")

    def await_ready(self, reference: str) -> Image:
        found: Image = self.until(lambda: self.store.ready_by_tag(SYSTEM, "docker", reference))
        return found

    def record(self, pull: Image) -> Image:
        found = self.store.get(pull.record_id)
        assert found is not None
        return found

    def expire_leases(self) -> None:
        """What time does: nobody has heard of the worker for longer than its lease."""
        path = self.configuration.store_uri.removeprefix("sqlite://")
        with sqlite3.connect(path) as database:
            database.execute("UPDATE images SET lease_expires = 0 WHERE worker IS NOT NULL")
        database.close()

    def debris(self) -> list[Path]:
        return list(self.images.rglob("*.part"))

    def check_published(self, image: Image) -> None:
        """Everything a node looks at is there, and nothing else."""
        assert image.image_id is not None
        platform = LocalPlatform(SYSTEM, self.images)
        assert platform.exists(image.image_id, "squashfs")
        assert platform.has_metadata(image.image_id)
        assert [platform.tagged("docker", tag) for tag in image.tags] == [image.image_id] * len(image.tags)


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


def test_workers_keep_the_cache_within_its_bounds(tmp_path: Path, munge: Munged) -> None:
    cache = {"maxBytes": 1 << 20, "minFreePercent": 0}
    site = Site(write_configuration(tmp_path, munge.socket, cache=cache))
    for number in range(3):
        archive = site.configuration.cache_directory / f"{number:064x}-{number:064x}-{number:016x}.layer"
        archive.write_bytes(os.urandom(700_000))
        os.utime(archive, (number, number))
    with site.worker():
        site.until(lambda: list(site.configuration.cache_directory.glob("*.layer")) == [archive])
        site.until(lambda: "removed 2 of 3 layers" in site.log)
    site.store.close()


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
