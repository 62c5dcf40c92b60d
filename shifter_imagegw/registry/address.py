# SPDX-License-Identifier: BSD-3-Clause
"""Which addresses may be connected to, and sockets that notice a server which only keeps them waiting.

A registry chooses the hosts of redirects and token servers. Hosts other than the configured ones must not lead to
loopback, link-local, unspecified or multicast addresses (cloud metadata, services of the gateway host itself), unless
the configured registry itself is at such an address. The check is made on the very address that is then connected to,
so a name that resolves differently the second time gains nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Union

from shifter_imagegw.errors import RegistryError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

# A name with hundreds of dead addresses would hold a worker for hundreds of connect time-outs.
_MAX_ADDRESSES = 8
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")


class AddressGuard:
    """Judges the addresses of hosts that a registry, not the site, has named."""

    def __init__(self, configured_hosts: Iterable[str]) -> None:
        self._configured_hosts = tuple(host.strip("[]") for host in configured_hosts)
        self._allowed: frozenset[str] | None = None

    def check(self, address: str, host: str) -> None:
        """Raise :class:`RegistryError` when ``host`` may not be reached at the literal ``address``."""
        kind = _special_kind(ipaddress.ip_address(address.partition("%")[0]))
        if kind is not None and kind not in self._kinds_of_the_registry():
            raise RegistryError(
                f"refused to connect to {host} at {address}: the registry sent us to a {kind} address; "
                "if the registry is right, configure its storage or token server under a routable address"
            )

    def check_literal(self, host: str) -> None:
        """The same for a host whose name somebody else (a proxy) will resolve: only literal addresses are judged."""
        name = host.strip("[]").rstrip(".").lower()
        if name == "localhost" or name.endswith(".localhost"):
            name = "127.0.0.1"
        with contextlib.suppress(OSError):
            # inet_aton also knows the spellings of old, such as 127.1 and 2130706433.
            name = socket.inet_ntoa(socket.inet_aton(name))
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return
        self.check(name, host)

    def _kinds_of_the_registry(self) -> frozenset[str]:
        if self._allowed is None:
            kinds = set()
            for host in self._configured_hosts:
                try:
                    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                except OSError:
                    continue
                for *_, address in found:
                    kind = _special_kind(ipaddress.ip_address(str(address[0]).partition("%")[0]))
                    if kind is not None:
                        kinds.add(kind)
            self._allowed = frozenset(kinds)
        return self._allowed


def _special_kind(address: Address) -> str | None:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _special_kind(inner)
    for kind in ("loopback", "link_local", "unspecified", "multicast"):
        if getattr(address, f"is_{kind}"):
            return kind.replace("_", "-")
    # Linux takes all of 0.0.0.0/8 that it routes at all for the host itself.
    return "unspecified" if address in _THIS_NETWORK else None


class Pace:
    """Average rate of a connection over the time that was spent waiting for it, window by window (seconds)."""

    def __init__(self, min_rate: int, window: float) -> None:
        self._min_rate = min_rate
        self._window = window
        self._waited = 0.0
        self._arrived = 0

    def account(self, arrived: int, waited: float) -> None:
        """Count ``arrived`` bytes after ``waited`` seconds; TimeoutError when a window ends below the minimum rate."""
        self._arrived += arrived
        self._waited += waited
        if self._waited < self._window:
            return
        if self._arrived < self._min_rate * self._waited:
            raise TimeoutError(f"only {self._arrived} bytes in {self._waited:.0f} seconds of waiting")
        self._waited, self._arrived = 0.0, 0


class PacedSocket(socket.socket):
    """A TCP socket whose reads raise TimeoutError when a window passes below the minimum rate."""

    pace: Pace | None = None

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        start = time.monotonic()
        arrived = super().recv_into(buffer, nbytes, flags)
        if self.pace is not None:
            self.pace.account(arrived, time.monotonic() - start)
        return arrived


class PacedTlsSocket(ssl.SSLSocket):
    """The same for TLS; contexts make it through ``sslsocket_class``, so the limits are class attributes."""

    pace: Pace | None = None
    min_rate = 1
    window = 60.0

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        if self.pace is None:
            self.pace = Pace(self.min_rate, self.window)
        start = time.monotonic()
        arrived = super().recv_into(buffer, nbytes, flags)
        self.pace.account(arrived, time.monotonic() - start)
        return arrived


def paced_tls_class(min_rate: int, window: float) -> type[ssl.SSLSocket]:
    """A socket class for ``SSLContext.sslsocket_class`` with these limits (bytes per second, seconds)."""
    return type("PacedTlsSocket", (PacedTlsSocket,), {"min_rate": min_rate, "window": window})


def connect(
    host: str, port: int, *, timeout: float, guard: AddressGuard | None, min_rate: int, window: float
) -> PacedSocket:
    """Resolve ``host`` once, judge every address, connect to the first that answers.

    Raises OSError (gaierror among them), and RegistryError from the guard.
    """
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[:_MAX_ADDRESSES]
    if guard is not None:
        for *_, address in found:
            guard.check(str(address[0]), host)
    last: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = PacedSocket(family, kind, protocol)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(timeout)
            sock.connect(address)
        except OSError as error:
            sock.close()
            last = error
            continue
        sock.pace = Pace(min_rate, window)
        return sock
    raise last or OSError(f"no address found for {host}")
