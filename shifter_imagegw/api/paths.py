# SPDX-License-Identifier: BSD-3-Clause
"""The path grammar (gateway contract, section 2.2): segments are cut where the client wrote ``/``, then decoded once.

``PATH_INFO`` is decoded before it is cut, so that ``my%2Fcluster`` would be two segments there; the request line as it
was sent, which gunicorn and others hand on, knows better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from werkzeug.routing import PathConverter

NOT_UTF8 = "shifter.path_not_utf8"
"""Key of the WSGI environment: the path cannot be decoded."""

_TAG_SEGMENT = 5
"""``/api/verb/system/itype/tag…``: from here on everything belongs to the tag."""

WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class TagConverter(PathConverter):
    """The rest of the path, of which one final slash is dropped."""

    regex = "(?s:.+)"
    part_isolating = False

    def to_python(self, value: str) -> str:
        return value[:-1] if value.endswith("/") else value


class ExactPath:
    """WSGI middleware that puts the path of the request line into ``PATH_INFO``."""

    def __init__(self, application: WsgiApplication) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "").encode("latin-1")
        sent = sent_path(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "")
        # A server that mounts us below a prefix, or rewrites, means what PATH_INFO says.
        if unquote_to_bytes(sent) == path:
            path = _decoded(sent)
        try:
            path.decode("utf-8")
        except UnicodeDecodeError:
            environ[NOT_UTF8] = True
            path = b"/"
        environ["PATH_INFO"] = path.decode("latin-1")
        return self._application(environ, start_response)


def sent_path(uri: str) -> str:
    """The path of a request target in origin or absolute form (RFC 9112, section 3.2), still encoded."""
    if not uri.startswith("/"):
        _, _, after_scheme = uri.partition("://")
        uri = after_scheme[after_scheme.find("/") :] if "/" in after_scheme else ""
    return uri.partition("?")[0].partition("#")[0]


def _decoded(sent: str) -> bytes:
    segments = [unquote_to_bytes(segment) for segment in sent.split("/", _TAG_SEGMENT)]
    head = (segment.replace(b"/", b"%2F") for segment in segments[:_TAG_SEGMENT])
    return b"/".join((*head, *segments[_TAG_SEGMENT:]))
