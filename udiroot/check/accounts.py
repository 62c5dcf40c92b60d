# SPDX-License-Identifier: BSD-3-Clause
"""Where accounts come from: etcPath, or the node's databases."""

from __future__ import annotations

import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from udiroot import _core
from udiroot.check.conffile import ConfFile
from udiroot.check.paths import trusted
from udiroot.check.problem import ERROR, WARNING, Problem

_NEEDED = ("passwd", "group", "nsswitch.conf")


def account_problems(conf: ConfFile) -> Iterator[Problem]:
    """Of etcPath, populateEtcDynamically, allowLibcPwdCalls and usersToImport."""
    values = conf.values
    if not values["populateEtcDynamically"]:
        if values["usersToImport"]:
            yield conf.problem(
                WARNING,
                "usersToImport",
                "has no effect without populateEtcDynamically=1; put the accounts into etcPath",
            )
        if values["etcPath"]:
            yield from _etc_path(conf, values["etcPath"])
        return
    if values["etcPath"]:
        yield conf.problem(WARNING, "etcPath", "has no effect with populateEtcDynamically=1; remove one of the two")
    if conf.line("allowLibcPwdCalls") and not values["allowLibcPwdCalls"]:
        yield conf.problem(
            WARNING,
            "allowLibcPwdCalls",
            "is 0, but populateEtcDynamically=1 asks the node's databases; remove one of the two",
        )
    for name in values["usersToImport"]:
        try:
            pwd.getpwnam(name)
        except KeyError:
            yield conf.problem(
                ERROR, "usersToImport", f"there is no account {name!r} here: no container starts; remove it", name
            )


def _etc_path(conf: ConfFile, path: str) -> Iterator[Problem]:
    problems = list(trusted(conf, "etcPath", path))
    yield from problems
    if problems:
        return
    try:
        entries = sorted(Path(path).iterdir())
    except OSError as error:
        yield conf.problem(ERROR, "etcPath", f"{path}: {error.strerror}; every user must be able to read it")
        return
    for name in _NEEDED:
        if not Path(path, name).exists():
            yield conf.problem(ERROR, "etcPath", f"{path} has no file {name}; put one there")
    for entry in entries:
        yield from _entry(conf, entry)


def _entry(conf: ConfFile, path: Path) -> Iterator[Problem]:
    if not path.is_file():
        yield conf.problem(ERROR, "etcPath", f"{path} is not a file: no container starts; remove it")
        return
    try:
        _core.check_trust(str(path), 0, "root", True)
    except _core.Error as error:
        yield conf.problem(ERROR, "etcPath", str(error))
    readable = path.stat().st_mode & stat.S_IROTH
    if path.name == "passwd" and not readable and not conf.values["allowLibcPwdCalls"]:
        message = f"{path} cannot be read by every user, whom shifter looks up there; chmod a+r {path}"
        yield conf.problem(ERROR, "etcPath", message)
