# SPDX-License-Identifier: BSD-3-Clause
"""libmunge, bound with ctypes: encode and decode (munge.h, munge(3)).

The package pymunge finds the library by running ldconfig, or a compiler, whenever it is imported (docs/adr/0008). The
file name is part of the library's ABI, so it is simply loaded.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from udiroot.shifterimg.errors import CredentialFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIBRARY = "libmunge.so.2"

# munge.h
_OPT_SOCKET = 8
_SUCCESS, _SOCKET, _EXPIRED, _REPLAYED = 0, 6, 15, 17


class Decoded(NamedTuple):
    """What a credential says: payload and the uid of the process that made it."""

    payload: bytes
    uid: int


class Munge:
    """munged behind ``socket``, or behind libmunge's default socket."""

    def __init__(self, socket: str | None = None) -> None:
        """CredentialFailed when libmunge is not installed."""
        self._socket = socket
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise CredentialFailed(f"munge: {error}; install munge on this node") from None
        self._library.munge_ctx_create.restype = ctypes.c_void_p
        self._library.munge_ctx_strerror.restype = ctypes.c_char_p
        self._free = ctypes.CDLL(None).free
        self._free.argtypes = [ctypes.c_void_p]
        self._free.restype = None

    def encode(self, payload: bytes = b"") -> str:
        """A fresh credential of this process, for anybody to decode; CredentialFailed when munged made none."""
        credential = ctypes.c_void_p()
        with self._context() as context:
            code = self._library.munge_encode(ctypes.byref(credential), context, payload, len(payload))
            if code != _SUCCESS:
                raise CredentialFailed(f"no munge credential could be made: {self._reason(context, code)}")
        try:
            return ctypes.string_at(credential.value or 0).decode("ascii")
        finally:
            self._free(credential)

    def decode(self, credential: str) -> Decoded:
        """What ``credential`` holds, also when it is expired or was decoded before; CredentialFailed otherwise."""
        payload, length, uid, gid = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_uint32(), ctypes.c_uint32()
        with self._context() as context:
            code = self._library.munge_decode(
                credential.encode("utf-8"),
                context,
                ctypes.byref(payload),
                ctypes.byref(length),
                ctypes.byref(uid),
                ctypes.byref(gid),
            )
            reason = "" if code in (_SUCCESS, _EXPIRED, _REPLAYED) else self._reason(context, code)
        try:
            if reason:
                raise CredentialFailed(reason)
            return Decoded(ctypes.string_at(payload, length.value) if payload else b"", uid.value)
        finally:
            self._free(payload)

    @contextmanager
    def _context(self) -> Iterator[ctypes.c_void_p]:
        context = ctypes.c_void_p(self._library.munge_ctx_create())
        try:
            if self._socket is not None:
                self._library.munge_ctx_set(context, _OPT_SOCKET, ctypes.c_char_p(self._socket.encode()))
            yield context
        finally:
            self._library.munge_ctx_destroy(context)

    def _reason(self, context: ctypes.c_void_p, code: Any) -> str:
        text = self._library.munge_ctx_strerror(context) or b"unknown error"
        reason = f"{text.decode(errors='replace')} (munge error {code})"
        return f"{reason}; see that munged runs on this node" if code == _SOCKET else reason
