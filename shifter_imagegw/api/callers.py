# SPDX-License-Identifier: BSD-3-Clause
"""The caller of a request, and what he sent."""

from __future__ import annotations

import json
from typing import Any

from flask import g, request

from shifter_imagegw.auth import Authenticator
from shifter_imagegw.errors import RequestError
from shifter_imagegw.session import Session

_MAX_ID_DIGITS = 10


def session_for(authenticator: Authenticator, system: str) -> Session:
    """Decodes the credential of this request, which can be done once; AuthenticationError, NotFound."""
    session = authenticator.authenticate(request.headers.get("authentication"), system)
    g.uid = session.uid
    return session


def sent_object() -> dict[str, Any]:
    """The body as JSON whatever its content type; empty, or no object, counts as ``{}`` (sections 2.1 and 2.7)."""
    body = request.get_data(cache=False)
    if not body.strip():
        return {}
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError("the body is not JSON") from error
    return document if isinstance(document, dict) else {}


def sent_ids(document: dict[str, Any], key: str) -> tuple[int, ...]:
    """Ids as a comma-separated text or a list of integers; an absent key or null is an empty list."""
    value = document.get(key)
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(_number(key, item.strip()) for item in value.split(","))
    if isinstance(value, list) and all(type(item) is int for item in value):
        return tuple(value)
    raise RequestError(f"{key}: expected ids as in '1000,1001' or [1000, 1001]")


def _number(key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_ID_DIGITS):
        raise RequestError(f"{key}: {text[:40]!r} is not an id; expected ids as in '1000,1001' or [1000, 1001]")
    return int(text)
