# SPDX-License-Identifier: BSD-3-Clause
"""Layer archives on disk, shared by all pulls and all workers that have the directory.

::

    <digest>-<diff_id>-<recipe>.layer            an archive; complete, as it got its name by rename
    .<digest>-<diff_id>-<recipe>.<random>.part   one in the making; whoever makes it holds an flock on it
    .<digest>-<diff_id>-<recipe>.lock            whoever makes that archive holds an flock on it

The name is a proof: a blob with that digest was downloaded once, and its content had that diff_id. Both come from
documents that anybody can write, so an archive found by its diff_id alone would be a copy of whatever layer somebody
claims to have.

Locks vanish with their holders, so debris is what nobody holds a lock on. Nothing is synced to disk: an archive that a
power cut tore is found out by its checksum, at its first use in a process, and made again.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Callable, NamedTuple

from shifter_imagegw.errors import ConversionError
from shifter_imagegw.layers.archive import archive_key, write_archive
from shifter_imagegw.layers.eviction import CacheLimits, Keeper, mark_used, stored_archives, sweep
from shifter_imagegw.layers.recipe import Limits, Recipe
from shifter_imagegw.layers.trailer import TrailerError, check_trailer, verify_archive
from shifter_imagegw.locks import UNSUPPORTED, lock_file
from shifter_imagegw.registry.digest import checked_digest
from shifter_imagegw.registry.manifest import Descriptor

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_LOCK_POLL_SECONDS = 0.05

_log = logging.getLogger(__name__)

Fetch = Callable[[], AbstractContextManager[Iterator[bytes]]]


class Usage(NamedTuple):
    """What the archives take; ``bytes`` as allocated on disk."""

    archives: int
    bytes: int


class LayerArchive:
    """An archive, open for reading: it stays readable whatever becomes of its name. Close it."""

    def __init__(self, fd: int, path: Path) -> None:
        self.fd = fd
        self.path = path

    def close(self) -> None:
        """Close the descriptor; more than once does no harm."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> LayerArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LayerCache:
    """The archives of one recipe below one directory, which is made when absent. Used by any number of threads.

    With ``keep``, archives not used for longest make room for others; without, all are kept.

    Errors of the disk are ConversionError and name the file.
    """

    def __init__(self, directory: Path, recipe: Recipe, limits: Limits, keep: CacheLimits | None = None) -> None:
        self._directory = directory
        self._recipe = recipe
        self._limits = limits
        self._keeper = None if keep is None else Keeper(directory, keep)
        self._verified: set[tuple[int, ...]] = set()

    def archive(
        self,
        descriptor: Descriptor,
        diff_id: str,
        fetch: Fetch,
        progress: Callable[[int], None],
        *,
        held: Callable[[], bool],
        verify: bool = False,
    ) -> LayerArchive:
        """The archive of a layer, from the disk or made from what ``fetch`` opens: its compressed, verified bytes.

        ``held`` says whether the caller may have the blob: it is asked before what somebody else's pull has made is
        handed out. Where it says no, the layer is fetched as if it were not there, which settles the question.
        ``progress`` gets ``descriptor.size`` in all, at once where nothing is fetched, zeros while another pull makes
        the archive; it may raise to cancel. ``verify`` hashes an archive that this process has hashed already.
        LayerError, LimitExceeded: see :func:`~shifter_imagegw.layers.archive.build_archive`.
        """
        checked_digest(diff_id, "diff_id")
        checked_digest(descriptor.digest, "layer")
        blob, content = descriptor.digest.partition(":")[2], diff_id.partition(":")[2]
        path = self._directory / f"{blob}-{content}-{self._recipe.fingerprint()}.layer"
        key = archive_key(diff_id, self._recipe)
        self._make_directory()
        found = self._open(path, key, verify)
        if found is None:
            with self._lock(path, progress):
                found = self._open(path, key, verify)
                if found is None:
                    return self._make(path, descriptor, diff_id, fetch, progress)
        try:
            if held():
                mark_used(found.fd)
                progress(descriptor.size)
                return found
        except BaseException:
            found.close()
            raise
        found.close()
        with self._lock(path, progress):
            return self._make(path, descriptor, diff_id, fetch, progress)

    def usage(self) -> Usage:
        """How much there is, of all recipes."""
        sizes = [archive.bytes for archive in stored_archives(self._directory)]
        return Usage(len(sizes), sum(sizes))

    def sweep(self) -> list[Path]:
        """Remove what workers left that were killed, and archives that are too many; returns it."""
        try:
            return [*sweep(self._directory), *(self._keeper.evict() if self._keeper is not None else ())]
        except OSError as error:
            raise _disk_error(self._directory, error) from error

    def _make_directory(self) -> None:
        """Who can write here decides what images hold: checksums find damage, not intent."""
        try:
            missing = [path for path in (self._directory, *self._directory.parents) if not path.exists()]
            for path in reversed(missing):
                path.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
            status = self._directory.stat()
        except OSError as error:
            raise _disk_error(self._directory, error) from error
        if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
            raise ConversionError(
                f"layer cache: {self._directory}: others than its owner can write it; chmod 700 it and give it to the "
                "gateway's account"
            )

    def _open(self, path: Path, key: str, verify: bool) -> LayerArchive | None:
        """None when there is none that is fit for use."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                _log.warning("layer archive %s: it is a symbolic link; it will be replaced", path)
                return None
            raise _disk_error(path, error) from error
        archive = LayerArchive(fd, path)
        try:
            check_trailer(fd, key)
            if verify or _identity(fd) not in self._verified:
                verify_archive(fd, key)
                self._verified.add(_identity(fd))
        except TrailerError as error:
            archive.close()
            _log.warning("layer archive %s: %s; it will be made again", path, error)
            return None
        except OSError as error:
            archive.close()
            raise _disk_error(path, error) from error
        return archive

    def _make(
        self, path: Path, descriptor: Descriptor, diff_id: str, fetch: Fetch, progress: Callable[[int], None]
    ) -> LayerArchive:
        try:
            if self._keeper is not None:
                self._keeper.make_room(descriptor.size)
        except OSError as error:
            raise _disk_error(self._directory, error) from error
        with self._part(path) as (part, fd):
            with fetch() as chunks:
                write_archive(
                    fd, part, chunks, descriptor, diff_id, recipe=self._recipe, limits=self._limits, progress=progress
                )
            try:
                archive = LayerArchive(os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), path)
                try:
                    mark_used(archive.fd)
                    part.rename(path)
                except BaseException:
                    archive.close()
                    raise
            except OSError as error:
                raise _disk_error(path, error) from error
        self._verified.add(_identity(archive.fd))
        return archive

    @contextmanager
    def _part(self, path: Path) -> Iterator[tuple[Path, int]]:
        """A new locked file; removed at the end unless it was renamed."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        while True:
            part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part")
            with _locked(part, flags) as fd:
                if fd is None:  # a sweep came between making and locking it
                    continue
                try:
                    _set_mode(fd, part)
                    yield part, fd
                finally:
                    with suppress(OSError):  # what stays is for the sweep
                        part.unlink()
                return

    @contextmanager
    def _lock(self, path: Path, progress: Callable[[int], None]) -> Iterator[None]:
        """Only one process and thread is in here for one archive."""
        lock = path.with_name(f".{path.stem}.lock")
        while True:
            with _locked(lock, os.O_RDWR | os.O_CREAT) as fd:
                if fd is not None:
                    try:
                        yield
                    finally:
                        with suppress(OSError):
                            lock.unlink()
                    return
            progress(0)
            time.sleep(_LOCK_POLL_SECONDS)


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[int | None]:
    """See :func:`~shifter_imagegw.locks.locked`; where nobody can lock, nobody is kept out."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
    except OSError as error:
        raise _disk_error(path, error) from error
    try:
        yield fd if _lock_file(fd, path) else None
    finally:
        os.close(fd)


def _lock_file(fd: int, path: Path) -> bool:
    try:
        return lock_file(fd, path)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise _disk_error(path, error) from error
        _log.warning("layer cache: %s: no locks (%s); a layer may be fetched more than once", path, error.strerror)
        return True


def _set_mode(fd: int, path: Path) -> None:
    """Whatever the umask."""
    try:
        os.fchmod(fd, _FILE_MODE)
    except OSError as error:
        raise _disk_error(path, error) from error


def _disk_error(path: Path, error: OSError) -> ConversionError:
    return ConversionError(
        f"layer cache: {path}: {error.strerror or error}; check the space and the permissions of the cache directory"
    )


def _identity(fd: int) -> tuple[int, ...]:
    """Changes when the file is replaced or written to."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
