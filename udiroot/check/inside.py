# SPDX-License-Identifier: BSD-3-Clause
"""What keys say about paths in the container, where those lie in directories that the site shows there: what else would
only be noticed when a container starts, or in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from udiroot import _core
from udiroot.check.conffile import ConfFile
from udiroot.check.paths import presence
from udiroot.check.problem import ERROR, NOTE, WARNING, Problem

_OWN = "/opt/udiImage"
#: What setupRoot -s takes from optUdiImage: udiroot/src/node/sshd_files.c.
_SSHD = ("sbin/sshd", "bin/ssh", "etc/sshd_config", "etc/ssh_config")


def inside_problems(conf: ConfFile) -> Iterator[Problem]:
    """Of optUdiImage, copyPath, userhook and variables."""
    own = conf.values["optUdiImage"]
    shown = _shown(conf.values["siteFs"])
    if own:
        key = "optUdiImage" if conf.line("optUdiImage") else "udiImagePath"
        shown[_OWN] = own
        yield from _sshd(conf, key, own)
        yield from _readable(conf, key, own)
    yield from _variables(conf, "", conf.values, shown)
    for prefix, module in conf.modules():
        places = {**shown, **_shown(module["siteFs"])}
        if module["copyPath"]:
            places[f"{_OWN}/modules/{prefix.removeprefix('module_')[:-1]}"] = module["copyPath"]
            yield from _readable(conf, f"{prefix}copyPath", module["copyPath"])
        yield from _variables(conf, prefix, module, places)
        yield from _userhook(conf, f"{prefix}userhook", module["userhook"], places)


def _shown(maps: list[dict[str, Any]]) -> dict[str, str]:
    """Path in the container: path on the node."""
    return {volume["to"]: volume["from"] for volume in maps if "perNodeCache" not in volume["flags"]}


def _on_node(path: str, shown: dict[str, str]) -> str | None:
    """Where ``path`` of the container lies on the node; None when that is the image's business, or unknown."""
    places = [place for place in shown if _core.path_is_below(path, place)]
    if not places:
        return None
    place = max(places, key=len)
    found = Path(shown[place])
    for part in Path(os.path.relpath(path, place)).parts:
        found = found / part
        if found.is_symlink():  # it is followed in the container, where it leads elsewhere
            return None
    return str(found)


def _sshd(conf: ConfFile, key: str, own: str) -> Iterator[Problem]:
    if not os.access(own, os.R_OK | os.X_OK):
        return
    missing = [name for name in _SSHD if not Path(own, name).exists()]
    if len(missing) == len(_SSHD):
        message = f"{own} has no sshd: enable_sshd=1 in plugstack.conf gives jobs none; extra/build-udiimage makes one"
        yield conf.problem(NOTE, key, message)
        return
    for name in missing:
        message = f"{own} has an sshd, but no {name}: jobs get none with enable_sshd=1; run extra/build-udiimage {own}"
        yield conf.problem(WARNING, key, message)


def _readable(conf: ConfFile, key: str, top: str) -> Iterator[Problem]:
    """The directory and what lies directly in it."""
    try:
        entries = [Path(top), *sorted(Path(top).iterdir())]
        modes = [(path, path.stat().st_mode) for path in entries if not path.is_symlink()]
    except OSError:
        return
    for path, mode in modes:
        wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if mode & wanted != wanted:
            yield conf.problem(WARNING, key, f"{path} cannot be read by users in containers; chmod -R a+rX {top}")
            return


def _variables(conf: ConfFile, prefix: str, values: dict[str, Any], shown: dict[str, str]) -> Iterator[Problem]:
    for key in ("siteEnv", "siteEnvAppend", "siteEnvPrepend"):
        for item in values[key]:
            name, _, value = item.partition("=")
            for path in value.split(":"):
                place = _on_node(path, shown) if path.startswith("/") else None
                if place is not None and not _may_exist(place):
                    message = f"{name} names {path}, which containers have from {place}, and that does not exist"
                    yield conf.problem(WARNING, f"{prefix}{key}", f"{message}; create it or correct the path", item)


def _may_exist(path: str) -> bool:
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _userhook(conf: ConfFile, key: str, path: str | None, shown: dict[str, str]) -> Iterator[Problem]:
    place = _on_node(path, shown) if path else None
    if place is None:
        return
    problem = presence(conf, key, place, "file")
    if problem is not None:
        yield problem
    elif not Path(place).stat().st_mode & stat.S_IXOTH:
        yield conf.problem(ERROR, key, f"{place} cannot be executed by users; chmod a+rx {place}")
