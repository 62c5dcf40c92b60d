#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes a real multi-layer OCI image from the machine's own Debian packages and pushes it to a registry.

Layers: a base system; per argument what the installation of those packages changed, as a diff with whiteouts; a small
application if wanted. Standard library and mmdebstrap(1) only; run as root (image.py --help).

The diff is taken between two tar files of the tree, so it sees what a container builder would see: names, types, modes,
owners, times and contents (OCI image-spec, layer.md, "Change Types" and "Whiteouts").
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn
from urllib.parse import urljoin

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NO_HEADERS: dict[str, str] = {}
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

# What a package manager and a running system leave behind is no part of an image; documentation is only ballast here.
EXCLUDED = ("./dev/*", "./proc/*", "./sys/*", "./run/*", "./tmp/*", "./var/cache/apt/*", "./var/lib/apt/lists/*",
            "./var/log/*", "./var/cache/debconf/*-old", "./etc/resolv.conf", "./etc/hostname")  # fmt: skip
UNWANTED_FILES = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")

# All at once, then configured in the order of their dependencies.
INSTALL = """set -e
dpkg --force-depends --unpack /var/cache/apt/archives/*.deb
dpkg --configure --pending
rm /var/cache/apt/archives/*.deb
"""

APPLICATION = """\
#!/bin/sh
# The application of the demonstration image: says where it runs, in the image's own Python.
exec python3 - "$@" <<'PYTHON'
import os, platform, sys
name = dict(l.rstrip().split("=", 1) for l in open("/etc/os-release") if "=" in l)["PRETTY_NAME"].strip('"')
rank = os.environ.get("SLURM_PROCID", "-")
node = os.environ.get("SLURMD_NODENAME", platform.node())
print(f"rank {rank} on {node}: {name}, Python {platform.python_version()}, uid {os.getuid()}")
PYTHON
"""


def fail(message: str) -> NoReturn:
    """Leave with a message on standard error."""
    print(f"image: {message}", file=sys.stderr)
    raise SystemExit(1)


def apt_sources() -> str:
    """The machine's own package sources that belong to its distribution, as one-line entries (sources.list(5))."""
    fields = "$(CREATED_BY)|$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", fields],  # noqa: S607
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    distribution = release("ID")
    lines = {
        f"deb {uri} {suite} {component}"
        for kind, origin, uri, suite, component in (line.split("|") for line in listed.splitlines())
        if kind == "Packages" and origin.lower() == distribution
    }
    if not lines:
        fail(f"apt knows no package source of {distribution} itself; is there one in /etc/apt/sources.list.d?")
    return "".join(f"{line}\n" for line in sorted(lines))


def release(key: str) -> str:
    """A value of the host's os-release(5)."""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        if name == key:
            return shlex.split(value)[0]
    fail(f"/etc/os-release has no {key}")


def tar_command(root: str, target: Path) -> list[str]:
    """The command that packs a tree in a reproducible order."""
    return ["tar", "--create", "--file", str(target), "--sort=name", "--numeric-owner", "--format=posix",
            "--pax-option=delete=atime,delete=ctime", *(f"--exclude={pattern}" for pattern in EXCLUDED),
            "--directory", root, "."]  # fmt: skip


def bootstrap(work: Path, variant: str, stages: list[list[str]], documentation: bool) -> list[Path]:
    """Install a base, then the packages of each stage, into one tree; returns tar files of the tree, oldest first."""
    snapshots = [work / f"tree-{number}.tar" for number in range(len(stages) + 1)]
    # In a hook "$1" is the tree (mmdebstrap(1), "HOOKS"). The outside's apt only downloads: whatever installs runs
    # inside the tree, so that no mistake here could ever touch this machine's own packages.
    packs = [shlex.join(tar_command("TREE", snapshot)).replace("TREE", '"$1"') for snapshot in snapshots]
    hooks = [f"--customize-hook={packs[0]}"]
    for packages, pack in zip(stages, packs[1:]):
        fetch = shlex.join(["apt-get", "--yes", "--download-only", "install", *packages])
        hooks += [f'--customize-hook=APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" {fetch}',
                  f'--customize-hook=chroot "$1" sh -c {shlex.quote(INSTALL)}', f"--customize-hook={pack}"]  # fmt: skip
    if not documentation:
        hooks += [f"--dpkgopt=path-exclude={pattern}" for pattern in UNWANTED_FILES]
    command = ["mmdebstrap", f"--variant={variant}", "--format=null", *hooks, release("VERSION_CODENAME"), "-", "-"]
    done = subprocess.run(command, input=apt_sources(), text=True, capture_output=True, check=False)
    if done.returncode != 0:
        fail(f"mmdebstrap could not make the base image:\n{done.stderr[-3000:]}")
    return snapshots


def signature(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[object, ...]:
    """What must be equal for a member to count as unchanged."""
    stream = archive.extractfile(member) if member.isreg() else None
    content = hashlib.sha256(stream.read()).digest() if stream else b""
    kind = (member.type, member.mode, member.uid, member.gid, member.linkname, content)
    return kind if member.isdir() else (*kind, int(member.mtime))


def write_difference(older: Path, newer: Path, target: Path) -> None:
    """Write the layer that turns the tree of tar file ``older`` into the one of ``newer``."""
    with tarfile.open(older) as before, tarfile.open(newer) as after, tarfile.open(target, "w") as layer:
        known = {member.name: signature(before, member) for member in before}
        present = {member.name: member for member in after}
        for name in sorted(known.keys() - present.keys()):
            parent, _, base = name.rpartition("/")
            if parent in present:  # else the whiteout of a parent directory removes it already
                layer.addfile(tarfile.TarInfo(f"{parent}/.wh.{base}"))
        for name, member in present.items():
            if known.get(name) != signature(after, member):
                layer.addfile(member, after.extractfile(member) if member.isreg() else None)


def write_application(target: Path) -> None:
    """Write the application's layer: two names for one script."""
    with tarfile.open(target, "w") as layer:
        for name in ("where-am-i", "mpiExecutable.sh"):
            member = tarfile.TarInfo(f"./usr/local/bin/{name}")
            member.mode, member.size = 0o755, len(APPLICATION.encode())
            layer.addfile(member, io.BytesIO(APPLICATION.encode()))


class Layer:
    """A compressed layer with both digests."""

    def __init__(self, tar: Path) -> None:
        self.path = tar.with_suffix(".tar.gz")
        plain = hashlib.sha256()
        # No name and no time in the gzip header: same tree, same bytes.
        with tar.open("rb") as source, self.path.open("wb") as sink, gzip.GzipFile("", "wb", 4, sink, 0) as packed:
            for chunk in _chunks(source):
                plain.update(chunk)
                packed.write(chunk)
        self.diff_id = f"sha256:{plain.hexdigest()}"
        self.size = self.path.stat().st_size
        with self.path.open("rb") as blob:
            self.digest = f"sha256:{_digest(blob)}"

    def descriptor(self) -> dict[str, object]:
        """The entry of the manifest."""
        return {"mediaType": LAYER_TYPE, "digest": self.digest, "size": self.size}


def _chunks(stream: io.BufferedReader) -> Iterator[bytes]:
    while chunk := stream.read(1 << 20):
        yield chunk


def _digest(stream: io.BufferedReader) -> str:
    state = hashlib.sha256()
    for chunk in _chunks(stream):
        state.update(chunk)
    return state.hexdigest()


class Registry:
    """Pushes to a registry without a login (OCI distribution-spec, "Push")."""

    def __init__(self, url: str, repository: str) -> None:
        self.url = url.rstrip("/")
        self.repository = repository

    def push_blob(self, digest: str, size: int, data: io.BufferedReader | bytes) -> None:
        """Upload one blob, unless it is there."""
        blobs = f"{self.url}/v2/{self.repository}/blobs"
        try:
            self._request("HEAD", f"{blobs}/{digest}")
        except urllib.error.HTTPError:
            session = self._request("POST", f"{blobs}/uploads/", b"")
            target = urljoin(self.url, session)
            target += ("&" if "?" in target else "?") + f"digest={digest}"
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            self._request("PUT", target, data, headers)

    def push_manifest(self, tag: str, manifest: bytes) -> None:
        """Upload the manifest under a tag."""
        url = f"{self.url}/v2/{self.repository}/manifests/{tag}"
        self._request("PUT", url, manifest, {"Content-Type": MANIFEST_TYPE})

    def _request(
        self, method: str, url: str, body: io.BufferedReader | bytes | None = None, headers: dict[str, str] = NO_HEADERS
    ) -> str:
        request = urllib.request.Request(url, data=body, headers=headers, method=method)  # noqa: S310
        # The registry is on this machine: whatever proxy the environment names cannot reach it.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return str(answer.headers.get("Location", ""))


def push(registry: Registry, tag: str, layers: list[Layer]) -> str:
    """Push the image; returns the digest of its manifest."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = json.dumps({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Env": [f"PATH={IMAGE_PATH}", "DEMO_IMAGE=shifter-quickstart"],
            "Cmd": ["where-am-i"],
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        # Optional (OCI image-spec, config.md), but there are tools that refuse an image without it.
        "history": [{"created_by": "extra/demo/image.py"} for _ in layers],
    }).encode()  # fmt: skip
    config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": config_digest, "size": len(config)},
        "layers": [layer.descriptor() for layer in layers],
    }).encode()  # fmt: skip
    for layer in layers:
        with layer.path.open("rb") as blob:
            registry.push_blob(layer.digest, layer.size, blob)
    registry.push_blob(config_digest, len(config), config)
    registry.push_manifest(tag, manifest)
    return hashlib.sha256(manifest).hexdigest()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make an OCI image from the machine's Debian packages and push it.")
    parser.add_argument("--work", type=Path, required=True, help="scratch directory; removed afterwards")
    parser.add_argument("--registry", required=True, help="URL of a registry that needs no login")
    parser.add_argument("--name", required=True, metavar="REPOSITORY:TAG")
    parser.add_argument("--variant", default="essential", help="base layer, a variant of mmdebstrap(1)")
    parser.add_argument("--documentation", action="store_true", help="keep manual pages and translations")
    parser.add_argument("--application", action="store_true", help="add a layer with a small script of its own")
    parser.add_argument("layers", nargs="*", metavar="PACKAGES", help="one layer more: packages, comma separated")
    return parser.parse_args()


def main() -> None:
    """Make and push the image; prints one line per layer."""
    options = arguments()
    repository, _, tag = options.name.partition(":")
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(mode=0o755, parents=True)
    stages = [packages.split(",") for packages in options.layers]
    trees = bootstrap(options.work, options.variant, stages, options.documentation)
    with ThreadPoolExecutor() as pool:
        packed = [pool.submit(Layer, trees[0])]
        for number, (older, newer) in enumerate(zip(trees, trees[1:])):
            difference = options.work / f"layer-{number}.tar"
            write_difference(older, newer, difference)
            packed.append(pool.submit(Layer, difference))
        if options.application:
            application = options.work / "application.tar"
            write_application(application)
            packed.append(pool.submit(Layer, application))
        layers = [layer.result() for layer in packed]
    identifier = push(Registry(options.registry, repository), tag, layers)
    for layer, what in zip(layers, [f"Debian ({options.variant})", *options.layers, "application"]):
        print(f"layer {layer.digest[7:19]}  {layer.size / 1e6:6.1f} MB  {what}")
    print(f"image {identifier[:12]}  {options.name}")
    shutil.rmtree(options.work)


if __name__ == "__main__":
    try:
        main()
    except (OSError, subprocess.CalledProcessError) as error:
        fail(str(error))
