# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of faults share: programs in C that make them, and what a fault must never leave to be seen."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from shifter_imagegw.auth import MungeSealer
from shifter_imagegw.images import READY, Image
from shifter_imagegw.manager import ImageManager
from shifter_imagegw.platforms.local import LocalPlatform
from shifter_imagegw.session import Session
from shifter_imagegw.squashfs.validate import validate_image
from tests.gatewayserver import SYSTEM
from tests.munged import Munged
from tests.pulledsite import PulledSite, make_site
from tests.registryserver import RegistryServer
from udiroot import _core

SOURCES = Path(__file__).parent
CAROL = Session(SYSTEM, 3000, 300, "carol", "users")
_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror")


def compiled(name: str, directory: Path, *options: str) -> Path:
    """The program ``tests/<name>.c``, or with ``-shared -fPIC`` the library."""
    path = directory / name
    subprocess.run(["gcc", *_FLAGS, *options, "-o", str(path), str(SOURCES / f"{name}.c"), "-ldl"], check=True)
    return path


def eager(site: PulledSite) -> PulledSite:
    """The same site, whose pulls of just now are of long ago, so that one may follow the other."""
    return replace(site, configuration=replace(site.configuration, pull_update_timeout=-1))


def files(directory: Path) -> dict[str, bytes]:
    """Everything below a directory by its relative path, hidden files too."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _directories(site: PulledSite) -> tuple[Path, Path]:
    return site.configuration.platforms[SYSTEM].image_directory, site.configuration.cache_directory


def visible(site: PulledSite) -> dict[str, bytes]:
    """What readers find under final names: images, metadata, tags, layer archives."""
    images, cache = _directories(site)
    found = {**files(images), **{f"cache/{name}": data for name, data in files(cache).items()}}
    return {name: data for name, data in found.items() if not Path(name).name.startswith(".")}


def check_consistent(site: PulledSite) -> None:
    """Nothing half-made is visible: images are sound, metadata and tags have their images, READY records all of it."""
    images = site.configuration.platforms[SYSTEM].image_directory
    platform = LocalPlatform(SYSTEM, images)
    for path in images.glob("[!.]*.squashfs"):
        fd = os.open(path, os.O_RDONLY)
        try:
            validate_image(fd)
        finally:
            os.close(fd)
    for path in images.glob("[!.]*.meta"):
        _core.parse_meta(path.read_bytes(), path.stem)
        assert platform.exists(path.stem, "squashfs"), path
    for key, image_id in platform.tag_index().items():
        assert platform.exists(image_id, "squashfs"), key
        assert platform.has_metadata(image_id), key
    for record in site.store.ready(SYSTEM):
        assert record.image_id is not None
        assert platform.exists(record.image_id, "squashfs"), record
        assert platform.has_metadata(record.image_id), record


def check_nothing_left(site: PulledSite) -> None:
    """No file that only a running pull may have."""
    directories = (*_directories(site), site.configuration.expand_directory)
    assert [path for directory in directories for path in directory.rglob(".*")] == []


def queued(site: PulledSite, reference: str = "app:1") -> Image:
    """A pull that waits for a worker."""
    manager = ImageManager(site.configuration, site.store, MungeSealer(site.configuration), lambda _: frozenset())
    return manager.pull(CAROL, "docker", reference)


def pulled_in_a_process(
    site: PulledSite, reference: str, *command: str, environment: Mapping[str, str] | None = None
) -> Image:
    """How a pull ends whose process is run by another program."""
    pull = queued(site, reference)
    done = subprocess.run(
        [*command, sys.executable, "-m", "tests.tracedpull", str(site.config)], cwd=SOURCES.parent,
        env={**os.environ, **(environment or {})}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = site.store.get(pull.record_id)
    assert found is not None
    return found


def undisturbed_pull(directory: Path, munge: Munged, registry: RegistryServer) -> dict[str, bytes]:
    """What a pull of ``app:1`` makes visible when nothing goes wrong."""
    site = make_site(directory, munge, registry)
    assert site.pulled().status == READY
    site.store.close()
    return visible(site)


def expire_leases(site: PulledSite) -> None:
    """What time does: nobody has heard of the worker for longer than its lease."""
    path = site.configuration.store_uri.removeprefix("sqlite://")
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE images SET lease_expires = 0 WHERE worker IS NOT NULL")
    database.close()


def facts(image: Image) -> tuple[object, ...]:
    """What of a record does not depend on when it was made, by whom and in how many attempts."""
    return (image.status, image.image_id, image.tags, image.private, image.format, image.moved_tag, image.worker)


@dataclass
class Volume:
    """A small file system of its own; ``directory`` is empty and may be filled up."""

    mount: Path
    directory: Path

    def leave(self, size: int) -> None:
        """Let there be so many bytes of free space, rounded down to the file system's blocks."""
        self.free()
        found = os.statvfs(self.mount)
        taken = found.f_bavail * found.f_frsize - size
        with (self.mount / "filler").open("wb") as filler:
            while True:
                try:
                    os.posix_fallocate(filler.fileno(), 0, taken)
                except OSError as error:  # a file in many pieces takes blocks for their list
                    if error.errno != errno.ENOSPC or taken < found.f_frsize:
                        raise
                    taken -= found.f_frsize
                else:
                    break

    def free(self) -> None:
        """Make space again."""
        (self.mount / "filler").unlink(missing_ok=True)

    def leave_inodes(self, count: int) -> None:
        """Let there be so many files more; of a tmpfs."""
        found = os.statvfs(self.mount)
        options = f"remount,nr_inodes={found.f_files - found.f_ffree + count}"
        subprocess.run(["mount", "-o", options, str(self.mount)], check=True)


@contextmanager
def volume(base: Path, kind: str, size: str = "8M") -> Iterator[Volume]:
    """``kind``: tmpfs, or what mkfs makes in a file."""
    mount = base / "volume"
    mount.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "small"]
    else:
        backing = base / "backing"
        subprocess.run(["truncate", "-s", size, str(backing)], check=True)
        subprocess.run([f"mkfs.{kind}", "-q", "-m", "0", str(backing)], check=True)
        command = ["mount", "-o", "loop", str(backing)]
    subprocess.run([*command, str(mount)], check=True)
    try:
        (mount / "data").mkdir(mode=0o700)
        yield Volume(mount, mount / "data")
    finally:
        # Lazy: a database may still be open, until its thread is forgotten.
        subprocess.run(["umount", "--lazy", str(mount)], check=True)
