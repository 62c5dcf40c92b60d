# SPDX-License-Identifier: BSD-3-Clause
"""A node for the start bench: the installed runtime, an image store with root3, an expanded tree for the peers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.gateway import Gateway, configure_node
from tests.bench.images import ensure_root3
from tests.bench.registry import bench_registry
from tests.bench.rounds import say
from tests.installation import Installation
from tests.systemmunge import system_munged

USER = "shifter-bench"
IMAGE = hashlib.sha256(b"root3").hexdigest()
PULLED = hashlib.sha256(b"root3, pulled").hexdigest()
"""The same by our gateway: with the boot set, what every start reads, stored as it is."""
FLOOR_SOURCE = Path(__file__).with_name("floor.c")
CHANGE_IDS_SOURCE = Path(__file__).with_name("change_ids.c")


class Node:
    """Where everything of the start bench lies."""

    def __init__(self, product: Installation, cache: Path) -> None:
        self.product = product
        self.tree = cache / "root3-git.tree/rootfs"
        self.squashfs = cache / "root3-git.squashfs"
        self.cache = cache
        self.work = product.base / "bench"
        self.floor = self.work / "floor"
        self.change_ids = self.work / "change_ids"
        self.bundle = self.work / "bundle"
        account = pwd.getpwnam(USER)
        self.uid, self.gid = account.pw_uid, account.pw_gid

    def shifter(self, *command: str, image: str = IMAGE) -> list[str]:
        """A start of the image."""
        return [str(self.product.shifter), f"--image=id:{image}", *command]

    def image(self, image: str = IMAGE) -> Path:
        """The image in the store."""
        return self.work / "images" / f"{image}.squashfs"

    def prepare(self, job: str) -> list[str]:
        """The prolog's command."""
        user = ["-u", USER, "-U", str(self.uid), "-G", str(self.gid)]
        return [str(self.product.prefix / "sbin/setupRoot"), *user, "-J", job, "id", IMAGE]

    def release(self, job: str) -> list[str]:
        """The epilog's command."""
        return [str(self.product.prefix / "sbin/unsetupRoot"), "-J", job]

    def loop_devices(self) -> int:
        """How many loop devices have an image behind them."""
        return sum(self._devices_of(image) for image in (IMAGE, PULLED))

    def _devices_of(self, image: str) -> int:
        command = ["losetup", "-j", str(self.image(image))]
        return len(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines())

    def await_idle(self) -> None:
        """Until the kernel has let go of the image's loop device, so that the next start is the first on the node."""
        for _ in range(1000):
            if self.loop_devices() == 0:
                return
            time.sleep(0.005)
        raise SystemExit("bench: an image is still on a loop device after its last container ended")


@contextlib.contextmanager
def bench_node(product: Installation, cache: Path) -> Iterator[Node]:
    """Build what is not in the cache; remove everything outside of it afterwards."""
    _ensure_tree(cache)
    subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", USER], check=True)
    try:
        node = Node(product, cache)
        _fill(node)
        try:
            yield node
        finally:
            subprocess.run([str(product.prefix / "sbin/unsetupRoot")], check=False, capture_output=True)
            shutil.rmtree(node.work)
    finally:
        subprocess.run(["userdel", USER], check=True)


def _ensure_tree(cache: Path) -> None:
    """root3 as a tree (for the peers) and as one squashfs, zstd level 3 (for us and the floor)."""
    if (cache / "root3-git.squashfs").exists():
        return
    with bench_registry(cache) as registry:
        name = ensure_root3(registry, cache)
        say("unpacking root3 (once)")
        layout = f"{cache}/root3-git.oci"
        shutil.rmtree(cache / "root3-git.tree", ignore_errors=True)
        _run(
            "skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{registry.host}/{name}", f"oci:{layout}:image"
        )
        _run("umoci", "unpack", "--image", f"{layout}:image", str(cache / "root3-git.tree"))
        shutil.rmtree(layout)
        (cache / "root3-git.tree").chmod(0o755)  # the unprivileged peers start in there
    _run("mksquashfs", str(cache / "root3-git.tree/rootfs"), str(cache / "root3-git.squashfs.new"), "-noappend",
         "-no-xattrs", "-no-progress", "-quiet", "-comp", "zstd", "-Xcompression-level", "3")  # fmt: skip
    (cache / "root3-git.squashfs.new").rename(cache / "root3-git.squashfs")


def _fill(node: Node) -> None:
    shutil.rmtree(node.work, ignore_errors=True)
    for name in ("images", "udiMount", "loopMount", "etc", "mnt", "bundle"):
        (node.work / name).mkdir(parents=True)
    _pull(node)
    configure_node(node.product, node.work, "http://127.0.0.1:9")
    shutil.copyfile(node.squashfs, node.image())
    for image in (IMAGE, PULLED):
        text = "FORMAT: squashfs\nENV: PATH=/usr/bin:/bin\n"
        node.image(image).with_suffix(".meta").write_text(text, encoding="ascii")
    for file in (node.work / "images").iterdir():
        file.chmod(0o600)
    for program, source in ((node.floor, FLOOR_SOURCE), (node.change_ids, CHANGE_IDS_SOURCE)):
        _run("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source))
    node.change_ids.chmod(0o4755)
    namespaces = [{"type": kind} for kind in ("mount", "pid")]
    (node.bundle / "config.json").write_text(json.dumps({
        "ociVersion": "1.0.2",
        "root": {"path": str(node.tree), "readonly": True},
        "process": {"user": {"uid": 65534, "gid": 65534}, "cwd": "/", "args": ["/bin/true"], "env": ["PATH=/bin"]},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": namespaces},
    }), encoding="ascii")  # fmt: skip


def _pull(node: Node) -> None:
    with system_munged(), bench_registry(node.cache) as registry:
        name = ensure_root3(registry, node.cache)
        gateway = Gateway(node.product, registry, node.work / "gateway")
        gateway.start()
        try:
            gateway.pull(name)
            shutil.copyfile(gateway.images().pop(), node.image(PULLED))
        finally:
            gateway.stop()


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}")
