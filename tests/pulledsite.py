# SPDX-License-Identifier: BSD-3-Clause
"""A gateway with two systems and real conversion, without its processes: who pulls also does the worker's work."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shifter_imagegw.app import create_worker
from shifter_imagegw.auth import MungeSealer
from shifter_imagegw.config import Configuration, load_configuration
from shifter_imagegw.images import FAILURE, READY, Image
from shifter_imagegw.manager import ImageManager
from shifter_imagegw.session import Session
from shifter_imagegw.squashfs.validate import ImageFacts, validate_image
from shifter_imagegw.store import ImageStore, open_store
from tests.gatewayserver import SYSTEM, write_configuration
from tests.imagecheck import check_image
from tests.munged import Munged
from tests.registryserver import RegistryServer

OLD = "old"
"""The second system, of nodes with an old kernel."""


@dataclass
class PulledSite:
    """``store`` is to be closed."""

    config: Path
    configuration: Configuration
    store: ImageStore

    def changed(self, change: Callable[[dict[str, Any]], None]) -> PulledSite:
        """This site after ``change`` of its file; the new one is to be closed."""
        document = json.loads(self.config.read_text())
        change(document)
        self.config.write_text(json.dumps(document))
        self.store.close()
        configuration = load_configuration(self.config, {})
        return PulledSite(self.config, configuration, open_store(configuration.store_uri))

    def pulled(self, system: str = SYSTEM, reference: str = "app:1", tokens: dict[str, str] | None = None) -> Image:
        """Pull and return how it ended; an image is one for other readers, too."""
        manager = ImageManager(self.configuration, self.store, MungeSealer(self.configuration), lambda _: frozenset())
        session = Session(system, 3000, 300, "carol", "users", tokens or {})
        started = manager.pull(session, "docker", reference)
        claimed = self.store.claim("test", time.time(), 60, [system])
        assert claimed is not None
        create_worker(self.configuration).attempt(claimed)
        failed = self.store.get(started.record_id)
        found = failed if failed is not None and failed.status == FAILURE else None
        found = found or self.store.ready_by_tag(system, "docker", reference)
        assert found is not None
        if found.status == READY:
            check_image(self.file(system, found))
        return found

    def file(self, system: str, image: Image, suffix: str = "squashfs") -> Path:
        return self.configuration.platforms[system].image_directory / f"{image.image_id}.{suffix}"

    def facts(self, system: str, image: Image) -> ImageFacts:
        fd = os.open(self.file(system, image), os.O_RDONLY)
        try:
            return validate_image(fd)
        finally:
            os.close(fd)


def make_site(
    directory: Path, munge: Munged, registry: RegistryServer, old: dict[str, Any] | None = None, **changes: Any
) -> PulledSite:
    """Everything below ``directory``; ``old`` is the recipe of the second system, ``changes`` are top-level keys."""
    locations = {"plain": {"remotetype": "dockerv2", "url": registry.url}}
    path = write_configuration(
        directory, munge.socket, Locations=locations, DefaultImageLocation="plain", **changes
    )
    document = json.loads(path.read_text())
    (directory / "old-images").mkdir(mode=0o700, exist_ok=True)
    local = {"imageDir": str(directory / "old-images")}
    document["Platforms"][OLD] = {**document["Platforms"][SYSTEM], "local": local, "recipe": old or {}}
    path.write_text(json.dumps(document))
    configuration = load_configuration(path, {})
    return PulledSite(path, configuration, open_store(configuration.store_uri))
