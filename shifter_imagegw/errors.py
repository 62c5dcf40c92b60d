# SPDX-License-Identifier: BSD-3-Clause
"""The exception tree of the gateway, and the one table from error to HTTP status.

::

    ShifterError
    ├── ConfigurationError          imagemanager.json is unreadable, unsafe or wrong
    ├── RequestError                the request itself is malformed                      400
    ├── AuthenticationError         no, garbled, expired, rewound or replayed credential 401
    ├── AuthenticationUnavailable   munged does not answer: nobody can be authenticated  503
    ├── PermissionDenied            known caller, forbidden action                       403
    ├── NotFound                    no such platform or image (or none the caller sees)  404
    ├── NotSupported                a verb of the contract that comes with a later release 501
    ├── StoreError                  the database failed                                  503
    └── PullError                   a pull ends in FAILURE; the text is its status_message
        ├── InvalidReference        the image reference cannot be parsed or names an unknown registry
        ├── RegistryError
        │   ├── RegistryUnreachable     no connection, time-out, 5xx after all retries
        │   ├── RegistryDenied          401/403: wrong or missing login
        │   ├── ManifestNotFound        404 on the manifest
        │   ├── ManifestInvalid         unparsable, ambiguous or unsupported document
        │   ├── DigestMismatch          bytes do not hash to what their parent promised
        │   └── BlobTruncated           fewer or more bytes than the descriptor's size
        ├── LayerError              a layer cannot be converted; names layer digest, entry and reason
        │   └── LimitExceeded       a configured limit was crossed
        ├── ConversionError         libsquashfs or the filesystem failed (disk full, …)
        ├── ExaminerRejected        the site's examiner said no
        ├── PullTimedOut            it takes longer than the site allows
        ├── PublishError            the result could not be put on the platform
        └── LeaseLost               another worker took the pull over

Every message says what failed, on which object, why, and what to do next. Messages never hold secrets.
"""

from __future__ import annotations

import errno


class ShifterError(Exception):
    """Root of all errors the gateway raises on purpose."""


class ConfigurationError(ShifterError):
    """imagemanager.json cannot be used."""


class RequestError(ShifterError):
    """The request body, path or query is malformed."""


class AuthenticationError(ShifterError):
    """The munge credential is absent or does not decode."""


class AuthenticationUnavailable(ShifterError):
    """munged cannot be reached, so that no credential can be judged."""


class PermissionDenied(ShifterError):
    """The caller is known but may not do this."""


class NotFound(ShifterError):
    """The platform or image does not exist, or not for this caller."""


class NotSupported(ShifterError):
    """The contract has this verb, this release does not."""


class StoreError(ShifterError):
    """The database could not be reached or refused the operation."""


class PullError(ShifterError):
    """A pull cannot complete; the text becomes the record's status_message."""


class InvalidReference(PullError):
    """An image reference outside the distribution grammar, or for an unknown registry."""


class RegistryError(PullError):
    """Talking to the registry failed."""


class RegistryUnreachable(RegistryError):
    """No connection, a time-out, or server errors after all retries."""


class RegistryDenied(RegistryError):
    """The registry refused access: the login is missing or wrong."""


class ManifestNotFound(RegistryError):
    """The registry has no such repository or version."""


class ManifestInvalid(RegistryError):
    """A manifest, index or config document is unparsable, ambiguous or unsupported."""


class DigestMismatch(RegistryError):
    """Bytes do not hash to the digest their parent document promised."""


class BlobTruncated(RegistryError):
    """A body is shorter or longer than its descriptor says."""


class LayerError(PullError):
    """A layer cannot be converted.

    Attributes: ``digest`` of the layer (``sha256:…``) or None when not known yet, ``entry`` the path inside
    the layer or None, ``reason`` in plain words.
    """

    def __init__(self, reason: str, *, digest: str | None = None, entry: str | None = None) -> None:
        self.reason = reason
        self.digest = digest
        self.entry = entry
        where = f"layer {digest or '(unknown)'}"
        if entry is not None:
            where += f", entry {entry!r}"
        super().__init__(f"{where}: {reason}")


class LimitExceeded(LayerError):
    """A configured limit (bytes, entries, depth, ratio, …) was crossed."""


class ConversionError(PullError):
    """Writing the squashfs failed."""


class ExaminerRejected(PullError):
    """The configured examiner rejected the image."""


class PullTimedOut(PullError):
    """The pull has held its place in a worker for ``pullTimeout``."""


class PublishError(PullError):
    """The finished image could not be put into the image directory."""


class LeaseLost(PullError):
    """This worker's lease on the pull is gone; the pull belongs to somebody else."""


_DISK_ADVICE = {
    errno.ENOSPC: "free some space there and pull again",
    errno.EDQUOT: "free some space there or raise the quota of the gateway's account, and pull again",
    errno.EFBIG: "let the gateway's processes write longer files (ulimit -f, or another file system) and pull again",
    errno.EIO: "check the disk and the kernel's log, then pull again",
}


def disk_advice(errnum: int | None) -> str:
    """What to do when a file cannot be written, after the reason; ``errnum`` as in errno(3)."""
    other = "check that its directory is there and writable by the gateway's account"
    return _DISK_ADVICE.get(errnum or 0, other)


_HTTP_STATUS: tuple[tuple[type[ShifterError], int], ...] = (
    (RequestError, 400),
    (InvalidReference, 400),
    (AuthenticationError, 401),
    (AuthenticationUnavailable, 503),
    (PermissionDenied, 403),
    (NotFound, 404),
    (NotSupported, 501),
    (StoreError, 503),
)


def http_status(error: ShifterError) -> int:
    """HTTP status of a domain error (spec: gateway contract, section 2.8); 500 for what has no entry."""
    for kind, status in _HTTP_STATUS:
        if isinstance(error, kind):
            return status
    return 500
