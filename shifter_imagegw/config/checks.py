# SPDX-License-Identifier: BSD-3-Clause
"""What a syntactically right configuration can still get wrong on this host: for ``shifter-imagegw check-config``.

Run it as the gateway's account: the answers are about what the calling process may do.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shifter_imagegw.config.model import Configuration, KernelVersion, Platform
from shifter_imagegw.errors import ShifterError
from shifter_imagegw.layers.eviction import missing_space, stored_archives
from shifter_imagegw.layers.recipe import FIRST_KERNELS
from shifter_imagegw.store import open_store

ERROR = "error"
WARNING = "warning"


@dataclass(frozen=True)
class Problem:
    """One finding: ``severity`` is ``error`` or ``warning``, ``where`` the key, ``message`` what is wrong and what to
    do."""

    severity: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.message}"


def problems(configuration: Configuration) -> list[Problem]:
    """All findings, errors first. With an error a gateway would start and then fail its users."""
    found = [
        *_unsupported(configuration),
        *_scratch(configuration),
        *_cache(configuration),
        *_store(configuration),
        *_locations(configuration),
        *_shared_directories(configuration),
    ]
    for name, platform in configuration.platforms.items():
        found.extend(_platform(f"Platforms.{name}", platform))
    for key in configuration.unused:
        found.append(Problem(WARNING, key, "is accepted for compatibility and has no effect"))
    if os.geteuid() == 0:
        found.append(Problem(WARNING, "gateway", "runs as root; use an account of its own without privileges"))
    if not configuration.acl_metadata:
        found.append(Problem(WARNING, "DISABLE_ACL_METADATA", "is set: nodes do not enforce access to private images"))
    return sorted(found, key=lambda problem: problem.severity != ERROR)


def _unsupported(configuration: Configuration) -> Iterator[Problem]:
    if configuration.default_format != "squashfs":
        yield Problem(ERROR, "DefaultImageFormat", f"{configuration.default_format!r} cannot be made; use 'squashfs'")
    if configuration.examiner is not None:
        yield Problem(ERROR, "examiner", "comes with a later release; pulls are refused while it is set")
    for name in configuration.converter_options:
        where = f"ConverterOptions.{name}"
        yield Problem(WARNING, where, "has no effect: images are not made by an external program; see 'recipe'")


def _scratch(configuration: Configuration) -> Iterator[Problem]:
    for key, path in (
        ("CacheDirectory", configuration.cache_directory),
        ("ExpandDirectory", configuration.expand_directory),
    ):
        if path.exists():
            yield from _directory(key, path)
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            yield Problem(ERROR, key, f"{path}: does not exist and cannot be created in {path.parent}")


def _cache(configuration: Configuration) -> Iterator[Problem]:
    """Whether any layer would be kept."""
    directory, limits = configuration.cache_directory, configuration.cache
    try:
        if missing_space(directory, limits) <= sum(archive.bytes for archive in stored_archives(directory)):
            return
    except OSError:  # _scratch has said so
        return
    message = (
        f"{directory}: less of the file system is free than that, even without a cached layer: every pull fetches all "
        "its layers; make room there, use another CacheDirectory, or lower cache.minFreePercent"
    )
    yield Problem(WARNING, f"cache.minFreePercent ({limits.min_free_percent})", message)


def _shared_directories(configuration: Configuration) -> Iterator[Problem]:
    """Image directories that are something else as well: what looks left over in one may be at work in the other."""
    scratch = {
        "CacheDirectory": configuration.cache_directory.resolve(),
        "ExpandDirectory": configuration.expand_directory.resolve(),
    }
    local = [platform for platform in configuration.platforms.values() if platform.ssh is None]
    for number, platform in enumerate(local):
        where = f"Platforms.{platform.name}.local.imageDir"
        directory = platform.image_directory.resolve()
        for key, path in scratch.items():
            if path == directory:
                yield Problem(ERROR, where, f"is {key} as well; use a directory of its own")
        for other in local[:number]:
            if other.image_directory.resolve() != directory:
                continue
            if other.architecture != platform.architecture:
                yield Problem(
                    ERROR, where, f"is that of {other.name}, which has another architecture; use one for each"
                )
            elif other.recipe != platform.recipe:
                message = f"is that of {other.name}, which has another recipe; use one for each, or one recipe"
                yield Problem(ERROR, where, message)
            else:
                message = f"is that of {other.name} as well; nodes of both get the access lists of the last pull"
                yield Problem(WARNING, where, message)


def _directory(key: str, path: Path) -> Iterator[Problem]:
    try:
        status = path.stat()
    except OSError as error:
        yield Problem(ERROR, key, f"{path}: {error.strerror}; create it, owned by the gateway's account")
        return
    if not stat.S_ISDIR(status.st_mode):
        yield Problem(ERROR, key, f"{path}: not a directory")
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Problem(ERROR, key, f"{path}: not writable by this account (uid {os.geteuid()})")
    elif status.st_mode & 0o022:
        mode = f"{status.st_mode & 0o7777:04o}"
        yield Problem(ERROR, key, f"{path}: writable by group or others (mode {mode}): chmod go-w {path}")


def _store(configuration: Configuration) -> Iterator[Problem]:
    scheme, _, rest = configuration.store_uri.partition("://")
    if scheme == "sqlite":
        file = Path(rest)
        if file.exists() and not os.access(file, os.R_OK | os.W_OK):
            yield Problem(ERROR, "MongoDBURI", f"{file}: not writable by this account (uid {os.geteuid()})")
        yield from _directory("MongoDBURI", file.parent)
        return
    try:
        store = open_store(configuration.store_uri, configuration.database)
        try:
            store.ping()
        finally:
            store.close()
    except ShifterError as error:
        yield Problem(ERROR, "MongoDBURI", str(error))


def _locations(configuration: Configuration) -> Iterator[Problem]:
    for name, location in configuration.locations.items():
        where = f"Locations.{name}"
        if location.ca_file is not None and not os.access(location.ca_file, os.R_OK):
            yield Problem(ERROR, f"{where}.sslcacert", f"{location.ca_file}: cannot be read")
        if location.insecure:
            yield Problem(WARNING, f"{where}.insecure", "certificates of this registry are not checked")
        elif location.url.startswith("http://"):
            yield Problem(WARNING, f"{where}.url", "plain HTTP: images and logins travel unprotected")


def _platform(where: str, platform: Platform) -> Iterator[Problem]:
    if platform.ssh is not None:
        yield Problem(ERROR, f"{where}.accesstype", "'remote' is not supported yet; pulls for this system are refused")
    else:
        yield from _directory(f"{where}.local.imageDir", platform.image_directory)
    if platform.munge_socket is not None:
        try:
            if not stat.S_ISSOCK(platform.munge_socket.stat().st_mode):
                yield Problem(ERROR, f"{where}.mungeSocketPath", f"{platform.munge_socket}: not a socket")
        except OSError as error:
            message = f"{platform.munge_socket}: {error.strerror}; start munged for this system"
            yield Problem(ERROR, f"{where}.mungeSocketPath", message)
    yield from _kernel(where, platform)
    if not platform.admins:
        yield Problem(WARNING, f"{where}.admins", "nobody may remove images of this system")


def _kernel(where: str, platform: Platform) -> Iterator[Problem]:
    """Whether the nodes can read what is made for them."""
    compressor = platform.recipe.compressor
    first = KernelVersion(*FIRST_KERNELS[compressor])
    if platform.kernel is not None and platform.kernel < first:
        message = (
            f"Linux {platform.kernel} cannot read images compressed with {compressor}, which takes {first} or later; "
            f"set {where}.recipe.compressor to gzip"
        )
        yield Problem(ERROR, f"{where}.kernel", message)
