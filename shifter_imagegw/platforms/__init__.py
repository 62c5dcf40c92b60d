# SPDX-License-Identifier: BSD-3-Clause
"""Putting images on a cluster. ``open_platform`` picks the implementation by access type."""

from __future__ import annotations

from shifter_imagegw.config.model import Platform
from shifter_imagegw.errors import PublishError
from shifter_imagegw.platforms.local import LocalPlatform

__all__ = ["LocalPlatform", "open_platform"]


def open_platform(platform: Platform) -> LocalPlatform:
    """The way to the image directory of ``platform``; PublishError if there is none yet."""
    if platform.ssh is not None:
        raise PublishError(f"system {platform.name}: accesstype 'remote' is not supported yet; use 'local'")
    return LocalPlatform(platform.name, platform.image_directory)
