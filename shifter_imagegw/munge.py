# SPDX-License-Identifier: BSD-3-Clause
"""libmunge for threads: one munged per object, one context per thread, no process ever forked for a credential.

Only the contexts are pymunge's. Its ``decode`` keeps the buffer that munge_decode(3) hands to its caller to free, so
every payload, registry passwords among them, would stay in the memory of a service for ever.
"""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymunge import TTL_MAXIMUM, MungeContext, MungeError, MungeErrorCode
from pymunge import raw as libmunge

from shifter_imagegw.errors import AuthenticationError, AuthenticationUnavailable, ConfigurationError

_UNREACHABLE = (MungeErrorCode.EMUNGE_SOCKET, MungeErrorCode.EMUNGE_TIMEOUT, MungeErrorCode.EMUNGE_NO_MEMORY)
# munge.h: the credential is genuine, its content comes with the error.
_OUTLIVED = (
    MungeErrorCode.EMUNGE_CRED_EXPIRED,
    MungeErrorCode.EMUNGE_CRED_REWOUND,
    MungeErrorCode.EMUNGE_CRED_REPLAYED,
)

_free = ctypes.CDLL(None).free
_free.argtypes = [ctypes.c_void_p]
_free.restype = None


@dataclass(frozen=True)
class Decoded:
    """Content of a credential and who made it."""

    payload: bytes
    uid: int
    gid: int


class MungeSocket:
    """The munged that listens at ``path``. Safe for threads, and for processes that fork."""

    def __init__(self, path: Path) -> None:
        if libmunge.libmunge is None:
            raise ConfigurationError(
                "libmunge.so is not found; install munge, and binutils, with which Python looks for it"
            )
        self._path = path
        self._local = threading.local()

    def decode(self, credential: bytes, *, outlived: bool = False) -> Decoded:
        """Validate a credential; it is used up thereby.

        AuthenticationError says what is wrong with it; AuthenticationUnavailable when munged does not answer.
        ``outlived`` accepts expired, rewound and already decoded ones as well.
        """
        context = self._context("decode")
        try:
            payload, uid, gid = _munge_decode(credential, context.ctx)
        except MungeError as error:
            if error.code in _UNREACHABLE:
                raise self._unreachable(error) from error
            if not outlived or error.code not in _OUTLIVED:
                raise AuthenticationError(f"munge refuses the credential: {error.message}") from error
            payload, uid, gid = error.result
        return Decoded(payload, uid, gid)

    def encode_for_self(self, payload: bytes) -> str:
        """A credential that only this account can decode. AuthenticationUnavailable; AuthenticationError when it would
        be too long for munge."""
        context = self._context("encode")
        try:
            return str(context.encode(payload).decode("ascii"))
        except MungeError as error:
            if error.code in _UNREACHABLE:
                raise self._unreachable(error) from error
            raise AuthenticationError(f"munge cannot make a credential: {error.message}") from error

    def _context(self, purpose: str) -> Any:
        """This thread's context; decoding changes a context, so encoding has one of its own."""
        context = getattr(self._local, purpose, None)
        if context is None:
            context = MungeContext()
            context.socket = str(self._path)
            if purpose == "encode":
                context.uid_restriction = os.geteuid()
                context.ttl = TTL_MAXIMUM
            setattr(self._local, purpose, context)
        return context

    def _unreachable(self, error: MungeError) -> AuthenticationUnavailable:
        return AuthenticationUnavailable(
            f"munged at {self._path} does not answer ({error.message}); see that it runs and try again"
        )


def _take_decoded(status: int, _function: object, arguments: tuple[Any, ...]) -> tuple[bytes, int, int]:
    """Copy what munge_decode(3) allocated, and give it back cleared."""
    _credential, context, buffer, length, uid, gid = arguments
    payload = b""
    if buffer.value is not None:
        payload = ctypes.string_at(buffer.value, length.value)
        ctypes.memset(buffer.value, 0, length.value)
        _free(buffer.value)
    result = (payload, int(uid.value), int(gid.value))
    libmunge.check_and_raise(status, context, result)
    return result


_munge_decode = libmunge.load_function(
    "munge_decode",
    libmunge.munge_err_t,
    [
        ctypes.c_char_p,
        libmunge.munge_ctx_t,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.POINTER(ctypes.c_int),
        ctypes.POINTER(libmunge.uid_t),
        ctypes.POINTER(libmunge.gid_t),
    ],
    ((1, "credential"), (1, "context"), (2, "buffer"), (2, "length"), (2, "uid"), (2, "gid")),
    _take_decoded,
)
