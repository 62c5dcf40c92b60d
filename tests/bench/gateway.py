# SPDX-License-Identifier: BSD-3-Clause
"""The product under measurement: installed by ``make install``, driven by its own client."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.bench.registry import BenchRegistry
from tests.bench.rounds import say, seconds
from tests.bench.watch import Place, Sample, Watch, spent_by_session
from tests.installation import Installation
from tests.systemmunge import MUNGE_SOCKET


class Gateway:
    """One gateway with one worker and empty directories below ``work``; ``recipe`` as in imagemanager.json."""

    def __init__(
        self, product: Installation, registry: BenchRegistry, work: Path, recipe: Mapping[str, object] | None = None
    ) -> None:
        self.product = product
        self.registry = registry
        self.work = work
        self.recipe = recipe
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self, processes: int = 1) -> None:
        """From nothing: no image, no layer, no record; ``processes`` answer requests, one more converts."""
        shutil.rmtree(self.work, ignore_errors=True)
        for name in ("images", "cache", "expand", "udiMount", "loopMount", "etc"):
            (self.work / name).mkdir(parents=True, mode=0o755)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        configure_node(self.product, self.work, f"http://127.0.0.1:{self.port}")
        self._configure_gateway()
        log = (self.work / "gateway.log").open("wb")
        command = [str(self.product.imagegw), "serve", "--bind", f"127.0.0.1:{self.port}",
                   "--workers", str(processes), "--with-workers", "1"]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        log.close()
        self._await_health()

    def stop(self) -> None:
        """SIGTERM, as an init would."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=60)
            self.process = None
        shutil.rmtree(self.work, ignore_errors=True)

    def pull(self, name: str) -> float:
        """``shifterimg pull`` until READY: seconds."""
        command = [str(self.product.shifterimg), "pull", f"docker:{name}"]

        def pull() -> None:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode != 0:
                log = (self.work / "gateway.log").read_text(encoding="utf-8", errors="replace")
                raise SystemExit(f"bench: {' '.join(command)}: {done.stdout}{done.stderr}\n{log[-3000:]}")

        return seconds(pull)

    def measure(self, name: str, place: Place) -> Sample:
        """The same while looking at what the gateway takes for it; the client's share is in the seconds only."""
        assert self.process is not None
        session, images = self.process.pid, self.images()
        before = spent_by_session(session)
        with Watch(place, (session,), self._scratch) as watch:
            taken = self.pull(name)
        spent = spent_by_session(session).since(before)
        size = sum(path.stat().st_size for path in self.images() - images) / 1e6
        return Sample(taken, spent.cpu_seconds, watch.memory_mb, spent.read / 1e6, spent.written / 1e6,
                      watch.disk_mb, size, watch.scratch_mb)  # fmt: skip

    def images(self) -> set[Path]:
        """The images that are ready."""
        return set((self.work / "images").glob("*.squashfs"))

    def _scratch(self) -> int:
        """Length of the files that are neither image nor layer archive: half-written ones, the expand directory."""
        total = 0
        for directory, _, files in os.walk(self.work):
            for name in files:
                if name.endswith(".part") or "expand" in Path(directory).parts:
                    try:
                        total += (Path(directory) / name).stat().st_size
                    except OSError:
                        continue
        return total

    def _configure_gateway(self) -> None:
        document = {
            "Platforms": {"bench": {
                "accesstype": "local", "local": {"imageDir": str(self.work / "images")},
                "mungeSocketPath": MUNGE_SOCKET, "admins": ["root"],
            }},
            "Locations": {self.registry.host: {"remotetype": "dockerv2", "url": self.registry.url}},
            "DefaultImageLocation": self.registry.host,
            "DefaultImageFormat": "squashfs",
            "MongoDBURI": f"sqlite://{self.work}/images.sqlite",
            "CacheDirectory": str(self.work / "cache"),
            "ExpandDirectory": str(self.work / "expand"),
            "ImageExpirationTimeout": "90:00:00:00",
            "PullUpdateTimeout": 300,
            **({"recipe": self.recipe} if self.recipe is not None else {}),
        }  # fmt: skip
        target = self.product.sysconfdir / "imagemanager.json"
        target.write_text(json.dumps(document, indent=1), encoding="utf-8")
        target.chmod(0o644)

    def _await_health(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(300):
            try:
                with opener.open(f"http://127.0.0.1:{self.port}/api/health/", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        log = (self.work / "gateway.log").read_text(encoding="utf-8", errors="replace")
        raise SystemExit(f"bench: the gateway does not answer:\n{log[-3000:]}")


def configure_node(product: Installation, work: Path, gateway: str) -> None:
    """Write the node's udiRoot.conf for an image store at ``work``/images."""
    target = product.sysconfdir / "udiRoot.conf"
    target.write_text(
        f"system=bench\nimageGateway={gateway}\nimagePath={work}/images\nudiRootPath={product.prefix}\n"
        f"udiMount={work}/udiMount\nloopMount={work}/loopMount\netcPath={work}/etc\nrootfsType=tmpfs\n"
        "populateEtcDynamically=1\ndefaultImageType=docker\n# end\n",
        encoding="ascii",
    )
    target.chmod(0o644)


def remove_configuration(product: Installation) -> None:
    """What the benches wrote into the installation's configuration directory."""
    say("removing the installation")
    for name in ("udiRoot.conf", "imagemanager.json"):
        (product.sysconfdir / name).unlink(missing_ok=True)
