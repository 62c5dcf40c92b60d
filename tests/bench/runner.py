# SPDX-License-Identifier: BSD-3-Clause
"""Starts commands as some user and says how long each took; a process of its own, so that it can be another user.

Protocol: one JSON object per line on standard input, ``{"argv": [...], "parallel": 1}``; one per line back,
``{"seconds": wall time from the first start to the last end, "failures": number, "message": text}``. Standard library
only; started by ``Runner``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Runner:
    """Starts commands as ``uid`` and times them without the cost of changing user."""

    def __init__(self, uid: int, gid: int, wrapper: Sequence[str] = ()) -> None:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "USER": "bench"}
        self.process = subprocess.Popen(
            [*wrapper, "/usr/bin/python3", "-I", str(Path(__file__).resolve())],
            user=uid, group=gid, extra_groups=[], cwd="/", env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def seconds(self, argv: Sequence[str], parallel: int = 1) -> float:
        """Wall time of one start, or of ``parallel`` at once, in whose words ``@`` stands for the number of each; one
        that fails ends the bench."""
        answer = self._ask({"argv": list(argv), "parallel": parallel})
        if answer["failures"]:
            raise SystemExit(f"bench: {' '.join(argv)}: {answer['failures']} of {parallel} failed\n{answer['message']}")
        return float(answer["seconds"])

    def works(self, argv: Sequence[str]) -> bool:
        """Whether the command ends with status 0 at all (some peers need what a machine forbids)."""
        return not self._ask({"argv": list(argv), "parallel": 1})["failures"]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))


def run(argv: Sequence[str], parallel: int) -> dict[str, Any]:
    """Start, wait, count."""
    with tempfile.TemporaryFile() as output:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        actions = [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, null, 1),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
        ]
        began = time.perf_counter()
        children = [
            os.posix_spawn(argv[0], words, dict(os.environ), file_actions=actions)
            for words in ([word.replace("@", str(number)) for word in argv] for number in range(parallel))
        ]
        failures = sum(os.waitpid(child, 0)[1] != 0 for child in children)
        taken = time.perf_counter() - began
        os.close(null)
        output.seek(0)
        message = output.read(2000).decode(errors="replace")
    return {"seconds": taken, "failures": failures, "message": message}


def main() -> None:
    """Answer until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(run(request["argv"], request["parallel"])), flush=True)


if __name__ == "__main__":
    main()
