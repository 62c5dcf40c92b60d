# SPDX-License-Identifier: BSD-3-Clause
"""A kernel without newer system calls, for one process and whatever it executes: a filter of seccomp(2) answers as the
kernels did that had none of them. Setuid programs keep their bit: root may set a filter without no_new_privs."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Sequence

from tests.accounts import User

# The same on all architectures: asm-generic/unistd.h; the kernels that had them first: 5.6, 5.2, 5.2, 5.12, 5.9.
CALLS = {"openat2": 437, "open_tree": 428, "move_mount": 429, "mount_setattr": 442, "close_range": 436}
LOOP_CONFIGURE = "LOOP_CONFIGURE"  # an ioctl of Linux 5.8
EVERYTHING = (*CALLS, LOOP_CONFIGURE)

_IOCTL = {"x86_64": 16}.get(platform.machine(), 29)
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
_NUMBER, _SECOND_ARGUMENT = 0, 24  # offsets in struct seccomp_data, little endian
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_ENOSYS, _EINVAL = 38, 22
_PR_SET_SECCOMP, _FILTER = 22, 2


def hide(names: Sequence[str]) -> None:
    """Takes these calls from the running process, which must be root, for good."""
    if not names:
        return
    program = [(_LOAD, 0, 0, _NUMBER)]
    for name in names:
        if name != LOOP_CONFIGURE:
            program += [(_IF_EQUAL, 0, 1, CALLS[name]), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    if LOOP_CONFIGURE in names:
        program += [(_IF_EQUAL, 0, 3, _IOCTL), (_LOAD, 0, 0, _SECOND_ARGUMENT)]
        program += [(_IF_EQUAL, 0, 1, 0x4C0A), (_RETURN, 0, 0, _ERRNO | _EINVAL)]
    program.append((_RETURN, 0, 0, _ALLOW))
    instructions = b"".join(struct.pack("=HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(instructions)
    head = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_SECCOMP, _FILTER, head, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot set the seccomp filter")


def become(user: User, names: Sequence[str] = ()) -> None:
    """In a child of root that is to execute something: `hide`, then the user's ids."""
    hide(names)
    os.setgroups([user.gid, *user.groups])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
