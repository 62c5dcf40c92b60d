# SPDX-License-Identifier: BSD-3-Clause
"""Registry logins in ``~/.udiRoot/.cred``, each as a munge credential of the user's own (gateway contract, 15.6).

One line per login: ``<system>:<location>=<credential>``. The system ends at the first colon, the key at the first
equals sign. Anybody can decode such a credential, so the file is created with mode 0600, never opened wider, and never
reached through a symbolic link: everything happens below descriptors of the home directory and of ``.udiRoot``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from udiroot.shifterimg.errors import ClientError, CredentialFailed, LoginsUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from udiroot.shifterimg.munge import Munge

_DIRECTORY = ".udiRoot"
_FILE = ".cred"
_LARGEST_FILE = 1024 * 1024


def home_directory() -> str | None:
    """Home of the caller according to the passwd database, not to ``$HOME``; None when that does not know him."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None


def check_key(system: str, location: str) -> None:
    """LoginsUnusable for what the file's grammar cannot express."""
    if not system or not system.isprintable() or system.startswith("#") or ":" in system or "=" in system:
        raise LoginsUnusable(f"system {system!r} in udiRoot.conf cannot be the key of a login")
    if not location or not location.isprintable() or "=" in location:
        raise LoginsUnusable(f"location {location!r}: it cannot be empty or hold `=` or control characters")


def check_login(user: str, password: str) -> None:
    """LoginsUnusable for what the gateway's ``user:password`` cannot express."""
    if not user or not user.isprintable() or ":" in user:
        raise LoginsUnusable(f"username {user!r}: it cannot be empty or hold `:` or control characters")
    if not password or "\0" in password:
        raise LoginsUnusable("the password cannot be empty")
    if password != password.encode("utf-8", "replace").decode("utf-8"):
        raise LoginsUnusable("the password is not UTF-8; set the terminal to UTF-8")


def store(home: str, key: str, credential: str, warn: Callable[[str], None]) -> None:
    """Replace or add the login ``<system>:<location>``; other lines stay. LoginsUnusable: the file is as before."""
    with _directory(home, create=True) as directory:
        # Two logins at once must not lose one. Where no lock is to be had (NFS), the rename still keeps the file whole.
        with contextlib.suppress(OSError):
            fcntl.flock(directory, fcntl.LOCK_EX)
        lines = _read(directory, home, warn)
        kept = [line for line in lines if line.startswith("#") or line.partition("=")[0] != key]
        _write(directory, home, [*kept, f"{key}={credential}"])


def load(home: str, system: str, munge: Munge, warn: Callable[[str], None]) -> dict[str, str]:
    """The usable logins for ``system``: location to ``user:password``. What is unusable is left out with a warning."""
    logins = {}
    try:
        with _directory(home, create=False) as directory:
            lines = _read(directory, home, warn)
    except FileNotFoundError:
        return {}
    except LoginsUnusable as error:
        warn(f"stored logins are not used: {error}")
        return {}
    for line in lines:
        key, equals, credential = line.partition("=")
        owner, colon, location = key.partition(":")
        if line.startswith("#") or not equals or not colon or owner != system:
            continue
        try:
            logins[location] = _open(munge, credential.strip())
        except ClientError as error:
            warn(f"the stored login for {location} is not used: {error}; run `shifterimg login {location}` again")
    return logins


def payload(home: str | None, system: str, munge: Munge, warn: Callable[[str], None]) -> bytes:
    """Payload of a credential for a pull: the logins (section 3.1), or nothing."""
    found = load(home, system, munge, warn) if home else {}
    return json.dumps({"authorized_locations": found}, separators=(",", ":")).encode() if found else b""


def _open(munge: Munge, credential: str) -> str:
    decoded = munge.decode(credential)
    if decoded.uid != os.getuid():
        raise CredentialFailed(f"uid {decoded.uid} made it")
    try:
        return decoded.payload.decode("utf-8")
    except UnicodeDecodeError:
        raise CredentialFailed("it is not UTF-8") from None


@contextmanager
def _directory(home: str, *, create: bool) -> Iterator[int]:
    """Descriptor of ``~/.udiRoot``; FileNotFoundError when there is none and it is not to be created."""
    path = f"{home}/{_DIRECTORY}"
    try:
        home_fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not create:
            raise
        raise LoginsUnusable(f"{home}: {error.strerror}") from None
    try:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(_DIRECTORY, 0o700, dir_fd=home_fd)
        directory = os.open(_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=home_fd)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not create:
            raise
        raise _refusal(path, error, "a directory") from None
    finally:
        os.close(home_fd)
    try:
        status = os.fstat(directory)
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise LoginsUnusable(f"{path}: it must be yours and writable by you alone; chmod 700 it, or remove it")
        yield directory
    finally:
        os.close(directory)


def _read(directory: int, home: str, warn: Callable[[str], None]) -> list[str]:
    path = f"{home}/{_DIRECTORY}/{_FILE}"
    try:
        # O_NONBLOCK: a FIFO must not make the caller wait.
        file = os.open(_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _refusal(path, error, "a regular file") from None
    try:
        _require_private(file, path, warn)
        data = bytearray()
        while len(data) <= _LARGEST_FILE and (part := os.read(file, 64 * 1024)):
            data += part
    except OSError as error:
        raise LoginsUnusable(f"{path} cannot be read, or not be closed to others: {error.strerror}") from None
    finally:
        os.close(file)
    return data.decode("utf-8", "surrogateescape").rstrip("\n").split("\n")


def _require_private(file: int, path: str, warn: Callable[[str], None]) -> None:
    """LoginsUnusable unless it is a regular file of the caller's own; closes it to everybody else."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
        raise LoginsUnusable(f"{path}: it is not a regular file of your own; remove it")
    if status.st_size > _LARGEST_FILE:
        raise LoginsUnusable(f"{path}: it is larger than {_LARGEST_FILE} bytes; remove it and log in again")
    if status.st_mode & 0o077:
        os.fchmod(file, 0o600)
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        warn(f"{path} was open to other users (mode {mode}) and is closed now; change the passwords in it")


def _write(directory: int, home: str, lines: list[str]) -> None:
    temporary = f"{_FILE}.{os.getpid()}.{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    try:
        file = os.open(temporary, flags, 0o600, dir_fd=directory)
        try:
            with os.fdopen(file, "wb") as stream:
                os.fchmod(file, 0o600)  # an umask can have taken bits away
                stream.write(data)
                stream.flush()
                os.fsync(file)
            os.rename(temporary, _FILE, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            raise
    except OSError as error:
        raise LoginsUnusable(f"{home}/{_DIRECTORY}/{_FILE} cannot be written: {error.strerror}") from None


def _refusal(path: str, error: OSError, wanted: str) -> LoginsUnusable:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return LoginsUnusable(f"{path}: it is a symbolic link or not {wanted}; remove it")
    return LoginsUnusable(f"{path}: {error.strerror}")
