# SPDX-License-Identifier: BSD-3-Clause
"""Lines that are right one by one and make no sense together, and keys that do nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from udiroot import _core
from udiroot.check.conffile import ConfFile
from udiroot.check.problem import ERROR, NOTE, WARNING, Problem

#: Programs that earlier versions ran (runtime contract, section 3.3).
TOOLS = ("modprobePath", "insmodPath", "cpPath", "mvPath", "chmodPath", "ddPath")
#: Accepted, and nothing looks at them: docs/udiroot-configuration.md says so too.
UNUSED = {
    "nodeContextPrefix": "nothing uses it",
    "batchType": "it only informs",
    "siteResources": "nothing uses it: a module brings in GPUs (docs/gpu-mpi.md)",
}


def sense_problems(conf: ConfFile) -> Iterator[Problem]:
    """Contradictions, repeated and unused keys, what clients lack."""
    yield from _repeated(conf)
    yield from _unused(conf)
    yield from _nested(conf)
    yield from _options(conf)
    yield from _clients(conf)
    yield from _environment(conf, "", conf.values)
    for prefix, module in conf.modules():
        yield from _environment(conf, prefix, module)
        if prefix.removeprefix("module_")[:-1] in module["conflict"]:
            yield conf.problem(
                ERROR, f"{prefix}conflict", "names the module itself, which so can never be active; remove it"
            )


def _repeated(conf: ConfFile) -> Iterator[Problem]:
    """Where the last line counts; lists of the site and maps add up."""
    growing = {key for key, value in conf.values.items() if isinstance(value, list)}
    lines = [(number, key) for number, key, value in conf.lines if value]
    last = {key: number for number, key in lines}
    for number, key in lines:
        adds_up = key in growing or (key.startswith("module_") and key.endswith("_siteFs"))
        if last[key] != number and not adds_up:
            yield Problem(WARNING, number, key, f"has no effect: line {last[key]} sets it again; remove one of the two")


def _unused(conf: ConfFile) -> Iterator[Problem]:
    for number, key, value in conf.lines:
        if key in TOOLS:
            missing = (
                ""
                if os.access(value, os.X_OK) and Path(value).is_file()
                else f" ({value} is no program, which does not matter)"
            )
            yield Problem(NOTE, number, key, f"has no effect: shifter runs no such program{missing}; the line can go")
        elif key in UNUSED:
            yield Problem(NOTE, number, key, f"is accepted, but {UNUSED[key]}; the line can go")
        elif key == "loopMount":
            yield Problem(
                NOTE, number, key, "nothing is mounted there any more; unsetupRoot clears what earlier versions left"
            )


def _nested(conf: ConfFile) -> Iterator[Problem]:
    """unsetupRoot removes every mount below loopMount; of what else lies there the parser speaks (config_places.c)."""
    for inner, outer in permutations(("udiMount", "loopMount"), 2):
        path, base = conf.values[inner], conf.values[outer]
        if path and base and _core.path_is_below(path, base) and not (path == base and inner < outer):
            yield conf.problem(
                ERROR,
                inner,
                f"{path} is in {outer} ({base}), where unsetupRoot removes every mount; use separate directories",
            )


def _options(conf: ConfFile) -> Iterator[Problem]:
    values = conf.values
    if values["rootfsType"] == "ramfs" and values["mountUdiRootWritable"]:
        message = "1 is refused with rootfsType=ramfs, which has no limit; use tmpfs, or 0"
        yield conf.problem(ERROR, "mountUdiRootWritable", message)
    if values["defaultImageType"] == "local" and not values["allowLocalChroot"]:
        message = "is local, but allowLocalChroot is 0: every image without a type is refused; use docker"
        yield conf.problem(ERROR, "defaultImageType", message)


def _clients(conf: ConfFile) -> Iterator[Problem]:
    values = conf.values
    if not values["system"]:
        yield Problem(
            WARNING,
            None,
            "system",
            "is not set: shifterimg does not work and every start asks the gateway; name it as in imagemanager.json",
        )
    if not values["imageGateway"]:
        yield Problem(
            WARNING,
            None,
            "imageGateway",
            "is not set: images can be neither pulled nor looked up; name the gateway's URL",
        )
    for url in values["imageGateway"]:
        if not _is_url(url):
            yield conf.problem(ERROR, "imageGateway", f"{url!r} is no URL; write http://HOST:5000", url)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _environment(conf: ConfFile, prefix: str, values: dict[str, Any]) -> Iterator[Problem]:
    """siteEnv, then Append, Prepend and Unset: environ.c."""
    chosen: dict[str, str] = {}
    for item in values["siteEnv"]:
        name, _, value = item.partition("=")
        if chosen.setdefault(name, value) != value:
            yield conf.problem(
                WARNING, f"{prefix}siteEnv", f"sets {name} twice: the later value counts; remove one", item
            )
    for key in ("siteEnv", "siteEnvAppend", "siteEnvPrepend"):
        for item in values[key]:
            name = item.partition("=")[0]
            if name in values["siteEnvUnset"]:
                message = f"{name} is removed again by {prefix}siteEnvUnset; remove one of the two"
                yield conf.problem(WARNING, f"{prefix}{key}", message, item)
