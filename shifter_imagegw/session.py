# SPDX-License-Identifier: BSD-3-Clause
"""Who is calling, and how a caller's registry logins travel from the API process to a worker."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Session:
    """One authenticated request (gateway contract, section 3.3).

    ``system`` is the platform of the URL, ``uid``/``gid`` come from the munge credential, ``user``/``group`` are their
    names on the gateway host (``???`` when unknown there). ``tokens`` maps location names to ``user:password`` and is
    kept out of repr and str, so that a session can be logged.
    """

    system: str
    uid: int
    gid: int
    user: str
    group: str
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)


class TokenSealer(Protocol):
    """Makes logins unreadable to whoever reads the database (auth.py: a munge credential for the gateway's own uid)."""

    def seal(self, tokens: Mapping[str, str], system: str) -> str:
        """``tokens`` as opaque text, made with the munge key of ``system``."""

    def unseal(self, text: str, system: str) -> Mapping[str, str]:
        """The tokens again; AuthenticationError when ``text`` was not made by this account on ``system``."""


def mark_logins(tokens: Mapping[str, str], salt: str | None = None) -> str:
    """A mark by which the same logins are recognised again, and which gives nothing away: 16 bits of a salted hash."""
    salt = salt or secrets.token_hex(4)
    text = json.dumps([salt, sorted(tokens.items())])
    return f"{salt}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:4]}"


def are_marked(mark: str, tokens: Mapping[str, str]) -> bool:
    """Whether ``mark`` was made of these logins."""
    return mark == mark_logins(tokens, mark.partition(":")[0])
