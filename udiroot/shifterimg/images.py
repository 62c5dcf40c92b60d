# SPDX-License-Identifier: BSD-3-Clause
"""Image objects as any gateway may send them: ``"MISSING"``, nulls, odd types (gateway contract, 2.4 and 15.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MISSING = "MISSING"
READY = "READY"
_LEGACY_READY = "SUCCESS"
IN_PROGRESS = frozenset({MISSING, "INIT", "PENDING", "PULLING", "EXAMINATION", "CONVERSION", "TRANSFER", "HASHING"})
"""States that a later answer will leave; HASHING is an import's (section 5.2)."""


def text(image: Mapping[str, Any], key: str) -> str:
    """The value of ``key`` as text; ``MISSING`` for whatever is no text."""
    value = image.get(key)
    return value if isinstance(value, str) and value else MISSING


def status(image: Mapping[str, Any]) -> str:
    """The state, with the legacy spelling of READY as READY."""
    value = text(image, "status")
    return READY if value == _LEGACY_READY else value


def tags(image: Mapping[str, Any]) -> list[str]:
    """All references of the image."""
    value = image.get("tag")
    if isinstance(value, str):
        return [] if value == MISSING else [value]
    return [tag for tag in value if isinstance(tag, str)] if isinstance(value, list) else []


def identifier(image: Mapping[str, Any]) -> str | None:
    """The id if it can be one: `shifter` makes a file name of it."""
    value = text(image, "id")
    return value if value != MISSING and value.isascii() and value.isalnum() else None


def last_pull(image: Mapping[str, Any]) -> float | None:
    """Epoch seconds."""
    value = image.get("last_pull")
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
