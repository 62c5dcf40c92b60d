# SPDX-License-Identifier: BSD-3-Clause
"""What a site configures about its images, from the file to the image: real registry, database and conversion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.images import FAILURE
from shifter_imagegw.layers.recipe import RECIPE, Recipe
from shifter_imagegw.meta import recorded_recipe
from tests.gatewayserver import SYSTEM
from tests.munged import Munged
from tests.pulledsite import OLD, PulledSite
from tests.pulledsite import make_site as make_pulled_site
from tests.registryserver import RegistryServer, registry_server, tar_of

TEXT = b"easily compressed text. " * 20_000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        for tag in ("1", "again"):
            server.push_image("app", tag, [tar_of({"bin/sh": TEXT}), tar_of({"file": TEXT[1:]})])
        yield server


@pytest.fixture
def make_site(tmp_path: Path, munge: Munged, registry: RegistryServer) -> Iterator[Callable[..., PulledSite]]:
    made = []

    def make(old: dict[str, Any] | None = None, **changes: Any) -> PulledSite:
        made.append(make_pulled_site(tmp_path, munge, registry, old, **changes))
        return made[-1]

    yield make
    for site in made:
        site.store.close()


def test_each_system_gets_its_own_recipe_from_one_cache(make_site: Callable[..., PulledSite]) -> None:
    site = make_site({"compressor": "gzip", "level": 1, "blockSize": 4096, "bootSet": False})
    new, old = site.pulled(SYSTEM), site.pulled(OLD)
    assert new.image_id == old.image_id
    facts = site.facts(SYSTEM, new), site.facts(OLD, old)
    assert [(fact.compressor, fact.block_size) for fact in facts] == [("zstd", 131_072), ("gzip", 4096)]
    assert TEXT in site.file(SYSTEM, new).read_bytes()
    assert TEXT not in site.file(OLD, old).read_bytes()
    archives = list(site.configuration.cache_directory.glob("*.layer"))
    assert len(archives) == 4


def test_the_recipe_of_the_site_is_that_of_its_systems(make_site: Callable[..., PulledSite]) -> None:
    site = make_site(recipe={"compressor": "lz4"})
    assert site.facts(OLD, site.pulled(OLD)).compressor == "lz4"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"maxEntries": 1}, "more than 1 entries"), ({"maxBytes": 100_000}, "more than 100000 bytes")],
)
def test_limits_of_the_file_hold(make_site: Callable[..., PulledSite], limits: dict[str, int], reason: str) -> None:
    site = make_site(limits=limits)
    failed = site.pulled(SYSTEM)
    assert failed.status == FAILURE
    assert reason in (failed.status_message or "")


def test_the_metadata_say_by_which_recipe_an_image_was_made(make_site: Callable[..., PulledSite]) -> None:
    site = make_site({"compressor": "gzip", "keepOwners": True})
    new, old = site.pulled(SYSTEM), site.pulled(OLD)
    assert recorded_recipe(site.file(SYSTEM, new, "meta").read_bytes()) == Recipe().record()
    gzip = Recipe("gzip", 6, keep_owners=True)
    content = site.file(OLD, old, "meta").read_bytes()
    assert Recipe.of_record(recorded_recipe(content) or "") == (RECIPE, gzip)
    changed = make_site({"compressor": "lz4"})
    assert changed.pulled(OLD, "app:again").image_id == old.image_id
    assert changed.facts(OLD, old).compressor == "gzip"
    assert changed.file(OLD, old, "meta").read_bytes() == content
