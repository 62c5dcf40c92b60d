# SPDX-License-Identifier: BSD-3-Clause
"""From a credential to a session, and logins sealed for the worker (gateway contract, section 3; docs/adr/0006)."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Mapping
from typing import Protocol

from shifter_imagegw.config.model import Configuration
from shifter_imagegw.errors import AuthenticationError, NotFound
from shifter_imagegw.groups import Accounts
from shifter_imagegw.munge import MungeSocket
from shifter_imagegw.session import Session

_LOGINS = "authorized_locations"
_NOBODY = 65534
_MOCK_FIELDS = (3, 4, 6)
_MOCK_FIELDS_WITH_IDS = 6


class Authenticator(Protocol):
    """Turns the value of the ``authentication`` header into a session."""

    def authenticate(self, credential: str | None, system: str) -> Session:
        """Who calls for ``system``. A credential serves once: never call this twice in one request.

        AuthenticationError, AuthenticationUnavailable; NotFound for a system that is not configured.
        """


class MungeAuthenticator:
    """Decodes with the key of the system the request is about: another cluster's credentials mean nothing there."""

    def __init__(self, configuration: Configuration, accounts: Accounts) -> None:
        self._sockets = munge_sockets(configuration)
        self._accounts = accounts

    def authenticate(self, credential: str | None, system: str) -> Session:
        encoded = _presented(credential)
        decoded = _socket_of(system, self._sockets).decode(encoded)
        return Session(
            system,
            decoded.uid,
            decoded.gid,
            self._accounts.user_name(decoded.uid),
            self._accounts.group_name(decoded.gid),
            _logins(decoded.payload),
        )


class MockAuthenticator:
    """``status:user:group[:token[:uid:gid]]`` for tests (section 3.5); the configuration lets nobody else in here."""

    def __init__(self, configuration: Configuration) -> None:
        self._systems = frozenset(configuration.platforms)

    def authenticate(self, credential: str | None, system: str) -> Session:
        fields = _presented(credential).decode("ascii").split(":")
        if len(fields) not in _MOCK_FIELDS or fields[0] != "good":
            raise AuthenticationError("the mock credential is not of the form good:user:group[:token[:uid:gid]]")
        if system not in self._systems:
            raise _not_served(system)
        if len(fields) == _MOCK_FIELDS_WITH_IDS:
            if not (fields[4].isdecimal() and fields[5].isdecimal()):
                raise AuthenticationError("uid and gid of the mock credential are not numbers")
            return Session(system, int(fields[4]), int(fields[5]), fields[1], fields[2])
        try:
            user = pwd.getpwnam(fields[1])
        except KeyError:
            return Session(system, _NOBODY, _NOBODY, fields[1], fields[2])
        return Session(system, user.pw_uid, user.pw_gid, fields[1], fields[2])


class MungeSealer:
    """Seals logins as a munge credential that only the gateway's own account can decode."""

    def __init__(self, configuration: Configuration) -> None:
        self._sockets = munge_sockets(configuration)

    def seal(self, tokens: Mapping[str, str], system: str) -> str:
        return _socket_of(system, self._sockets).encode_for_self(json.dumps({_LOGINS: dict(tokens)}).encode())

    def unseal(self, text: str, system: str) -> Mapping[str, str]:
        # Its age and a second reading do not matter: what protects it is who made it and for whom.
        decoded = _socket_of(system, self._sockets).decode(text.encode("ascii", "replace"), outlived=True)
        if decoded.uid != os.geteuid():
            raise AuthenticationError(
                f"the login stored with the pull was sealed by uid {decoded.uid}, not by this account"
                f" (uid {os.geteuid()}); run the API and the workers under one account"
            )
        return _logins(decoded.payload)


def munge_sockets(configuration: Configuration) -> dict[str, MungeSocket]:
    """One munged per platform that names one."""
    return {
        name: MungeSocket(platform.munge_socket)
        for name, platform in configuration.platforms.items()
        if platform.munge_socket is not None
    }


def _presented(credential: str | None) -> bytes:
    if not credential:
        raise AuthenticationError(
            "no credential: every request needs the header 'authentication' with a munge credential"
        )
    try:
        return credential.encode("ascii")
    except UnicodeEncodeError as error:
        raise AuthenticationError("the credential is not text made by munge") from error


def _socket_of(system: str, sockets: Mapping[str, MungeSocket]) -> MungeSocket:
    socket = sockets.get(system)
    if socket is None:
        raise _not_served(system)
    return socket


def _not_served(system: str) -> NotFound:
    return NotFound(f"system {system[:80]!r} is not served here")


def _logins(payload: bytes) -> dict[str, str]:
    """The logins of a payload; anything that is no such document means none (section 3.1)."""
    if not payload:
        return {}
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    logins = document.get(_LOGINS) if isinstance(document, dict) else None
    if not isinstance(logins, dict):
        return {}
    return {name: login for name, login in logins.items() if isinstance(login, str)}
