# SPDX-License-Identifier: BSD-3-Clause
"""A worker process that stops at a chosen moment, so that a test can kill it there: ``CONFIG [MOMENT]``.

MOMENT is ``before:NAME`` or ``after:NAME`` of one of the steps below. The held worker writes ``held-PID`` beside the
configuration and stays there until it is killed or asked to stop.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from shifter_imagegw.app import create_worker
from shifter_imagegw.config import load_configuration
from shifter_imagegw.layers import merge
from shifter_imagegw.layers.cache import LayerCache
from shifter_imagegw.logs import configure_logging
from shifter_imagegw.platforms.local import LocalPlatform
from shifter_imagegw.registry.client import RegistryClient
from shifter_imagegw.store.sqlite import SqliteStore

STEPS: dict[str, Any] = {
    "claim": SqliteStore,
    "resolve": RegistryClient,
    "archive": LayerCache,
    "merge_archives": merge,
    "publish_image": LocalPlatform,
    "publish_metadata": LocalPlatform,
    "publish_tag": LocalPlatform,
    "complete": SqliteStore,
}


def hold(moment: str, mark: Path) -> None:
    """Replace the step by one that stays before or after itself."""
    when, _, name = moment.partition(":")
    owner = STEPS[name]
    real = getattr(owner, name)

    def held(*arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named) if when == "after" else None
        if when == "before" or result is not None or name != "claim":
            mark.touch()
            while True:
                # The check of a merge or the progress of a layer is how a stopping worker gets out of a long step.
                for argument in arguments:
                    if callable(argument) and name == "merge_archives":
                        argument()
                    elif callable(argument) and getattr(argument, "__name__", "") == "_advance":
                        argument(0)
                time.sleep(0.02)
        return result

    setattr(owner, name, held)


def main() -> None:
    configuration = load_configuration(Path(sys.argv[1]))
    configure_logging("debug")
    for moment in sys.argv[2:]:
        hold(moment, configuration.source.parent / f"held-{os.getpid()}")
    create_worker(configuration).run()
    os._exit(0)


if __name__ == "__main__":
    main()
