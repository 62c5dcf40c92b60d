# SPDX-License-Identifier: BSD-3-Clause
"""One base URL that serves repositories: authorised requests below ``/v2/`` (distribution specification)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Callable, TypeVar, Union

from shifter_imagegw.errors import RegistryDenied
from shifter_imagegw.registry.auth import Authorizer, Refusal
from shifter_imagegw.registry.exchange import Answer, Attempts, Document, Exchange

# Anonymous, token, renewed token, login, renewed login, and one for a race between threads.
_MAX_STEPS = 6

# Who asks can do without the answer; a registry with a hiccup deserves a second chance, a broken one no more.
_HEAD_REPEATS = 1
_LENGTH = re.compile(r"[0-9]{1,19}")

_Reply = TypeVar("_Reply", bound=Union[Answer, Document])


class Endpoint:
    """A location's registry or one of its mirrors; safe to use from several threads."""

    def __init__(self, name: str, url: str, authorizer: Authorizer, exchange: Exchange) -> None:
        self.name = name
        self._base = url.rstrip("/")
        self._authorizer = authorizer
        self._exchange = exchange

    @property
    def login_used(self) -> bool:
        """Whether any answer was given to the login."""
        return self._authorizer.login_used

    def attempts(self) -> Attempts:
        """A fresh budget of repeats for one task."""
        return self._exchange.attempts()

    def document(self, repository: str, path: str, headers: Mapping[str, str], what: str, limit: int) -> Document:
        """A short body below ``/v2/<repository>/``."""
        attempts = self.attempts()
        url = f"{self._base}/v2/{repository}/{path}"

        def ask(authorization: str | None) -> Document:
            return self._exchange.get_document(url, headers, authorization, attempts, what=what, limit=limit)

        return self._authorised(repository, ask, attempts, lambda d: d.headers.getlist("WWW-Authenticate"))

    def stream(self, repository: str, path: str, headers: Mapping[str, str], what: str, attempts: Attempts) -> Answer:
        """An answer below ``/v2/<repository>/`` whose body is still to be read."""
        url = f"{self._base}/v2/{repository}/{path}"

        def ask(authorization: str | None) -> Answer:
            return self._exchange.get(url, headers, authorization, attempts, what=what)

        return self._authorised(repository, ask, attempts, lambda a: a.response.headers.getlist("WWW-Authenticate"))

    def size(self, repository: str, path: str, what: str) -> int | None:
        """Bytes of what a GET below ``/v2/<repository>/`` would bring (HEAD); None where it would bring nothing, or
        the answer does not say."""
        attempts = self._exchange.attempts(_HEAD_REPEATS)
        url = f"{self._base}/v2/{repository}/{path}"

        def ask(authorization: str | None) -> Answer:
            return self._exchange.get(url, {}, authorization, attempts, what=what, method="HEAD")

        answer = self._authorised(repository, ask, attempts, lambda a: a.response.headers.getlist("WWW-Authenticate"))
        answer.discard()
        length = answer.header("Content-Length")
        return int(length) if answer.status == 200 and _LENGTH.fullmatch(length) else None

    def _authorised(
        self,
        repository: str,
        ask: Callable[[str | None], _Reply],
        attempts: Attempts,
        challenges: Callable[[_Reply], Sequence[str]],
    ) -> _Reply:
        """Ask with what is known, then with what the registry's own refusals call for.

        A 401 from a redirect's target is an answer like any other: its challenge could be a trap for the login.
        """
        grant = self._authorizer.current(repository)
        renew = True
        for _ in range(_MAX_STEPS):
            reply = ask(grant.header)
            hidden = reply.status == 404 and self._authorizer.can_use_login(grant)
            if not reply.at_home or not (reply.status in (401, 403) or hidden):
                if reply.status < 400:
                    self._authorizer.accepted(grant)
                return reply
            refusal = Refusal(reply.status, challenges(reply))
            if isinstance(reply, Answer):
                reply.discard()
            try:
                grant = self._authorizer.next(repository, grant, refusal, renew and not hidden, attempts)
            except RegistryDenied:
                if hidden:
                    return reply  # some registries say 404 to who may not know; the login did not change that
                raise
            renew = False
        raise RegistryDenied(
            f"registry {self.name}: access to {repository} is refused with every token it hands out; report it there"
        )
