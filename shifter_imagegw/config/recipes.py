# SPDX-License-Identifier: BSD-3-Clause
"""How a system's images are made: the objects ``recipe``, and the key ``kernel`` of a platform."""

from __future__ import annotations

import re

from shifter_imagegw.config.model import KernelVersion
from shifter_imagegw.config.reader import ObjectReader
from shifter_imagegw.layers.recipe import LEVELS, USUAL_LEVELS, Recipe

_RELEASE = re.compile(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?(?:[-+._][\w.+~-]*)?", re.ASCII)


def read_recipe(entry: ObjectReader, inherited: Recipe) -> Recipe:
    """``inherited`` with what ``entry`` says otherwise; a level belongs to its compressor and goes with it."""
    compressor = entry.text("compressor", inherited.compressor, choices=LEVELS)
    same = compressor == inherited.compressor
    level = entry.number("level", inherited.level if same else USUAL_LEVELS[compressor], least=0)
    block_size = entry.number("blockSize", inherited.block_size)
    keep_owners = entry.flag("keepOwners", inherited.keep_owners)
    keep_setid = entry.flag("keepSetid", inherited.keep_setid)
    keep_user_xattrs = entry.flag("keepUserXattrs", inherited.keep_user_xattrs)
    boot_set = entry.flag("bootSet", inherited.boot_set)
    entry.finish()
    try:
        return Recipe(
            compressor=compressor,
            level=level,
            block_size=block_size,
            keep_owners=keep_owners,
            keep_user_xattrs=keep_user_xattrs,
            keep_setid=keep_setid,
            boot_set=boot_set,
        )
    except ValueError as error:
        raise entry.invalid(error) from error


def read_kernel(entry: ObjectReader) -> KernelVersion | None:
    """The oldest kernel among a system's nodes; what ``uname -r`` prints is fine."""
    if not entry.has("kernel"):
        entry.unused("kernel")
        return None
    text = entry.text("kernel")
    match = _RELEASE.fullmatch(text)
    if match is None:
        raise entry.error("kernel", f"{text!r}: expected a version, e.g. 4.18 (uname -r of the oldest node)")
    return KernelVersion(int(match[1]), int(match[2]), int(match[3] or 0))
