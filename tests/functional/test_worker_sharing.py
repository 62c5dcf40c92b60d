# SPDX-License-Identifier: BSD-3-Clause
"""What pulls share: the places of a worker, layers that are fetched once for all, and a cache within its bounds."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shifter_imagegw.images import PENDING
from tests.gatewayserver import SYSTEM, write_configuration
from tests.munged import Munged
from tests.registryserver import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, descriptor, digest_of, tar_of
from tests.scriptedserver import Request, ScriptedServer, scripted_server
from tests.workersite import Site


def test_workers_keep_the_cache_within_its_bounds(tmp_path: Path, munge: Munged) -> None:
    cache = {"maxBytes": 1 << 20, "minFreePercent": 0}
    site = Site(write_configuration(tmp_path, munge.socket, cache=cache))
    for number in range(3):
        archive = site.configuration.cache_directory / f"{number:064x}-{number:064x}-{number:016x}.layer"
        archive.write_bytes(os.urandom(700_000))
        os.utime(archive, (number, number))
    with site.worker():
        site.until(lambda: list(site.configuration.cache_directory.glob("*.layer")) == [archive])
        site.until(lambda: "removed 2 of 3 layers" in site.log)
    site.store.close()


@dataclass(frozen=True)
class ManyLayers:
    """An image of tars; ``layers`` by digest."""

    manifest: bytes
    config: bytes
    layers: dict[str, bytes]

    @classmethod
    def of(cls, name: str, count: int, base: ManyLayers | None = None) -> ManyLayers:
        """``count`` layers of its own, on those of ``base``."""
        tars = [*base.layers.values()] if base else []
        tars += [tar_of({f"{name}{number}": os.urandom(2000)}) for number in range(count)]
        rootfs = {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
        manifest = {
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, config),
            "layers": [descriptor(OCI_LAYER, tar) for tar in tars],
        }  # fmt: skip
        return cls(json.dumps(manifest).encode(), config, {digest_of(tar): tar for tar in tars})

    def serve(self, request: Request) -> None:
        if "/manifests/" in request.path:
            request.reply(200, self.manifest, {"Content-Type": OCI_MANIFEST})
        elif request.path.endswith(digest_of(self.config)):
            request.reply(200, self.config)
        else:
            request.reply(200, self.layers[request.path[-71:]])

    def asked(self, server: ScriptedServer) -> int:
        """How many layers were asked for."""
        return sum(path[-71:] in self.layers for path in server.paths)


@contextmanager
def site_with(
    directory: Path, munge: Munged, images: Mapping[str, ManyLayers], hold: Callable[[str], object], pulls: int = 2
) -> Iterator[tuple[Site, ScriptedServer]]:
    """A site whose registry has ``images``; ``hold(name)`` returns when a layer of that image may be sent. A worker
    takes so many ``pulls`` at once."""

    def script(request: Request) -> None:
        name = request.path.split("/")[2]
        if request.path[-71:] in images[name].layers:
            hold(name)
        images[name].serve(request)

    with scripted_server(script) as server:
        config = write_configuration(
            directory, munge.socket, Locations={"reg": {"remotetype": "dockerv2", "url": server.url}},
            DefaultImageLocation="reg", WorkerThreads=pulls, http={"readTimeout": 200},
        )  # fmt: skip
        site = Site(config)
        yield site, server
        site.store.close()


def test_a_small_pull_does_not_wait_for_a_large_one(tmp_path: Path, munge: Munged) -> None:
    big, small = ManyLayers.of("big", 60), ManyLayers.of("small", 5)
    small_is_ready = threading.Event()

    def hold(name: str) -> None:
        if name == "big":
            small_is_ready.wait(100)

    with site_with(tmp_path, munge, {"big": big, "small": small}, hold) as (site, server):
        site.pull("big:1")
        with site.worker():
            site.until(lambda: big.asked(server) == site.configuration.parallel_layers)
            site.pull("small:1")
            site.check_published(site.await_ready("small:1"))
            assert site.store.ready_by_tag(SYSTEM, "docker", "big:1") is None
            assert big.asked(server) == site.configuration.parallel_layers
            small_is_ready.set()
            site.check_published(site.await_ready("big:1"))


def test_pulls_that_wait_for_a_place_can_be_stopped(tmp_path: Path, munge: Munged) -> None:
    big, small = ManyLayers.of("big", 60), ManyLayers.of("small", 60)
    over = threading.Event()
    images = {"big": big, "small": small}
    with site_with(tmp_path, munge, images, lambda _name: over.wait(100)) as (site, server):
        pulls = [site.pull("big:1"), site.pull("small:1")]
        with site.worker() as process:
            site.until(lambda: big.asked(server) and small.asked(server))
            process.terminate()
            assert process.wait(timeout=60) == 0
        over.set()
        assert [(site.record(pull).status, site.record(pull).attempts) for pull in pulls] == [(PENDING, 0)] * 2


def test_workers_fetch_a_layer_once(tmp_path: Path, munge: Munged) -> None:
    """Two processes, four pulls, one layer that all of them need: who comes later waits for it."""
    images = {"one": ManyLayers.of("base", 1)}
    for name in ("two", "three", "four"):
        images[name] = ManyLayers.of(name, 1, images["one"])
    (shared,) = images["one"].layers
    over = threading.Event()
    with site_with(tmp_path, munge, images, lambda _name: over.wait(100)) as (site, server):
        pulls = [site.pull(f"{name}:1") for name in images]
        with site.worker(), site.worker():
            site.until(lambda: all(site.record(pull).worker for pull in pulls))
            site.until(lambda: all(images[name].asked(server) for name in images))
            assert len({site.record(pull).worker for pull in pulls}) == 2
            over.set()
            for name in images:
                site.check_published(site.await_ready(f"{name}:1"))
        assert len(server.headers_of(shared)) == 1
        # Each of the others has asked its own repository whether it may have it.
        assert sorted(path.split("/")[2] for path in server.heads) == sorted(set(images) - {fetched_by(server, shared)})
        archives = [path.name for path in site.configuration.cache_directory.iterdir()]
        assert len(archives) == 4


def fetched_by(server: ScriptedServer, digest: str) -> str:
    (path,) = [path for path in server.paths if path.endswith(digest)]
    return path.split("/")[2]


def test_whoever_waits_for_a_layer_goes_on_when_its_maker_is_killed(tmp_path: Path, munge: Munged) -> None:
    image = ManyLayers.of("base", 1)
    other = ManyLayers.of("other", 1, image)
    (shared,) = image.layers
    over = threading.Event()
    images = {"one": image, "two": other}
    with site_with(tmp_path, munge, images, lambda _name: over.wait(100), pulls=1) as (site, server):
        site.pull("one:1")
        with site.worker() as maker:
            site.until(lambda: server.headers_of(shared))
            with site.worker():
                site.pull("two:1")
                site.until(lambda: other.asked(server) == 2)  # the shared layer by its maker, its own by the waiter
                maker.kill()
                maker.wait()
                over.set()
                site.check_published(site.await_ready("two:1"))
                assert len(server.headers_of(shared)) == 2
                site.expire_leases()
                site.check_published(site.await_ready("one:1"))
        assert len(server.headers_of(shared)) == 2
