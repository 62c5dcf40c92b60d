# SPDX-License-Identifier: BSD-3-Clause
"""Where this installation lies: `make install` leaves the directories beside the private environment's interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

_DEFAULTS = {"PREFIX": "/opt/shifter", "SYSCONFDIR": "/etc/shifter", "STATEDIR": "/run/shifter"}


def installed_path(name: str) -> Path:
    """``PREFIX``, ``SYSCONFDIR`` or ``STATEDIR`` of this installation; the Makefile's defaults for a checkout."""
    try:
        text = (Path(sys.prefix) / "shifter-paths").read_text(encoding="utf-8")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == name and value:
            return Path(value)
    return Path(_DEFAULTS[name])
