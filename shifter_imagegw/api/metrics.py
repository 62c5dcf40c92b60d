# SPDX-License-Identifier: BSD-3-Clause
"""The last look-ups of a system, for its admins (gateway contract, section 2.7)."""

from __future__ import annotations

from flask import Blueprint, Response, request

from shifter_imagegw.api.answers import json_answer
from shifter_imagegw.api.callers import session_for
from shifter_imagegw.auth import Authenticator
from shifter_imagegw.errors import RequestError
from shifter_imagegw.manager import ImageManager

_DEFAULT_LIMIT = "10"
_MAX_DIGITS = 9


def metrics_blueprint(manager: ImageManager, authenticator: Authenticator) -> Blueprint:
    """``/api/metrics/<system>/?limit=N``."""
    blueprint = Blueprint("metrics", __name__, url_prefix="/api")

    @blueprint.get("/metrics/<system>/", strict_slashes=False, provide_automatic_options=False)
    def metrics(system: str) -> Response:
        session = session_for(authenticator, system)
        limit = _limit(request.args.get("limit", _DEFAULT_LIMIT))
        return json_answer([metric.document() for metric in manager.metrics(session, limit)])

    return blueprint


def _limit(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS):
        raise RequestError(f"limit: {text[:40]!r} is not a number")
    return int(text)
