# SPDX-License-Identifier: BSD-3-Clause
"""What ``imagemanager.json`` says, typed. Times are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from shifter_imagegw.layers.eviction import CacheLimits
from shifter_imagegw.layers.recipe import Limits, Recipe
from shifter_imagegw.registry.location import Location
from shifter_imagegw.registry.manifest import OciPlatform
from shifter_imagegw.registry.settings import HttpSettings


@dataclass(frozen=True)
class SshAccess:
    """How to reach a platform with ``accesstype`` ``remote`` (section 10)."""

    host: str
    username: str
    key: Path | None = None
    ssh_options: tuple[str, ...] = ()
    scp_options: tuple[str, ...] = ()


class KernelVersion(NamedTuple):
    """Of Linux; ordered."""

    major: int
    minor: int
    patch: int = 0

    def __str__(self) -> str:
        return ".".join(str(number) for number in (self if self.patch else self[:2]))


@dataclass(frozen=True)
class Platform:
    """One cluster, an entry of ``Platforms`` (section 12.3). ``ssh`` is None where ``accesstype`` is ``local``."""

    name: str
    image_directory: Path
    munge_socket: Path | None = None
    admins: frozenset[str] = frozenset()
    ssh: SshAccess | None = None
    architecture: OciPlatform = field(default_factory=OciPlatform)
    recipe: Recipe = field(default_factory=Recipe)
    """How its images are made."""
    kernel: KernelVersion | None = None
    """The oldest among its nodes, as declared."""


@dataclass(frozen=True)
class Configuration:
    """The whole file (section 12.1). ``source`` is its path."""

    source: Path
    platforms: Mapping[str, Platform]
    locations: Mapping[str, Location]
    default_location: str
    default_format: str
    store_uri: str
    database: str | None
    cache_directory: Path
    expand_directory: Path
    image_expiration: int = 90 * 24 * 3600
    pull_update_timeout: int = 300
    worker_threads: int = 1
    log_level: str | None = None
    authentication: str = "munge"
    metrics: bool = False
    import_users: frozenset[str] = frozenset()
    import_by_all: bool = False
    converter_options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    examiner: Path | None = None
    http: HttpSettings = field(default_factory=HttpSettings)
    cache: CacheLimits = field(default_factory=CacheLimits)
    limits: Limits = field(default_factory=Limits)
    """What one layer may ask of the gateway."""
    lease_seconds: int = 60
    """A worker that has not been heard of for so long has lost its pull. Clocks of all gateway hosts agree to a
    fraction of it."""
    pull_timeout: int = 6 * 3600
    """A worker that has worked on a pull for so long gives it up."""
    max_attempts: int = 3
    """So many workers may die over a pull before it ends in FAILURE."""
    parallel_layers: int = 4
    """Layers of one image that are fetched at once."""
    pulls_per_user: int = 100
    """Pulls one user may have in flight."""
    labels: bool = False
    """Environment ``ENABLE_LABELS``: keep image labels in the record."""
    acl_metadata: bool = True
    """False with environment ``DISABLE_ACL_METADATA``: no ACLs in ``.meta``, for runtimes older than 17.04."""
    unused: tuple[str, ...] = ()
    """Keys that are there and have no effect."""
