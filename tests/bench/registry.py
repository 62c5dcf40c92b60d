# SPDX-License-Identifier: BSD-3-Clause
"""The benches' registry: docker-registry on the loopback, its data kept in the cache directory."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class BenchRegistry:
    """Where the images are; ``blobs`` gives the files behind an image's layers."""

    def __init__(self, host: str, data: Path, log: Path) -> None:
        self.host = host
        self.url = f"http://{host}"
        self.data = data
        self.log = log

    def sent(self) -> int:
        """Bytes of all answers so far without their headers, as its access log has them (Common Log Format)."""
        answers = re.findall(r'" \d{3} (\d+) "', self.log.read_text(encoding="utf-8", errors="replace"))
        return sum(map(int, answers))

    def manifest(self, name: str) -> dict[str, Any] | None:
        """The manifest of REPOSITORY:TAG, or None."""
        repository, _, tag = name.partition(":")
        request = urllib.request.Request(
            f"{self.url}/v2/{repository}/manifests/{tag}",
            headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def blob(self, digest: str) -> Path:
        """The file in which the registry keeps a blob."""
        hexadecimal = digest.partition(":")[2]
        return self.data / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"

    def layer_files(self, name: str) -> list[Path]:
        """The compressed layers of an image as files, oldest first."""
        manifest = self.manifest(name)
        assert manifest is not None, name
        return [self.blob(layer["digest"]) for layer in manifest["layers"]]


@contextmanager
def bench_registry(cache: Path) -> Iterator[BenchRegistry]:
    """Start the registry; it ends with the context, its data stays in ``cache``."""
    data = cache / "registry"
    data.mkdir(parents=True, exist_ok=True)
    with _served(cache, "registry", data, {}) as host:
        yield BenchRegistry(host, data, cache / "registry.log")


@contextmanager
def tls_twin(registry: BenchRegistry, cache: Path) -> Iterator[str]:
    """HOST:PORT of a second server of the same images, for clients that know no plain HTTP; its certificate is made
    here and nobody trusts it."""
    key, certificate = cache / "tls.key", cache / "tls.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    with _served(
        cache, "registry-tls", registry.data, {"tls": {"certificate": str(certificate), "key": str(key)}}
    ) as host:
        yield host


@contextmanager
def _served(cache: Path, name: str, data: Path, http: dict[str, Any]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    configuration = cache / f"{name}.yml"
    configuration.write_text(json.dumps({
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(data)}},
        "http": {"addr": host, "secret": "bench", **http},
    }), encoding="ascii")  # fmt: skip
    command = ["docker-registry", "serve", str(configuration)]
    with (cache / f"{name}.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _await_port(host, process)
            yield host
        finally:
            process.terminate()


def _await_port(host: str, process: subprocess.Popen[bytes]) -> None:
    address, _, port = host.partition(":")
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit("bench: docker-registry ended at once; see registry.log in the cache directory")
        try:
            socket.create_connection((address, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("bench: docker-registry does not answer after 30 seconds")
