# SPDX-License-Identifier: BSD-3-Clause
"""The benches' images, made once and kept in the registry of the cache directory.

``root3``: Debian, python3, numpy and git from the machine's package sources in three layers; ``ROOT3_NEXT`` has one
small layer more, ``ROOT3_CHANGED`` another one in its place. ``small3``: 100,000 files of 1-4 KiB in three layers with
whiteouts, replaced files and hard links, from a fixed seed. ``big`` and ``tiny60`` are made by ``extremes.py``.
"""

from __future__ import annotations

import importlib.util
import io
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.registry import BenchRegistry
from tests.bench.rounds import say

MAKER = Path(__file__).resolve().parents[2] / "extra/demo/image.py"
SMALL_FILES = 100_000
# The tag says what is in it, so that a cache of another recipe is not taken for this one.
ROOT3 = "bench/root3:git"
ROOT3_NEXT = "bench/root3:git-next"
ROOT3_CHANGED = "bench/root3:git-changed"


@dataclass(frozen=True)
class KnownLayer:
    """A layer that the registry has already."""

    path: Path
    digest: str
    size: int
    diff_id: str
    media_type: str

    def descriptor(self) -> dict[str, object]:
        """The entry of the manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


def ensure_root3(registry: BenchRegistry, cache: Path) -> str:
    """Make ``root3`` and its two successors unless they are there; returns the name of the first."""
    if registry.manifest(ROOT3) is None:
        say("making root3 (once; about a minute)")
        subprocess.run(
            [sys.executable, "-I", str(MAKER), "--work", str(cache / "work"), "--registry", registry.url,
             "--name", ROOT3, "--variant=apt", "--documentation", "python3", "python3-numpy,git"],
            check=True, stdout=sys.stderr,
        )  # fmt: skip
    for name, text in ((ROOT3_NEXT, b"first\n"), (ROOT3_CHANGED, b"second\n")):
        if registry.manifest(name) is None:
            push(registry, name, [*_layers_of(registry, ROOT3), application_layer(cache / "application.tar", text)])
    return ROOT3


def application_layer(tar: Path, release: bytes) -> Any:
    """A few files such as a user adds on top of an image; ``release`` is what changes."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as layer:
        for number in range(20):
            add_file(layer, f"opt/application/part-{number}", f"# part {number}\n".encode() * 200)
        add_file(layer, "opt/application/release", release)
    return maker().Layer(tar)


def ensure_small3(registry: BenchRegistry, cache: Path) -> str:
    """Make ``small3`` unless it is there; returns its name."""
    name = "bench/small3:latest"
    if registry.manifest(name) is None:
        say("making small3 (once; about a minute)")
        tars = [cache / f"small3-{number}.tar" for number in range(3)]
        write_small3(tars, SMALL_FILES)
        push(registry, name, [maker().Layer(tar) for tar in tars])
        for tar in tars:
            tar.unlink()
            tar.with_suffix(".tar.gz").unlink()
    return name


def write_small3(tars: Sequence[Path], files: int) -> None:
    """Three layers: 60 % of the files; 30 % and changes to the first; 10 % and changes to both."""
    source = random.Random(20261124)
    words = [bytes(source.choices(b"abcdefghijklmnopqrstuvwxyz     \n", k=24)) for _ in range(4096)]
    written: list[str] = []
    for number, (tar, share) in enumerate(zip(tars, (0.6, 0.3, 0.1))):
        with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as layer:
            if number:
                for name in source.sample(written, files // 50):
                    _change(layer, source, words, name)
            fresh: list[str] = []
            for index in range(int(files * share)):
                name = f"data/{number}{index // 400:04d}/{source.getrandbits(32):08x}-{index}.dat"
                if fresh and index % 50 == 0:
                    _add_link(layer, name, fresh[-1])
                else:
                    _add_random_file(layer, source, words, name)
                    fresh.append(name)
            written += fresh


def _change(layer: tarfile.TarFile, source: random.Random, words: list[bytes], name: str) -> None:
    if source.random() < 0.5:
        parent, _, base = name.rpartition("/")
        layer.addfile(_member(f"{parent}/.wh.{base}"))
    else:
        _add_random_file(layer, source, words, name)


def _add_random_file(layer: tarfile.TarFile, source: random.Random, words: list[bytes], name: str) -> None:
    data = b"".join(source.choices(words, k=source.randint(43, 170)))[: source.randint(1024, 4096)]
    add_file(layer, name, data)


def add_file(layer: tarfile.TarFile, name: str, data: bytes) -> None:
    """A regular file of a fixed mode, time and owner."""
    member = _member(name)
    member.size = len(data)
    layer.addfile(member, io.BytesIO(data))


def _add_link(layer: tarfile.TarFile, name: str, target: str) -> None:
    member = _member(name)
    member.type, member.linkname = tarfile.LNKTYPE, target
    layer.addfile(member)


def _member(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode, member.mtime = 0o644, 1_767_225_600
    return member


def _layers_of(registry: BenchRegistry, name: str) -> list[KnownLayer]:
    manifest = registry.manifest(name)
    assert manifest is not None, name
    diff_ids = json.loads(registry.blob(manifest["config"]["digest"]).read_bytes())["rootfs"]["diff_ids"]
    return [
        KnownLayer(registry.blob(layer["digest"]), layer["digest"], layer["size"], diff_id, layer["mediaType"])
        for layer, diff_id in zip(manifest["layers"], diff_ids)
    ]


def push(registry: BenchRegistry, name: str, layers: Sequence[Any]) -> None:
    """Give the registry an image of such layers: those of ``maker()``, or ``KnownLayer``."""
    made = maker()
    repository, _, tag = name.partition(":")
    made.push(made.Registry(registry.url, repository), tag, list(layers))


def maker() -> Any:
    """The module extra/demo/image.py."""
    specification = importlib.util.spec_from_file_location("demoimage", MAKER)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
