# SPDX-License-Identifier: BSD-3-Clause
"""How layers become archives: compression, what of a layer an image of a cluster may hold, and limits.

A recipe decides about bytes of the result, so its fingerprint is part of the archives' names in the cache. Limits only
decide whether there is a result.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

RECIPE = 5
"""Version of what the code makes of the same recipe: raised with every change that alters archives or images."""

LEVELS: Mapping[str, range] = MappingProxyType(
    {"zstd": range(1, 23), "gzip": range(1, 10), "xz": range(10), "lz4": range(1)}
)
"""Compressors of squashfs that kernels read, and their levels (lz4 has none: 0)."""

USUAL_LEVELS: Mapping[str, int] = MappingProxyType({"zstd": 3, "gzip": 6, "xz": 6, "lz4": 0})
"""What a compressor is used with when nobody says otherwise."""

FIRST_KERNELS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"gzip": (2, 6, 29), "xz": (2, 6, 38), "lz4": (3, 19, 0), "zstd": (4, 14, 0)}
)
"""The first Linux whose squashfs reads each (the kernel's change logs)."""

_BLOCK_SIZES = frozenset(1 << exponent for exponent in range(12, 21))  # squashfs format 4.0: 4 KiB to 1 MiB
_POLICIES: Mapping[str, str] = MappingProxyType(
    {
        "keepOwners": "keep_owners",
        "keepSetid": "keep_setid",
        "keepUserXattrs": "keep_user_xattrs",
        "bootSet": "boot_set",
    }
)
"""Names of the flags, as in imagemanager.json, and their fields."""


@dataclass(frozen=True)
class Recipe:
    """ValueError for what squashfs cannot do.

    ``keep_owners``: otherwise all is root's. ``keep_user_xattrs``: otherwise no extended attribute survives; those of
    other name spaces (``security.capability``, ACLs) never do. ``keep_setid``: setuid and setgid bits, which are
    otherwise dropped; they mean something only together with owners. Device nodes never survive. ``boot_set``: what
    every start reads is stored uncompressed (squashfs/writer/bootset.c says what that is).
    """

    compressor: str = "zstd"
    level: int = 3
    block_size: int = 128 * 1024
    keep_owners: bool = False
    keep_user_xattrs: bool = False
    keep_setid: bool = False
    boot_set: bool = True

    def __post_init__(self) -> None:
        if self.compressor not in LEVELS:
            raise ValueError(f"compressor {self.compressor!r} is none of {', '.join(LEVELS)}")
        levels = LEVELS[self.compressor]
        if self.level not in levels and len(levels) == 1:
            raise ValueError(f"level {self.level}: {self.compressor} has no levels, only 0")
        if self.level not in levels:
            raise ValueError(f"level {self.level} of {self.compressor} is not within {levels[0]} to {levels[-1]}")
        if self.block_size not in _BLOCK_SIZES:
            raise ValueError(f"block size {self.block_size} is not a power of two within 4096 to 1048576")
        if self.keep_setid and not self.keep_owners:
            raise ValueError("keep_setid without keep_owners would turn every setuid program into one of root's")

    def record(self) -> str:
        """One line for the metadata of an image: version, compressor, level, block size, and the policies that hold."""
        policies = [name for name, field in _POLICIES.items() if getattr(self, field)]
        return " ".join((str(RECIPE), self.compressor, str(self.level), str(self.block_size), *policies))

    @classmethod
    def of_record(cls, text: str) -> tuple[int, Recipe]:
        """Version and recipe of such a line. ValueError when it is none, or says what this version does not know."""
        try:
            version, compressor, level, block_size, *policies = text.split()
            unknown = set(policies).difference(_POLICIES)
            if unknown:
                raise ValueError(f"{min(unknown)!r} is none of {', '.join(_POLICIES)}")
            held = {field: name in policies for name, field in _POLICIES.items()}
            return int(version), cls(compressor, int(level), int(block_size), **held)
        except ValueError as error:
            raise ValueError(f"recipe {text[:200]!r} cannot be read: {error}") from error

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits: equal exactly for recipes that give equal archives."""
        text = repr((RECIPE, sorted(asdict(self).items())))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Limits:
    """What one layer may ask of this machine. ValueError where a number is beyond what the code can bear.

    ``max_bytes`` counts the uncompressed stream, and again the sizes of its files (sparse ones are longer than the
    stream). ``max_ratio`` of uncompressed to compressed bytes holds after the first 64 MiB. ``max_text`` bytes of
    names, link targets and attributes, and up to 110 bytes for each entry, are the memory that a layer can claim.
    """

    max_bytes: int = 200 << 30
    max_ratio: int = 1000
    max_entries: int = 10_000_000
    max_text: int = 1 << 30
    max_path: int = 4096
    max_name: int = 255
    max_depth: int = 256
    max_target: int = 4095
    max_links: int = 65535
    max_xattrs: int = 64 << 10

    def __post_init__(self) -> None:
        ceilings = {
            **{"max_bytes": 1 << 60, "max_ratio": 1 << 40, "max_entries": 1 << 29, "max_text": (1 << 32) - 1},
            **{"max_path": 4096, "max_name": 255, "max_depth": 1024, "max_target": 4095},
            **{"max_links": (1 << 31) - 1, "max_xattrs": 1 << 20},
        }
        for name, ceiling in ceilings.items():
            value = getattr(self, name)
            if not 1 <= value <= ceiling:
                raise ValueError(f"{name} is {value}, not within 1 to {ceiling}")


def compression_threads() -> int:
    """Threads that compress the blocks of one layer: this process's processors, up to eight."""
    return min(len(os.sched_getaffinity(0)), 8)
