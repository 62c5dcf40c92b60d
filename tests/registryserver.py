# SPDX-License-Identifier: BSD-3-Clause
"""A real registry (Debian's docker-registry) on an ephemeral port, with images put into it over its own API.

::

    with registry_server(tmp_path) as registry:
        image = registry.push_image("proj/app", "v1", [tar_bytes])

``users`` turns on Basic authentication, ``token_users`` a token server (repositories below ``public/`` are open to
everybody), ``tls`` a certificate from a private authority (``registry.ca_file``).
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import shutil
import socket
import ssl
import subprocess
import tarfile
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

import urllib3

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest_of(data: bytes) -> str:
    """sha256 digest of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A layer tar with regular files (path -> content); directories come from names that end in a slash."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            if name.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@dataclass(frozen=True)
class Pushed:
    """What was put into the registry: digests, documents and blobs as bytes."""

    repository: str
    tag: str
    digest: str
    manifest: bytes
    config: bytes
    blobs: tuple[bytes, ...]
    media_type: str

    @property
    def id(self) -> str:
        """Image id when this manifest is pulled directly."""
        return self.digest.partition(":")[2]


@dataclass
class RegistryServer:
    """A running docker-registry. ``host`` is ``127.0.0.1:port``; ``login`` is (user, password) for pushing."""

    host: str
    url: str
    root: Path
    ca_file: Path | None = None
    login: tuple[str, str] | None = None
    token_server: TokenServer | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def push_blob(self, repository: str, data: bytes) -> str:
        """Upload a blob; returns its digest."""
        self._upload(repository, data, digest_of(data))
        return digest_of(data)

    def push_file(self, repository: str, path: Path, digest: str) -> None:
        """Upload a blob that is too large for memory."""
        with path.open("rb") as file:
            self._upload(repository, file, digest)

    def _upload(self, repository: str, data: bytes | BinaryIO, digest: str) -> None:
        started = self._request("POST", f"{self.url}/v2/{repository}/blobs/uploads/", repository, b"", {}, 202)
        location = urllib.parse.urljoin(self.url, started.headers["Location"])
        separator = "&" if "?" in location else "?"
        target = f"{location}{separator}digest={urllib.parse.quote(digest)}"
        self._request("PUT", target, repository, data, {"Content-Type": "application/octet-stream"}, 201)

    def push_document(self, repository: str, reference: str, document: bytes, media_type: str) -> str:
        """Upload a manifest or index under a tag or digest; returns its digest."""
        url = f"{self.url}/v2/{repository}/manifests/{reference}"
        self._request("PUT", url, repository, document, {"Content-Type": media_type}, 201)
        return digest_of(document)

    def push_image(
        self,
        repository: str,
        tag: str,
        layers: Sequence[bytes],
        *,
        config: Mapping[str, Any] | None = None,
        architecture: str = "amd64",
        docker: bool = False,
        compression: str = "gzip",
    ) -> Pushed:
        """Push an image of uncompressed layer tars (oldest first). ``config``: the ``config`` object of the image.

        ``compression``: gzip, zstd (needs the zstd program) or none; ``docker`` writes Docker's media types.
        """
        blobs = tuple(compress(layer, compression) for layer in layers)
        document = {
            "created": "2026-01-01T00:00:00Z",
            "architecture": architecture,
            "os": "linux",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
        config_bytes = json.dumps(document).encode()
        layer_type = DOCKER_LAYER if docker else OCI_LAYER + {"gzip": "+gzip", "zstd": "+zstd", "none": ""}[compression]
        media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, config_bytes),
            "layers": [descriptor(layer_type, blob) for blob in blobs],
        }
        body = json.dumps(manifest, indent=1).encode()
        for data in (config_bytes, *blobs):
            self.push_blob(repository, data)
        digest = self.push_document(repository, tag, body, media_type)
        return Pushed(repository, tag, digest, body, config_bytes, blobs, media_type)

    def push_index(
        self, repository: str, tag: str, entries: Sequence[tuple[Pushed, Mapping[str, str]]], *, docker: bool = False
    ) -> str:
        """Push an index of images already in the repository, each with its platform object; returns its digest."""
        media_type = DOCKER_LIST if docker else OCI_INDEX
        document = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "manifests": [
                {**descriptor(image.media_type, image.manifest), "platform": dict(platform)}
                for image, platform in entries
            ],
        }
        return self.push_document(repository, tag, json.dumps(document).encode(), media_type)

    def blob_path(self, digest: str) -> Path:
        """The file in which the registry keeps a blob, to damage it for a test."""
        hexadecimal = digest.partition(":")[2]
        return self.root / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"

    def stop(self) -> None:
        """Stop the registry; requests are refused from then on."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()

    def _request(
        self, method: str, url: str, repository: str, body: bytes | BinaryIO, headers: Mapping[str, str], expected: int
    ) -> urllib3.BaseHTTPResponse:
        sent = dict(headers)
        if self.token_server is not None:
            sent["Authorization"] = "Bearer " + self.token_server.issue(
                f"repository:{repository}:pull,push", ["pull", "push"]
            )
        elif self.login is not None:
            sent["Authorization"] = "Basic " + base64.b64encode(":".join(self.login).encode()).decode()
        with urllib3.PoolManager(ca_certs=str(self.ca_file) if self.ca_file else None) as pool:
            answer = pool.request(method, url, body=body, headers=sent, redirect=False)
        if answer.status != expected:
            raise AssertionError(f"{method} {url}: HTTP {answer.status} instead of {expected}: {answer.data[:500]!r}")
        return answer


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    """An OCI descriptor of ``data``."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def compress(layer: bytes, compression: str) -> bytes:
    """A layer as a blob, deterministic."""
    if compression == "gzip":
        return gzip.compress(layer, 6, mtime=0)
    if compression == "zstd":
        return subprocess.run(["zstd", "-q", "-3", "-c"], input=layer, check=True, capture_output=True).stdout
    return layer


class TokenServer:
    """Hands out the tokens that docker-registry's ``token`` authentication accepts (JWT, RS256, x5c)."""

    issuer = "test-issuer"
    service = "test-registry"

    def __init__(self, directory: Path, users: Mapping[str, str], lifetime: int = 300) -> None:
        self.users = dict(users)
        self.lifetime = lifetime
        self.requests: list[tuple[dict[str, list[str]], str | None]] = []
        self._key = directory / "token.key"
        self.certificate = directory / "token.pem"
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=token",
            "-keyout", str(self._key), "-out", str(self.certificate),
        )  # fmt: skip
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text(encoding="ascii"))
        self._chain = [base64.b64encode(der).decode()]
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.serve(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/token?account=a%20b"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> TokenServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one token request: anonymous callers may pull below public/, users may pull everything."""
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
        header = request.headers["Authorization"]
        self.requests.append((query, header))
        user = self._user(header)
        if header is not None and user is None:
            request.send_response(401)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        scope = query.get("scope", [""])[0]
        repository = scope.split(":")[1] if scope.count(":") == 2 else ""
        allowed = ["pull"] if user is not None or repository.startswith("public/") else []
        body = json.dumps({"access_token": self.issue(scope, allowed), "expires_in": self.lifetime}).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json; charset=utf-8")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def issue(self, scope: str, actions: Sequence[str]) -> str:
        """A signed token."""
        now = int(time.time())
        name = scope.split(":")[1] if scope.count(":") == 2 else ""
        claims = {
            "iss": self.issuer, "sub": "", "aud": self.service, "exp": now + self.lifetime, "nbf": now - 10, "iat": now,
            "jti": uuid.uuid4().hex, "access": [{"type": "repository", "name": name, "actions": list(actions)}],
        }  # fmt: skip
        signed = ".".join(
            _b64(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "RS256", "x5c": self._chain}, claims)
        )
        signature = _openssl("dgst", "-sha256", "-sign", str(self._key), data=signed.encode())
        return f"{signed}.{_b64(signature)}"

    def _user(self, header: str | None) -> str | None:
        if header is None or not header.startswith("Basic "):
            return None
        user, _, password = base64.b64decode(header[6:]).decode().partition(":")
        return user if self.users.get(user) == password else None


@contextlib.contextmanager
def registry_server(
    directory: Path,
    *,
    users: Mapping[str, str] | None = None,
    token_users: Mapping[str, str] | None = None,
    tls: bool = False,
    token_lifetime: int = 300,
) -> Iterator[RegistryServer]:
    """Start docker-registry with its data below ``directory``; it ends with the context."""
    directory = directory / f"registry-{uuid.uuid4().hex[:8]}"
    directory.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        settings: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        }
        port = _free_port()
        settings["http"] = {"addr": f"127.0.0.1:{port}", "secret": "test"}
        host = f"127.0.0.1:{port}"
        server = RegistryServer(host, f"{'https' if tls else 'http'}://{host}", directory / "data")
        if tls:
            server.ca_file, certificate, key = make_certificates(directory)
            settings["http"]["tls"] = {"certificate": str(certificate), "key": str(key)}
        if users:
            (directory / "htpasswd").write_text(
                "".join(f"{u}:{_bcrypt(p)}\n" for u, p in users.items()), encoding="utf-8"
            )
            settings["auth"] = {"htpasswd": {"realm": 'a "quoted", realm', "path": str(directory / "htpasswd")}}
            server.login = next(iter(users.items()))
        if token_users is not None:
            tokens = stack.enter_context(TokenServer(directory, token_users, token_lifetime))
            server.token_server = tokens
            settings["auth"] = {
                "token": {
                    "realm": tokens.url,
                    "service": tokens.service,
                    "issuer": tokens.issuer,
                    "rootcertbundle": str(tokens.certificate),
                }
            }
        (directory / "config.yml").write_text(json.dumps(settings), encoding="utf-8")  # YAML reads JSON
        log = stack.enter_context((directory / "log").open("wb"))
        program = shutil.which("docker-registry") or "/usr/bin/docker-registry"
        command = [program, "serve", str(directory / "config.yml")]
        server.process = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
        stack.callback(server.stop)
        _await_port(port, server.process, directory / "log")
        yield server


def make_certificates(directory: Path) -> tuple[Path, Path, Path]:
    """A private authority and a certificate for 127.0.0.1 and localhost: (authority, certificate, key)."""
    authority, authority_key = directory / "ca.pem", directory / "ca.key"
    certificate, key, request = directory / "server.pem", directory / "server.key", directory / "server.csr"
    extensions = directory / "san.cnf"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n", encoding="ascii")
    _openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
        "-keyout", str(authority_key), "-out", str(authority),
    )  # fmt: skip
    _openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(request)
    )
    _openssl(
        "x509", "-req", "-in", str(request), "-CA", str(authority), "-CAkey", str(authority_key), "-CAcreateserial",
        "-days", "2", "-extfile", str(extensions), "-out", str(certificate),
    )  # fmt: skip
    return authority, certificate, key


def _openssl(*arguments: str, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=data, check=True, capture_output=True).stdout


def _bcrypt(password: str) -> str:
    """Hash for an htpasswd file; perl's crypt reaches the C library's, and perl-base is on every Debian."""
    salt = "$2b$05$abcdefghijklmnopqrstuu"
    command = ["perl", "-e", "print crypt($ARGV[0], $ARGV[1])", password, salt]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(
                f"docker-registry ended at once: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}"
            )
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError("docker-registry does not listen after 30 seconds")
