# SPDX-License-Identifier: BSD-3-Clause
"""What other rooms call: a version becomes a verified image, a descriptor becomes a verified stream."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from urllib.parse import urlsplit

from shifter_imagegw.errors import (
    BlobTruncated,
    DigestMismatch,
    ManifestInvalid,
    ManifestNotFound,
    RegistryDenied,
    RegistryError,
)
from shifter_imagegw.registry.auth import Authorizer
from shifter_imagegw.registry.blobs import BlobStream, Source, describe_blob
from shifter_imagegw.registry.digest import checked_digest, digest_of, is_digest
from shifter_imagegw.registry.endpoint import Endpoint
from shifter_imagegw.registry.exchange import Answer, Attempts, Document, Exchange, origin_of
from shifter_imagegw.registry.location import Location, Login
from shifter_imagegw.registry.manifest import (
    ACCEPT,
    MANIFEST_TYPES,
    Descriptor,
    ImageConfig,
    OciPlatform,
    ResolvedImage,
    choose_entry,
    open_document,
    parse_config,
    parse_index,
    parse_manifest,
)
from shifter_imagegw.registry.reference import check_repository, check_version
from shifter_imagegw.registry.settings import HttpSettings
from shifter_imagegw.registry.transport import Transport

__all__ = ["HttpSettings", "RegistryClient"]

_log = logging.getLogger(__name__)


class RegistryClient:
    """One location, one login, usually one pull. Safe to use from several threads; close it when done.

    The login is used only after the registry refused anonymous access (except with ``authMethod`` ``basic``), and only
    at the location itself, never at its mirrors.
    """

    def __init__(self, location: Location, login: Login | None = None, http: HttpSettings | None = None) -> None:
        self._location = location
        self._http = http or HttpSettings()
        self._cancelled = threading.Event()
        self._transport = Transport(location, self._http)
        self._exchange = Exchange(self._transport, self._http, self._cancelled)
        self._endpoints = [self._endpoint(url, None, "token") for url in location.mirrors]
        self._endpoints.append(self._endpoint(location.url, login, location.auth_method))

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up pauses between attempts and close idle connections."""
        self._cancelled.set()
        self._transport.close()

    @property
    def private(self) -> bool:
        """Whether the login was needed so far."""
        return any(endpoint.login_used for endpoint in self._endpoints)

    def resolve(self, repository: str, version: str, platform: OciPlatform) -> ResolvedImage:
        """Fetch and verify the documents of ``repository`` at ``version`` (tag or digest) for a platform.

        Raises the errors below :class:`shifter_imagegw.errors.RegistryError`; InvalidReference when an argument is
        outside the grammar.
        """
        check_repository(repository)
        check_version(version)
        for mirror in self._endpoints[:-1]:
            try:
                return self._resolve_at(mirror, repository, version, platform)
            except RegistryError as error:
                _log.info("mirror not used for %s: %s", repository, error)
        return self._resolve_at(self._endpoints[-1], repository, version, platform)

    def open_blob(self, repository: str, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """The blob's bytes as they arrive.

        Digest and size are verified while streaming: only a consumer that reads to the end of the iterator has the
        blob. Raises (while iterating) DigestMismatch, BlobTruncated for too few or too many bytes, RegistryUnreachable,
        RegistryDenied, RegistryError.
        """
        check_repository(repository)
        checked_digest(descriptor.digest, f"registry {self._location.name}, {repository}")
        what = describe_blob(self._location.name, repository, descriptor.digest)

        def source(endpoint: Endpoint) -> Source:
            def ask(headers: dict[str, str], attempts: Attempts) -> Answer:
                return endpoint.stream(repository, f"blobs/{descriptor.digest}", headers, what, attempts)

            return ask

        sources = [source(endpoint) for endpoint in self._endpoints]
        if descriptor.is_foreign and self._location.foreign_layers:
            sources.extend(self._foreign_source(url, what) for url in descriptor.urls)
        return BlobStream(sources, descriptor, what, self._http, self._exchange.attempts).open()

    def holds_blob(self, repository: str, descriptor: Descriptor) -> bool:
        """Whether the repository would serve the blob to this client, as far as it says without sending it.

        A manifest may name any digest, so that it names this one says nothing. False also where nobody can tell, such
        as at a registry that refuses HEAD: then only :meth:`open_blob` shows it. The URLs of a foreign layer are not
        asked, as what they answer is up to the author of the manifest.
        """
        check_repository(repository)
        checked_digest(descriptor.digest, f"registry {self._location.name}, {repository}")
        what = describe_blob(self._location.name, repository, descriptor.digest)
        for endpoint in self._endpoints:
            try:
                if endpoint.size(repository, f"blobs/{descriptor.digest}", what) == descriptor.size:
                    return True
            except RegistryError as error:
                _log.info("%s; the layer must be fetched", error)
        return False

    def _endpoint(self, url: str, login: Login | None, auth_method: str) -> Endpoint:
        # An alias says little to whom reads the message; the host says where to look.
        host = urlsplit(url).netloc
        name = self._location.name if self._location.name == host else f"{self._location.name} ({host})"
        reply_limit = self._http.max_token_bytes
        authorizer = Authorizer(name, url, self._exchange, login=login, auth_method=auth_method, max_reply=reply_limit)
        return Endpoint(name, url, authorizer, self._exchange)

    def _foreign_source(self, url: str, what: str) -> Source:
        """A URL out of a layer descriptor: no credentials, and no answer to a challenge (CVE-2020-15157)."""

        def ask(headers: dict[str, str], attempts: Attempts) -> Answer:
            if origin_of(url)[0] != "https" and origin_of(self._location.url)[0] == "https":
                raise RegistryError(f"{what}: its foreign URL is not https; refused")
            return self._exchange.get(url, headers, None, attempts, what=what)

        return ask

    def _resolve_at(self, endpoint: Endpoint, repository: str, version: str, platform: OciPlatform) -> ResolvedImage:
        where = f"registry {endpoint.name}, {repository}{'@' if is_digest(version) else ':'}{version}"
        expected: Descriptor | None = None
        top_digest: str | None = None
        for _ in range(self._http.max_index_depth + 1):
            body, header = self._manifest(endpoint, repository, version, expected, where)
            media_type, document = open_document(body, header, where)
            if expected is not None and media_type != expected.media_type:
                raise ManifestInvalid(f"{where}: {media_type!r} where the index promises {expected.media_type!r}")
            top_digest = top_digest or digest_of(body)
            if media_type in MANIFEST_TYPES:
                manifest = parse_manifest(document, where, self._http)
                config = self._config(endpoint, repository, manifest.config, len(manifest.layers), platform)
                digest = digest_of(body)
                return ResolvedImage(top_digest, digest, config, manifest.layers, self.private)
            expected = choose_entry(parse_index(document, where, self._http), platform, where)
            version = expected.digest
        raise ManifestInvalid(f"{where}: indexes nested more than {self._http.max_index_depth} deep")

    def _manifest(
        self, endpoint: Endpoint, repository: str, version: str, expected: Descriptor | None, where: str
    ) -> tuple[bytes, str]:
        """Verified bytes of a manifest or index, and its Content-Type."""
        reply = endpoint.document(
            repository, f"manifests/{version}", {"Accept": ACCEPT}, where, self._http.max_manifest_bytes
        )
        if reply.status == 404:
            raise ManifestNotFound(f"{where}: no such image (HTTP 404); check the name and the tag")
        _require_success(reply, where)
        if expected is not None and len(reply.body) != expected.size:
            raise BlobTruncated(f"{where}: {len(reply.body)} bytes where the index promises {expected.size}")
        announced = reply.headers.get("Docker-Content-Digest")
        promises = [version] if is_digest(version) else []
        if announced is not None:
            promises.append(checked_digest(announced.strip(), f"{where}, Docker-Content-Digest"))
        for promise in promises:
            found = digest_of(reply.body, promise)
            if found != promise:
                raise DigestMismatch(f"{where}: the manifest has digest {found} instead of {promise}")
        return reply.body, reply.headers.get("Content-Type") or ""

    def _config(
        self, endpoint: Endpoint, repository: str, descriptor: Descriptor, layers: int, platform: OciPlatform
    ) -> ImageConfig:
        where = describe_blob(endpoint.name, repository, descriptor.digest, "configuration")
        reply = endpoint.document(repository, f"blobs/{descriptor.digest}", {}, where, self._http.max_config_bytes)
        if reply.status == 404:
            raise RegistryError(f"{where}: not served (HTTP 404); the image is incomplete there, push it again")
        _require_success(reply, where)
        if len(reply.body) != descriptor.size:
            raise BlobTruncated(f"{where}: {len(reply.body)} bytes where the manifest promises {descriptor.size}")
        found = digest_of(reply.body, descriptor.digest)
        if found != descriptor.digest:
            raise DigestMismatch(f"{where}: the content has digest {found}")
        return parse_config(reply.body, layers, platform, where)


def _require_success(reply: Document, where: str) -> None:
    if reply.status in (401, 403):
        raise RegistryDenied(f"{where}: the storage of the registry refused access (HTTP {reply.status})")
    if reply.status != 200:
        raise RegistryError(f"{where}: unexpected answer (HTTP {reply.status}); is this the address of a registry?")
