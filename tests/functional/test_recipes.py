# SPDX-License-Identifier: BSD-3-Clause
"""What a site configures about its images, from the file to the image: real registry, database and conversion."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.app import create_worker
from shifter_imagegw.auth import MungeSealer
from shifter_imagegw.config import Configuration, load_configuration
from shifter_imagegw.images import FAILURE, Image
from shifter_imagegw.layers.recipe import RECIPE, Recipe
from shifter_imagegw.manager import ImageManager
from shifter_imagegw.meta import recorded_recipe
from shifter_imagegw.session import Session
from shifter_imagegw.squashfs.validate import ImageFacts, validate_image
from shifter_imagegw.store import ImageStore, open_store
from tests.gatewayserver import SYSTEM, write_configuration
from tests.munged import Munged
from tests.registryserver import RegistryServer, registry_server, tar_of

OLD = "old"
"""A second system, of nodes with an old kernel."""

TEXT = b"easily compressed text. " * 20_000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        for tag in ("1", "again"):
            server.push_image("app", tag, [tar_of({"bin/sh": TEXT}), tar_of({"file": TEXT[1:]})])
        yield server


@dataclass
class Site:
    """A gateway with two systems, without its processes."""

    configuration: Configuration
    store: ImageStore

    def pulled(self, system: str, reference: str = "app:1") -> Image:
        """Pull as a worker does and return how it ended."""
        manager = ImageManager(self.configuration, self.store, MungeSealer(self.configuration), lambda _: frozenset())
        started = manager.pull(Session(system, 3000, 300, "carol", "users"), "docker", reference)
        claimed = self.store.claim("test", time.time(), 60, [system])
        assert claimed is not None
        create_worker(self.configuration).attempt(claimed)
        failed = self.store.get(started.record_id)
        found = failed if failed is not None and failed.status == FAILURE else None
        found = found or self.store.ready_by_tag(system, "docker", reference)
        assert found is not None
        return found

    def file(self, system: str, image: Image, suffix: str = "squashfs") -> Path:
        return self.configuration.platforms[system].image_directory / f"{image.image_id}.{suffix}"

    def facts(self, system: str, image: Image) -> ImageFacts:
        fd = os.open(self.file(system, image), os.O_RDONLY)
        try:
            return validate_image(fd)
        finally:
            os.close(fd)


@pytest.fixture
def make_site(tmp_path: Path, munge: Munged, registry: RegistryServer) -> Iterator[Callable[..., Site]]:
    stores = []

    def make(old: dict[str, Any] | None = None, **changes: Any) -> Site:
        locations = {"plain": {"remotetype": "dockerv2", "url": registry.url}}
        path = write_configuration(
            tmp_path, munge.socket, Locations=locations, DefaultImageLocation="plain", **changes
        )
        document = json.loads(path.read_text())
        (tmp_path / "old-images").mkdir(mode=0o700, exist_ok=True)
        local = {"imageDir": str(tmp_path / "old-images")}
        document["Platforms"][OLD] = {**document["Platforms"][SYSTEM], "local": local, "recipe": old or {}}
        path.write_text(json.dumps(document))
        configuration = load_configuration(path, {})
        stores.append(open_store(configuration.store_uri))
        return Site(configuration, stores[-1])

    yield make
    for store in stores:
        store.close()


def test_each_system_gets_its_own_recipe_from_one_cache(make_site: Callable[..., Site]) -> None:
    site = make_site({"compressor": "gzip", "level": 1, "blockSize": 4096, "bootSet": False})
    new, old = site.pulled(SYSTEM), site.pulled(OLD)
    assert new.image_id == old.image_id
    facts = site.facts(SYSTEM, new), site.facts(OLD, old)
    assert [(fact.compressor, fact.block_size) for fact in facts] == [("zstd", 131_072), ("gzip", 4096)]
    assert TEXT in site.file(SYSTEM, new).read_bytes()
    assert TEXT not in site.file(OLD, old).read_bytes()
    archives = list(site.configuration.cache_directory.glob("*.layer"))
    assert len(archives) == 4


def test_the_recipe_of_the_site_is_that_of_its_systems(make_site: Callable[..., Site]) -> None:
    site = make_site(recipe={"compressor": "lz4"})
    assert site.facts(OLD, site.pulled(OLD)).compressor == "lz4"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"maxEntries": 1}, "more than 1 entries"), ({"maxBytes": 100_000}, "more than 100000 bytes")],
)
def test_limits_of_the_file_hold(make_site: Callable[..., Site], limits: dict[str, int], reason: str) -> None:
    site = make_site(limits=limits)
    failed = site.pulled(SYSTEM)
    assert failed.status == FAILURE
    assert reason in (failed.status_message or "")


def test_the_metadata_say_by_which_recipe_an_image_was_made(make_site: Callable[..., Site]) -> None:
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
