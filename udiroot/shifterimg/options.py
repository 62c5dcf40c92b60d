# SPDX-License-Identifier: BSD-3-Clause
"""The options of a call, however many words of the command line they came from."""

from __future__ import annotations

from typing import NamedTuple


class Options(NamedTuple):
    """Options of a call, wherever on the line they stood."""

    verbose: bool = False
    json: bool = False
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    config: str | None = None
    munge_socket: str | None = None

    def merged(self, later: Options) -> Options:
        """Lists and flags add up; of single values the later counts."""
        return Options(
            self.verbose or later.verbose,
            self.json or later.json,
            self.users + later.users,
            self.groups + later.groups,
            later.config or self.config,
            later.munge_socket or self.munge_socket,
        )
