# SPDX-License-Identifier: BSD-3-Clause
"""What several attacks use: a traced launcher whose system calls fail or pretend to work, and names that change."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests import oldkernel
from tests.accounts import User
from tests.shifternode import ShifterNode

SWAPS = 10_000  # at least, while the launcher works
# renameat2(2) with RENAME_EXCHANGE until standard input ends; then how often.
SWAPPER = textwrap.dedent(
    """
    import ctypes, os, sys, threading
    libc = ctypes.CDLL(None, use_errno=True)
    first, second = (os.fsencode(name) for name in sys.argv[1:])
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    count = 0
    while not ended.is_set():
        for _ in range(64):
            if libc.renameat2(-100, first, -100, second, 2) != 0:
                sys.exit(os.strerror(ctypes.get_errno()))
            count += 1
    print(count)
    """
)
_CALL = re.compile(r"^(?:(\d+) +)?(\w+)\((.*)\) += [-\w]+", re.MULTILINE)
ROOT = User("root", 0, 0)


@contextmanager
def swapping(first: Path, second: Path, user: User, at_least: int = SWAPS) -> Iterator[None]:
    """A process of `user` exchanges two names without a pause, at least that many times."""
    swapper = subprocess.Popen(
        ["/usr/bin/python3", "-c", SWAPPER, str(first), str(second)], user=user.uid, group=user.gid, extra_groups=[],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
    )  # fmt: skip
    try:
        yield
    finally:
        count, errors = swapper.communicate(timeout=60)
    assert swapper.returncode == 0, errors
    assert int(count) >= at_least


def traced(
    node: ShifterNode, command: Sequence[str], *options: str, user: User | None = None, around: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """The command of `user`, in which setuid bits count, below strace with these options, and that below `around`."""
    trace = [*around, "strace", *options, "-u", (user or node.alice).name, *command]
    return subprocess.run(
        trace, check=False, capture_output=True, text=True, cwd="/", timeout=60,
        env={"PATH": "/usr/sbin:/usr/bin:/bin"}, preexec_fn=partial(oldkernel.hide, node.hidden),
    )  # fmt: skip


def calls_of(node: ShifterNode, command: Sequence[str], user: User | None = None) -> list[tuple[str, str, str]]:
    """Process, name and arguments of each system call of the command, until it executes another program."""
    log = node.base / "calls"
    done = traced(node, command, "-f", "-o", str(log), user=user)
    assert done.returncode == 0, done.stderr
    found = [(call[1], call[2], call[3]) for call in _CALL.finditer(log.read_text(errors="replace"))]
    log.unlink()
    executed = [number for number, call in enumerate(found) if call[1] == "execve"]
    return found[executed[0] + 1 : executed[-1] if len(executed) > 1 else None]
