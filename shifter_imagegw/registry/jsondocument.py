# SPDX-License-Identifier: BSD-3-Clause
"""Strict reading of JSON that somebody else wrote: UTF-8, no key twice, types checked where values are taken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shifter_imagegw.errors import ManifestInvalid


def parse_object(body: bytes, where: str) -> dict[str, Any]:
    """``body`` as a JSON object (RFC 8259), or :class:`ManifestInvalid` naming ``where``."""
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        # Escapes can spell half of a surrogate pair, which no file or database could store later.
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ManifestInvalid(f"{where}: JSON nested too deeply") from None
    except ValueError as error:
        raise ManifestInvalid(f"{where}: not valid JSON ({str(error)[:120]})") from None
    if not isinstance(document, dict):
        raise ManifestInvalid(f"{where}: not a JSON object")
    return document


def text_list(value: object, where: str) -> tuple[str, ...]:
    """A list of strings; null and absent are the empty list."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ManifestInvalid(f"{where}: not a list of strings")
    return tuple(value)


def text_map(value: object, where: str) -> Mapping[str, str]:
    """An object of strings; null and absent are empty, and so are null values."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, (str, type(None))) for item in value.values()):
        raise ManifestInvalid(f"{where}: not an object of strings")
    return {key: item or "" for key, item in value.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
