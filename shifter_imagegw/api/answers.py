# SPDX-License-Identifier: BSD-3-Clause
"""What every answer has in common: JSON of a known length, one shape of errors, one log line per request
(gateway contract, sections 2.1 and 2.5).
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from shifter_imagegw.api.paths import NOT_UTF8, sent_path
from shifter_imagegw.errors import (
    AuthenticationUnavailable,
    RequestError,
    ShifterError,
    StoreError,
    http_status,
)

_log = logging.getLogger(__name__)
_access = logging.getLogger("shifter_imagegw.access")
_MAX_LOGGED_PATH = 2000
_PUBLIC_REASONS: Mapping[type[ShifterError], str] = {
    StoreError: "the gateway's database does not answer; try again later, its log says why",
    AuthenticationUnavailable: "munged on the gateway does not answer; try again later, the gateway's log says why",
}
"""What callers, known or not, learn of the gateway's own troubles."""


def json_answer(body: Any, status: int = 200) -> Response:
    """``body`` as JSON; clients of old want this content type to the letter and no chunks."""
    text = json.dumps(body, separators=(",", ":"))
    return Response(text, status=status, content_type="application/json")


def register_answers(app: Flask) -> None:
    """Error bodies and the access log, for every request whatever becomes of it."""
    app.before_request(_begin)
    app.after_request(_end)
    app.register_error_handler(ShifterError, _domain_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _internal_error)


def _begin() -> None:
    g.began = time.perf_counter()
    rule = request.url_rule
    if request.method == "HEAD" and rule is not None:
        # werkzeug answers HEAD wherever it answers GET; a credential would be used up for nothing.
        raise MethodNotAllowed(rule.methods)
    if NOT_UTF8 in request.environ:
        raise RequestError("the path is not UTF-8")


def _end(response: Response) -> Response:
    environ = request.environ
    path = sent_path(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "") or request.path
    _access.info(
        "%s %s %d", request.method, path[:_MAX_LOGGED_PATH], response.status_code,
        extra={"fields": {
            "method": request.method,
            "path": path[:_MAX_LOGGED_PATH],
            "status": response.status_code,
            "uid": g.get("uid"),
            "ms": round((time.perf_counter() - g.began) * 1000, 2),
        }},
    )  # fmt: skip
    return response


def _domain_error(error: ShifterError) -> Response:
    status = http_status(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return _internal_error(error)
    reason = _PUBLIC_REASONS.get(type(error))
    if reason is not None:
        _log.warning("%s", error)
    return _error(status, reason or str(error))


def _http_error(error: HTTPException) -> Response:
    """Errors of werkzeug: no such URL, wrong method, body too large, …"""
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    answer = _error(status, HTTPStatus(status).description or HTTPStatus(status).phrase)
    if isinstance(error, MethodNotAllowed):
        allowed = set(error.valid_methods or ()) - {"HEAD", "OPTIONS"}
        answer.headers["Allow"] = ", ".join(sorted(allowed))
    return answer


def _internal_error(error: Exception) -> Response:
    """Nothing of the inside leaves the house, but an id that finds it in the log."""
    error_id = secrets.token_hex(6)
    _log.error("error %s: %s %s", error_id, request.method, request.path, exc_info=error)
    return _error(500, f"internal error {error_id}: its cause is in the gateway's log under this id")


def _error(status: int, reason: str) -> Response:
    body = {"status": int(status), "error": reason, "message": f"{HTTPStatus(status).phrase}: {request.url}"}
    return json_answer(body, status)
