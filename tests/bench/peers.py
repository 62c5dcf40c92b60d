# SPDX-License-Identifier: BSD-3-Clause
"""What the pull bench compares with: other tools doing the same conversion, and the least that anybody must do."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.registry import BenchRegistry
from tests.bench.rounds import seconds

CHAIN = "skopeo+umoci+mksquashfs"
CHAIN_ZSTD = "skopeo+umoci+mksquashfs zstd-3"
MKSQUASHFS: Mapping[str, Sequence[str]] = {CHAIN: (), CHAIN_ZSTD: ("-comp", "zstd", "-Xcompression-level", "3")}
VERSIONS = {
    "skopeo": ["skopeo", "--version"],
    "umoci": ["umoci", "--version"],
    "mksquashfs": ["mksquashfs", "-version"],
    "tar2sqfs": ["tar2sqfs", "--version"],
    "igzip": ["igzip", "--version"],
}


def absent(*programs: str) -> list[str]:
    """Those of the programs that this machine does not have."""
    return [program for program in programs if shutil.which(program) is None]


def chain_pull(registry: BenchRegistry, name: str, work: Path, compression: Sequence[str]) -> float:
    """skopeo copy, umoci unpack, mksquashfs: seconds; ``work`` is empty before and after."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)

    def convert() -> None:
        layout = f"{work}/oci:image"
        _run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{registry.host}/{name}", f"oci:{layout}")
        _run("umoci", "unpack", "--image", layout, f"{work}/bundle")
        _run("mksquashfs", f"{work}/bundle/rootfs", f"{work}/image.squashfs", "-no-xattrs", "-no-progress",
             "-quiet", *compression)  # fmt: skip

    taken = seconds(convert)
    shutil.rmtree(work)
    return taken


def floor(layers: Sequence[Path], work: Path) -> float:
    """``igzip -dc | tar2sqfs -c zstd -X level=3`` for each layer: seconds. No download, no merge, no whiteouts."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)

    def convert() -> None:
        for number, layer in enumerate(layers):
            with subprocess.Popen(["igzip", "-dc"], stdin=layer.open("rb"), stdout=subprocess.PIPE) as inflate:
                _run("tar2sqfs", "-q", "-f", "-c", "zstd", "-X", "level=3", f"{work}/{number}.squashfs",
                     stdin=inflate.stdout)  # fmt: skip

    taken = seconds(convert)
    shutil.rmtree(work)
    return taken


def _run(*command: str, stdin: object = subprocess.DEVNULL) -> None:
    done = subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}")
