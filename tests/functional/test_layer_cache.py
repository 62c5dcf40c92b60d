# SPDX-License-Identifier: BSD-3-Clause
"""The cache of layer archives: shared, private, undamaged, and without debris."""

from __future__ import annotations

import gzip
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from shifter_imagegw.errors import ConversionError, LayerError, ManifestInvalid
from shifter_imagegw.layers.cache import LayerArchive, LayerCache
from shifter_imagegw.layers.recipe import Limits, Recipe
from tests.imagetree import mounted
from tests.layers import Layer, descriptor, digest_of, pieces, read_tree

ROOT = Path(__file__).resolve().parents[2]
TAR = Layer().add("file", os.urandom(300_000)).bytes()
BLOB = gzip.compress(TAR, 1)


class Registry:
    """Serves one layer and counts how often."""

    def __init__(self, blob: bytes = BLOB, gate: threading.Event | None = None) -> None:
        self.fetched = 0
        self._blob = blob
        self._gate = gate

    def fetch(self) -> AbstractContextManager[Iterator[bytes]]:
        return self._open()

    @contextmanager
    def _open(self) -> Iterator[Iterator[bytes]]:
        self.fetched += 1
        if self._gate is not None:
            assert self._gate.wait(60)
        yield pieces(self._blob)


@pytest.fixture
def cache(tmp_path: Path) -> LayerCache:
    return LayerCache(tmp_path / "below/cache", Recipe(), Limits())


def get(
    cache: LayerCache,
    registry: Registry,
    progress: Callable[[int], None] = lambda _count: None,
    held: Callable[[], bool] = lambda: True,
) -> LayerArchive:
    return cache.archive(descriptor(BLOB), digest_of(TAR), registry.fetch, progress, held=held)


def names(cache: LayerCache) -> list[str]:
    return sorted(path.name for path in cache._directory.iterdir())


def test_made_once_and_private(cache: LayerCache) -> None:
    registry = Registry()
    counted: list[int] = []
    before = os.umask(0)
    try:
        with get(cache, registry, counted.append) as first, get(cache, registry, counted.append) as second:
            assert first.path == second.path
            assert os.path.samestat(os.fstat(first.fd), os.fstat(second.fd))
            assert os.read(first.fd, 4) == b"hsqs"
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(first.fd, b"x")
    finally:
        os.umask(before)
    first.close()
    assert registry.fetched == 1
    assert sum(counted) == 2 * len(BLOB)
    assert names(cache) == [first.path.name]
    assert first.path.stat().st_mode & 0o7777 == 0o600
    for directory in (first.path.parent, first.path.parent.parent):
        assert directory.stat().st_mode & 0o7777 == 0o700
    assert cache.usage() == (1, first.path.stat().st_blocks * 512)
    with mounted(first.path) as root:
        assert read_tree(root)[b"file"].content == TAR[512 : 512 + 300_000]


def test_recipes_and_layers_do_not_mix(cache: LayerCache, tmp_path: Path) -> None:
    registry = Registry()
    other = LayerCache(tmp_path / "below/cache", Recipe(level=1), Limits())
    with get(cache, registry) as first, get(other, registry) as second:
        assert first.path != second.path
    assert registry.fetched == 2
    # A file that was renamed by mistake is found out by its key.
    second.path.replace(first.path)
    with get(cache, registry):
        assert registry.fetched == 3


def test_who_may_not_have_the_blob_gets_no_archive(cache: LayerCache) -> None:
    owners, strangers = Registry(), Registry(BLOB[:-1000])
    get(cache, owners).close()
    with pytest.raises(LayerError, match="ends too early"):
        get(cache, strangers, held=lambda: False)
    assert strangers.fetched == 1
    # Somebody who can fetch it, where the registry only does not say so, gets what he fetched.
    with get(cache, owners, held=lambda: False):
        assert owners.fetched == 2
    with get(cache, owners):
        assert owners.fetched == 2
    assert [Path(name).suffix for name in names(cache)] == [".layer"]


def test_the_same_content_under_another_digest_is_not_found(cache: LayerCache) -> None:
    get(cache, Registry()).close()
    claimed = b"a blob that nobody has"
    registry = Registry(claimed)
    with pytest.raises(LayerError):
        cache.archive(
            descriptor(claimed), digest_of(TAR), registry.fetch, lambda _count: None, held=lambda: True
        ).close()
    assert registry.fetched == 1
    assert len(names(cache)) == 1


def test_what_another_pull_makes_meanwhile_is_not_handed_to_everybody(cache: LayerCache) -> None:
    gate = threading.Event()
    owners, strangers = Registry(gate=gate), Registry(BLOB[:-1000])
    owner = threading.Thread(target=lambda: get(cache, owners).close())
    owner.start()
    while owners.fetched == 0:
        time.sleep(0.01)

    def waiting(_count: int) -> None:
        gate.set()

    with pytest.raises(LayerError, match="ends too early"):
        get(cache, strangers, waiting, held=lambda: False)
    owner.join()
    assert (owners.fetched, strangers.fetched) == (1, 1)


def test_archives_outlive_their_names(cache: LayerCache) -> None:
    with get(cache, Registry()) as archive:
        archive.path.unlink()
        assert os.pread(archive.fd, 4, 0) == b"hsqs"


@pytest.mark.parametrize(
    "harm", ["flip", "digests", "cut", "grow", "empty", "foreign", "symlink", "superblock", "directory-free"]
)
def test_damage_is_found_and_repaired(
    cache: LayerCache, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    with get(cache, registry) as archive:
        content = archive.path.read_bytes()
    path = archive.path
    if harm == "flip":
        path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif harm == "digests":
        bytes_used = int.from_bytes(content[40:48], "little")
        path.write_bytes(content[:bytes_used] + bytes([content[bytes_used] ^ 1]) + content[bytes_used + 1 :])
    elif harm == "superblock":
        path.write_bytes(content[:8] + bytes([content[8] ^ 1]) + content[9:])
    elif harm == "cut":
        path.write_bytes(content[:-4096])
    elif harm == "grow":
        path.write_bytes(content + bytes(4096))
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "foreign":
        path.write_bytes(b"hsqs" + bytes(100_000))
    elif harm == "symlink":
        (tmp_path / "elsewhere").write_bytes(content)
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere")
    elif harm == "directory-free":
        path.unlink()
        path.parent.rmdir()
    with caplog.at_level(logging.WARNING):
        fresh = LayerCache(path.parent, Recipe(), Limits())
        with get(fresh, registry) as repaired:
            assert os.pread(repaired.fd, len(content), 0) == content
    assert registry.fetched == 2
    assert path.is_file()
    assert not path.is_symlink()
    assert ("it will be" in caplog.text) == (harm != "directory-free")


def test_damage_behind_our_back_is_found_when_asked(cache: LayerCache) -> None:
    registry = Registry()
    with get(cache, registry) as archive:
        status = archive.path.stat()
        content = bytearray(archive.path.read_bytes())
        content[5000] ^= 1
        with archive.path.open("r+b") as file:
            file.write(content)
        os.utime(archive.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with cache.archive(
        descriptor(BLOB), digest_of(TAR), registry.fetch, lambda _count: None, held=lambda: True, verify=True
    ):
        assert registry.fetched == 2


def test_many_threads_make_it_once(cache: LayerCache) -> None:
    gate = threading.Event()
    registry = Registry(gate=gate)
    archives: list[LayerArchive] = []
    waited = threading.Event()

    def pull() -> None:
        archives.append(get(cache, registry, lambda count: None if count else waited.set()))

    threads = [threading.Thread(target=pull) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert waited.wait(60)
    gate.set()
    for thread in threads:
        thread.join()
    assert registry.fetched == 1
    assert len({os.fstat(archive.fd).st_ino for archive in archives}) == 1
    for archive in archives:
        archive.close()
    assert names(cache) == [archives[0].path.name]


def test_waiting_can_be_cancelled(cache: LayerCache) -> None:
    gate = threading.Event()
    registry = Registry(gate=gate)
    thread = threading.Thread(target=lambda: get(cache, registry).close())
    thread.start()
    while registry.fetched == 0:
        time.sleep(0.01)

    class Stop(Exception):
        pass

    def stop(_count: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        get(cache, registry, stop)
    gate.set()
    thread.join()
    with pytest.raises(Stop):  # also where nothing had to be waited for
        get(cache, registry, stop)
    assert registry.fetched == 1


PROCESS = """
import os, sys, time
from contextlib import contextmanager
from pathlib import Path
sys.path.insert(0, {root!r})
from shifter_imagegw.layers.cache import LayerCache
from shifter_imagegw.layers.recipe import Limits, Recipe
from tests.layers import descriptor, digest_of, pieces
tar, blob = Path({tar!r}).read_bytes(), Path({blob!r}).read_bytes()

@contextmanager
def fetch():
    with open({log!r}, "a") as log:
        log.write("fetched\\n")
    yield slow()

def slow():
    for piece in pieces(blob):
        time.sleep({pause})
        yield piece

LayerCache(Path({directory!r}), Recipe(), Limits()).archive(
    descriptor(blob), digest_of(tar), fetch, lambda count: None, held=lambda: True
).close()
"""


def start_process(tmp_path: Path, pause: float) -> subprocess.Popen[bytes]:
    (tmp_path / "tar").write_bytes(TAR)
    (tmp_path / "blob").write_bytes(BLOB)
    (tmp_path / "log").touch()
    script = PROCESS.format(
        root=str(ROOT), tar=str(tmp_path / "tar"), blob=str(tmp_path / "blob"), log=str(tmp_path / "log"),
        directory=str(tmp_path / "below/cache"), pause=pause,
    )
    return subprocess.Popen([sys.executable, "-c", script])


def test_processes_make_it_once(tmp_path: Path) -> None:
    processes = [start_process(tmp_path, 0.02) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "fetched\n"


def test_a_killed_process_leaves_nothing_that_lasts(tmp_path: Path, cache: LayerCache) -> None:
    process = start_process(tmp_path, 0.5)
    try:
        while not (tmp_path / "log").read_text():
            time.sleep(0.01)
        while len(names(cache)) < 2:
            time.sleep(0.01)
        assert cache.sweep() == []  # it is alive
        debris = names(cache)
        assert [Path(name).suffix for name in debris] == [".lock", ".part"] or len(debris) == 2
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with get(cache, Registry()):
        pass
    # A host that does not see this host's locks must not take what is being written.
    assert cache.sweep() == []
    (part,) = [cache._directory / name for name in names(cache) if name.endswith(".part")]
    os.utime(part, (0, 0))
    assert cache.sweep() == [part]
    assert [Path(name).suffix for name in names(cache)] == [".layer"]


def test_failures_leave_nothing(cache: LayerCache) -> None:
    with pytest.raises(LayerError, match="ends too early"):
        get(cache, Registry(BLOB[:-1000]))
    assert names(cache) == []
    assert cache.sweep() == []
    with pytest.raises(ManifestInvalid):
        cache.archive(descriptor(BLOB), "sha256:../../x", Registry().fetch, lambda _count: None, held=lambda: True)
    with pytest.raises(ManifestInvalid):
        cache.archive(
            replace(descriptor(BLOB), digest="sha256:../../x"), digest_of(TAR), Registry().fetch, lambda _count: None,
            held=lambda: True,
        )  # fmt: skip


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConversionError, match=r"layer cache: .*/file/cache: Not a directory; check the space"):
        get(LayerCache(tmp_path / "file/cache", Recipe(), Limits()), Registry())


def test_a_directory_that_others_can_write(tmp_path: Path, cache: LayerCache) -> None:
    with get(cache, Registry()) as archive:
        archive.path.parent.chmod(0o770)
    with pytest.raises(ConversionError, match="others than its owner can write it; chmod 700"):
        get(cache, Registry())
