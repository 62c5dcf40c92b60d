# SPDX-License-Identifier: BSD-3-Clause
"""A pull that is killed between any two system calls: what it published is whole, and the next worker finishes it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shifter_imagegw.app import create_worker
from shifter_imagegw.images import READY, Image
from tests.faulty import check_consistent, check_nothing_left, compiled, eager, expire_leases, facts, queued, visible
from tests.gatewayserver import SYSTEM
from tests.munged import Munged
from tests.pulledsite import PulledSite, make_site
from tests.registryserver import Pushed, RegistryServer, registry_server, tar_of
from tests.tracedpull import PHASES

ROOT = Path(__file__).resolve().parents[2]
NOISE = random.Random(11).randbytes(60_000)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RegistryServer, list[Pushed]]]:
    """Two images, of which ``app:1`` is one or the other."""
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        base = tar_of({"bin/": b"", "bin/sh": NOISE})
        pushed = [server.push_image("app", "1", [base, tar_of({"one": NOISE[:9000]})], config={"Env": ["A=1"]})]
        pushed.append(server.push_image("app", "2", [base, tar_of({"two": NOISE[9000:]})], config={"Env": ["A=2"]}))
        yield server, pushed


@dataclass
class Scene:
    """A situation in which a pull is killed, and what comes of it when it is not."""

    directory: Path
    killat: Path
    munge: Munged
    registry: RegistryServer
    pushed: list[Pushed]
    again: bool  # app:1 was pulled before and is another image by now
    made: int = 0
    calls: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    records: list[tuple[object, ...]] = field(default_factory=list)

    def site(self) -> PulledSite:
        """A new gateway with the pull in its queue."""
        self.made += 1
        directory = self.directory / str(self.made)
        directory.mkdir()
        site = eager(make_site(directory, self.munge, self.registry))
        if self.again:
            self._tag(self.pushed[0])
            assert site.pulled().status == READY
        self._tag(self.pushed[1])
        queued(site)
        return site

    def _tag(self, image: Pushed) -> None:
        self.registry.push_document("app", "1", image.manifest, image.media_type)

    def run(self, site: PulledSite, phase: str = "-", kind: str = "-", number: int = 0) -> bool:
        """Whether the pull was killed where it should be."""
        report = site.config.parent / "calls"
        command = [str(self.killat), str(report), phase, kind, str(number)]
        command += [sys.executable, "-m", "tests.tracedpull", str(site.config)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stderr
        return done.returncode == 0

    def measure(self) -> Scene:
        """Run it once undisturbed."""
        site = self.site()
        assert not self.run(site)
        for line in (site.config.parent / "calls").read_text().splitlines():
            phase, kind, name = line.split()
            self.calls.setdefault((int(phase), kind), []).append(name)
        self.files, self.records = visible(site), records(site)
        check_consistent(site)
        check_nothing_left(site)
        site.store.close()
        return self


def records(site: PulledSite) -> list[tuple[object, ...]]:
    known: list[Image] = [*site.store.ready(SYSTEM), *site.store.queue(SYSTEM)]
    return sorted((facts(record) for record in known), key=repr)


@pytest.fixture(scope="module", params=["first", "again"])
def scene(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    munge: Munged,
    images: tuple[RegistryServer, list[Pushed]],
) -> Scene:
    directory = tmp_path_factory.mktemp(request.param)
    registry, pushed = images
    killat = compiled("killat", directory)
    return Scene(directory, killat, munge, registry, pushed, again=request.param == "again").measure()


def finish(site: PulledSite) -> None:
    """What the next worker does once the lease has run out and the debris is old enough."""
    expire_leases(site)
    for path in site.config.parent.rglob(".*.part"):  # of images and of layers
        os.utime(path, (0, 0))
    worker = create_worker(site.configuration)
    claimed = site.store.claim("next", time.time(), 60, [SYSTEM])
    if claimed is not None:
        worker.attempt(claimed)
    worker._tidy()


def points(scene: Scene, phase: int) -> list[tuple[str, int]]:
    """Where to kill: at each call that changes the image directory, at a sample of all others."""
    source = random.Random(phase)
    chosen = []
    for kind, sample in (("change", 3), ("look", 1)):
        calls = scene.calls.get((phase, kind), [])
        publishing = kind == "change" and PHASES[phase].startswith("publish")
        # pwrite64 is the database's.
        every = [number for number, name in enumerate(calls, 1) if publishing and name != "pwrite64"]
        others = sorted(set(range(1, len(calls) + 1)).difference(every))
        chosen += [(kind, number) for number in every + source.sample(others, min(sample, len(others)))]
    return chosen


@pytest.mark.parametrize("phase", range(len(PHASES)), ids=PHASES)
def test_wherever_it_is_killed(scene: Scene, phase: int) -> None:
    killed = 0
    for kind, number in points(scene, phase):
        site = scene.site()
        killed += scene.run(site, str(phase), kind, number)
        where = f"{kind} {number}: {scene.calls[phase, kind][number - 1]}"
        for name, content in visible(site).items():
            if not name.endswith(".meta") and not name.startswith("tags"):
                assert scene.files.get(name) == content, (where, name)
        check_consistent(site)
        finish(site)
        check_consistent(site)
        check_nothing_left(site)
        assert visible(site) == scene.files, where
        assert records(site) == scene.records, where
        site.store.close()
    assert killed > 0


@pytest.mark.parametrize("step", ["publish_image", "publish_metadata", "publish_tag"])
def test_what_gets_a_name_is_on_disk_before_and_the_name_after(scene: Scene, step: str) -> None:
    """A power cut can be had by no test; what must be synced for it can be seen."""
    calls = [name for name in scene.calls[PHASES.index(step), "change"] if name != "pwrite64"]
    made = [following for name, following in zip(calls, calls[1:]) if name == "mkdir"]
    assert made == ["fsync"] * len(made)
    order = [name for name in calls if name in ("write", "fsync", "rename")]
    assert order[len(made) :] == ["write", "fsync", "rename", "fsync"][step == "publish_image" :]
