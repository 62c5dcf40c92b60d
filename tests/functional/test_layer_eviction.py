# SPDX-License-Identifier: BSD-3-Clause
"""The cache gives way: least recently used first, nobody else's files, and nothing that is in use is lost."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shifter_imagegw.config import load_configuration, problems
from shifter_imagegw.layers import eviction
from shifter_imagegw.layers.cache import LayerArchive, LayerCache
from shifter_imagegw.layers.eviction import CacheLimits, Keeper, stored_archives, sweep
from shifter_imagegw.layers.recipe import Limits, Recipe
from tests.gatewayserver import write_configuration
from tests.layers import Layer, descriptor, digest_of, pieces

ALL = CacheLimits(min_free_percent=0)
SIZE = 1 << 20
RECIPE = Recipe().fingerprint()


def evict(directory: Path, limits: CacheLimits, coming: int = 0) -> list[Path]:
    return Keeper(directory, limits).evict(coming)


def name_of(number: int) -> str:
    return f"{number:064x}-{number:064x}-{RECIPE}.layer"


def put(directory: Path, name: str, used: float, size: int = SIZE) -> Path:
    """A file that was used ``used`` seconds ago and written long before."""
    path = directory / name
    with path.open("wb") as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())  # before that, some file systems do not know what it occupies
    os.utime(path, (time.time() - used, 1_000_000))
    return path


@pytest.fixture
def archives(tmp_path: Path) -> list[Path]:
    """The first was used last."""
    return [put(tmp_path, name_of(number), 1000 * (number + 1)) for number in range(5)]


def left(archives: list[Path]) -> list[int]:
    return [number for number, path in enumerate(archives) if path.exists()]


def test_the_least_recently_used_go_first(tmp_path: Path, archives: list[Path]) -> None:
    assert evict(tmp_path, ALL) == []
    assert evict(tmp_path, replace(ALL, max_bytes=3 * SIZE)) == [archives[4], archives[3]]
    # What is coming has its place before it comes.
    assert evict(tmp_path, replace(ALL, max_bytes=3 * SIZE), coming=SIZE) == [archives[2]]
    assert left(archives) == [0, 1]
    assert evict(tmp_path, replace(ALL, max_bytes=SIZE), coming=100 * SIZE) == [archives[1], archives[0]]


def test_what_nobody_uses_goes_although_there_is_room(tmp_path: Path, archives: list[Path]) -> None:
    evict(tmp_path, replace(ALL, max_idle=3500))
    assert left(archives) == [0, 1, 2]


def test_equally_old_ones_go_by_name(tmp_path: Path, archives: list[Path]) -> None:
    for path in archives:
        os.utime(path, (5, 5))
    evict(tmp_path, replace(ALL, max_bytes=2 * SIZE))
    assert left(archives) == [3, 4]


def test_archives_of_other_recipes_and_versions_count_and_go(tmp_path: Path) -> None:
    mine = put(tmp_path, name_of(1), 10)
    other = put(tmp_path, f"{2:064x}-{2:064x}-0123456789abcdef.layer", 30)
    old = put(tmp_path, f"{3:064x}-{RECIPE}.layer", 40)
    long = put(tmp_path, f"{4:0128x}-{4:064x}-{RECIPE}.layer", 20)
    assert [tmp_path / archive.name for archive in stored_archives(tmp_path)] == [old, other, long, mine]
    assert evict(tmp_path, replace(ALL, max_bytes=2 * SIZE)) == [old, other]


def test_other_files_are_not_ours(tmp_path: Path) -> None:
    names = ("other.layer", ".other.part", ".other.lock", f"{1:064x}.tar", f"x{name_of(1)}", f"{name_of(1)}.bak")
    strange = [put(tmp_path, name, 10**6) for name in names]
    (tmp_path / name_of(7)).mkdir()
    (tmp_path / name_of(8)).symlink_to(strange[0])
    (tmp_path / "sha256").mkdir()
    assert evict(tmp_path, CacheLimits(max_bytes=SIZE, min_free_percent=99, max_idle=1)) == []
    assert sweep(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == len(strange) + 3


def test_room_is_made_for_what_comes(tmp_path: Path, archives: list[Path]) -> None:
    keeper = Keeper(tmp_path, replace(ALL, max_bytes=7 * SIZE))
    keeper.make_room(SIZE)
    put(tmp_path, name_of(5), 0)
    keeper.make_room(SIZE)
    put(tmp_path, name_of(6), 0)
    assert left(archives) == [0, 1, 2, 3, 4]
    keeper.make_room(SIZE)
    assert left(archives) == [0, 1, 2, 3]
    with small_disk(tmp_path / "disk", 20) as disk:
        archives = [put(disk, name_of(number), 1000 * (number + 1), SIZE) for number in range(5)]
        keeper = Keeper(disk, CacheLimits(min_free_percent=50))
        keeper.make_room(SIZE)
        put(disk, "other", 0, 5 * SIZE)  # not ours, but the disk is what counts
        keeper.make_room(SIZE)
        assert left(archives) == [0, 1, 2, 3]


def test_archives_in_the_making_take_room_and_stay(tmp_path: Path, archives: list[Path]) -> None:
    part = put(tmp_path, f".{name_of(9).removesuffix('.layer')}.01234567.part", 10**6, 2 * SIZE)
    evict(tmp_path, replace(ALL, max_bytes=4 * SIZE))
    assert left(archives) == [0, 1]
    assert part.exists()


def test_an_archive_that_is_used_meanwhile_stays(
    tmp_path: Path, archives: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = eviction.stored_archives

    def and_then_use(directory: Path) -> list[eviction.Stored]:
        found = look(directory)
        os.utime(archives[4])
        archives[3].unlink()  # another worker is at it, too
        return found

    monkeypatch.setattr(eviction, "stored_archives", and_then_use)
    assert evict(tmp_path, replace(ALL, max_bytes=3 * SIZE)) == [archives[3], archives[2]]
    assert left(archives) == [0, 1, 4]


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "none", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_some_of_the_disk_stays_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk", 20) as disk:
        archives = [put(disk, name_of(number), 1000 * (number + 1), 3 * SIZE) for number in range(5)]
        keep = CacheLimits(min_free_percent=50)
        assert evict(disk, keep) == [archives[4], archives[3]]
        # Others fill it: the cache gives way, and says when that is not enough.
        put(disk, "other", 0, 4 * SIZE)
        assert evict(disk, keep) == [archives[2]]
        assert "other files fill the disk" not in caplog.text
        put(disk, "more", 0, 7 * SIZE)
        assert evict(disk, keep) == [archives[1], archives[0]]
        assert "bytes more than allowed; other files fill the disk" in caplog.text


def test_a_disk_that_leaves_the_cache_no_room_is_a_warning(tmp_path: Path) -> None:
    def found(limits: dict[str, int]) -> list[str]:
        path = write_configuration(
            tmp_path, tmp_path / "socket", CacheDirectory=str(disk), ExpandDirectory=str(disk), cache=limits
        )
        lines = [str(problem) for problem in problems(load_configuration(path, {}))]
        return [line for line in lines if "minFreePercent" in line]

    with small_disk(tmp_path / "disk", 20) as disk:
        put(disk, "other", 0, 5 * SIZE)
        put(disk, name_of(1), 0, 10 * SIZE)
        assert found({"minFreePercent": 70}) == []
        (line,) = found({"minFreePercent": 80})
        assert line.startswith(f"warning: cache.minFreePercent (80): {disk}: less of the file system is free than that")


TARS = [Layer().add("file", os.urandom(SIZE)).bytes() for _ in range(4)]


class TestCache:

    def cache(self, directory: Path, keep: CacheLimits) -> LayerCache:
        self.fetched: list[int] = []
        return LayerCache(directory, Recipe(), Limits(), keep)

    def get(self, cache: LayerCache, number: int) -> LayerArchive:
        tar = TARS[number]
        blob = gzip.compress(tar, 1, mtime=0)

        @contextmanager
        def fetch() -> Iterator[Iterator[bytes]]:
            self.fetched.append(number)
            yield pieces(blob)

        return cache.archive(descriptor(blob), digest_of(tar), fetch, lambda _count: None, held=lambda: True)

    def test_a_use_counts_and_the_check_of_its_content_holds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = self.cache(tmp_path / "cache", replace(ALL, max_bytes=7 * SIZE // 2))
        for number in range(3):
            self.get(cache, number).close()
        monkeypatch.setattr("shifter_imagegw.layers.cache.verify_archive", lambda *_: pytest.fail("hashed again"))
        self.get(cache, 0).close()
        monkeypatch.undo()
        self.get(cache, 3).close()  # needs room: of 1 and then 2, not of 0
        self.get(cache, 0).close()
        assert self.fetched == [0, 1, 2, 3]
        self.get(cache, 1).close()
        assert self.fetched == [0, 1, 2, 3, 1]

    def test_what_is_removed_stays_readable_for_who_has_it(self, tmp_path: Path) -> None:
        cache = self.cache(tmp_path / "cache", replace(ALL, max_bytes=SIZE))
        with self.get(cache, 0) as first, self.get(cache, 1):
            assert not first.path.exists()
            assert os.pread(first.fd, 4, 0) == b"hsqs"
        assert len(cache.sweep()) == 1
        assert cache.usage() == (0, 0)

    def test_many_threads_and_little_room(self, tmp_path: Path) -> None:
        """Whatever goes meanwhile, everybody gets what he asked for."""
        wrong: list[BaseException] = []

        def pull(cache: LayerCache, start: int) -> None:
            try:
                for step in range(12):
                    with self.get(cache, (start + step) % 4) as archive:
                        assert os.pread(archive.fd, 4, 0) == b"hsqs"
                    cache.sweep()
            except BaseException as error:
                wrong.append(error)

        cache = self.cache(tmp_path / "cache", replace(ALL, max_bytes=2 * SIZE))
        other = LayerCache(tmp_path / "cache", Recipe(), Limits(), replace(ALL, max_bytes=2 * SIZE))
        threads = [threading.Thread(target=pull, args=(cache if n % 2 else other, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_a_file_system_without_locks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(_fd: int, _operation: int) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(fcntl, "flock", refuse)
        cache = self.cache(tmp_path / "cache", ALL)
        with self.get(cache, 0) as archive:
            assert os.pread(archive.fd, 4, 0) == b"hsqs"
        assert cache.sweep() == []
        assert "no locks (Function not implemented); a layer may be fetched more than once" in caplog.text
