# SPDX-License-Identifier: BSD-3-Clause
"""Everything that is wrong with a udiRoot.conf on this node, for ``udiroot check`` and ``shifter --check-config``.

The setuid program only parses; what an administrator should be told is found here, without any right the caller lacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from udiroot.check.accounts import account_problems
from udiroot.check.conffile import ConfFile, read_conf_file
from udiroot.check.inside import inside_problems
from udiroot.check.kernel import kernel_problems
from udiroot.check.mounts import mount_problems
from udiroot.check.paths import path_problems, state_problems
from udiroot.check.problem import Problem
from udiroot.check.sense import sense_problems
from udiroot.installation import installed_path

__all__ = ["Problem", "check"]


def check(path: Path, *, installed: bool) -> list[Problem]:
    """All findings in the order of the lines, those of no line last. ``installed``: ``path`` is the file that is used
    here, so it must be root's."""
    found: list[Problem] = []
    conf = read_conf_file(path, installed, found)
    found.extend(_node_problems(conf) if conf is not None else kernel_problems())
    if installed:
        found.extend(state_problems(installed_path("STATEDIR")))
    return sorted(found, key=lambda problem: (problem.line is None, problem.line or 0))


def _node_problems(conf: ConfFile) -> Iterator[Problem]:
    yield from path_problems(conf)
    yield from mount_problems(conf)
    yield from account_problems(conf)
    yield from inside_problems(conf)
    yield from sense_problems(conf)
    yield from kernel_problems(caches=bool(conf.values["perNodeCachePath"]))
