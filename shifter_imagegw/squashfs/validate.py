# SPDX-License-Identifier: BSD-3-Clause
"""Whether a squashfs may be shown to a kernel (threats sec-02): every superblock limit, table bound and reference."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from shifter_imagegw.errors import ConversionError
from shifter_imagegw.squashfs import _merger

_SECTOR = 512


@dataclass(frozen=True)
class ImageFacts:
    """What the superblock of a sound image says; sizes in bytes."""

    compressor: str
    block_size: int
    bytes_used: int
    inodes: int
    has_xattrs: bool


def validate_image(fd: int, check: Callable[[], None] = lambda: None) -> ImageFacts:
    """Check all metadata of the squashfs that is open as ``fd``; file contents are not unpacked.

    Allowed compressors are gzip, xz, lz4 and zstd. ``check`` is called now and then and stops the reading by raising.
    Raises ConversionError with the reason.
    """
    try:
        compressor, block_size, bytes_used, inodes, has_xattrs = _merger.examine(fd, check)
        size = os.fstat(fd).st_size
    except _merger.FileError as error:  # and no other OSError: that one is the check's
        raise ConversionError(f"the image cannot be read: {error.strerror}; pull or import it again") from error
    except _merger.ArchiveError as error:
        raise ConversionError(f"the image {error.args[1]}; it must not be mounted: pull or import it again") from error
    if size - size % _SECTOR < bytes_used:
        raise ConversionError(
            f"the image has {size} bytes: a loop device, which shows whole sectors of {_SECTOR}, cuts its end off; "
            "pad the file with zeros to a multiple of 4096"
        )
    return ImageFacts(compressor, block_size, bytes_used, inodes, bool(has_xattrs))
