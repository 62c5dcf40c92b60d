# SPDX-License-Identifier: BSD-3-Clause
"""The web application around the use cases."""

from __future__ import annotations

from flask import Flask

from shifter_imagegw.api.answers import register_answers
from shifter_imagegw.api.health import health_blueprint
from shifter_imagegw.api.images import images_blueprint
from shifter_imagegw.api.metrics import metrics_blueprint
from shifter_imagegw.api.paths import ExactPath, TagConverter
from shifter_imagegw.auth import Authenticator
from shifter_imagegw.manager import ImageManager
from shifter_imagegw.store import ImageStore

_MAX_BODY_BYTES = 256 * 1024
"""A thousand ids in each of two lists need a tenth of it."""


def make_application(manager: ImageManager, authenticator: Authenticator, store: ImageStore) -> Flask:
    """All URLs of the contract, and /api/health."""
    app = Flask("shifter_imagegw", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY_BYTES
    app.url_map.converters["tag"] = TagConverter
    app.url_map.merge_slashes = False
    register_answers(app)
    app.register_blueprint(images_blueprint(manager, authenticator))
    app.register_blueprint(metrics_blueprint(manager, authenticator))
    app.register_blueprint(health_blueprint(store))
    app.wsgi_app = ExactPath(app.wsgi_app)  # type: ignore[method-assign]
    return app
