# SPDX-License-Identifier: BSD-3-Clause
"""Opens udiRoot.conf as the launcher does and has the launcher's parser say all that it dislikes."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from udiroot import _core
from udiroot.check.problem import ERROR, WARNING, Problem

_FILE_LIMIT = 1 << 20  # config.c
#: Remarks of the parser about a line that does nothing although somebody meant it to: errors here.
_LOST = ("unknown key", "key without effect", "no key and value here")


@dataclass(frozen=True)
class ConfFile:
    """What could be read: ``values`` as of ``_core.load_config``; ``lines`` are (number, key, value), ``physical`` is
    the file line by line."""

    values: dict[str, Any]
    lines: list[tuple[int, str, str]] = field(default_factory=list)
    physical: list[str] = field(default_factory=list)

    def line(self, key: str, item: str = "") -> int | None:
        """Where ``key`` was set last to a value that has ``item`` in it, which may be a line that continues another."""
        number = next((n for n, name, value in reversed(self.lines) if name == key and item in value), None)
        if number is None or not item:
            return number
        end = min((n for n, _, _ in self.lines if n > number), default=len(self.physical) + 1)
        return next((n for n in range(number, end) if item in self.physical[n - 1]), number)

    def problem(self, severity: str, key: str, message: str, item: str = "") -> Problem:
        """A finding at that line."""
        return Problem(severity, self.line(key, item) or self.line(key), key, message)

    def modules(self) -> list[tuple[str, dict[str, Any]]]:
        """(prefix of its keys, its values without that prefix) of each module."""
        return [(f"module_{name}_", values) for name, values in self.values["modules"].items()]


def read_conf_file(path: Path, installed: bool, found: list[Problem]) -> ConfFile | None:
    """The file as far as it can be read; what is wrong is added to ``found``."""
    text = _read(path, installed, found)
    if text is None:
        return None
    name = str(path)
    try:
        values, errors = _core.examine_config(text, name)
        physical = text.decode("utf-8", "surrogateescape").split("\n")
        conf = ConfFile(values, _core.config_lines(text), physical)
    except _core.Error as error:
        found.append(Problem(ERROR, None, "", str(error).removeprefix(name).removeprefix(": ").strip()))
        return None
    bad: set[str] = set()
    for message in errors:
        problem = _from_parser(ERROR, message, name, conf)
        # A required key whose value was bad is there: one message is enough.
        if not (problem.line is None and problem.key in bad):
            found.append(problem)
        bad.add(problem.key)
    for message in values["remarks"]:
        problem = _from_parser(WARNING, message, name, conf)
        lost = problem.message.startswith(_LOST)
        found.append(Problem(ERROR, problem.line, problem.key, problem.message) if lost else problem)
    return conf


def _from_parser(severity: str, message: str, name: str, conf: ConfFile) -> Problem:
    """``name[:LINE]: [key: ]message``."""
    rest = message.removeprefix(name)
    number = re.match(r":(\d+): ", rest)
    rest = rest[number.end() :] if number else rest.removeprefix(": ")
    key, _, said = rest.partition(": ")
    if not re.fullmatch(r"\w\S*", key):
        words = rest.split(" ", 1)
        required = words[0] if words[0] in _core.config_keys() else ""
        return Problem(severity, int(number[1]) if number else None, required, words[1] if required else rest)
    return Problem(severity, int(number[1]) if number else conf.line(key), key, said)


def _read(path: Path, installed: bool, found: list[Problem]) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)  # a FIFO is not waited for
    except OSError as error:
        found.append(Problem(ERROR, None, "", f"cannot be read: {error.strerror}; see udiRoot.conf.example beside it"))
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _FILE_LIMIT:
            found.append(Problem(ERROR, None, "", "is not a regular file of at most 1 MiB; is it the right one?"))
            return None
        _check_trust(path, status, installed, found)
        return os.read(descriptor, _FILE_LIMIT)
    finally:
        os.close(descriptor)


def _check_trust(path: Path, status: os.stat_result, installed: bool, found: list[Problem]) -> None:
    """What config.c demands of the open file, and that nobody can put another in its place."""
    severity = ERROR if installed else WARNING
    if status.st_uid != 0:
        message = f"belongs to uid {status.st_uid}; where it is used it must belong to root (chown root {path})"
        found.append(Problem(severity, None, "", message))
    if status.st_mode & 0o022:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        found.append(Problem(ERROR, None, "", f"can be written by others (mode {mode}); chmod go-w {path}"))
    if not status.st_mode & 0o004:
        found.append(Problem(severity, None, "", f"cannot be read by every user of shifter; chmod a+r {path}"))
    if installed:
        try:
            _core.check_trust(str(path.parent.absolute()), 0, "root", True)
        except _core.Error as error:
            found.append(Problem(WARNING, None, "", f"others could put another file in its place: {error}"))
