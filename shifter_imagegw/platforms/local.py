# SPDX-License-Identifier: BSD-3-Clause
"""An image directory that is mounted here (gateway contract, sections 9.4 and 10; docs/image-store.md).

A file is written under a ``.part`` name in the directory it will live in, synced, renamed, and its directory is synced:
a reader sees the whole of it or nothing, also after a power cut. The part name carries the pull and its attempt, so
that whoever takes the pull over knows which parts its predecessors left.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shifter_imagegw.errors import PublishError, disk_advice

ITYPES = ("docker", "custom")
"""Types of images that the tag index knows."""

_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
_MAX_NAME_BYTES = 255
_PART = re.compile(r"\.(?P<name>.+)\.(?P<pull>[0-9a-f]+)-(?P<attempt>[0-9]+)-[0-9a-f]{8}\.part")
_IMAGE_FILE = re.compile(r"[0-9a-f]{64}\.[A-Za-z0-9]*")
_SQUASHFS_MAGIC = b"hsqs"
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.+")


class LocalPlatform:
    """The image directory of one system. All errors are PublishError and name the file."""

    def __init__(self, system: str, directory: Path) -> None:
        self._system = system
        self._directory = directory

    def path(self, image_id: str, suffix: str) -> Path:
        """Where ``<id>.<suffix>`` lies or will lie."""
        return self._directory / f"{image_id}.{suffix}"

    def exists(self, image_id: str, image_format: str) -> bool:
        """Whether the image file is there and whole: its superblock says how long it must be (squashfs format 4.0)."""
        path = self.path(image_id, image_format)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                superblock = file.read(96)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._error(path, error) from error
        bytes_used = int.from_bytes(superblock[40:48], "little")
        whole = superblock[:4] == _SQUASHFS_MAGIC and 96 <= bytes_used <= status.st_size
        return stat.S_ISREG(status.st_mode) and whole

    def has_metadata(self, image_id: str) -> bool:
        """Whether ``<id>.meta`` is there."""
        return self.path(image_id, "meta").exists()

    def metadata(self, image_id: str) -> bytes | None:
        """The content of ``<id>.meta``; None when it is not there."""
        path = self.path(image_id, "meta")
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(path, error) from error

    @contextmanager
    def part(self, name: str, pull: str, attempt: int) -> Iterator[Path]:
        """A new name for a file that will be ``name``; whatever is left under it is removed at the end."""
        part = self._directory / f".{name}.{pull}-{attempt}-{secrets.token_hex(4)}.part"
        try:
            yield part
        except OSError as error:
            raise self._error(part, error) from error
        finally:
            _discard(part)

    def publish_image(self, image_id: str, image_format: str, part: Path) -> None:
        """Rename the finished image into place."""
        target = self.path(image_id, image_format)
        try:
            descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fchmod(descriptor, _FILE_MODE)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            part.rename(target)
            _sync_directory(self._directory)
        except OSError as error:
            raise self._error(target, error) from error

    def publish_metadata(self, image_id: str, content: bytes, pull: str, attempt: int) -> None:
        """Write ``<id>.meta``; call it after the image."""
        self._write(self.path(image_id, "meta"), content, pull, attempt)

    def publish_tag(self, itype: str, reference: str, image_id: str, pull: str, attempt: int) -> None:
        """Point the tag index at the image; call it last. A reference too long for a file name is left to the gateway.
        """
        entry = self._tag_file(itype, reference)
        if entry is not None:
            self._make_directories(entry.parent)
            self._write(entry, f"{image_id}\n".encode("ascii"), pull, attempt)

    def tagged(self, itype: str, reference: str) -> str | None:
        """The id that the tag index has for a reference; None without an entry."""
        entry = self._tag_file(itype, reference)
        try:
            return None if entry is None else entry.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(entry or self._directory, error) from error

    def indexes(self, reference: str) -> bool:
        """Whether the reference is short enough for the tag index."""
        return len(encode_reference(reference)) <= _MAX_NAME_BYTES

    def tag_index(self) -> dict[tuple[str, str], str]:
        """All of the tag index: type and encoded reference to id."""
        found = {}
        for itype in ITYPES:
            for entry in _entries(self._directory / "tags" / self._system / itype):
                if not entry.name.startswith("."):
                    try:
                        found[itype, entry.name] = entry.read_text(encoding="ascii", errors="replace").strip()
                    except FileNotFoundError:  # it has just been removed
                        continue
                    except OSError as error:
                        raise self._error(entry, error) from error
        return found

    def image_files(self) -> list[Path]:
        """Images and metadata, sorted."""
        return [path for path in _entries(self._directory) if _IMAGE_FILE.fullmatch(path.name)]

    def remove_tag(self, itype: str, reference: str, image_id: str) -> None:
        """Remove the index entry if it points at ``image_id``."""
        entry = self._tag_file(itype, reference)
        if entry is None:
            return
        try:
            if entry.read_bytes() == f"{image_id}\n".encode("ascii"):
                entry.unlink()
                _sync_directory(entry.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error(entry, error) from error

    def remove(self, image_id: str, image_format: str) -> None:
        """Remove metadata and image; its tags must be gone by now."""
        for suffix in ("meta", image_format):
            path = self.path(image_id, suffix)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise self._error(path, error) from error
        _sync_directory(self._directory)

    def remove_stale_parts(self, is_stale: Callable[[str, int, float], bool]) -> list[Path]:
        """Remove parts for which ``is_stale(pull, attempt, modification time)``; returns what was removed."""
        removed = []
        tags = self._directory / "tags" / self._system
        for directory in (self._directory, *(path for path in _entries(tags) if path.is_dir())):
            for path in _entries(directory):
                match = _PART.fullmatch(path.name)
                if match is not None and is_stale(match["pull"], int(match["attempt"]), _modified(path)):
                    path.unlink(missing_ok=True)
                    removed.append(path)
        return removed

    def _tag_file(self, itype: str, reference: str) -> Path | None:
        name = encode_reference(reference)
        if len(name) > _MAX_NAME_BYTES or itype not in ITYPES:
            return None
        return self._directory / "tags" / self._system / itype / name

    def _make_directories(self, directory: Path) -> None:
        made = directory
        try:
            missing = []
            while made != self._directory and not made.is_dir():
                missing.append(made)
                made = made.parent
            for path in reversed(missing):
                path.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
                _sync_directory(path.parent)
        except OSError as error:
            raise self._error(directory, error) from error

    def _write(self, target: Path, content: bytes, pull: str, attempt: int) -> None:
        # A long tag leaves no room for its own name in the part's.
        part = target.parent / f".{target.name[:64]}.{pull}-{attempt}-{secrets.token_hex(4)}.part"
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    os.fchmod(descriptor, _FILE_MODE)
                    file.write(content)
                    file.flush()
                    os.fsync(descriptor)
                part.rename(target)
            except BaseException:
                _discard(part)
                raise
            _sync_directory(target.parent)
        except OSError as error:
            raise self._error(target, error) from error

    def _error(self, path: Path, error: OSError) -> PublishError:
        return PublishError(f"system {self._system}: {path}: {error.strerror}; {disk_advice(error.errno)}")


def encode_reference(reference: str) -> str:
    """The file name of a tag in the index (docs/image-store.md)."""
    encoded = "".join(
        chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in reference.encode("utf-8", "surrogateescape")
    )
    return f"%2E{encoded[1:]}" if encoded.startswith(".") else encoded


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _discard(part: Path) -> None:
    """Remove it if it is there. What this cannot remove is found by the next sweep, and no reason to fail."""
    with suppress(OSError):
        part.unlink()


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
