# SPDX-License-Identifier: BSD-3-Clause
"""A plugin of pytest that keeps what the tests give to the runtime's parsers, as first inputs of the fuzz targets.

``FUZZ_SEEDS=DIRECTORY pytest -p tests.fuzz.record tests/unit`` writes ``DIRECTORY/TARGET/SHA-1``. Needed again only
for a new target or when an input format changes; the fuzzer finds the rest.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from udiroot import _core

LONGEST = 8192
MOUNTED = Path("/proc/self/mountinfo")


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else os.fsencode(text)


def _joined(texts: Sequence[str | bytes | None]) -> bytes:
    return b"\0".join(_bytes(text or "") for text in texts)


def _keep(target: str, content: bytes) -> None:
    if len(content) <= LONGEST:
        directory = Path(os.environ["FUZZ_SEEDS"]) / target
        directory.mkdir(parents=True, exist_ok=True)
        (directory / hashlib.sha1(content).hexdigest()).write_bytes(content)


def _record(name: str, target: str, write: Callable[..., bytes]) -> None:
    original = getattr(_core, name)

    def recording(*arguments: Any, **named: Any) -> Any:
        _keep(target, write(*arguments, **named))
        return original(*arguments, **named)

    setattr(_core, name, recording)


def _file(path: str | os.PathLike[str], trust_any_owner: bool = False) -> bytes:
    return Path(path).read_bytes() if Path(path).is_file() else b""


def _env_file(descriptor: int, name: str) -> bytes:
    return os.pread(descriptor, LONGEST + 1, 0) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""


def pytest_configure() -> None:
    """Put recorders in the place of the parsers."""
    _record("parse_config", "config", lambda text, name: text)
    _record("examine_config", "config", lambda text, name: text)
    _record("load_config", "config", _file)
    _record("parse_meta", "meta", lambda text, name="image": text)
    _record("check_acl", "meta", lambda text, uid, gid, groups: text)
    _record("parse_image_spec", "spec", lambda text, default: _joined([text, default]))
    _record("select_image_spec", "spec", lambda option, env, default: _joined([option, default, *env]))
    _record("parse_volumes", "volumes", lambda text, origin: _bytes(text))
    _record("volumes_signature", "volumes", lambda text, origin: _bytes(text))
    _record("parse_options", "options", lambda argv: _joined(argv[1:]))
    _record("environ_read_file", "environ", _env_file)
    for name in ("set", "append", "prepend"):
        _record(f"environ_{name}", "environ", lambda env, text: b"\n".join(map(_bytes, [*env, text])))
    _keep("mountinfo", MOUNTED.read_bytes()[:LONGEST])
    for line in MOUNTED.read_bytes().splitlines(keepends=True):
        _keep("mountinfo", line)
    _keep("mountinfo", b"\x03\0a b\0\1\0\0tmpfs\0size=1\0\x05\0dev\0\2\0fuse.x\0\0a\\b")
    _keep("group", b"0" + Path("/etc/group").read_bytes())
    _keep("group", b"1root:x:0:root\nusers:x:100:user,other\n#no:x:5:\na::7:\nb:*:4294967294\nc:x:4294967295:\n")
    for hosts in (b"a/1  b.c/24 d_e/2", b"a/0 b/1", b"a/65537", b"a/+1", b"a/-18446744073709551615", b"a/1/1"):
        _keep("hosts", hosts)
    modules = b"siteFs=/home:/home:rec\nmodule_a_siteFs=/a:/a\nmodule_b_conflict=a\nmodule_b_copyPath=/b\n"
    _keep("state", modules + b"\0a\0/x:/y;/x/z:/y/z:ro\0job.1@node")
    _keep("state", modules + b"optUdiImage=/opt\nmountPropagationStyle=slave\0b\0" + rb'/a"\\:/b\ :ro' + b"\0node")
    _keep("config", b"udiMount=/u\nimagePath=/i\nudiRootPath=/usr\nrootfsType=tmpfs\netcPath=/e\n" + modules + b"\0a,a")
