# SPDX-License-Identifier: BSD-3-Clause
from typing import NamedTuple

from typing_extensions import Buffer

class Failure(Exception):
    """``args``: kind (``layer``, ``limit``, ``conversion``, ``aborted``), entry or None, reason."""

    args: tuple[str, bytes | None, str]

class Summary(NamedTuple):
    diff_id: str
    checksum: bytes
    entries: int
    bytes_in: int
    bytes_tar: int
    bytes_out: int
    inodes: int

class LayerWriter:
    def __init__(
        self,
        fd: int,
        *,
        compressor: str,
        level: int,
        block_size: int,
        threads: int,
        keep_owners: bool,
        keep_user_xattrs: bool,
        keep_setid: bool,
        boot_set: bool,
        max_bytes: int,
        max_ratio: int,
        max_entries: int,
        max_text: int,
        max_path: int,
        max_name: int,
        max_depth: int,
        max_target: int,
        max_links: int,
        max_xattrs: int,
    ) -> None: ...
    def feed(self, data: Buffer, /) -> None: ...
    def finish(self) -> Summary: ...
    def abort(self) -> None: ...
