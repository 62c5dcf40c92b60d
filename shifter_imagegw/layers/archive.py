# SPDX-License-Identifier: BSD-3-Clause
"""One layer as it comes from the registry to one layer archive, while it comes (docs/conversion.md)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Callable

from shifter_imagegw.errors import ConversionError, LayerError, LimitExceeded, PullError, disk_advice
from shifter_imagegw.layers.recipe import Limits, Recipe, compression_threads
from shifter_imagegw.layers.trailer import write_trailer
from shifter_imagegw.registry.manifest import Descriptor
from shifter_imagegw.squashfs._writer import Failure, LayerWriter, Summary

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def archive_key(diff_id: str, recipe: Recipe) -> str:
    """What decides about the bytes of an archive: the layer's content, as uncompressed, and the recipe."""
    return f"{diff_id} {recipe.fingerprint()}"


def build_archive(
    chunks: Iterable[bytes],
    descriptor: Descriptor,
    diff_id: str,
    destination: Path,
    *,
    recipe: Recipe,
    limits: Limits,
    progress: Callable[[int], None],
) -> None:
    """Write the archive of the layer whose compressed bytes are ``chunks`` (verified by whom they come from).

    ``destination`` is a new file, mode 0600; after an error it is incomplete and the caller's to remove. ``progress``
    gets the size of each chunk, and may raise to cancel. LayerError and LimitExceeded name the layer's digest and,
    where one is at fault, the entry; ConversionError says what of this machine failed (disk full, memory).
    """
    try:
        fd = os.open(destination, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConversionError(f"layer {descriptor.digest}: cannot make {destination}: {error.strerror}") from error
    try:
        os.fchmod(fd, 0o600)
        write_archive(fd, destination, chunks, descriptor, diff_id, recipe=recipe, limits=limits, progress=progress)
    finally:
        os.close(fd)


def write_archive(
    fd: int,
    path: Path,
    chunks: Iterable[bytes],
    descriptor: Descriptor,
    diff_id: str,
    *,
    recipe: Recipe,
    limits: Limits,
    progress: Callable[[int], None],
) -> Summary:
    """The same into an open, empty file; ``path`` is for messages."""
    writer = LayerWriter(fd, threads=compression_threads(), **asdict(recipe), **asdict(limits))
    try:
        for chunk in chunks:
            writer.feed(chunk)
            progress(len(chunk))
        summary = writer.finish()
        if f"sha256:{summary.diff_id}" != diff_id:
            raise LayerError(
                f"it hashes to sha256:{summary.diff_id} and not to its diff_id {diff_id}; "
                "the image was built or pushed wrongly",
                digest=descriptor.digest,
            )
    except Failure as failure:
        raise _translate(failure, descriptor, path) from None
    finally:
        writer.abort()
    try:
        write_trailer(fd, summary.bytes_out, summary.inodes, summary.checksum, archive_key(diff_id, recipe))
    except OSError as error:
        reason = f"cannot write its end: {error.strerror}; {disk_advice(error.errno)}"
        raise ConversionError(f"layer {descriptor.digest}: {path}: {reason}") from error
    return summary


def _translate(failure: Failure, descriptor: Descriptor, path: Path) -> PullError:
    kind, entry, reason = failure.args
    name = None if entry is None else entry.decode("utf-8", "backslashreplace")
    if kind == "limit":
        return LimitExceeded(f"{reason}; refused", digest=descriptor.digest, entry=name)
    if kind == "layer":
        return LayerError(reason, digest=descriptor.digest, entry=name)
    # The extension has put the error of the system into words.
    errnum = next((number for number in _DISK_ERRORS if os.strerror(number) in reason), None)
    if errnum is None:
        return ConversionError(f"layer {descriptor.digest}: {reason}")
    return ConversionError(f"layer {descriptor.digest}: {path}: {reason}; {disk_advice(errnum)}")
