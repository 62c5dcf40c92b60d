# SPDX-License-Identifier: BSD-3-Clause
"""`--user` and `--group` become ids, or an error: never silently fewer people than asked for."""

from __future__ import annotations

import grp
import json
import pwd

import pytest

from udiroot.shifterimg.acl import pull_body
from udiroot.shifterimg.errors import WrongUsage

DAEMON = pwd.getpwnam("daemon").pw_uid
DAEMON_GROUP = grp.getgrnam("daemon").gr_gid


def test_ids_in_order_and_no_groups() -> None:
    assert pull_body(["1,2,3,4"], []) == b'{"allowed_uids":"1,2,3,4"}'


def test_lists_add_up_and_names_are_looked_up() -> None:
    body = json.loads(pull_body(["daemon, 1001", "1001"], ["daemon", "77,"]))
    assert body == {"allowed_uids": f"{DAEMON},1001", "allowed_gids": f"{DAEMON_GROUP},77"}


def test_no_lists_no_body() -> None:
    assert pull_body([], []) == b""


@pytest.mark.parametrize(
    "text",
    ["nobody-knows-me", "12abc", "-5", "daemon,tpyo", "0", "root", "4294967295", "", ",", "a\0b", "\u00b9"],
)
def test_what_cannot_be_resolved_is_an_error(text: str) -> None:
    with pytest.raises(WrongUsage, match="--user"):
        pull_body([text], [])
    with pytest.raises(WrongUsage, match="--group"):
        pull_body(["1"], [text])
