# SPDX-License-Identifier: BSD-3-Clause
"""A whole centre on this machine: the installed product, munged, a registry, a gateway of its own account, two users.

Everything of it lies below one directory of root's, as the trust checks demand, and is gone at the end.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.accounts import MARK, User, make_user
from tests.installation import Installation
from tests.mongoserver import free_port
from tests.registryserver import RegistryServer
from tests.systemmunge import MUNGE_SOCKET, system_munged

Done = subprocess.CompletedProcess[str]
SYSTEM = "testsite"


@dataclass
class Site:
    """One centre. ``start`` and ``stop`` are its gateway's; ``settings`` go over its default configuration."""

    product: Installation
    registry: RegistryServer
    base: Path
    gateway_account: User
    alice: User
    eve: User
    settings: dict[str, Any] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def images(self) -> Path:
        return self.base / "images"

    @property
    def log(self) -> Path:
        return self.base / "gateway.log"

    @property
    def name(self) -> str:
        """The registry's name, for references."""
        return self.registry.host

    def configure(self, **settings: Any) -> None:
        """Write both configuration files; ``settings`` are top-level keys of imagemanager.json."""
        self.settings = settings
        self._write(self.product.sysconfdir / "udiRoot.conf", self._udiroot_conf(), 0o644)
        document = {**self._gateway_configuration(), **settings}
        self._write(self.product.sysconfdir / "imagemanager.json", json.dumps(document, indent=1), 0o644)

    def start(self, workers: int = 1, environment: Mapping[str, str] | None = None) -> None:
        """The gateway with ``workers`` conversion workers, as its own account; returns when it answers."""
        self.process = self.as_user(
            [str(self.product.imagegw), "serve", "--bind", f"127.0.0.1:{self.port}", "--with-workers", str(workers)],
            self.gateway_account,
            environment,
        )
        deadline = time.monotonic() + 60
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the gateway does not answer:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def as_user(
        self, command: list[str], user: User, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A process of ``user`` in a session of its own; its output goes to the gateway's log."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, user=user.uid, group=user.gid, extra_groups=[], cwd="/", stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, env={"PATH": "/usr/bin:/bin", **(environment or {})},
            )  # fmt: skip

    def stop(self) -> int:
        """SIGTERM to the gateway; its exit status."""
        if self.process is None:
            return 0
        self.process.terminate()
        status = self.process.wait(60)
        self.process = None
        return status

    def worker_pids(self) -> list[int]:
        """The conversion workers of the running gateway."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
                mine = os.getsid(int(entry.name)) == self.process.pid if words and self.process else False
            except OSError:
                continue
            if mine and b"worker" in words:
                found.append(int(entry.name))
        return found

    def answers(self) -> bool:
        """Whether the health endpoint says all is well."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}/api/health/", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def shifterimg(self, *arguments: str, user: User | None = None, timeout: float = 120) -> Done:
        return self.run([str(self.product.shifterimg), *arguments], user, timeout)

    def shifter(self, *arguments: str, user: User | None = None) -> Done:
        return self.run([str(self.product.shifter), *arguments], user)

    def run(self, command: list[str], user: User | None = None, timeout: float = 120) -> Done:
        """A command of an ordinary user, to its end."""
        who = user or self.alice
        return subprocess.run(
            command, user=who.uid, group=who.gid, extra_groups=[who.gid], cwd="/", check=False, capture_output=True,
            text=True, timeout=timeout, stdin=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        )  # fmt: skip

    def home(self, user: User) -> Path:
        """The user's home directory, made now; it goes when the site does."""
        home = Path(pwd.getpwnam(user.name).pw_dir)
        if not home.exists():
            self._directory(home, user)
        return home

    def debris(self) -> list[str]:
        """Files a pull may only have while it runs, below everything the gateway writes to."""
        found = [str(path) for path in self.images.rglob("*.part")]
        found += [str(path) for path in (self.base / "gateway/expand").rglob("*") if path.name != "pull-queued"]
        found += [str(path) for path in (self.base / "gateway/cache").rglob("*.part")]
        return found

    def clear(self) -> None:
        """Forget all images, layers and records; the gateway must be stopped."""
        for directory in (self.images, self.base / "gateway"):
            shutil.rmtree(directory, ignore_errors=True)
            self._directory(directory, self.gateway_account)
        for name in ("cache", "expand"):
            self._directory(self.base / "gateway" / name, self.gateway_account)
        self.log.unlink(missing_ok=True)

    def _directory(self, path: Path, owner: User) -> None:
        path.mkdir(mode=0o700)
        os.chown(path, owner.uid, owner.gid)

    def _write(self, path: Path, text: str, mode: int) -> None:
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def _udiroot_conf(self) -> str:
        return (
            f"system={SYSTEM}\nimageGateway=http://127.0.0.1:{self.port}\nimagePath={self.images}\n"
            f"imageOwner={self.gateway_account.name}\nudiRootPath={self.product.prefix}\n"
            f"udiMount={self.base}/udiMount\nloopMount={self.base}/loopMount\nrootfsType=tmpfs\n"
            "populateEtcDynamically=1\ndefaultImageType=docker\nsiteEnv=SHIFTER_RUNTIME=1\n# end\n"
        )

    def _gateway_configuration(self) -> dict[str, Any]:
        gateway = self.base / "gateway"
        return {
            "Platforms": {
                SYSTEM: {
                    "accesstype": "local",
                    "local": {"imageDir": str(self.images)},
                    "mungeSocketPath": MUNGE_SOCKET,
                    "admins": ["root"],
                }
            },
            "Locations": {self.registry.host: {"remotetype": "dockerv2", "url": self.registry.url}},
            "DefaultImageLocation": self.registry.host,
            "DefaultImageFormat": "squashfs",
            "MongoDBURI": f"sqlite://{gateway}/images.sqlite",
            "MongoDB": "Shifter",
            "CacheDirectory": str(gateway / "cache"),
            "ExpandDirectory": str(gateway / "expand"),
            "ImageExpirationTimeout": "90:00:00:00",
            "PullUpdateTimeout": 300,
            "leaseSeconds": 2,
            "http": {"connectTimeout": 2, "readTimeout": 5, "retries": 1, "backoff": 0.1},
        }


@contextmanager
def site(product: Installation, registry: RegistryServer) -> Iterator[Site]:
    """A centre whose gateway is configured and not yet running."""
    base = product.base / "site"
    shutil.rmtree(base, ignore_errors=True)
    with ExitStack() as stack:
        stack.enter_context(system_munged())
        base.mkdir(mode=0o755)
        stack.callback(shutil.rmtree, base)
        for name in ("udiMount", "loopMount"):
            (base / name).mkdir(mode=0o755)
        users = []
        for letter in "gxy":
            users.append(make_user(f"sh{MARK}{letter}"))
            stack.callback(subprocess.run, ["userdel", "--remove", users[-1].name], check=False, capture_output=True)
        gateway, alice, eve = users
        centre = Site(product, registry, base, gateway, alice, eve, port=free_port())
        centre.clear()
        centre.configure()
        for name in ("udiRoot.conf", "imagemanager.json"):
            stack.callback((product.sysconfdir / name).unlink, missing_ok=True)
        stack.callback(centre.stop)
        yield centre
