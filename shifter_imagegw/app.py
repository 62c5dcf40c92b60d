# SPDX-License-Identifier: BSD-3-Clause
"""The only place that wires parts together."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from shifter_imagegw.auth import Authenticator, MockAuthenticator, MungeAuthenticator, MungeSealer
from shifter_imagegw.config import Configuration
from shifter_imagegw.errors import ConfigurationError
from shifter_imagegw.fairness import FairGate
from shifter_imagegw.fetch import Fetch, Held, LayerEngine
from shifter_imagegw.groups import Accounts
from shifter_imagegw.layers.eviction import CacheLimits
from shifter_imagegw.layers.recipe import Limits, Recipe
from shifter_imagegw.manager import ImageManager
from shifter_imagegw.pipeline import Pipeline
from shifter_imagegw.platforms.local import LocalPlatform
from shifter_imagegw.registry.manifest import Descriptor
from shifter_imagegw.store import open_store
from shifter_imagegw.wakeup import Bell
from shifter_imagegw.worker import Worker

if TYPE_CHECKING:
    from flask import Flask

    from shifter_imagegw.layers.cache import LayerArchive, LayerCache
    from shifter_imagegw.verify import Verifier


def create_app(configuration: Configuration) -> Flask:
    """The API. Opens no connection yet, so it can be made before a server forks; ConfigurationError."""
    store = open_store(configuration.store_uri, configuration.database)
    accounts = Accounts()
    manager = ImageManager(
        configuration,
        store,
        MungeSealer(configuration),
        accounts.groups_of,
        on_queued=Bell(configuration.expand_directory).ring,
    )
    authenticator = _authenticator(configuration, accounts)
    from shifter_imagegw.api.application import make_application  # noqa: PLC0415 - workers need no web framework

    return make_application(manager, authenticator, store)


def create_worker(configuration: Configuration, engine: LayerEngine | None = None) -> Worker:
    """A conversion worker; ``engine`` None is the real one. ConfigurationError when its directories cannot be made."""
    for directory in (configuration.cache_directory, configuration.expand_directory):
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{directory}: {error.strerror}; create it, owned by the gateway's account (uid {os.geteuid()})"
            ) from error
    store = open_store(configuration.store_uri, configuration.database)
    engine = engine or SquashfsEngine(configuration.cache_directory, configuration.limits, configuration.cache)
    platforms = {
        name: LocalPlatform(name, platform.image_directory)
        for name, platform in configuration.platforms.items()
        if platform.ssh is None
    }
    sealer, groups_of = MungeSealer(configuration), Accounts().groups_of
    gate = FairGate(max(configuration.parallel_layers, len(os.sched_getaffinity(0))))
    return Worker(Pipeline(configuration, store, sealer, engine, platforms, groups_of, gate=gate))


def create_verifier(configuration: Configuration, system: str) -> Verifier:
    """What looks at the images of a system. ConfigurationError, NotFound, NotSupported."""
    from shifter_imagegw.verify import Verifier  # noqa: PLC0415 - neither API nor workers need the launcher's parsers

    return Verifier(configuration, open_store(configuration.store_uri, configuration.database), system)


class SquashfsEngine:
    """The rooms ``layers`` and ``squashfs`` as the pipeline sees them. One directory holds the archives of all recipes,
    and each archive's name says of which. Without ``keep`` nothing is ever removed."""

    def __init__(self, directory: Path, limits: Limits, keep: CacheLimits | None = None) -> None:
        # The API needs no libsquashfs.
        from shifter_imagegw.layers.cache import LayerCache  # noqa: PLC0415
        from shifter_imagegw.layers.merge import merge_archives  # noqa: PLC0415

        self._make_cache = partial(LayerCache, directory, limits=limits, keep=keep)
        self._caches: dict[Recipe, LayerCache] = {}
        self.merge = merge_archives

    def archive(
        self,
        recipe: Recipe,
        descriptor: Descriptor,
        diff_id: str,
        fetch: Fetch,
        progress: Callable[[int], None],
        *,
        held: Held,
    ) -> LayerArchive:
        """See LayerEngine."""
        return self._cache_of(recipe).archive(descriptor, diff_id, fetch, progress, held=held)

    def sweep(self) -> object:
        """See LayerEngine."""
        return self._cache_of(Recipe()).sweep()

    def _cache_of(self, recipe: Recipe) -> LayerCache:
        return self._caches.setdefault(recipe, self._make_cache(recipe))


def _authenticator(configuration: Configuration, accounts: Accounts) -> Authenticator:
    if configuration.authentication == "mock":
        return MockAuthenticator(configuration)
    return MungeAuthenticator(configuration, accounts)
