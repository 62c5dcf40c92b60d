# SPDX-License-Identifier: BSD-3-Clause
"""Stored registry logins: nobody else ever reads them, and nothing makes shifterimg write elsewhere (sec-71)."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts import MARK
from tests.munged import Munged
from tests.scriptedgateway import LoginNode, image, login_node, scripted_gateway
from tests.terminal import Terminal
from udiroot.shifterimg import logins
from udiroot.shifterimg.errors import LoginsUnusable
from udiroot.shifterimg.munge import Munge

NOBODY = 65534
SECRET = "corréct:horse=battery"
STORE = "import sys; from udiroot.shifterimg import logins; logins.store(sys.argv[1], sys.argv[2], sys.argv[3], print)"
# The interpreter and its modules may lie where only root can go: all is imported before the rights are dropped.
AS_USER = (
    "import os, sys; from udiroot.shifterimg import cli, modes, prompt; uid = int(sys.argv.pop(1)); "
    "os.setgroups([]); os.setgid(uid); os.setuid(uid); cli.main()"
)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """root's home for the functions that are told one."""
    return tmp_path


def put(home: Path, text: str, mode: int = 0o600) -> Path:
    """A file of logins as the user may have it."""
    file = home / ".udiRoot/.cred"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_modes_do_not_depend_on_the_umask(home: Path, umask: int, warnings: list[str]) -> None:
    before = os.umask(umask)
    try:
        if umask == 0o777:  # mkdir would make a directory that even its owner cannot enter; root can
            (home / ".udiRoot").mkdir()
            (home / ".udiRoot").chmod(0o700)
        logins.store(str(home), "sys:default", "MUNGE:x:", warnings.append)
    finally:
        os.umask(before)
    assert stat.S_IMODE((home / ".udiRoot").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / ".udiRoot/.cred").stat().st_mode) == 0o600
    assert os.listdir(home / ".udiRoot") == [".cred"]  # noqa: PTH208 -- names, hidden ones too


WATCHER = """
import os, sys
directory = int(sys.argv[1])
print("watching", flush=True)
while True:
    for name in os.listdir(directory):
        try:
            os.close(os.open(name, os.O_RDONLY, dir_fd=directory))
        except FileNotFoundError:
            continue
        except PermissionError:
            print("refused", flush=True)
            continue
        print("READ", name, flush=True)
"""


def test_nobody_else_can_open_the_file_at_any_moment(home: Path, warnings: list[str]) -> None:
    put(home, "").parent.chmod(0o755)
    directory = os.open(home / ".udiRoot", os.O_RDONLY)
    before = os.umask(0)
    watcher = subprocess.Popen(
        ["/usr/bin/python3", "-I", "-c", WATCHER, str(directory)],
        stdout=subprocess.PIPE, text=True, pass_fds=[directory], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
    )  # fmt: skip
    try:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "watching\n"
        for number in range(100):
            logins.store(str(home), f"sys:{number}", "MUNGE:secret:", warnings.append)
    finally:
        watcher.kill()
        seen, _ = watcher.communicate()
        os.umask(before)
        os.close(directory)
    assert "refused" in seen
    assert "READ" not in seen


def test_a_symbolic_link_in_place_of_the_file_is_refused(
    home: Path, tmp_path: Path, munge: Munged, warnings: list[str]
) -> None:
    target = tmp_path / "target"
    target.write_text("sys:default=MUNGE:x:\n")
    (home / ".udiRoot").mkdir(mode=0o700)
    (home / ".udiRoot/.cred").symlink_to(target)
    with pytest.raises(LoginsUnusable, match="symbolic link"):
        logins.store(str(home), "sys:a", "MUNGE:x:", warnings.append)
    assert logins.load(str(home), "sys", Munge(str(munge.socket)), warnings.append) == {}
    assert "symbolic link" in warnings[0]
    assert target.read_text() == "sys:default=MUNGE:x:\n"


def test_a_symbolic_link_in_place_of_the_directory_is_refused(home: Path, munge: Munged, warnings: list[str]) -> None:
    (home / "elsewhere").mkdir(mode=0o700)
    (home / ".udiRoot").symlink_to("elsewhere")
    with pytest.raises(LoginsUnusable, match="symbolic link"):
        logins.store(str(home), "sys:a", "MUNGE:x:", warnings.append)
    assert logins.load(str(home), "sys", Munge(str(munge.socket)), warnings.append) == {}
    assert list((home / "elsewhere").iterdir()) == []


def _foreign_file(home: Path) -> None:
    os.chown(put(home, ""), NOBODY, NOBODY)


def _foreign_directory(home: Path) -> None:
    os.chown(put(home, "").parent, NOBODY, NOBODY)


def _open_directory(home: Path) -> None:
    put(home, "").parent.chmod(0o770)


def _fifo(home: Path) -> None:
    put(home, "").unlink()
    os.mkfifo(home / ".udiRoot/.cred", 0o600)


def _directory(home: Path) -> None:
    put(home, "").unlink()
    (home / ".udiRoot/.cred").mkdir(mode=0o700)


def _huge(home: Path) -> None:
    os.truncate(put(home, ""), 2**40)


@pytest.mark.parametrize("spoil", [_foreign_file, _foreign_directory, _open_directory, _fifo, _directory, _huge])
def test_what_is_not_the_users_own_regular_file_is_refused(
    home: Path, munge: Munged, warnings: list[str], spoil: object
) -> None:
    assert callable(spoil)
    spoil(home)
    with pytest.raises(LoginsUnusable, match=r"\.udiRoot"):
        logins.store(str(home), "sys:a", "MUNGE:x:", warnings.append)
    assert logins.load(str(home), "sys", Munge(str(munge.socket)), warnings.append) == {}
    assert "stored logins are not used" in warnings[0]


def test_a_file_open_to_others_is_closed_with_a_warning(home: Path, munge: Munged, warnings: list[str]) -> None:
    file = put(home, f"sys:default={munge.credential('me:pw')}\n", 0o644)
    assert logins.load(str(home), "sys", Munge(str(munge.socket)), warnings.append) == {"default": "me:pw"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "mode 0644" in warnings[0]


def test_only_own_credentials_for_this_system_are_used(home: Path, munge: Munged, warnings: list[str]) -> None:
    lines = [
        f"sys:mine={munge.credential('me:pw')}",
        f"sys:theirs={munge.credential('eve:pw', uid=NOBODY)}",
        "sys:garbage=MUNGE:AAAA:",
        f"sys:latin1={munge.credential(b'me:p' + bytes([0xE9]))}",
        f"other:mine={munge.credential('me:other')}",
        "#sys:comment=x",
        "nonsense",
        "",
    ]
    put(home, "\n".join(lines))
    for _again in range(2):  # the second time munged calls the credential replayed, which is no objection
        assert logins.load(str(home), "sys", Munge(str(munge.socket)), warnings.append) == {"mine": "me:pw"}
    for name, text in zip(("theirs", "garbage", "latin1"), warnings):
        assert text.startswith(f"the stored login for {name} is not used: ")


def test_an_expired_credential_is_no_objection(home: Path, munge: Munged, warnings: list[str]) -> None:
    credential = munge.credential("me:pw", "--ttl=1")
    put(home, f"sys:default={credential}\n")
    subprocess.run(["sleep", "2.5"], check=True)
    assert logins.load(str(home), "sys", Munge(str(munge.socket)), warnings.append) == {"default": "me:pw"}


def test_a_write_that_fails_leaves_the_old_file(home: Path) -> None:
    file = put(home, "sys:old=MUNGE:x:\n")
    done = subprocess.run(
        ["prlimit", "--fsize=0", sys.executable, "-c", STORE, str(home), "sys:new", "MUNGE:y:"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "cannot be written: File too large" in done.stderr
    assert file.read_text() == "sys:old=MUNGE:x:\n"
    assert list(file.parent.iterdir()) == [file]


def test_logins_at_the_same_time_lose_nothing(home: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", STORE, str(home), f"sys:{number}", f"MUNGE:{number}:"])
        for number in range(6)
    ]
    assert [process.wait(120) for process in running] == [0] * 6
    assert sorted((home / ".udiRoot/.cred").read_text().splitlines()) == [f"sys:{n}=MUNGE:{n}:" for n in range(6)]


@pytest.mark.parametrize(
    ("system", "location"),
    [("", "x"), ("a:b", "x"), ("a\nb", "x"), ("#a", "x"), ("a", ""), ("a", "x=y"), ("a", "x\n#")],
)
def test_keys_that_the_file_cannot_hold(system: str, location: str) -> None:
    with pytest.raises(LoginsUnusable):
        logins.check_key(system, location)


@pytest.mark.parametrize(
    ("user", "password"), [("", "x"), ("a:b", "x"), ("a\x1b", "x"), ("a", ""), ("a", "x\0"), ("a", "x\udcff")]
)
def test_logins_that_the_gateway_cannot_tell_apart(user: str, password: str) -> None:
    with pytest.raises(LoginsUnusable):
        logins.check_login(user, password)


class UserNode:
    """A login node seen by an ordinary user with a home of his own."""

    def __init__(self, node: LoginNode, name: str) -> None:
        self.node = node
        self.uid = pwd.getpwnam(name).pw_uid
        self.home = Path(pwd.getpwnam(name).pw_dir)

    def command(self, *arguments: str) -> list[str]:
        options = ["--config", str(self.node.conf), "--munge-socket", str(self.node.munge.socket)]
        return [sys.executable, "-I", "-c", AS_USER, str(self.uid), *options, *arguments]

    def run(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            self.command(*arguments), capture_output=True, text=True, timeout=120, cwd="/", env=environment,
            start_new_session=True, **options,
        )  # fmt: skip


@pytest.fixture
def user(munge: Munged) -> Iterator[UserNode]:
    name = f"sh{MARK}l"
    base = Path(tempfile.mkdtemp(prefix="shifter-logins-", dir="/var/tmp"))
    base.chmod(0o755)
    subprocess.run(["userdel", name], capture_output=True)
    subprocess.run(["useradd", "-M", "-U", "-d", str(base / "home"), "-s", "/bin/sh", name], check=True)
    try:
        node = UserNode(login_node(munge, base), name)
        node.home.mkdir(mode=0o755)
        os.chown(node.home, node.uid, node.uid)
        yield node
    finally:
        subprocess.run(["userdel", name], capture_output=True)
        shutil.rmtree(base)


def test_a_login_on_a_terminal_travels_with_pulls_only(user: UserNode) -> None:
    terminal = Terminal(user.command("login", "registry.example:5000"))
    terminal.until(b"registry.example:5000 username: ")
    terminal.type("alice\n")
    terminal.until(b"registry.example:5000 password: ")
    terminal.keeps_silent()
    terminal.type(f"{SECRET}\n")
    assert terminal.finish() == 0, terminal.seen
    assert SECRET.encode() not in terminal.seen
    file = user.home / ".udiRoot/.cred"
    assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (user.uid, 0o600)
    assert file.read_text().startswith("mycluster:registry.example:5000=MUNGE:")
    with scripted_gateway(user.node.munge, pull=image(), lookup=image(), list={"list": []}) as gateway:
        user.node.configure(gateway.url)
        for words in (["pull", "x"], ["pullnb", "x"], ["lookup", "x"], ["images"]):
            done = user.run(*words)
            assert (done.returncode, done.stderr) == (0, "")
    payloads = [call.payload for call in gateway.calls]
    assert [call.uid for call in gateway.calls] == [user.uid] * 4
    assert json.loads(payloads[0]) == {"authorized_locations": {"registry.example:5000": f"alice:{SECRET}"}}
    assert (payloads[1], payloads[2:]) == (payloads[0], ["", ""])


def test_a_login_without_a_terminal_reads_standard_input(user: UserNode) -> None:
    for password in ("first", "second"):
        done = user.run("login", input=f"alice\n{password}\nrest\n")
        assert (done.returncode, done.stdout) == (0, "")
        assert "no terminal" in done.stderr
        assert "default username: default password: " in done.stderr
        assert password not in done.stderr
    assert len((user.home / ".udiRoot/.cred").read_text().splitlines()) == 1
    for words in ("", "alice\n", "\npw\n", "a:b\npw\n", "alice\n\n"):
        done = user.run("login", "other", input=words)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
    assert len((user.home / ".udiRoot/.cred").read_text().splitlines()) == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_terminal_as_it_was(user: UserNode, number: signal.Signals, status: int) -> None:
    terminal = Terminal(user.command("login"))
    terminal.until(b"username: ")
    terminal.type("alice\n")
    terminal.keeps_silent()
    terminal.process.send_signal(number)
    assert terminal.process.wait(60) == status
    assert terminal.echo
    with contextlib.suppress(OSError):
        terminal.seen += os.read(terminal.master, 65536)
    os.close(terminal.master)
    assert b"Traceback" not in terminal.seen
    assert not (user.home / ".udiRoot").exists()


def test_an_account_without_a_home_cannot_log_in(user: UserNode) -> None:
    user.home.rmdir()
    done = user.run("login", input="alice\npw\n")
    assert done.returncode == 1
    assert f"{user.home}: No such file or directory" in done.stderr
