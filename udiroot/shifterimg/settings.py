# SPDX-License-Identifier: BSD-3-Clause
"""The part of udiRoot.conf that concerns the client (gateway contract, section 15.2), and the image argument."""

from __future__ import annotations

from typing import NamedTuple

from udiroot import _core
from udiroot.installation import installed_path
from udiroot.shifterimg.errors import ConfigurationUnusable, WrongUsage

_AT_GATEWAYS = ("docker", "custom")


class Settings(NamedTuple):
    """``path`` is where they come from; ``gateways`` are base URLs, ``timeout`` is in seconds, 0 means none is set."""

    path: str
    system: str
    gateways: tuple[str, ...]
    timeout: int
    default_type: str | None
    remarks: tuple[str, ...]


class ImageName(NamedTuple):
    """``tag`` is as typed: the gateway adds ``:latest`` (section 15.3)."""

    type: str
    tag: str

    def __str__(self) -> str:
        return f"{self.type}:{self.tag}"


def load_settings(path: str | None) -> Settings:
    """The settings of the installation, or of ``path``, which any account may own; ConfigurationUnusable."""
    name = path or str(installed_path("SYSCONFDIR") / "udiRoot.conf")
    try:
        values = _core.load_config(name, path is not None)
    except _core.Error as error:
        raise ConfigurationUnusable(f"FAILED to parse udiRoot configuration. {error}") from None
    return Settings(
        path=name,
        system=values["system"] or "",
        gateways=tuple(values["imageGateway"]),
        timeout=values["gatewayTimeout"],
        default_type=values["defaultImageType"],
        remarks=tuple(values["remarks"]),
    )


def require_system(settings: Settings) -> str:
    """The name of this cluster; ConfigurationUnusable when udiRoot.conf has none."""
    if not settings.system:
        raise ConfigurationUnusable(f"{settings.path}: no `system`; add the name of this cluster at the gateway")
    return settings.system


def parse_image(text: str, settings: Settings) -> ImageName:
    """``[type:]tag`` as the launcher reads it; WrongUsage for what no gateway can have."""
    try:
        kind, _tag, request = _core.parse_image_spec(text, settings.default_type)
    except _core.Error as error:
        raise WrongUsage(str(error)) from None
    if kind not in _AT_GATEWAYS:
        raise WrongUsage(f"{text!r}: {kind}: images are not at the gateway; name a docker: or custom: image")
    return ImageName(kind, request[len(kind) + 1 :] if request.startswith(f"{kind}:") else request)
