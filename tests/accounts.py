# SPDX-License-Identifier: BSD-3-Clause
"""Accounts of the tests' own. Standard library only: the benches run without the developers' environment."""

from __future__ import annotations

import hashlib
import os
import pwd
import subprocess
import time
from dataclasses import dataclass

from tests.installation import ROOT

# Two checkouts on one machine do not meet.
MARK = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:6]


@dataclass(frozen=True)
class User:
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def make_user(name: str) -> User:
    """An account of the tests' own, new unless an interrupted run left it."""
    if not _known(name):
        for _attempt in range(20):  # another suite on this machine may hold the lock of the account files
            if subprocess.run(["useradd", "-M", "-U", "-s", "/bin/sh", name], check=False).returncode == 0:
                break
            time.sleep(0.3)
    entry = pwd.getpwnam(name)
    return User(name, entry.pw_uid, entry.pw_gid)


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
