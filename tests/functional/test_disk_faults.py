# SPDX-License-Identifier: BSD-3-Clause
"""Disks that are full, limited or broken at any moment of a pull: it fails and says why, and the next one works."""

from __future__ import annotations

import itertools
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.app import create_worker
from shifter_imagegw.errors import StoreError
from shifter_imagegw.images import FAILURE, READY, Image
from tests.faulty import (
    Volume,
    check_consistent,
    check_nothing_left,
    eager,
    expire_leases,
    pulled_in_a_process,
    undisturbed_pull,
    visible,
    volume,
)
from tests.gatewayserver import SYSTEM
from tests.munged import Munged
from tests.pulledsite import PulledSite, make_site
from tests.registryserver import RegistryServer, registry_server, tar_of

NOISE = random.Random(12).randbytes(1 << 20)
PAGE = 4096


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        server.push_image("app", "1", [tar_of({"one": NOISE[:20_000]}), tar_of({"two": NOISE[-15_000:]})])
        server.push_image("big", "1", [tar_of({"three": NOISE})])
        server.push_image("two", "1", [tar_of({"four": NOISE[:600_000]}), tar_of({"five": NOISE[600_000:]})])
        yield server


@pytest.fixture
def site(tmp_path: Path, munge: Munged, registry: RegistryServer) -> Iterator[PulledSite]:
    made = eager(make_site(tmp_path, munge, registry))
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, munge: Munged, registry: RegistryServer
) -> dict[str, bytes]:
    return undisturbed_pull(tmp_path_factory.mktemp("undisturbed"), munge, registry)


@pytest.fixture(params=["tmpfs", "ext4"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Volume]:
    with volume(tmp_path, request.param) as made:
        yield made


def moved(site: PulledSite, what: str, directory: Path) -> PulledSite:
    """The site with its images, cache or database in another directory."""

    def change(document: dict[str, Any]) -> None:
        if what == "images":
            document["Platforms"][SYSTEM]["local"]["imageDir"] = str(directory)
        elif what == "cache":
            document["CacheDirectory"] = str(directory)
        else:
            document["MongoDBURI"] = f"sqlite://{directory}/images.sqlite"

    return eager(site.changed(change))


def explained(image: Image, *words: str) -> None:
    """The pull failed, with all of these in its message."""
    assert image.status == FAILURE
    for word in words:
        assert word in (image.status_message or ""), image.status_message


def sound(site: PulledSite, undisturbed: Mapping[str, bytes]) -> None:
    """After a failure: nothing that is not whole, nothing left over."""
    check_consistent(site)
    check_nothing_left(site)
    assert visible(site).items() <= undisturbed.items()


def start_over(site: PulledSite) -> None:
    """No images, no layers, no records."""
    for record in [*site.store.ready(SYSTEM), *site.store.queue(SYSTEM)]:
        site.store.delete_if(record)
    for directory in (site.configuration.platforms[SYSTEM].image_directory, site.configuration.cache_directory):
        for path in directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("what", ["images", "cache"])
def test_full_at_every_size(site: PulledSite, small: Volume, what: str, undisturbed: dict[str, bytes]) -> None:
    site = moved(site, what, small.directory)
    for size in itertools.count(0, PAGE):
        small.leave(size)
        image = site.pulled()
        sound(site, undisturbed)
        if image.status == READY:
            break
        explained(image, str(small.directory), "No space left on device", "space")
        small.free()
        assert site.pulled().status == READY
        assert visible(site) == undisturbed
        start_over(site)
    assert size > 8 * PAGE
    site.store.close()


@pytest.mark.parametrize("what", ["images", "cache"])
def test_no_room_for_another_file(site: PulledSite, tmp_path: Path, what: str, undisturbed: dict[str, bytes]) -> None:
    """A file system has a number of files, too: every one that a pull makes can be the one too many."""
    with volume(tmp_path, "tmpfs") as small:
        site = moved(site, what, small.directory)
        for count in itertools.count():
            small.leave_inodes(count)
            image = site.pulled()
            sound(site, undisturbed)
            if image.status == READY:
                break
            explained(image, str(small.directory), "No space left on device", "space")
            small.leave_inodes(100)
            assert site.pulled().status == READY
            assert visible(site) == undisturbed
            start_over(site)
        assert count > 2
        site.store.close()


def test_full_below_the_database(site: PulledSite, small: Volume, undisturbed: dict[str, bytes]) -> None:
    """Then no failure can be recorded either: the pull waits for its next worker."""
    site = moved(site, "database", small.directory)
    site.store.ping()
    for size in itertools.count(0, 3 * PAGE):
        small.leave(size)
        failure = None
        try:
            site.pulled()
        except StoreError as error:
            failure = str(error)
        sound(site, undisturbed)
        small.free()
        assert finished(site).status == READY
        assert visible(site) == undisturbed
        if failure is None:
            break
        assert f"{small.directory}/images.sqlite" in failure
        assert "free space" in failure
        start_over(site)
        with sqlite3.connect(small.directory / "images.sqlite") as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that it needs space again
        database.close()
    assert size > 8 * PAGE
    site.store.close()


def finished(site: PulledSite) -> Image:
    """What becomes of the pull, or of a new one if the database has never heard of it."""
    expire_leases(site)
    claimed = site.store.claim("next", time.time(), 60, [SYSTEM])
    if claimed is not None:
        create_worker(site.configuration).attempt(claimed)
    elif not site.store.ready(SYSTEM):
        return site.pulled()
    found = site.store.ready_by_tag(SYSTEM, "docker", "app:1")
    assert found is not None
    return found


@pytest.mark.parametrize("thousands", [300, 700, 1000])
def test_limit_on_the_size_of_files(site: PulledSite, thousands: int) -> None:
    """As with ulimit -f, or a file system that has none so long; the database is shorter than the least of these."""
    image = pulled_in_a_process(site, "big:1", "prlimit", f"--fsize={thousands * 1000}")
    explained(image, str(site.config.parent), "File too large", "ulimit -f")
    sound(site, {})
    assert pulled_in_a_process(site, "big:1").status == READY
    check_nothing_left(site)


def test_limit_that_only_the_image_meets(site: PulledSite) -> None:
    """Its archives are shorter, each on its own."""
    image = pulled_in_a_process(site, "two:1", "prlimit", "--fsize=700000")
    explained(image, str(site.configuration.platforms[SYSTEM].image_directory), "File too large", "ulimit -f")
    check_consistent(site)
    check_nothing_left(site)
    assert pulled_in_a_process(site, "two:1").status == READY


BROKEN = [
    *(("again", f"fsync:when={number}") for number in range(1, 9)),
    *(("again", f"{call}:when=1") for call in ("fchmod", "rename", "mkdir", "copy_file_range", "unlink")),
    ("again", "rename:when=2"), ("again", "rename:when=3"), ("again", "fchmod:when=3"), ("again", "unlink:when=2"),
    *(("first", f"{call}:when=1") for call in ("rename", "fchmod", "ftruncate", "unlink", "flock")),
]  # fmt: skip


@pytest.mark.parametrize(("when", "fault"), BROKEN)
def test_broken_disk(site: PulledSite, when: str, fault: str, undisturbed: dict[str, bytes]) -> None:
    """A system call of the pull fails with EIO, once; ``again`` is with all layers in the cache."""
    if when == "again":
        assert site.pulled().status == READY
        cached = {name: data for name, data in visible(site).items() if name.startswith("cache/")}
        start_over(site)
        for name, data in cached.items():
            path = site.configuration.cache_directory / Path(name).name
            path.write_bytes(data)
            path.chmod(0o600)
    call, _, which = fault.partition(":")
    trace = ("-e", f"trace={call}", "-e", f"inject={call}:error=EIO:{which}")
    image = pulled_in_a_process(site, "app:1", "strace", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", *trace)
    check_consistent(site)
    if image.status != READY:
        explained(image, str(site.config.parent), "Input/output error", "disk")
        assert site.pulled().status == READY
    create_worker(site.configuration)._tidy()
    check_nothing_left(site)
    assert visible(site) == undisturbed
