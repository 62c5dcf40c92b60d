# SPDX-License-Identifier: BSD-3-Clause
"""One question to a registry: redirects followed by hand, failures repeated within bounds.

Rules of redirects (security register sec-46): credentials go only to the origin (scheme, host, port) that was asked
and are gone for good after the first step away from it; https never becomes http; the number of steps is bounded;
addresses are guarded by the transport.
"""

from __future__ import annotations

import contextlib
import email.utils
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urljoin

from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.response import BaseHTTPResponse
from urllib3.util import parse_url

from shifter_imagegw.errors import RegistryError, RegistryUnreachable
from shifter_imagegw.registry.settings import HttpSettings
from shifter_imagegw.registry.transport import Transport, Unretryable, connection_failure

_REDIRECTS = (301, 302, 303, 307, 308)
_TRY_AGAIN = (408, 429, 500, 502, 503, 504)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CHUNK = 65536
# Reading a short body to its end keeps the connection; a long one is not worth it.
_DRAIN_BYTES = 65536

Origin = tuple[str, str, int]


def origin_of(url: str) -> Origin:
    """Scheme, host and port of an absolute URL; :class:`RegistryError` when it is not a plain http(s) URL.

    The parser is the one that the connection is made with: two parsers can disagree about a hostile URL, and one of
    them decides about the credentials.
    """
    try:
        parts = parse_url(url)
    except LocationParseError:
        raise RegistryError("the registry sent us to a malformed URL; it is misconfigured or hostile") from None
    scheme, host = parts.scheme or "", parts.host
    port = _DEFAULT_PORTS.get(scheme, 0) if parts.port is None else parts.port
    if not host or not port or parts.auth is not None:
        raise RegistryError(f"the registry sent us to {_shown(url)}, which is not a plain http or https URL")
    return scheme, host, port


class Attempts:
    """The repeats that one task may use up, and the pauses between them."""

    def __init__(self, http: HttpSettings, cancelled: threading.Event) -> None:
        self._http = http
        self._cancelled = cancelled
        self._failed = 0

    def pause(self, error: RegistryUnreachable, retry_after: float | None = None) -> None:
        """Wait before the next attempt; raises ``error`` when there is none left."""
        self._failed += 1
        if self._failed > self._http.retries or isinstance(error, Unretryable):
            raise error
        delay = min(self._http.backoff * 2 ** (self._failed - 1), self._http.max_backoff)
        delay *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, protects nothing
        if retry_after is not None:
            if retry_after > self._http.max_retry_after:
                raise RegistryUnreachable(f"{error}; the registry asks to come back in {retry_after:.0f} seconds")
            delay = max(delay, retry_after)
        if self._cancelled.wait(delay):
            raise error

    def restore(self) -> None:
        """Real progress was made: the next interruption is a first one again."""
        self._failed = 0


@dataclass(frozen=True)
class Answer:
    """An answer with its body unread. ``at_home``: it comes from the origin that was asked, not from a redirect."""

    response: BaseHTTPResponse
    at_home: bool

    @property
    def status(self) -> int:
        return self.response.status

    def header(self, name: str) -> str:
        """The header's value, or the empty string."""
        return self.response.headers.get(name) or ""

    def read(self, limit: int, what: str) -> bytes:
        """The whole body. RegistryError when it is longer than ``limit`` bytes, RegistryUnreachable when it breaks."""
        body = bytearray()
        try:
            while len(body) <= limit:
                chunk = self.response.read1(_CHUNK, decode_content=False)
                if not chunk:
                    return bytes(body)
                body += chunk
        except (HTTPError, OSError) as error:
            raise connection_failure(error, what) from error
        finally:
            self.response.close()
            self.response.release_conn()
        raise RegistryError(f"{what}: the answer is longer than the limit of {limit} bytes")

    def discard(self) -> None:
        """Give the connection back; a long body is not read for that."""
        with contextlib.suppress(RegistryError):
            self.read(_DRAIN_BYTES, "")


@dataclass(frozen=True)
class Document:
    """A complete short answer; the body is kept for status 200 only."""

    status: int
    headers: HTTPHeaderDict
    body: bytes
    at_home: bool


class Exchange:
    """Asks with bounded patience; safe to use from several threads."""

    def __init__(self, transport: Transport, http: HttpSettings, cancelled: threading.Event) -> None:
        self._transport = transport
        self._http = http
        self.cancelled = cancelled

    def attempts(self, most: int | None = None) -> Attempts:
        """A fresh budget for one task: of ``most`` repeats where given and the configuration allows more."""
        http = self._http if most is None else replace(self._http, retries=min(most, self._http.retries))
        return Attempts(http, self.cancelled)

    def get(
        self,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        attempts: Attempts,
        *,
        what: str,
        method: str = "GET",
    ) -> Answer:
        """GET (or HEAD) ``url``; every final status comes back except those that ask to try again later.

        ``what`` begins the messages: registry and object. Raises :class:`RegistryUnreachable` when the attempts are
        used up and :class:`RegistryError` for a redirect that is not followed.
        """
        while True:
            try:
                answer = self._follow(method, url, headers, authorization, what)
            except RegistryUnreachable as error:
                attempts.pause(type(error)(f"{what}: {error}"))
                continue
            if answer.status not in _TRY_AGAIN:
                return answer
            reason = "too many requests" if answer.status == 429 else "the registry cannot answer now"
            failure = RegistryUnreachable(f"{what}: {reason} (HTTP {answer.status}); try again later")
            retry_after = _retry_after(answer.header("Retry-After"))
            answer.discard()
            attempts.pause(failure, retry_after)

    def get_document(
        self,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        attempts: Attempts,
        *,
        what: str,
        limit: int,
    ) -> Document:
        """GET a short body completely; a connection that breaks in the middle costs an attempt."""
        while True:
            answer = self.get(url, headers, authorization, attempts, what=what)
            if answer.status != 200:
                answer.discard()
                return Document(answer.status, answer.response.headers, b"", answer.at_home)
            try:
                return Document(200, answer.response.headers, answer.read(limit, what), answer.at_home)
            except RegistryUnreachable as error:
                attempts.pause(error)

    def _follow(
        self, method: str, url: str, headers: Mapping[str, str], authorization: str | None, what: str
    ) -> Answer:
        home = origin_of(url)
        at_home = True
        for _ in range(self._http.max_redirects + 1):
            sent = dict(headers)
            if authorization is not None and at_home:
                sent["Authorization"] = authorization
            answer = Answer(self._transport.request(method, url, sent), at_home)
            if answer.status not in _REDIRECTS:
                return answer
            answer.discard()
            target = _joined(url, answer.header("Location"), what)
            destination = origin_of(target)
            if origin_of(url)[0] == "https" and destination[0] != "https":
                raise RegistryError(f"{what}: refused the redirect from https to {_shown(target)}")
            at_home = at_home and destination == home
            url = target
        raise RegistryError(f"{what}: more than {self._http.max_redirects} redirects; the registry is misconfigured")


def _joined(base: str, location: str, what: str) -> str:
    try:
        return urljoin(base, location)
    except ValueError:
        raise RegistryError(
            f"{what}: a redirect to a malformed URL; the registry is misconfigured or hostile"
        ) from None


def _shown(url: str) -> str:
    """A URL fit for messages: queries of storage services hold signatures, user parts hold passwords."""
    parts = parse_url(url)
    return f"{parts.scheme or '?'}://{parts.host or ''}"[:200]


def _retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3): a number or a date."""
    if value.strip().isdecimal():
        return float(value.strip()[:10])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
