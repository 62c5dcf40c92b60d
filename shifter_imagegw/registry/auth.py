# SPDX-License-Identifier: BSD-3-Clause
"""Authorization at a registry: challenges, tokens, and when the user's login is used.

The road of one repository: no header -> anonymous token -> the login (as a token request or as Basic). A step is taken
only when the registry refused the one before; that the last one was needed is what makes an image private. With
``authMethod`` ``basic`` the login is sent from the start.

Sources: distribution specification "token authentication", RFC 7235, RFC 7617, RFC 6750.
"""

from __future__ import annotations

import enum
import json
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from urllib3.util import parse_url

from shifter_imagegw.errors import RegistryDenied, RegistryError
from shifter_imagegw.registry.exchange import Attempts, Exchange, origin_of
from shifter_imagegw.registry.location import Login

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r'\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_GAP = re.compile(r"[\s,]*")
_BEARER = re.compile(r"[\x21-\x7e]+")
_DEFAULT_LIFETIME = 60  # seconds; what the token specification says when expires_in is absent
_MAX_LIFETIME = 3600


class Level(enum.IntEnum):
    """How much of the caller's rights a request carries."""

    NOTHING = 0
    ANONYMOUS_TOKEN = 1
    LOGIN = 2


@dataclass(frozen=True)
class Challenge:
    """One challenge of a WWW-Authenticate header; scheme and parameter names in lower case."""

    scheme: str
    parameters: dict[str, str]


@dataclass(frozen=True)
class Refusal:
    """Status (401, 403 or 404) and WWW-Authenticate values of an answer that came from the registry itself."""

    status: int
    challenges: Sequence[str]


@dataclass(frozen=True)
class Grant:
    """An Authorization header value and how long to use it (monotonic clock)."""

    level: Level
    header: str | None = field(default=None, repr=False)
    expires: float = float("inf")


_NO_GRANT = Grant(Level.NOTHING)


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Parse the values of all WWW-Authenticate headers of an answer; garbage ends the header it stands in."""
    challenges: list[Challenge] = []
    for value in values:
        position, current = 0, None
        while True:
            position = _end(_GAP.match(value, position))
            name = _TOKEN.match(value, position)
            if name is None:
                break
            setting = _VALUE.match(value, name.end())
            if setting is None:
                current = Challenge(name[0].lower(), {})
                challenges.append(current)
                position = name.end()
            else:
                quoted, plain = setting[1], setting[2]
                text = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                if current is not None:
                    current.parameters.setdefault(name[0].lower(), text)
                position = setting.end()
    return challenges


class Authorizer:
    """Headers for the repositories of one base URL; safe to use from several threads."""

    def __init__(
        self, name: str, base_url: str, exchange: Exchange, *, login: Login | None, auth_method: str, max_reply: int
    ) -> None:
        self._name = name
        self._base_url = base_url
        self._login = login
        self._send_login_first = login is not None and auth_method == "basic"
        self._exchange = exchange
        self._max_reply = max_reply
        self._lock = threading.Lock()
        self._grants: dict[str, Grant] = {}
        self._challenges: dict[str, Challenge] = {}
        self.login_used = False

    def current(self, repository: str) -> Grant:
        """What to send with the next request; an expired token is renewed by the challenge it will meet."""
        with self._lock:
            if self._send_login_first and self._login is not None:
                return Grant(Level.LOGIN, self._login.basic_header())
            grant = self._grants.get(repository, _NO_GRANT)
            return grant if time.monotonic() < grant.expires else Grant(grant.level)

    def accepted(self, grant: Grant) -> None:
        """Note that the registry answered a request with ``grant``."""
        if grant.level == Level.LOGIN:
            self.login_used = True

    def can_use_login(self, grant: Grant) -> bool:
        """Whether the login is still to be tried after ``grant`` turned out too weak."""
        return self._login is not None and grant.level == Level.ANONYMOUS_TOKEN

    def next(self, repository: str, refused: Grant, refusal: Refusal, renew: bool, attempts: Attempts) -> Grant:
        """The grant to try after ``refused`` was refused.

        ``renew``: the refused token came from an earlier request and may only have expired. Raises
        :class:`RegistryDenied` when nothing is left to try.
        """
        with self._lock:
            known = self._grants.get(repository)
            fresh = known is not None and known.header != refused.header and time.monotonic() < known.expires
            if known is not None and fresh and known.level >= refused.level:
                return known  # another thread was faster
            challenge = self._remember(repository, refusal)
            level = refused.level if renew and refused.level > Level.NOTHING else Level(min(refused.level + 1, 2))
            if refused.level == Level.LOGIN and not (renew and challenge.scheme == "bearer"):
                raise RegistryDenied(self._login_refused(repository, refusal.status))
            grant = None
            if level == Level.ANONYMOUS_TOKEN and challenge.scheme == "bearer":
                grant = self._token(repository, challenge, None, attempts)
            if grant is None:
                grant = self._use_login(repository, challenge, refusal.status, attempts)
            self._grants[repository] = grant
            return grant

    def _remember(self, repository: str, refusal: Refusal) -> Challenge:
        challenges = parse_challenges(refusal.challenges)
        for scheme in ("bearer", "basic"):
            for challenge in challenges:
                if challenge.scheme == scheme:
                    self._challenges[repository] = challenge
                    return challenge
        if repository not in self._challenges:
            raise RegistryDenied(
                f"registry {self._name}: access to {repository} is denied (HTTP {refusal.status}) and no way to log in "
                "is offered; ask the owner of the repository"
            )
        return self._challenges[repository]

    def _use_login(self, repository: str, challenge: Challenge, status: int, attempts: Attempts) -> Grant:
        if self._login is None:
            raise RegistryDenied(
                f"registry {self._name}: {repository} does not exist or needs a login (HTTP {status}); check the name, "
                f"or run 'shifterimg login' for {self._name} and pull again"
            )
        if challenge.scheme == "basic":
            return Grant(Level.LOGIN, self._login.basic_header())
        grant = self._token(repository, challenge, self._login, attempts)
        if grant is None:
            raise RegistryDenied(self._login_refused(repository, status))
        return grant

    def _login_refused(self, repository: str, status: int) -> str:
        return (
            f"registry {self._name}: the login was refused for {repository} (HTTP {status}); check the name, and user "
            f"and password with 'shifterimg login' for {self._name}"
        )

    def _token(self, repository: str, challenge: Challenge, login: Login | None, attempts: Attempts) -> Grant | None:
        """Ask the token server that the challenge names; None when it refuses."""
        url = self._token_url(repository, challenge)
        what = f"token server {origin_of(url)[1]} of registry {self._name}"
        header = login.basic_header() if login is not None else None
        headers = {"Accept": "application/json"}
        reply = self._exchange.get_document(url, headers, header, attempts, what=what, limit=self._max_reply)
        if reply.status in (400, 401, 403):
            return None
        if reply.status != 200:
            raise RegistryError(f"{what}: unexpected answer (HTTP {reply.status}); the registry is misconfigured")
        token, lifetime = _token_reply(reply.body, what)
        level = Level.ANONYMOUS_TOKEN if login is None else Level.LOGIN
        return Grant(level, f"Bearer {token}", time.monotonic() + lifetime)

    def _token_url(self, repository: str, challenge: Challenge) -> str:
        realm = challenge.parameters.get("realm", "")
        scheme = origin_of(realm)[0]  # refuses what is no URL
        if scheme != "https" and origin_of(self._base_url)[0] == "https":
            raise RegistryError(
                f"registry {self._name}: refused a token server without TLS; the registry is misconfigured"
            )
        parts = parse_url(realm)
        query = parse_qsl(parts.query or "", keep_blank_values=True)
        if "service" in challenge.parameters:
            query.append(("service", challenge.parameters["service"]))
        scopes: Sequence[str] = challenge.parameters.get("scope", "").split() or [f"repository:{repository}:pull"]
        query.extend(("scope", scope) for scope in scopes)
        return parts._replace(query=urlencode(query), fragment=None).url


def _token_reply(body: bytes, what: str) -> tuple[str, float]:
    """Token and its useful lifetime in seconds."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        reply = None
    token = (reply.get("token") or reply.get("access_token")) if isinstance(reply, dict) else None
    if not isinstance(token, str) or not _BEARER.fullmatch(token):
        raise RegistryError(f"{what}: the answer holds no usable token; the registry is misconfigured")
    lifetime = reply.get("expires_in")
    if isinstance(lifetime, bool) or not isinstance(lifetime, (int, float)) or not 0 < lifetime < float("inf"):
        lifetime = _DEFAULT_LIFETIME
    # A token must not expire between our check and the registry's.
    return token, min(max(lifetime - 10, lifetime / 2), _MAX_LIFETIME)


def _end(match: re.Match[str] | None) -> int:
    assert match is not None  # noqa: S101 - the pattern matches the empty string
    return match.end()
