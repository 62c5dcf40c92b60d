# SPDX-License-Identifier: BSD-3-Clause
"""Content digests: the grammar and the hashers (OCI image spec, descriptor, "Digests").

A digest comes from documents that a registry controls, so its text is checked before it is used in any URL or path.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from shifter_imagegw.errors import ManifestInvalid

if TYPE_CHECKING:
    from hashlib import _Hash

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]+)", re.ASCII)


def is_digest(text: str) -> bool:
    """Whether ``text`` is ``sha256:`` + 64 or ``sha512:`` + 128 lower-case hex digits, and nothing else."""
    match = _DIGEST.fullmatch(text)
    return match is not None and len(match[2]) == _HEX_LENGTH[match[1]]


def checked_digest(value: object, where: str) -> str:
    """``value`` as a digest, or :class:`ManifestInvalid` naming ``where`` it stood."""
    if not isinstance(value, str) or not is_digest(value):
        raise ManifestInvalid(
            f"{where}: {str(value)[:140]!r} is not a digest (sha256:<64 lower-case hex digits>); the image is damaged "
            "or was made by a broken tool, push it again"
        )
    return value


def hasher(digest: str) -> _Hash:
    """A fresh hash object of the algorithm of a checked digest."""
    return hashlib.new(digest.partition(":")[0])


def digest_of(body: bytes, like: str = "sha256:") -> str:
    """Digest of ``body``, with the algorithm that ``like`` starts with."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
