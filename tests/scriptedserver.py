# SPDX-License-Identifier: BSD-3-Clause
"""An HTTP server whose every answer a test writes itself, byte by byte if need be: the hostile registry."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.registryserver import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, descriptor, digest_of


class Request(BaseHTTPRequestHandler):
    """One request, handed to the test's script."""

    protocol_version = "HTTP/1.1"

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """A complete, well-formed answer; to HEAD without its body."""
        self.head(status, {"Content-Length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Status line and headers only."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def hang_up(self) -> None:
        """End the connection after what was written so far."""
        self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@dataclass
class ScriptedServer:
    """``requests`` holds (path, headers) of every request in order, except that the paths of HEAD requests are in
    ``heads``; ``over`` is set when the test ends."""

    url: str
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def paths(self) -> list[str]:
        """Paths of the requests in order."""
        return [path for path, _ in self.requests]

    def headers_of(self, part: str) -> list[Mapping[str, str]]:
        """Headers of the requests whose path contains ``part``."""
        return [headers for path, headers in self.requests if part in path]


Script = Callable[[Request], None]


@contextlib.contextmanager
def scripted_server(
    script: Script, *, certificate: tuple[Path, Path] | None = None, address: str = "127.0.0.1"
) -> Iterator[ScriptedServer]:
    """Serve ``script`` on an ephemeral port; with ``certificate`` (certificate, key) over TLS."""
    state = ScriptedServer("")

    class Handler(Request):
        def do_GET(self) -> None:
            if self.command == "HEAD":
                state.heads.append(self.path)
            else:
                state.requests.append((self.path, dict(self.headers.items())))
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                script(self)

        do_HEAD = do_POST = do_GET  # noqa: N815 -- the names that http.server wants

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that leave early are what many tests are about."""

    server = Server((address, 0), Handler)
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    host = f"[{address}]" if ":" in address else address
    state.url = f"{scheme}://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class FakeImage:
    """A consistent one-layer image; a test serves it with one thing wrong."""

    layer: bytes
    config: bytes
    manifest: bytes

    @property
    def layer_digest(self) -> str:
        """Digest of the only layer."""
        return digest_of(self.layer)

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return digest_of(self.manifest)


def fake_image(layer: bytes = b"layer" * 50000, **changes: Any) -> FakeImage:
    """An image around ``layer``; ``changes`` replace or (None) remove keys of the manifest."""
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}}
    ).encode()
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config),
        "layers": [descriptor(OCI_LAYER, layer)],
    }
    document.update(changes)
    manifest = json.dumps({key: value for key, value in document.items() if value is not None}).encode()
    return FakeImage(layer, config, manifest)


def serve_image(image: FakeImage, blob: Script | None = None) -> Script:
    """A script that serves ``image`` correctly, except that ``blob`` (if given) answers for the layer."""

    def script(request: Request) -> None:
        if "/manifests/" in request.path:
            request.reply(200, image.manifest, {"Content-Type": OCI_MANIFEST})
        elif request.path.endswith(image.layer_digest) and blob is not None:
            blob(request)
        elif request.path.endswith(image.layer_digest):
            request.reply(200, image.layer)
        elif request.path.endswith(digest_of(image.config)):
            request.reply(200, image.config)
        else:
            request.reply(404)

    return script
