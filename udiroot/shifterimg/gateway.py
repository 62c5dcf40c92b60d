# SPDX-License-Identifier: BSD-3-Clause
"""The gateways of a cluster, asked one after the other until one answers (gateway contract, sections 2 and 15.5)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from udiroot.shifterimg import exchange
from udiroot.shifterimg.errors import ConfigurationUnusable, ExchangeFailed, NoGateway, RequestRefused
from udiroot.shifterimg.settings import require_system

if TYPE_CHECKING:
    from collections.abc import Callable

    from udiroot.shifterimg.munge import Munge
    from udiroot.shifterimg.settings import ImageName, Settings

_FINAL = {
    400: "the gateway does not understand the request",
    403: "not permitted",
    404: "not found",
    501: "not supported by this gateway",
}
_TROUBLE = {
    401: "it does not accept this node's munge credential; compare clock and munge key",
    503: "it cannot work at the moment",
}


class Request(NamedTuple):
    """``payload`` is sealed into each credential; ``expect`` is a key of every good answer."""

    method: str
    verb: str
    expect: str
    image: ImageName | None = None
    body: bytes = b""
    payload: bytes = b""


class Gateways:
    """The configured gateways in random order; the one that answered last is asked first from then on."""

    def __init__(self, settings: Settings, munge: Munge, trace: Callable[[str], None]) -> None:
        """ConfigurationUnusable when udiRoot.conf lacks what is needed. ``trace`` is told raw answers (`--verbose`)."""
        if not settings.gateways:
            raise ConfigurationUnusable(f"{settings.path}: no `imageGateway`; add the URL of the image gateway")
        # Not `random`: its import costs more than all of this.
        self._urls = sorted(settings.gateways, key=lambda _url: os.urandom(8))
        self._system = require_system(settings)
        self._timeout = settings.timeout
        self._munge = munge
        self._trace = trace

    def ask(self, request: Request) -> dict[str, Any]:
        """The JSON object of the first gateway that gives one; RequestRefused, NoGateway, CredentialFailed."""
        failures = []
        for url in list(self._urls):
            try:
                answer = self._ask(url, request)
            except ExchangeFailed as error:
                failures.append(f"{url}: {error}")
                continue
            self._urls.remove(url)
            self._urls.insert(0, url)
            return answer
        raise NoGateway("failed to contact the image gateway: " + "; ".join(failures))

    def _ask(self, url: str, request: Request) -> dict[str, Any]:
        headers = {"authentication": self._munge.encode(request.payload)}
        if request.method == "POST":
            headers["Content-type"] = "application/json"
        answer = exchange.exchange(
            exchange.parse_base(url), request.method, self._path(request),
            headers=headers, body=request.body, timeout=self._timeout,
        )  # fmt: skip
        body = answer.body.decode("utf-8", "replace")
        if answer.status != 200:
            self._trace(f"Got response: {answer.status}")
        self._trace(f"Message: {body}")
        document = _parse(body)
        if answer.status != 200:
            raise _failure(answer.status, document)
        if document is None or request.expect not in document:
            raise ExchangeFailed(f"the answer to {request.verb} is not what a gateway says; is it an image gateway?")
        return document

    def _path(self, request: Request) -> str:
        parts = ["api", request.verb, self._system, *(request.image or ())]
        return "".join(f"/{quote(part, safe='', errors='surrogateescape')}" for part in parts) + "/"


def _parse(body: str) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _failure(status: int, document: dict[str, Any] | None) -> RequestRefused | ExchangeFailed:
    """A refusal in the gateway's own words is final; anything else is that gateway's trouble (section 2.5)."""
    words = [(document or {}).get(key) for key in ("error", "message")]
    reason = next((word for word in words if isinstance(word, str) and word not in ("", "None")), "")
    if document is not None and status in _FINAL:
        return RequestRefused(status, f"{_FINAL[status]}: {reason}" if reason else _FINAL[status])
    if 300 <= status < 400:
        return ExchangeFailed(f"it redirects (HTTP {status}); correct imageGateway in udiRoot.conf to where it points")
    trouble = _TROUBLE.get(status, "it failed")
    return ExchangeFailed(f"{trouble} (HTTP {status}{': ' + reason if reason else ''})")
