# SPDX-License-Identifier: BSD-3-Clause
"""A file system that users could bring, and that never answers (fuse(4), with allow_other as fusermount3 gives it).

The process is a server which takes every request after the first and leaves it at that: whoever asks waits in the
kernel, and not even SIGKILL ends that.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.accounts import User

_SERVER = textwrap.dedent(
    """
    import ctypes, os, struct, sys
    point, uid = sys.argv[1:]
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id={uid},group_id={uid},allow_other"
    if ctypes.CDLL(None).mount(b"stuck", point.encode(), b"fuse.stuck", 6, options.encode()) != 0:
        sys.exit("cannot mount a FUSE file system")
    print("mounted", flush=True)
    while True:
        _length, operation, number = struct.unpack("IIQ", os.read(device, 1 << 17)[:16])
        if operation == 26:  # FUSE_INIT
            body = struct.pack("IIIIHHIIHH", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0) + bytes(32)
            os.write(device, struct.pack("IiQ", 16 + len(body), 0, number) + body)
    """
)


@contextmanager
def stuck_file_system(point: Path, user: User) -> Iterator[None]:
    """At the existing directory `point`; whoever still waits at the end gets an error then."""
    server = subprocess.Popen([sys.executable, "-c", _SERVER, str(point), str(user.uid)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"mounted\n"
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=False)
        server.kill()
        server.communicate()
