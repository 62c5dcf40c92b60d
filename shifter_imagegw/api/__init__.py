# SPDX-License-Identifier: BSD-3-Clause
"""HTTP: a request becomes a use case, its result JSON (docs/gateway-api.md). No policy, no storage.

``shifter_imagegw.api:app`` is the application for a site's own WSGI server, configured by ``GWCONFIG``; it is made when
it is asked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask

    app: Flask


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from shifter_imagegw.app import create_app  # noqa: PLC0415 - whoever imports a blueprint needs no configuration
    from shifter_imagegw.config import load_configuration  # noqa: PLC0415
    from shifter_imagegw.installation import configuration_file  # noqa: PLC0415
    from shifter_imagegw.logs import configure_logging  # noqa: PLC0415

    configuration = load_configuration(configuration_file(None, os.environ.get("GWCONFIG")))
    configure_logging(configuration.log_level, replace=False)
    globals()["app"] = made = create_app(configuration)
    return made
