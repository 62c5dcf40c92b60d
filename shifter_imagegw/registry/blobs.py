# SPDX-License-Identifier: BSD-3-Clause
"""A blob as a stream that is verified while it flows and continues where it was interrupted.

The hash runs over what the consumer got, whatever the number of connections: a server that changes its mind between
two of them is found out at the end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from typing import Callable

from urllib3.exceptions import HTTPError

from shifter_imagegw.errors import BlobTruncated, DigestMismatch, RegistryDenied, RegistryError, RegistryUnreachable
from shifter_imagegw.registry.address import Pace
from shifter_imagegw.registry.digest import hasher
from shifter_imagegw.registry.exchange import Answer, Attempts
from shifter_imagegw.registry.manifest import Descriptor
from shifter_imagegw.registry.settings import HttpSettings
from shifter_imagegw.registry.transport import connection_failure

_CHUNK = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")

Source = Callable[[dict[str, str], Attempts], Answer]


class BlobStream:
    """Reads one blob from the first of ``sources`` that can serve it. Used by one thread."""

    def __init__(
        self,
        sources: Sequence[Source],
        descriptor: Descriptor,
        what: str,
        http: HttpSettings,
        new_attempts: Callable[[], Attempts],
    ) -> None:
        self._sources = sources
        self._descriptor = descriptor
        self._what = what
        self._http = http
        self._new_attempts = new_attempts
        self._hash = hasher(descriptor.digest)
        self._offset = 0
        self._ranges = True

    def open(self) -> AbstractContextManager[Iterator[bytes]]:
        """The chunks; leaving the context early closes the connection."""
        return closing(self._chunks())

    def _chunks(self) -> Generator[bytes, None, None]:
        for number, source in enumerate(self._sources, 1):
            try:
                yield from self._from_source(source)
                break
            except RegistryError:
                complete = 0 < self._offset == self._descriptor.size  # and then came more
                if complete or number == len(self._sources):
                    raise
        found = f"{self._descriptor.digest.partition(':')[0]}:{self._hash.hexdigest()}"
        if found != self._descriptor.digest:
            raise DigestMismatch(
                f"{self._what}: the content has digest {found}; the registry or a proxy is damaged or hostile"
            )

    def _from_source(self, source: Source) -> Iterator[bytes]:
        attempts = self._new_attempts()
        self._ranges = True
        credited = self._offset
        first = True
        while first or self._offset < self._descriptor.size:
            first = False
            answer = source(self._range_header(), attempts)
            try:
                yield from self._body(answer)
                return
            except RegistryUnreachable as error:
                if self._offset - credited >= self._http.resume_credit:
                    credited = self._offset
                    attempts.restore()
                failure = error
            finally:
                answer.response.close()
                answer.response.release_conn()
            try:
                attempts.pause(failure)
            except RegistryUnreachable as error:
                raise self._gave_up(error) from error

    def _range_header(self) -> dict[str, str]:
        return {"Range": f"bytes={self._offset}-"} if self._offset and self._ranges else {}

    def _body(self, answer: Answer) -> Iterator[bytes]:
        """The blob's remaining bytes out of one answer. RegistryUnreachable: interrupted, worth another try."""
        skip = self._position(answer)
        size = self._descriptor.size
        pace = Pace(self._http.min_blob_rate, 2 * self._http.read_timeout)
        while True:
            start = time.monotonic()
            try:
                chunk = answer.response.read1(_CHUNK, decode_content=False)
                pace.account(len(chunk), time.monotonic() - start)
            except (HTTPError, OSError) as error:
                raise connection_failure(error, self._what) from error
            if not chunk:
                break
            if skip:
                skipped = min(skip, len(chunk))
                skip -= skipped
                chunk = chunk[skipped:]
                if not chunk:
                    continue
            if self._offset + len(chunk) > size:
                raise BlobTruncated(f"{self._what}: more than the {size} bytes that the manifest promises")
            self._hash.update(chunk)
            self._offset += len(chunk)
            yield chunk
        if self._offset < size:
            raise RegistryUnreachable(f"{self._what}: the body ended after {self._offset} of {size} bytes")

    def _position(self, answer: Answer) -> int:
        """Bytes to skip in this answer's body; RegistryError when the answer is no use at all."""
        size = self._descriptor.size
        if answer.status == 200:
            length = answer.header("Content-Length")
            if length.isdecimal() and length != str(size):
                raise BlobTruncated(f"{self._what}: {length[:20]} bytes offered, the manifest promises {size}")
            return self._offset
        if answer.status == 206 and self._offset:
            match = _CONTENT_RANGE.fullmatch(answer.header("Content-Range").strip())
            if match is not None and int(match[1]) == self._offset and match[3] in ("*", str(size)):
                return 0
        if answer.status in (206, 416) and self._ranges and self._offset:
            self._ranges = False
            raise RegistryUnreachable(f"{self._what}: the registry answers wrongly to a range (HTTP {answer.status})")
        if answer.status in (401, 403):
            raise RegistryDenied(f"{self._what}: the storage of the registry refused access (HTTP {answer.status})")
        missing = "; the image is incomplete there, push it again" if answer.status == 404 else ""
        raise RegistryError(f"{self._what}: not served (HTTP {answer.status}){missing}")

    def _gave_up(self, error: RegistryUnreachable) -> RegistryError:
        """The last failure, with what became of the blob."""
        if self._offset == 0:
            return error
        return BlobTruncated(f"{error}; only {self._offset} of {self._descriptor.size} bytes arrived in all attempts")


def describe_blob(name: str, repository: str, digest: str, role: str | None = None) -> str:
    """How messages call a blob."""
    return f"registry {name}, {role or 'layer'} {digest} of {repository}"
