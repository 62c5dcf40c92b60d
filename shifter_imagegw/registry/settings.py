# SPDX-License-Identifier: BSD-3-Clause
"""Bounds on everything a registry can make us wait for or store."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HttpSettings:
    """Limits of the registry client. Times in seconds, sizes in bytes.

    ``retries`` counts further attempts after a failed one; pauses between them double from ``backoff`` up to
    ``max_backoff``. A registry that asks for a longer pause than ``max_retry_after`` is given up on at once. A
    connection must bring ``min_rate`` bytes per second on average while it is waited for, the body of a blob
    ``min_blob_rate``; both are looked at after every two read time-outs of waiting. A blob gets its attempts back
    whenever ``resume_credit`` bytes have arrived since the last interruption.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    retries: int = 4
    backoff: float = 0.5
    max_backoff: float = 15.0
    max_retry_after: float = 60.0
    min_rate: int = 64
    min_blob_rate: int = 16 << 10
    resume_credit: int = 8 << 20
    max_redirects: int = 5
    max_manifest_bytes: int = 4 << 20
    max_config_bytes: int = 8 << 20
    max_token_bytes: int = 1 << 20
    max_blob_bytes: int = 1 << 40
    max_layers: int = 1000
    max_index_entries: int = 1000
    max_index_depth: int = 3
    connections: int = 16
