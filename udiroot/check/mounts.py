# SPDX-License-Identifier: BSD-3-Clause
"""The maps of siteFs and of modules: their sources, and targets that hide one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from udiroot import _core
from udiroot.check.conffile import ConfFile
from udiroot.check.paths import presence, trusted
from udiroot.check.problem import ERROR, WARNING, Problem

Map = dict[str, Any]

#: What every container has of the node.
_OF_THE_NODE = ("/proc", "/sys", "/dev", "/tmp", "/var/tmp")  # noqa: S108 -- nothing is made there


def mount_problems(conf: ConfFile) -> Iterator[Problem]:
    """Of siteFs, module_*_siteFs, perNodeCache*."""
    site: list[Map] = conf.values["siteFs"]
    yield from _maps(conf, "siteFs", site, [])
    for prefix, module in conf.modules():
        yield from _maps(conf, f"{prefix}siteFs", module["siteFs"], site)
    yield from _cache(conf, [*site, *(volume for _, module in conf.modules() for volume in module["siteFs"])])


def _maps(conf: ConfFile, key: str, maps: list[Map], before: list[Map]) -> Iterator[Problem]:
    """``before``: maps that are mounted earlier."""
    udi_mount = conf.values["udiMount"]
    # plan.c mounts these after the site's maps.
    later = (*_OF_THE_NODE, *(["/opt/udiImage"] if conf.values["optUdiImage"] else []))
    earlier = list(before)
    for volume in maps:
        source, target = volume["from"], volume["to"]
        if "perNodeCache" not in volume["flags"]:
            problem = presence(conf, key, source, "any", source)
            if problem is not None:
                yield problem
            if udi_mount and _core.path_is_below(source, udi_mount):
                yield conf.problem(
                    WARNING, key, f"{source} lies in udiMount, where shifter mounts; map another place", source
                )
        for other in earlier:
            if _core.path_is_below(other["to"], target):
                yield conf.problem(WARNING, key, _hidden(other["to"], target), source)
        for place in later:
            if _core.path_is_below(target, place):
                yield conf.problem(
                    WARNING,
                    key,
                    f"{target} is hidden by {place}, which is mounted later; use another target",
                    source,
                )
        earlier.append(volume)


def _hidden(earlier: str, target: str) -> str:
    if earlier == target:
        return f"{target} is the target of two maps: only the later one is seen; remove one"
    return f"{target} hides the earlier map at {earlier}; put it before that one"


def _cache(conf: ConfFile, maps: list[Map]) -> Iterator[Problem]:
    values = conf.values
    used = any("perNodeCache" in volume["flags"] for volume in maps)
    if values["perNodeCachePath"]:
        yield from trusted(conf, "perNodeCachePath", values["perNodeCachePath"], follow=False)
        if not values["perNodeCacheSizeLimit"]:
            message = "is not set: the caches of a user may take all room but a tenth, at most 1 GiB, of their disk"
            yield Problem(WARNING, conf.line("perNodeCacheSizeLimit"), "perNodeCacheSizeLimit", message)
        if not values["mkfsXfsPath"]:
            yield Problem(
                ERROR if used else WARNING, None, "mkfsXfsPath", "is not set, but perNodeCache needs a mkfs.xfs"
            )
        else:
            yield from trusted(conf, "mkfsXfsPath", values["mkfsXfsPath"], kind="file")
    elif used:
        yield Problem(
            ERROR, None, "perNodeCachePath", "is not set, but a map has perNodeCache; name a directory of root"
        )
    for key in ("perNodeCacheSizeLimit", "perNodeCacheAllowedFsType"):
        if conf.line(key) and not values["perNodeCachePath"]:
            yield conf.problem(WARNING, key, "has no effect without perNodeCachePath")
    types = values["perNodeCacheAllowedFsType"]
    if types and "xfs" not in types:
        yield conf.problem(WARNING, "perNodeCacheAllowedFsType", "allows nothing: only xfs is made")
