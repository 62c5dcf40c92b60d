# SPDX-License-Identifier: BSD-3-Clause
"""A node with the runtime on it: the C programs with paths of their own, an image store, unprivileged users.

Everything lies below one root-owned directory, as the trust checks demand, and is removed at the end.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import oldkernel
from tests.accounts import MARK, User, make_user
from tests.installation import ROOT

PAYLOAD = [
    *("cat", "chmod", "dash", "env", "false", "grep", "head", "id", "ls", "mkdir", "mknod", "mount"),
    *("printenv", "readlink", "setpriv", "sleep", "stat", "touch", "true", "wc"),
]


@dataclass
class ShifterNode:
    base: Path
    alice: User
    eve: User
    settings: dict[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()  # system calls that the programs do not find, as in tests/oldkernel.py

    @property
    def images(self) -> Path:
        return self.base / "images"

    @property
    def udi_mount(self) -> Path:
        return self.base / "udiMount"

    @property
    def state(self) -> Path:
        return Path("/run") / f"shifter-test-{MARK}"

    @property
    def conf(self) -> Path:
        return self.base / "etc/udiRoot.conf"

    def configure(self, extra: str = "", **settings: str) -> None:
        """Writes udiRoot.conf: the defaults, `settings` over them, then the lines of `extra`."""
        lines = [f"{key}={value}" for key, value in {**self.settings, **settings}.items()]
        self.conf.write_text("\n".join([*lines, extra, "# end\n"]))
        self.conf.chmod(0o644)

    def program(self, name: str) -> str:
        return str(self.base / "bin" / name)

    def command(self, *arguments: str) -> list[str]:
        return [self.program("shifter"), *arguments]

    def run(self, *arguments: str, user: User | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        """`shifter ARGUMENTS` as an unprivileged user; returns whatever its status is."""
        return self.as_user(self.command(*arguments), user=user, **options)

    def as_user(
        self,
        command: Sequence[str],
        *,
        user: User | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        who = user or self.alice
        prepare = options.pop("preexec_fn", None)
        return subprocess.run(
            list(command),
            preexec_fn=partial(_become, who, self.hidden, prepare),
            env=dict(env) if env is not None else {"PATH": "/usr/bin:/bin"},
            cwd=cwd,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            **options,
        )

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """`shifter ARGUMENTS` as alice, not waited for."""
        return subprocess.Popen(
            self.command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=partial(_become, self.alice, self.hidden, None),  # noqa: PLW1509 -- there are no threads
            cwd="/", **options,
        )  # fmt: skip

    def script(self, text: str, *, image: str = "base", user: User | None = None, **options: Any) -> str:
        """Output of a shell script in the container, which must succeed."""
        done = self.run(f"--image=id:{image_id(image)}", "/bin/sh", "-c", text, user=user, **options)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def refused(self, *arguments: str, **options: Any) -> str:
        """The one line with which `shifter ARGUMENTS` says why it starts nothing."""
        done = self.run(*arguments, **options)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1), (arguments, done.stderr)
        assert done.stderr.startswith("shifter: ")
        return str(done.stderr)

    def as_root(self, name: str, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
        """setupRoot or unsetupRoot, as a prolog runs it."""
        command = [self.program(name), *arguments]
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=60, cwd="/", input=input,
            preexec_fn=partial(oldkernel.hide, self.hidden),
        )  # fmt: skip

    def add_image(self, name: str, tree: Path, meta: str = "") -> str:
        """Publishes `tree` as the image `name`; returns its id."""
        identifier = image_id(name)
        target = self.images / f"{identifier}.squashfs"
        target.unlink(missing_ok=True)
        subprocess.run(
            ["mksquashfs", str(tree), str(target), "-comp", "zstd", "-all-root", "-no-progress", "-quiet"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        target.chmod(0o600)
        described = self.images / f"{identifier}.meta"
        described.write_text(f"FORMAT: squashfs\n{meta}")
        described.chmod(0o600)
        return identifier

    def add_program(self, name: str, text: str, mode: int = 0o755) -> Path:
        """A script of the site's, such as a hook."""
        path = self.base / "etc" / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    @contextmanager
    def client(self, text: str) -> Iterator[Path]:
        """A script in the place of shifterimg."""
        path = self.base / "bin/shifterimg"
        path.write_text(text)
        path.chmod(0o755)
        try:
            yield path
        finally:
            path.unlink()

    def configure_hook(self, key: str, hook: Path | str) -> None:
        """The site's hook of this key; a `roothook` is that of the one module."""
        if key == "roothook":
            self.configure(f"module_m_roothook={hook}", defaultModules="m")
        else:
            self.configure(**{key: str(hook)})

    def kill_when(self, mark: Path, *arguments: str) -> None:
        """`shifter ARGUMENTS`, killed by its user once the mark is there."""
        with self.start(*arguments) as process:
            while not mark.exists():
                time.sleep(0.01)
            self.as_user(["/bin/sh", "-c", f"kill -9 {process.pid}"])

    def tag(self, kind: str, reference: str, image: str) -> None:
        """A tag index entry; `reference` is already encoded."""
        directory = self.images / "tags/testbox" / kind
        directory.mkdir(parents=True, exist_ok=True)
        (directory / reference).write_text(f"{image_id(image)}\n")

    def loop_devices(self) -> list[str]:
        """Loop devices of this node's images, once the kernel has finished with the last ones that were let go."""
        return _settle(lambda: [
            line for line in subprocess.run(
                ["losetup", "-nl", "-O", "BACK-FILE"], check=True, capture_output=True, text=True
            ).stdout.splitlines() if str(self.base) in line
        ])


def _become(user: User, hidden: Sequence[str], prepare: Callable[[], object] | None) -> None:
    oldkernel.become(user, hidden)
    if prepare is not None:
        prepare()


def _settle(read: Any) -> list[str]:
    """What `read` gives when it is empty, or after a while: the kernel frees loop devices a moment late."""
    deadline = time.monotonic() + 5
    while (found := read()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return list(found)


def image_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def host_mounts() -> list[str]:
    """Lines of the host's mount table that a container could have left: other suites may mount things of their own."""
    return [
        line.split(" ", 2)[2]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if MARK in line
    ]


def base_tree(tree: Path) -> Path:
    """A small root file system from this machine's own programs, with what the tests look at; made anew."""
    shutil.rmtree(tree, ignore_errors=True)
    for name in PAYLOAD:
        program = Path(shutil.which(name) or name).resolve()
        _copy(program, tree / "bin" / name)
        for word in subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout.split():
            if word.startswith("/"):
                _copy(Path(word), tree / word[1:])
    (tree / "bin/sh").symlink_to("dash")
    for directory in ("etc", "proc", "tmp", "var/log", "srv/data", "opt"):
        (tree / directory).mkdir(parents=True, exist_ok=True)
    (tree / "etc/os-release").write_text("NAME=TestImage\n")
    (tree / "etc/hosts").write_text("image hosts\n")
    (tree / "etc/shadow").write_text("root:hash:::::::\n")
    (tree / "srv/data/file").write_text("from the image\n")
    return tree


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(source, target)
        target.chmod(0o755)


def _install(base: Path, state: Path) -> None:
    build = base / "build"
    subprocess.run(
        ["make", "-s", "-j2", "-C", str(ROOT / "udiroot"), f"build={build}", f"PREFIX={base}",
         f"SYSCONFDIR={base / 'etc'}", f"STATEDIR={state}"],
        check=True, stdout=subprocess.DEVNULL, env={**os.environ, "CPPFLAGS": "-DHOOK_SECONDS=4"},
    )  # fmt: skip
    (base / "bin").mkdir()
    for name, mode in (("shifter", 0o4755), ("setupRoot", 0o755), ("unsetupRoot", 0o755)):
        shutil.copy(build / name, base / "bin" / name)
        (base / "bin" / name).chmod(mode)
    shutil.rmtree(build)


def _settings(base: Path) -> dict[str, str]:
    values = {
        "udiMount": base / "udiMount", "loopMount": base / "loopMount", "imagePath": base / "images",
        "udiRootPath": base, "etcPath": base / "etc/files", "rootfsType": "tmpfs", "system": "testbox",
        "defaultImageType": "docker", "allowLibcPwdCalls": "1", "maxGroupCount": "31",
        "modprobePath": "/sbin/modprobe", "insmodPath": "/sbin/insmod", "cpPath": "/bin/cp", "mvPath": "/bin/mv",
        "chmodPath": "/bin/chmod", "ddPath": "/bin/dd", "imageGateway": "http://127.0.0.1:9",
    }
    return {key: str(value) for key, value in values.items()}


@contextmanager
def shifter_node() -> Iterator[ShifterNode]:
    base = Path("/var/lib") / f"shifter-node-{MARK}"
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(mode=0o755)
    node = ShifterNode(base, make_user(f"sh{MARK}a"), make_user(f"sh{MARK}e"), _settings(base))
    (base / "images").mkdir(mode=0o700)
    (base / "etc/files").mkdir(parents=True)
    (base / "etc/files/passwd").write_text(Path("/etc/passwd").read_text())
    (base / "etc/files/group").write_text(Path("/etc/group").read_text())
    (base / "etc/files/nsswitch.conf").write_text("passwd: files\ngroup: files\n")
    try:
        _install(base, node.state)
        node.configure()
        node.add_image("base", base_tree(base / "tree"))
        yield node
        node.configure()
        assert node.as_root("unsetupRoot").returncode == 0
        assert node.loop_devices() == []
    finally:
        for user in (node.alice, node.eve):
            subprocess.run(["userdel", user.name], check=False)
        shutil.rmtree(base)


@pytest.fixture(scope="session")
def session_node() -> Iterator[ShifterNode]:
    with shifter_node() as node:
        yield node


@pytest.fixture
def node(request: pytest.FixtureRequest, session_node: ShifterNode) -> Iterator[ShifterNode]:
    """The node with its default configuration, nothing prepared; afterwards the host is as it was. A parameter is what
    its programs do not find of the kernel."""
    session_node.configure()
    session_node.hidden = getattr(request, "param", ())
    before = host_mounts()
    yield session_node
    session_node.hidden = ()
    session_node.configure()
    done = session_node.as_root("unsetupRoot")
    assert done.returncode == 0, done.stderr
    assert host_mounts() == before
    assert session_node.loop_devices() == []
    assert not session_node.state.exists()
