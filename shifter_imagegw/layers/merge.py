# SPDX-License-Identifier: BSD-3-Clause
"""Layer archives, oldest first, become the image (docs/conversion.md, section "Merge")."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shifter_imagegw.errors import ConversionError, LayerError, disk_advice
from shifter_imagegw.squashfs import _merger
from shifter_imagegw.squashfs.validate import validate_image

_FILE_MODE = 0o600


@dataclass(frozen=True)
class MergeSummary:
    """What was written."""

    entries: int  # names, the root among them
    inodes: int
    bytes: int  # length of the image file
    copied: int  # bytes of it that are blocks copied from the archives


def merge_archives(
    archives: Sequence[int],
    destination: Path,
    check: Callable[[], None],
    names: Sequence[str] = (),
) -> MergeSummary:
    """Write the image of the layer archives (open descriptors, oldest first) to the new file ``destination``.

    ``check`` is called now and then and stops the merge by raising; ``names`` are the layers' digests, for messages.
    The image is validated before this returns; on failure nothing is left. Raises LayerError if a layer cannot be
    applied to those below it, ConversionError if an archive is damaged or the image cannot be written.
    """
    try:
        descriptor = os.open(destination, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
    except OSError as error:
        raise _write_error(destination, error) from error
    try:
        summary = _merge(archives, descriptor, destination, check, names)
        validate_image(descriptor, check)
    except BaseException:
        destination.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return summary


def _merge(
    archives: Sequence[int], descriptor: int, destination: Path, check: Callable[[], None], names: Sequence[str]
) -> MergeSummary:
    try:
        return MergeSummary(*_merger.merge(archives, descriptor, check))
    except _merger.EntryError as error:
        index, entry, reason = error.args
        raise LayerError(reason, digest=_name(names, index), entry=entry.decode("utf-8", "backslashreplace")) from error
    except _merger.ArchiveError as error:
        index, reason = error.args
        if index < 0:
            raise ConversionError(f"{destination}: {reason}; pull again and report this if it stays") from error
        raise ConversionError(
            f"archive of layer {_name(names, index)} {reason}; remove it from the layer cache and pull again"
        ) from error
    except MemoryError as error:
        raise ConversionError(f"{destination}: the layers' directories do not fit into memory") from error
    except _merger.FileError as error:  # and no other OSError: that one is the check's
        if not isinstance(error.filename, int):
            raise _write_error(destination, error) from error
        raise ConversionError(
            f"archive of layer {_name(names, error.filename)}: {error.strerror}; check the layer cache's file system"
        ) from error


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f"number {index + 1}"


def _write_error(destination: Path, error: OSError) -> ConversionError:
    return ConversionError(f"{destination}: {error.strerror}; {disk_advice(error.errno)}")
