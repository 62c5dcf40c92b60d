# SPDX-License-Identifier: BSD-3-Clause
"""The paths that the launcher relies on: they exist, are what they should be, and only those who may can write them.

Ownership is judged by the launcher's own function (udiroot/src/as_root/trust.c).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from udiroot import _core
from udiroot.check.conffile import ConfFile
from udiroot.check.problem import ERROR, WARNING, Problem


def path_problems(conf: ConfFile) -> Iterator[Problem]:
    """Of every key with one path, but etcPath."""
    values = conf.values
    yield from _udi_mount(conf)
    if values["imagePath"]:
        # find_image_owner of config.c: an unknown account owns nothing, and the parser has said so.
        owner = _uid(values["imageOwner"])
        yield from trusted(conf, "imagePath", values["imagePath"], owner=(owner, values["imageOwner"]), follow=False)
    yield from _installation(conf)
    for key in ("sitePreMountHook", "sitePostMountHook"):
        yield from hook(conf, key, values[key])
    if values["optUdiImage"]:
        key = "optUdiImage" if conf.line("optUdiImage") else "udiImagePath"
        yield from trusted(conf, key, values["optUdiImage"])
    for prefix, module in conf.modules():
        yield from hook(conf, f"{prefix}roothook", module["roothook"])
        if module["copyPath"]:
            yield from trusted(conf, f"{prefix}copyPath", module["copyPath"])


def trusted(
    conf: ConfFile,
    key: str,
    path: str,
    *,
    kind: str = "directory",
    owner: tuple[int, str] = (0, "root"),
    follow: bool = True,
) -> Iterator[Problem]:
    """It is a ``directory`` or ``file``, and nobody but root and ``owner`` can write any component of it."""
    problem = presence(conf, key, path, kind)
    if problem is not None:
        yield problem
        return
    try:
        _core.check_trust(path, *owner, follow)
    except _core.Error as error:
        yield conf.problem(ERROR, key, str(error))


def presence(conf: ConfFile, key: str, path: str, kind: str, item: str = "") -> Problem | None:
    """What is wrong when it is no ``directory``, ``file``, or ``any`` of the two."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return conf.problem(ERROR, key, f"{path} does not exist; create it or correct the path", item)
    except PermissionError:
        return conf.problem(WARNING, key, f"{path} cannot be looked at by uid {os.geteuid()}; check as root", item)
    except OSError as error:
        return conf.problem(ERROR, key, f"{path}: {error.strerror}; correct the path", item)
    found = "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "special file"
    if found == kind or (kind == "any" and found != "special file"):
        return None
    return conf.problem(ERROR, key, f"{path} is a {found}, not a {kind.replace('any', 'directory or file')}", item)


def hook(conf: ConfFile, key: str, path: str | None) -> Iterator[Problem]:
    """A program that root runs."""
    if not path:
        return
    problems = list(trusted(conf, key, path, kind="file"))
    yield from problems
    if not problems and not Path(path).stat().st_mode & stat.S_IXUSR:
        yield conf.problem(ERROR, key, f"{path} cannot be executed; chmod u+x {path}")
    elif not problems:
        yield from _interpreter(conf, key, path)


def state_problems(directory: Path) -> Iterator[Problem]:
    """``directory`` is STATEDIR, where setupRoot keeps what it has prepared, and which it makes itself."""
    try:
        status = directory.lstat()
    except OSError:
        return
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o077:
        message = f"{directory} is not a directory of root with mode 0700: no container can be prepared here; remove it"
        yield Problem(ERROR, None, "setupRoot", message)


def _interpreter(conf: ConfFile, key: str, path: str) -> Iterator[Problem]:
    """What the first line of a script names: execve(2)."""
    try:
        with Path(path).open("rb") as file:
            first = file.readline(256)
    except OSError:
        return
    if first.startswith(b"#!") and (words := os.fsdecode(first[2:]).split()) and not Path(words[0]).exists():
        yield conf.problem(ERROR, key, f"{path} is for {words[0]}, which is not on this node; correct its first line")


def _udi_mount(conf: ConfFile) -> Iterator[Problem]:
    path = conf.values["udiMount"]
    if path and not os.path.lexists(path):
        # It is made when missing, but not what is above it.
        if not (parent := Path(path).parent).is_dir():
            yield conf.problem(ERROR, "udiMount", f"{path} cannot be made: {parent} is no directory; create it")
    elif path:
        problems = list(trusted(conf, "udiMount", path, follow=False))
        yield from problems
        shows_container = os.access(f"{path}/var/shifterConfig.json", os.F_OK)
        if not problems and not shows_container and _has_entries(path):
            what = f"{path} is not empty, so setupRoot refuses to hide it; give shifter a directory of its own"
            yield conf.problem(ERROR, "udiMount", what)


def _has_entries(path: str) -> bool:
    try:
        return any(Path(path).iterdir())
    except OSError:
        return False


def _installation(conf: ConfFile) -> Iterator[Problem]:
    root = conf.values["udiRootPath"]
    if not root:
        return
    problem = presence(conf, "udiRootPath", root, "directory")
    if problem is not None:
        yield problem
        return
    yield from trusted(conf, "udiRootPath", f"{root}/bin/shifterimg", kind="file")
    for name, loss in (
        ("bin/shifter", "users have nothing to run"),
        ("sbin/setupRoot", "no prolog can prepare a node"),
    ):
        if not Path(root, name).exists():
            yield conf.problem(
                WARNING, "udiRootPath", f"{root}/{name} is not there: {loss}; is this the prefix of `make install`?"
            )
    yield from _setuid(conf, Path(root, "bin/shifter"))


def _setuid(conf: ConfFile, program: Path) -> Iterator[Problem]:
    try:
        status, nosuid = program.stat(), os.statvfs(program).f_flag & os.ST_NOSUID
    except OSError:
        return
    if status.st_uid != 0 or not status.st_mode & stat.S_ISUID:
        message = f"{program} is not setuid root: nobody can start containers; give it owner root and mode 4755"
        yield conf.problem(ERROR, "udiRootPath", message)
    elif nosuid:
        yield conf.problem(
            ERROR,
            "udiRootPath",
            f"{program} lies on a file system that is mounted nosuid; mount it suid or install elsewhere",
        )


def _uid(account: str) -> int:
    import pwd  # noqa: PLC0415

    if account.isdecimal():
        return min(int(account), (1 << 32) - 1)
    try:
        return pwd.getpwnam(account).pw_uid
    except KeyError:
        return (1 << 32) - 1
