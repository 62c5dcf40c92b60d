# SPDX-License-Identifier: BSD-3-Clause
"""What a node could have left of containers that are gone: mounts, loop devices, processes, state."""

from __future__ import annotations

import time
from pathlib import Path

from tests.shifternode import ShifterNode, host_mounts

WAIT_SECONDS = 10


def backing_files(node: ShifterNode) -> list[str]:
    """The files behind loop devices that are the node's, each as often as it has devices (losetup takes longer)."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            text = path.read_text().rstrip("\n")
        except OSError:  # freed just now
            continue
        if text.startswith(f"{node.base}/"):
            found.append(text)
    return found


def processes(node: ShifterNode) -> list[str]:
    """Processes that run a program of the node's."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            program = str((entry / "exe").readlink()) if entry.name.isdigit() else ""
        except OSError:
            continue
        if program.startswith(f"{node.base}/"):
            found.append(f"process {entry.name}: {program}")
    return found


def _holders(node: ShifterNode) -> list[str]:
    """Processes with a mount of the node's: whoever unshares while a container is shown has a copy."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            apart = entry.name.isdigit() and (entry / "ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
            if apart and str(node.base) in (entry / "mountinfo").read_text():
                found.append(f"{entry.name} ({(entry / 'comm').read_text().strip()})")
        except OSError:
            continue
    return found


def totals(node: ShifterNode) -> dict[str, int]:
    """What is there at this moment: open files of the whole machine; of the node processes of its users, mounts in
    whatever namespace, and loop devices."""
    found = {"files": int(Path("/proc/sys/fs/file-nr").read_text().split()[0]), "processes": 0, "mounts": 0}
    namespaces = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            found["processes"] += entry.stat().st_uid in (node.alice.uid, node.eve.uid)
            namespace = (entry / "ns/mnt").readlink()
            if namespace not in namespaces:
                found["mounts"] += (entry / "mountinfo").read_text().count(str(node.base))
                namespaces.add(namespace)
        except OSError:  # it ended just now
            continue
    return {**found, "loop devices": len(backing_files(node))}


def left(node: ShifterNode) -> list[str]:
    """All of it; empty on a node that holds no container."""
    found = [*host_mounts(), *backing_files(node), *processes(node)]
    found += [str(path) for path in (node.state, *node.udi_mount.glob("*")) if path.exists()]
    return found


def check_clean(node: ShifterNode, where: object) -> None:
    """Nothing is left; the kernel takes a moment for what a dead process had."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (found := left(node)) and time.monotonic() < deadline:
        time.sleep(0.002)
    assert found == [], f"{where}: {found}, held by {_holders(node)}"
