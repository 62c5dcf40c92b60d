# SPDX-License-Identifier: BSD-3-Clause
"""`--user` and `--group`: who may use a pulled image (gateway contract, sections 2.7 and 15.4).

A name that cannot be resolved is an error: leaving it out could open a private image to everybody (weakness S9).
"""

from __future__ import annotations

import grp
import json
import pwd
from typing import TYPE_CHECKING

from udiroot.shifterimg.errors import WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LARGEST_ID = 2**32 - 2  # the last one, (uid_t) -1, means "nobody at all" to chown(2)


def pull_body(users: Sequence[str], groups: Sequence[str]) -> bytes:
    """Body of a pull request: empty, or the ids as comma-separated strings; WrongUsage for an unknown name."""
    lists = {
        "allowed_uids": resolve(users, "--user", lambda name: pwd.getpwnam(name).pw_uid),
        "allowed_gids": resolve(groups, "--group", lambda name: grp.getgrnam(name).gr_gid),
    }
    body = {key: ",".join(map(str, ids)) for key, ids in lists.items() if ids}
    return json.dumps(body, separators=(",", ":")).encode() if body else b""


def resolve(lists: Sequence[str], option: str, number_of: Callable[[str], int]) -> list[int]:
    """Ids named by comma lists, in order, each once."""
    ids: dict[int, None] = {}
    for text in lists:
        names = [name.strip() for name in text.split(",")]
        if not any(names):
            raise WrongUsage(f"{option} {text!r}: the list is empty; name at least one")
        ids.update(dict.fromkeys(_resolve(name, option, number_of) for name in names if name))
    return list(ids)


def _resolve(name: str, option: str, number_of: Callable[[str], int]) -> int:
    try:
        number = number_of(name)
    except (KeyError, ValueError):  # ValueError: a NUL byte
        if not (name.isascii() and name.isdigit()):
            raise WrongUsage(f"{option}: this node knows no such name: {name!r}; correct it or give a number") from None
        number = int(name)
    if not 0 < number <= _LARGEST_ID:
        raise WrongUsage(f"{option}: {name!r}: an access list cannot hold the id {number}; leave it out")
    return number
