# SPDX-License-Identifier: BSD-3-Clause
"""One pull of a queue in a process of its own, which says in which phase it is (tests/killat.c): ``CONFIG``."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from shifter_imagegw.app import create_worker
from shifter_imagegw.config import load_configuration
from shifter_imagegw.store import open_store
from tests.gatewayserver import SYSTEM
from tests.heldworker import STEPS

_PHASE_MARK = 0x7FFF0000  # as in killat.c
PHASES = ("claim", "archive", "merge_archives", "publish_image", "publish_metadata", "publish_tag", "complete")


def mark(phase: int) -> None:
    """Tell the tracer."""
    with suppress(OSError):
        os.close(_PHASE_MARK + phase)


def announce(phase: int, name: str) -> None:
    """Replace the step by one that says that it begins."""
    owner = STEPS[name]
    real = getattr(owner, name)

    def announced(*arguments: Any, **named: Any) -> Any:
        mark(phase)
        return real(*arguments, **named)

    setattr(owner, name, announced)


def main() -> None:
    configuration = load_configuration(Path(sys.argv[1]), {})
    for phase, name in enumerate(PHASES):
        announce(phase, name)
    worker, store = create_worker(configuration), open_store(configuration.store_uri)
    pull = store.claim("traced", time.time(), configuration.lease_seconds, [SYSTEM])
    assert pull is not None
    worker.attempt(pull)


if __name__ == "__main__":
    main()
