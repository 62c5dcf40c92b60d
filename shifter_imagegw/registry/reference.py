# SPDX-License-Identifier: BSD-3-Clause
"""Image references: the grammar of the distribution project, and from a reference to a configured location.

::

    reference = [ host "/" ] path [ ":" tag ] [ "@" digest ]
    host      = ( name *( "." name ) | "[" IPv6 "]" ) [ ":" port ]
    path      = component *( "/" component )

The first component is a host when it contains a dot or a colon, is ``localhost``, or has an upper-case letter (which
a path may not). A reference is never read in a second way when the first one fails: a mistyped host must not end at the
default registry.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from shifter_imagegw.errors import ConfigurationError, InvalidReference
from shifter_imagegw.registry.digest import is_digest
from shifter_imagegw.registry.location import Location

_MAX_NAME = 255
_MAX_PORT = 65535
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?")
_HOST_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Reference:
    """A parsed reference; ``host`` keeps the spelling of the user, ``digest`` is ``algorithm:hex``."""

    host: str | None
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def version(self) -> str:
        """What to ask the registry for: the digest if there is one (it is exact), else the tag, else ``latest``."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        host = f"{self.host}/" if self.host else ""
        tag = f":{self.tag}" if self.tag else ""
        return f"{host}{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """Parse a full reference; :class:`InvalidReference` says which part is wrong."""
    first, slash, rest = text.partition("/")
    if slash and _looks_like_host(first):
        _check_host(first, text)
        return replace(_parse_name(rest, text), host=first)
    return _parse_name(text, text)


def normalize_reference(text: str) -> str:
    """``text`` with ``:latest`` added when its last path component has neither a tag nor a digest.

    Purely textual, so that the API, the records and the tag index agree also on names outside the grammar.
    """
    last = text.rpartition("/")[2]
    return text if ":" in last or "@" in last else f"{text}:latest"


def choose_location(text: str, locations: Mapping[str, Location], default: str) -> tuple[Location, Reference]:
    """The configured location a reference belongs to, and the reference as that location knows it.

    The part before the first slash is a key of ``locations`` (an alias, or ``host[:port]`` in any case), or the
    reference belongs to ``default``. A host that is not configured is an :class:`InvalidReference`.
    """
    first, slash, rest = text.partition("/")
    key = _location_key(first, locations) if slash else None
    if key is not None:
        return locations[key], _as_known_by(locations[key], _parse_name(rest, text))
    reference = parse_reference(text)
    if reference.host is not None:
        raise InvalidReference(
            f"image reference {text[:300]!r}: registry {reference.host!r} is not configured at this site; "
            f"configured are: {', '.join(sorted(locations)) or 'none'}"
        )
    if default not in locations:
        raise ConfigurationError(f"DefaultImageLocation {default!r} is not one of Locations")
    return locations[default], _as_known_by(locations[default], reference)


def check_repository(repository: str) -> str:
    """``repository`` if it is a path of the grammar, else :class:`InvalidReference`."""
    return _parse_path(repository, repository)


def check_version(version: str) -> str:
    """``version`` if it is a tag or a digest of the grammar, else :class:`InvalidReference`."""
    if not _TAG.fullmatch(version) and not is_digest(version):
        raise InvalidReference(f"image version {version[:300]!r} is neither a tag nor a sha256 digest")
    return version


def _looks_like_host(first: str) -> bool:
    return "." in first or ":" in first or first.startswith("[") or first == "localhost" or first != first.lower()


def _location_key(first: str, locations: Mapping[str, Location]) -> str | None:
    if first in locations:
        return first
    lowered = first.lower()  # host names are case-insensitive
    return next((key for key in locations if _looks_like_host(key) and key.lower() == lowered), None)


def _as_known_by(location: Location, reference: Reference) -> Reference:
    if location.is_docker_hub and "/" not in reference.repository:
        return replace(reference, repository=f"library/{reference.repository}")
    return reference


def _parse_name(name: str, text: str) -> Reference:
    name, at, digest = name.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, f"{digest[:140]!r} is not a digest (sha256:<64 lower-case hex digits>)")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text, f"{tag[:140]!r} is not a tag (up to 128 of letters, digits, '_', '.', '-')")
    path = _parse_path(f"{head}{slash}{last}", text)
    return Reference(None, path, tag if colon else None, digest if at else None)


def _parse_path(path: str, text: str) -> str:
    if not path:
        raise _invalid(text, "the repository is missing")
    if len(path) > _MAX_NAME:
        raise _invalid(text, f"the repository is longer than {_MAX_NAME} characters")
    for component in path.split("/"):
        if not _COMPONENT.fullmatch(component):
            raise _invalid(
                text,
                f"{component!r} is not a path component (lower-case letters and digits, separated by '.', '_', '-')",
            )
    return path


def _check_host(host: str, text: str) -> None:
    match = _HOST.fullmatch(host)
    if match is None or len(host) > _MAX_NAME or not 0 < int(match["port"] or 443) <= _MAX_PORT:
        raise _invalid(text, f"{host[:140]!r} is not a registry host[:port]")
    name = match["name"]
    if name.startswith("["):
        try:
            ipaddress.IPv6Address(name[1:-1])
        except ValueError:
            raise _invalid(text, f"{name!r} is not an IPv6 address") from None
    elif not all(_HOST_LABEL.fullmatch(label) for label in name.split(".")):
        raise _invalid(text, f"{name[:140]!r} is not a host name")


def _invalid(text: str, reason: str) -> InvalidReference:
    return InvalidReference(f"image reference {text[:300]!r}: {reason}; write [registry/]repository[:tag][@sha256:...]")
