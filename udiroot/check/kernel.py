# SPDX-License-Identifier: BSD-3-Clause
"""Whether the running kernel has what a container needs (docs/runtime.md, Kernels)."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from pathlib import Path

from udiroot.check.problem import ERROR, WARNING, Problem

_OLDEST = (4, 18)


def kernel_problems(
    caches: bool = False, release: str = "", proc: Path = Path("/proc"), dev: Path = Path("/dev")
) -> Iterator[Problem]:
    """``caches``: the site has perNodeCachePath. The other arguments are for tests; by default this node."""
    release = release or os.uname().release
    version = re.match(r"(\d+)\.(\d+)", release)
    if version and (int(version[1]), int(version[2])) < _OLDEST:
        yield Problem(ERROR, None, "kernel", f"{release} is too old; Linux 4.18 or newer is needed")
    present = {line.split()[-1] for line in (proc / "filesystems").read_text().splitlines() if line.strip()}
    for name in ("squashfs", "overlay", "tmpfs"):
        if name not in present:
            yield from _missing(name, f"file system {name}", release)
    if caches and "xfs" not in present:
        yield from _missing("xfs", "file system xfs, of perNodeCache", release)
    if not (dev / "loop-control").exists():
        yield from _missing("loop", "loop devices (/dev/loop-control)", release)
    if "# CONFIG_SQUASHFS_ZSTD is not set" in _build_options(proc, release):
        message = (
            "squashfs cannot read zstd, which the gateway uses by default; set its recipe's compressor to gzip or xz"
        )
        yield Problem(WARNING, None, "kernel", message)


def _build_options(proc: Path, release: str) -> str:
    """The kernel's .config; empty where the node does not keep it."""
    try:
        return gzip.decompress((proc / "config.gz").read_bytes()).decode(errors="replace")
    except OSError:
        pass
    try:
        return Path(f"/boot/config-{release}").read_text(errors="replace")
    except OSError:
        return ""


def _missing(module: str, what: str, release: str) -> Iterator[Problem]:
    if _loadable(module, release):
        message = f"{what}: the module is not loaded; `modprobe {module}` when the node boots, not with the first start"
        yield Problem(WARNING, None, "kernel", message)
    else:
        message = f"{what}: neither in the kernel nor a module of {release}; what needs it cannot start"
        yield Problem(ERROR, None, "kernel", message)


def _loadable(module: str, release: str) -> bool:
    try:
        listed = Path("/lib/modules", release, "modules.dep").read_text()
    except OSError:
        return False
    return re.search(rf"(?m)(^|/){module}\.ko(\.\w+)?:", listed) is not None
