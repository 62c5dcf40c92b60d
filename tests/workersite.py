# SPDX-License-Identifier: BSD-3-Clause
"""A gateway's files and records, and real worker processes on them, which a test may hold at a moment and kill."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shifter_imagegw.auth import MungeSealer
from shifter_imagegw.config import load_configuration
from shifter_imagegw.images import Image
from shifter_imagegw.manager import ImageManager
from shifter_imagegw.platforms.local import LocalPlatform
from shifter_imagegw.session import Session
from shifter_imagegw.store import open_store
from shifter_imagegw.wakeup import Bell
from tests.gatewayserver import SYSTEM
from tests.imagecheck import Contents, check_image

ROOT = Path(__file__).resolve().parents[1]
CAROL = Session(SYSTEM, 3000, 300, "carol", "users")


@dataclass
class Site:
    """A gateway's files and records, and worker processes on them."""

    config: Path

    def __post_init__(self) -> None:
        self.configuration = load_configuration(self.config)
        self.store = open_store(self.configuration.store_uri)
        self.images = self.configuration.platforms[SYSTEM].image_directory

    def pull(self, reference: str) -> Image:
        bell = Bell(self.configuration.expand_directory)
        sealer = MungeSealer(self.configuration)
        manager = ImageManager(self.configuration, self.store, sealer, lambda _: frozenset(), on_queued=bell.ring)
        return manager.pull(CAROL, "docker", reference)

    @contextmanager
    def worker(self, *moments: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.config.parent / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.heldworker", str(self.config), *moments], cwd=ROOT,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def await_held(self, process: subprocess.Popen[bytes]) -> None:
        mark = self.config.parent / f"held-{process.pid}"
        self.until(mark.exists)

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.03)
        raise AssertionError(f"waited in vain:\n{self.log[-3000:]}")

    @property
    def log(self) -> str:
        return (self.config.parent / "worker.log").read_text(errors="replace")

    def await_ready(self, reference: str, seconds: float = 60) -> Image:
        found: Image = self.until(lambda: self.store.ready_by_tag(SYSTEM, "docker", reference), seconds)
        return found

    def record(self, pull: Image) -> Image:
        found = self.store.get(pull.record_id)
        assert found is not None
        return found

    def expire_leases(self) -> None:
        """What time does: nobody has heard of the worker for longer than its lease."""
        path = self.configuration.store_uri.removeprefix("sqlite://")
        with sqlite3.connect(path) as database:
            database.execute("UPDATE images SET lease_expires = 0 WHERE worker IS NOT NULL")
        database.close()

    def debris(self) -> list[Path]:
        return list(self.images.rglob("*.part"))

    def check_published(self, image: Image) -> Contents:
        """Everything a node looks at is there, and other readers take the image."""
        assert image.image_id is not None
        platform = LocalPlatform(SYSTEM, self.images)
        assert platform.exists(image.image_id, "squashfs")
        assert platform.has_metadata(image.image_id)
        assert [platform.tagged("docker", tag) for tag in image.tags] == [image.image_id] * len(image.tags)
        return check_image(self.images / f"{image.image_id}.squashfs")
