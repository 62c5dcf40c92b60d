# SPDX-License-Identifier: BSD-3-Clause
"""Reads and writes that do less than they are asked to, as POSIX lets them: the pull makes the same bytes."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shifter_imagegw.images import READY
from tests.faulty import (
    check_consistent,
    check_nothing_left,
    compiled,
    eager,
    pulled_in_a_process,
    undisturbed_pull,
    visible,
)
from tests.gatewayserver import SYSTEM
from tests.munged import Munged
from tests.pulledsite import PulledSite, make_site
from tests.registryserver import RegistryServer, registry_server, tar_of


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("shortcounts", tmp_path_factory.mktemp("shim"), "-shared", "-fPIC")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    noise = random.Random(13)
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        many = {f"d/{number:04}": noise.randbytes(number) for number in range(600)}
        first = tar_of({"bin/": b"", "bin/sh": noise.randbytes(500_000), "zeros": bytes(300_000), **many})
        server.push_image("app", "1", [first, tar_of({"more": noise.randbytes(200_000), "d/0007": b"changed"})])
        yield server


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, munge: Munged, registry: RegistryServer
) -> dict[str, bytes]:
    return undisturbed_pull(tmp_path_factory.mktemp("undisturbed"), munge, registry)


@pytest.fixture
def site(tmp_path: Path, munge: Munged, registry: RegistryServer) -> Iterator[PulledSite]:
    made = eager(make_site(tmp_path, munge, registry))
    yield made
    made.store.close()


def pulled_with(site: PulledSite, shim: Path, seed: int) -> int:
    """How many calls were cut; the pull must have worked."""
    report = site.config.parent / "cut"
    environment = {"LD_PRELOAD": str(shim), "SHORT_SEED": str(seed), "SHORT_REPORT": str(report)}
    image = pulled_in_a_process(site, "app:1", environment=environment)
    assert image.status == READY, image.status_message
    return int(report.read_text())


@pytest.mark.parametrize("seed", range(6))
def test_the_same_bytes_without_and_with_a_cache(
    site: PulledSite, shim: Path, seed: int, undisturbed: dict[str, bytes]
) -> None:
    assert pulled_with(site, shim, seed) > 100
    check_consistent(site)
    check_nothing_left(site)
    assert visible(site) == undisturbed
    cache = site.configuration.cache_directory
    archives = {path.name: path.stat().st_ino for path in cache.iterdir()}
    for record in site.store.ready(SYSTEM):
        site.store.delete_if(record)
    shutil.rmtree(site.configuration.platforms[SYSTEM].image_directory / "tags")
    for path in site.configuration.platforms[SYSTEM].image_directory.iterdir():
        path.unlink()
    assert pulled_with(site, shim, 100 + seed) > 100
    assert visible(site) == undisturbed
    assert {path.name: path.stat().st_ino for path in cache.iterdir()} == archives  # none was taken for damaged
