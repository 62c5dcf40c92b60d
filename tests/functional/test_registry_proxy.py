# SPDX-License-Identifier: BSD-3-Clause
"""The standard proxy variables (gateway contract 7.6), with real proxies."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shifter_imagegw.errors import ConfigurationError, RegistryUnreachable
from shifter_imagegw.registry.client import HttpSettings, RegistryClient
from shifter_imagegw.registry.location import Location
from shifter_imagegw.registry.manifest import OciPlatform
from tests.registryserver import make_certificates
from tests.scriptedserver import fake_image, scripted_server, serve_image

QUICK = HttpSettings(retries=0, backoff=0.01, connect_timeout=5, read_timeout=5)
IMAGE = fake_image()
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class TunnelProxy:
    """A proxy for CONNECT, absolute http URLs and SOCKS5 by name, enough for one request per connection."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        self.heads: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> TunnelProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _accept(self) -> None:
        threads = []
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threads.append(threading.Thread(target=self._serve, args=(client,)))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            first = client.recv(65536)
            target, rest = self._socks(client) if first[:1] == b"\x05" else self._http(client, first)
            self.targets.append(target)
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                server.sendall(rest)
                _relay(client, server)

    def _http(self, client: socket.socket, head: bytes) -> tuple[str, bytes]:
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        self.heads.append(head)
        method, url, _ = head.split(b"\r\n", 1)[0].split(b" ")
        if method == b"CONNECT":
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            return url.decode(), b""
        target = url.decode().split("/")[2]
        return target, head.replace(b"http://" + target.encode(), b"", 1)

    def _socks(self, client: socket.socket) -> tuple[str, bytes]:
        client.sendall(b"\x05\x00")
        request = client.recv(65536)
        if request[3] == 1:
            host, port = socket.inet_ntoa(request[4:8]), request[8:10]
        else:
            host, port = request[5 : 5 + request[4]].decode(), request[5 + request[4] : 7 + request[4]]
        client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        return f"{host}:{struct.unpack('>H', port)[0]}", b""


def _relay(client: socket.socket, server: socket.socket) -> None:
    other = {client: server, server: client}
    while True:
        for ready in select.select([client, server], [], [])[0]:
            data = ready.recv(65536)
            if not data:
                return
            other[ready].sendall(data)


@pytest.fixture
def proxy() -> Iterator[TunnelProxy]:
    with TunnelProxy() as running:
        yield running


def pull(location: Location) -> bytes:
    with RegistryClient(location, http=QUICK) as client:
        image = client.resolve("proj/app", "v1", OciPlatform())
        with client.open_blob("proj/app", image.layers[0]) as chunks:
            return b"".join(chunks)


def host_of(url: str) -> str:
    return url.partition("//")[2]


def test_plain_http_goes_through_http_proxy(proxy: TunnelProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:s3cret@{proxy.address}")
    with scripted_server(serve_image(IMAGE)) as registry:
        assert pull(Location("reg", registry.url)) == IMAGE.layer
        assert set(proxy.targets) == {host_of(registry.url)}
    assert b"Proxy-Authorization: Basic bWU6czNjcmV0" in proxy.heads[0].replace(b"proxy-a", b"Proxy-A")


def test_https_goes_through_a_tunnel(proxy: TunnelProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, certificate, key = make_certificates(tmp_path)
    monkeypatch.setenv("https_proxy", proxy.address)
    with scripted_server(serve_image(IMAGE), certificate=(certificate, key)) as registry:
        assert pull(Location("reg", registry.url, ca_file=authority)) == IMAGE.layer
        assert set(proxy.targets) == {host_of(registry.url)}


def test_all_proxy_may_be_socks(proxy: TunnelProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", f"socks5://{proxy.address}")
    with scripted_server(serve_image(IMAGE)) as registry:
        assert pull(Location("reg", registry.url)) == IMAGE.layer
        assert set(proxy.targets) == {host_of(registry.url)}


@pytest.mark.parametrize("entry", ["127.0.0.1", "*", "x.example, 127.0.0.1", "127.0.0.0/8", "10.0.0.0/8,127.0.0.0/24"])
def test_no_proxy_bypasses_hosts_and_networks(proxy: TunnelProxy, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    monkeypatch.setenv("no_proxy", entry)
    with scripted_server(serve_image(IMAGE)) as registry:
        assert pull(Location("reg", registry.url)) == IMAGE.layer
    assert proxy.targets == []


def test_unreachable_proxy_is_an_error_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:s3cret@127.0.0.1:9")
    with scripted_server(serve_image(IMAGE)) as registry:
        with pytest.raises(RegistryUnreachable, match="Connection refused") as caught:
            pull(Location("reg", registry.url))
        assert registry.requests == []
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("value", ["gopher://me:s3cret@127.0.0.1:9", "http://"])
def test_unusable_proxy_setting_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("http_proxy", value)
    with pytest.raises(ConfigurationError, match="proxy variables") as caught:
        pull(Location("reg", "http://192.0.2.1"))
    assert "s3cret" not in str(caught.value)
