# SPDX-License-Identifier: BSD-3-Clause
"""Where the gateway's configuration lies."""

from __future__ import annotations

from pathlib import Path

from udiroot.installation import installed_path


def configuration_file(option: str | None, environment: str | None) -> Path:
    """``imagemanager.json`` from ``--config``, else from the value of ``GWCONFIG``, else the installation's own."""
    named = option or environment
    return Path(named) if named else installed_path("SYSCONFDIR") / "imagemanager.json"
