# SPDX-License-Identifier: BSD-3-Clause
"""Where the configuration lies: `make install` notes its directories beside the private environment's interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

_DEFAULT = "/etc/shifter"


def configuration_file(option: str | None, environment: str | None) -> Path:
    """``imagemanager.json`` from ``--config``, else from the value of ``GWCONFIG``, else the installation's own."""
    named = option or environment
    return Path(named) if named else _sysconfdir() / "imagemanager.json"


def _sysconfdir() -> Path:
    try:
        text = (Path(sys.prefix) / "shifter-paths").read_text(encoding="utf-8")
    except OSError:
        return Path(_DEFAULT)
    paths = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return Path(paths.get("SYSCONFDIR", _DEFAULT))
