# SPDX-License-Identifier: BSD-3-Clause
"""From the file to :class:`Configuration`; every mistake is a ConfigurationError that names the key."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from shifter_imagegw.config.model import Configuration, Platform, SshAccess
from shifter_imagegw.config.reader import ObjectReader
from shifter_imagegw.config.recipes import read_kernel, read_recipe
from shifter_imagegw.errors import ConfigurationError
from shifter_imagegw.layers.eviction import CacheLimits
from shifter_imagegw.layers.recipe import Limits, Recipe
from shifter_imagegw.registry.location import Location
from shifter_imagegw.registry.manifest import OciPlatform
from shifter_imagegw.registry.settings import HttpSettings

_MAX_BYTES = 4 << 20
_LOG_LEVELS = ("debug", "info", "warn", "warning", "error", "critical")
_MOCK_SWITCH = "SHIFTER_TEST_MOCK_AUTHENTICATION"
_ARCHITECTURE = re.compile(r"(?:(?P<os>[a-z0-9]+)/)?(?P<architecture>[a-z0-9]+)(?:/(?P<variant>[a-z0-9]+))?")


def load_configuration(path: Path, environment: Mapping[str, str] | None = None) -> Configuration:
    """Read ``path``, which must belong to root or the gateway's account and be writable by nobody else.

    ``environment`` (default: the process's) holds the switches of section 13.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        _check_trust(path, os.fstat(descriptor))
    except ConfigurationError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(f"{path}: larger than {_MAX_BYTES} bytes")
    return parse_configuration(content, path, os.environ if environment is None else environment)


def parse_configuration(content: bytes, source: Path, environment: Mapping[str, str]) -> Configuration:
    """The configuration in ``content``; ``source`` is its name in errors."""
    try:
        document = json.loads(content.decode("utf-8"), object_pairs_hook=partial(_no_repeats, source))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{source}: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{source}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        ) from error
    except RecursionError as error:
        raise ConfigurationError(f"{source}: nested too deeply") from error
    return _configuration(ObjectReader(document, "", str(source)), source, environment)


def _check_trust(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{path}: not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"{path}: belongs to uid {status.st_uid}, not to root or the gateway's account: chown root {path}"
        )
    if status.st_mode & 0o022:
        raise ConfigurationError(
            f"{path}: writable by group or others (mode {status.st_mode & 0o7777:04o}): chmod go-w {path}"
        )


def _no_repeats(source: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(f"{source}: key {repeated!r} appears twice in one object")
    return found


def _configuration(top: ObjectReader, source: Path, environment: Mapping[str, str]) -> Configuration:
    unused: list[str] = []
    locations = top.object("Locations").each(partial(_location, unused=unused))
    authentication = _authentication(top, environment)
    recipe = read_recipe(top.object("recipe", required=False), Recipe())
    read_platform = partial(_platform, authentication=authentication, recipe=recipe, unused=unused)
    store_uri = top.text("MongoDBURI")
    uri_scheme = store_uri.partition("://")[0]
    if uri_scheme not in ("mongodb", "mongodb+srv", "sqlite"):
        raise top.error("MongoDBURI", "expected mongodb://HOST/ or sqlite:///ABSOLUTE/PATH")
    import_users = _import_users(top)
    level = top.text("LogLevel", "")
    if level and level.lower() not in _LOG_LEVELS:
        raise top.error("LogLevel", f"{level!r} is not one of {', '.join(_LOG_LEVELS)}")
    converters = top.object("ConverterOptions", required=False)
    configuration = Configuration(
        source=source,
        platforms=top.object("Platforms").each(read_platform),
        locations=locations,
        default_location=top.text("DefaultImageLocation", choices=locations),
        default_format=top.text("DefaultImageFormat"),
        store_uri=store_uri,
        database=top.text("MongoDB", None if uri_scheme.startswith("mongodb") else ""),
        cache_directory=top.path("CacheDirectory"),
        expand_directory=top.path("ExpandDirectory"),
        image_expiration=_expiration(top),
        pull_update_timeout=top.number("PullUpdateTimeout", top.number("PullUpdateTime", 300)),
        worker_threads=top.number("WorkerThreads", 1),
        log_level=level.lower() or None,
        authentication=authentication,
        metrics=top.flag("Metrics"),
        import_users=import_users - {"all"} if import_users != {"all"} else frozenset(),
        import_by_all=import_users == {"all"},
        converter_options={name: converters.texts(name) for name in list(converters.keys())},
        examiner=top.path("examiner") if top.has("examiner") else None,
        http=top.object("http", required=False).settings(HttpSettings),
        cache=top.object("cache", required=False).settings(CacheLimits),
        limits=top.object("limits", required=False).settings(Limits),
        lease_seconds=top.number("leaseSeconds", 60, least=2),
        pull_timeout=top.number("pullTimeout", 6 * 3600),
        max_attempts=top.number("maxAttempts", 3),
        parallel_layers=top.number("parallelLayers", 4),
        pulls_per_user=top.number("pullsPerUser", 100),
        labels=bool(environment.get("ENABLE_LABELS")),
        acl_metadata="DISABLE_ACL_METADATA" not in environment,
        unused=(*unused, *top.unused("DefaultLustreReplication", "DefaultOstCount", "DefaultImageRemote", "Broker")),
    )
    if not configuration.platforms:
        raise top.error("Platforms", "names no system")
    top.unused("examiner")
    top.finish()
    return configuration


def _location(name: str, entry: ObjectReader, unused: list[str]) -> Location:
    entry.text("remotetype", choices=("dockerv2",))
    ca_file = entry.text("sslcacert", "")
    values: dict[str, Any] = {
        "url": entry.text("url", ""),
        "ca_file": Path(ca_file) if ca_file else None,
        "auth_method": entry.text("authMethod", "token", choices=("token", "basic")),
        "insecure": entry.flag("insecure"),
        "mirrors": entry.texts("mirrors", ()),
        "foreign_layers": entry.flag("foreignLayers"),
    }
    unused.extend(entry.unused("authentication"))
    entry.finish()
    url = values["url"]
    if url and "://" not in url:  # the historic reader took https for granted
        values["url"] = f"https://{url}"
    try:
        return Location(name, **values)
    except ConfigurationError as error:
        raise entry.error(None, str(error)) from error


def _platform(name: str, entry: ObjectReader, authentication: str, recipe: Recipe, unused: list[str]) -> Platform:
    if "/" in name or name in (".", ".."):
        raise entry.error(None, "a system's name is one path segment")
    access = entry.text("accesstype", choices=("local", "remote"))
    local = entry.object("local", required=access == "local")
    remote = entry.object("ssh", required=access == "remote")
    host = entry.texts("host", None if access == "remote" else ())
    ssh = None
    if access == "remote":
        if not host:
            raise entry.error("host", "is empty")
        ssh = SshAccess(
            host=host[0],
            username=remote.text("username"),
            key=remote.path("key") if remote.has("key") else None,
            ssh_options=remote.texts("sshCmdOptions", ()),
            scp_options=remote.texts("scpCmdOptions", ()),
        )
    needs_socket = authentication == "munge"
    platform = Platform(
        name=name,
        image_directory=(local if access == "local" else remote).path("imageDir"),
        munge_socket=entry.path("mungeSocketPath") if needs_socket or entry.has("mungeSocketPath") else None,
        admins=frozenset(entry.texts("admins", ())),
        ssh=ssh,
        architecture=_architecture(entry),
        recipe=read_recipe(entry.object("recipe", required=False), recipe),
        kernel=read_kernel(entry),
    )
    local.unused("imageDir")
    remote.unused("imageDir", "username", "key", "sshCmdOptions", "scpCmdOptions")
    unused.extend(entry.unused("use_external", "policy_file", "usergroupService", "mountCommand"))
    entry.unused("mungeSocketPath")
    for reader in (local, remote, entry):
        reader.finish()
    return platform


def _architecture(entry: ObjectReader) -> OciPlatform:
    text = entry.text("architecture", "linux/amd64")
    match = _ARCHITECTURE.fullmatch(text)
    if match is None:
        raise entry.error("architecture", f"{text!r}: expected e.g. amd64, arm64 or linux/arm/v7")
    return OciPlatform(match["architecture"], match["os"] or "linux", match["variant"])


def _authentication(top: ObjectReader, environment: Mapping[str, str]) -> str:
    kind = top.text("Authentication", "munge", choices=("munge", "mock"))
    if kind == "mock" and environment.get(_MOCK_SWITCH) != "1":
        raise top.error(
            "Authentication", "'mock' lets everybody be anybody; it is for tests only. Use 'munge' or remove the key"
        )
    return kind


def _expiration(top: ObjectReader) -> int:
    text = top.text("ImageExpirationTimeout", "90:00:00:00")
    parts = text.split(":")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
        raise top.error("ImageExpirationTimeout", f"{text!r}: expected DD:HH:MM:SS, e.g. 90:00:00:00")
    days, hours, minutes, seconds = map(int, parts)
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _import_users(top: ObjectReader) -> frozenset[str]:
    value = top.texts("ImportUsers", ())
    if value in (("None",), ("none",), ()):
        return frozenset()
    if not top.is_list("ImportUsers") and value != ("all",):
        raise top.error("ImportUsers", f'{value[0]!r}: expected "all", "none" or a list of user names')
    return frozenset(value)
