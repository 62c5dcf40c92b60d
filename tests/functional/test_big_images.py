# SPDX-License-Identifier: BSD-3-Clause
"""Images at the edge of what sites pull, through a real worker process; what it needs of memory is bounded.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from shifter_imagegw.images import Image
from tests.gatewayserver import write_configuration
from tests.imagecheck import Contents, check_image
from tests.imagetree import listing, mounted
from tests.munged import Munged
from tests.registryserver import RegistryServer, registry_server, tar_of
from tests.workersite import Site

MEMORY_MB = 150


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        yield server


@dataclass(frozen=True)
class Converted:
    """An image that a worker made, and the high-water mark of that process's memory in MB (VmHWM, proc(5))."""

    path: Path
    contents: Contents
    memory_mb: float


@contextmanager
def converted(directory: Path, munge: Munged, registry: RegistryServer, reference: str) -> Iterator[Converted]:
    """Pull by a worker process of its own. What it took on disk is gone at the end."""
    locations = {"reg": {"remotetype": "dockerv2", "url": registry.url}}
    with tempfile.TemporaryDirectory(dir=directory) as base:
        config = write_configuration(Path(base), munge.socket, Locations=locations, DefaultImageLocation="reg")
        site = Site(config)
        site.pull(reference)
        with site.worker() as process:
            image: Image = site.await_ready(reference)
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
        site.check_published(image)
        site.store.close()
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        memory_mb = int(found[1]) * 1024 / 1e6
        print(f"{reference}: {memory_mb:.0f} MB of memory")
        path = site.images / f"{image.image_id}.squashfs"
        yield Converted(path, check_image(path), memory_mb)


def test_sixty_layers(tmp_path: Path, munge: Munged, registry: RegistryServer) -> None:
    """Each replaces what the one before it said, and every second one removes a file of it."""
    tars, expected = [], {}
    for number in range(60):
        files = {"shared/same": b"%d" % number, f"shared/{number}": b"layer %d" % number, f"own{number}/": b""}
        expected.update(files)
        if number % 2:
            files[f"shared/.wh.{number - 1}"] = b""
            del expected[f"shared/{number - 1}"]
        tars.append(tar_of(files))
    registry.push_image("sixty", "1", tars)
    with converted(tmp_path, munge, registry, "sixty:1") as image:
        with mounted(image.path) as root:
            tree = listing(root)
        assert {name for name, item in tree.items() if item.kind == "-"} == {
            name.encode() for name in expected if not name.endswith("/")
        }
        for name, content in expected.items():
            assert tree[name.rstrip("/").encode()].content == (hashlib.sha256(content).digest() if content else b"")
        assert image.memory_mb < MEMORY_MB
