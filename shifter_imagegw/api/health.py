# SPDX-License-Identifier: BSD-3-Clause
"""What needs no credential: the help text and whether the gateway works."""

from __future__ import annotations

from importlib.metadata import version

from flask import Blueprint, Response

from shifter_imagegw.api.answers import json_answer
from shifter_imagegw.store import ImageStore


def health_blueprint(store: ImageStore) -> Blueprint:
    """``/`` and ``/api/health/``."""
    blueprint = Blueprint("health", __name__)
    release = version("shifter")

    @blueprint.get("/", provide_automatic_options=False)
    def help_text() -> Response:
        return Response("{lookup,pull,expire,list}", content_type="text/plain; charset=utf-8")

    @blueprint.get("/api/health/", strict_slashes=False, provide_automatic_options=False)
    def health() -> Response:
        store.ping()
        return json_answer({"status": "ok", "version": release})

    return blueprint
