# SPDX-License-Identifier: BSD-3-Clause
"""Many processes of several users that execute at one moment: ``[[UID, GID, COUNT, [COMMAND...]]...]`` as JSON. Prints
the exit statuses other than 0, as JSON; what the commands say goes where this program's output for errors goes."""

from __future__ import annotations

import json
import os
import sys


def become(uid: int, gid: int, command: list[str], gate: int) -> None:
    """In a child: wait until the gate is opened, and go."""
    os.setgroups([gid])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.chdir("/")
    os.read(gate, 1)
    os.execve(command[0], command, {"PATH": "/usr/bin:/bin"})


def main() -> None:
    gate, opener = os.pipe()
    children = []
    for uid, gid, count, command in json.loads(sys.argv[1]):
        for _number in range(count):
            child = os.fork()
            if child == 0:
                os.close(opener)
                try:
                    become(uid, gid, command, gate)
                finally:
                    os._exit(99)
            children.append(child)
    os.close(opener)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    json.dump([status for status in statuses if status != 0], sys.stdout)


if __name__ == "__main__":
    main()
