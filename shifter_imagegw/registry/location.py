# SPDX-License-Identifier: BSD-3-Clause
"""Registries as the site configures them, and the login a user brings for one (gateway contract 7.1-7.3)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from shifter_imagegw.errors import ConfigurationError, RegistryDenied

# Docker Hub's name in references is not the host that serves its API.
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_API = "registry-1.docker.io"


def split_url(url: str, what: str) -> SplitResult:
    """The parts of an absolute http(s) URL without credentials, query or fragment; else ConfigurationError."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{what}: {url!r} is not a registry URL; write http[s]://host[:port][/prefix] without login and query"
        )
    return parts


@dataclass(frozen=True)
class Location:
    """One entry of ``Locations``.

    ``name`` is the key, an alias or ``host[:port]``. ``url`` is the base of all requests (``/v2/`` goes below its
    path); plain HTTP is spoken only when it says ``http://``. ``mirrors`` are further base URLs, asked first and
    without login. ``ca_file`` is trusted in addition to the system's authorities. ``insecure`` turns certificate
    checks off. ``foreign_layers`` allows layers to be fetched from the URLs their descriptors name.
    """

    name: str
    url: str = ""
    ca_file: Path | None = None
    auth_method: str = "token"
    insecure: bool = False
    mirrors: tuple[str, ...] = ()
    foreign_layers: bool = False

    def __post_init__(self) -> None:
        if not self.url:
            object.__setattr__(self, "url", f"https://{self.name}")
        parts = split_url(self.url, f"location {self.name!r}")
        if parts.hostname == _DOCKER_HUB:
            object.__setattr__(self, "url", f"{parts.scheme}://{_DOCKER_HUB_API}")
        for mirror in self.mirrors:
            split_url(mirror, f"mirror of location {self.name!r}")
        if self.auth_method not in ("token", "basic"):
            raise ConfigurationError(
                f"location {self.name!r}: authMethod {self.auth_method!r} is neither 'token' nor 'basic'"
            )

    @property
    def is_docker_hub(self) -> bool:
        """Whether one-component repositories live below ``library/`` here."""
        host = urlsplit(self.url).hostname or ""
        return host == _DOCKER_HUB or host.endswith("." + _DOCKER_HUB)


@dataclass(frozen=True)
class Login:
    """A user name and password for one registry; neither repr nor str shows the password."""

    user: str
    password: str = field(repr=False)

    @classmethod
    def from_text(cls, text: str) -> Login:
        """Split ``user:password`` at the first colon; the password keeps all further ones."""
        user, colon, password = text.partition(":")
        if not colon or not user or any(ord(c) < 32 or ord(c) == 127 for c in text):
            raise RegistryDenied(
                "the login sent for the registry is not of the form user:password; run 'shifterimg login' again"
            )
        return cls(user, password)

    def basic_header(self) -> str:
        """Value of an ``Authorization`` header (RFC 7617, UTF-8)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


def choose_login(location_name: str, default_location_name: str, tokens: Mapping[str, str]) -> Login | None:
    """The login to use at a location, or None.

    A login stored under the location's own name wins. One stored as ``default`` is for the site's default location
    and never goes anywhere else (gateway contract 7.2).
    """
    text = tokens.get(location_name)
    if text is None and location_name == default_location_name:
        text = tokens.get("default")
    return None if text is None else Login.from_text(text)
