# SPDX-License-Identifier: BSD-3-Clause
"""One request on the wire: TLS, proxies, time-outs and guarded addresses. No policy on answers.

urllib3 does the HTTP; the sockets below it are ours (:mod:`shifter_imagegw.registry.address`). Environment variables
count for proxies only: no netrc, no other certificate bundles, no cookies.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout, Url, make_headers, parse_url

from shifter_imagegw.errors import ConfigurationError, RegistryUnreachable
from shifter_imagegw.registry.address import AddressGuard, connect, paced_tls_class
from shifter_imagegw.registry.location import Location
from shifter_imagegw.registry.settings import HttpSettings

_USER_AGENT = "shifter-imagegw"
# OpenSSL's words for an answer that is no TLS at all.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})


class Unretryable(RegistryUnreachable):
    """The registry cannot be reached, and trying again would not help (unknown name, untrusted certificate)."""


class Transport:
    """Connections on behalf of one location; safe to use from several threads."""

    def __init__(self, location: Location, settings: HttpSettings) -> None:
        self._location = location
        self._settings = settings
        self._window = 2 * settings.read_timeout
        configured = [parse_url(url).host or "" for url in (location.url, *location.mirrors)]
        self._configured_hosts = frozenset(configured)
        self._guard = AddressGuard(configured)
        self._proxies = urllib.request.getproxies_environment()
        self._managers: dict[tuple[str, bool, str | None], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def request(self, method: str, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send one GET or HEAD; the body of the answer is not read yet and never decoded.

        Raises :class:`RegistryUnreachable` (worth another try) or :class:`Unretryable`.
        """
        target = parse_url(url)
        manager = self._manager(target)
        try:
            return manager.request(
                method,
                url,
                headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **headers},
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=Timeout(connect=self._settings.connect_timeout, read=self._settings.read_timeout),
            )
        except HTTPError as error:
            raise connection_failure(error, target.netloc or "") from error

    def close(self) -> None:
        """Close idle connections; requests under way end on their own."""
        with self._lock:
            for manager in self._managers.values():
                manager.clear()

    def _manager(self, url: Url) -> urllib3.PoolManager:
        """Connections of one kind, made when first needed: loading the system's authorities takes 50 ms."""
        own = (url.host or "") in self._configured_hosts
        proxy = self._proxy_for(url)
        if proxy is not None and not own:
            self._guard.check_literal(url.host or "")
        with self._lock:
            key = (url.scheme or "", own, proxy)
            if key not in self._managers:
                self._managers[key] = self._new_manager(*key)
            return self._managers[key]

    def _new_manager(self, scheme: str, own: bool, proxy: str | None) -> urllib3.PoolManager:
        options: dict[str, Any] = {"num_pools": 8, "maxsize": self._settings.connections}
        if scheme == "https":
            tls = self._tls_context(verify=not (own and self._location.insecure))
            options.update(ssl_context=tls, cert_reqs=tls.verify_mode)
        if proxy is not None:
            return self._via(proxy, options)
        manager = urllib3.PoolManager(**options)
        manager.pool_classes_by_scheme = self._pool_classes(None if own else self._guard)
        return manager

    def _proxy_for(self, url: Url) -> str | None:
        proxy = self._proxies.get(url.scheme or "") or self._proxies.get("all")
        if not proxy or _bypassed(url, self._proxies):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def _via(self, proxy: str, options: Mapping[str, Any]) -> urllib3.PoolManager:
        """Connections through a proxy; its address is the site's choice and not guarded."""
        parts = urlsplit(proxy)
        if parts.scheme.startswith("socks"):
            from urllib3.contrib.socks import SOCKSProxyManager  # noqa: PLC0415 - only sites with SOCKS need PySocks

            scheme = "socks5h" if parts.scheme in ("socks", "socks5", "socks5h") else parts.scheme
            return SOCKSProxyManager(urlunsplit(parts._replace(scheme=scheme)), **options)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                "the proxy variables of the environment name an unusable proxy "
                f"(scheme {parts.scheme!r}, host {parts.hostname!r}); use http://host:port or socks5://host:port"
            )
        headers = None
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers = make_headers(proxy_basic_auth=login)
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        manager = urllib3.ProxyManager(bare, proxy_headers=headers, **options)
        manager.pool_classes_by_scheme = self._pool_classes(None)
        return manager

    def _tls_context(self, *, verify: bool) -> ssl.SSLContext:
        """The system's authorities plus the location's own; TLS 1.2 or later."""
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = paced_tls_class(self._settings.min_rate, self._window)
        if self._location.ca_file is not None:
            try:
                context.load_verify_locations(cafile=self._location.ca_file)
            except OSError as error:  # SSLError is one too
                reason = "not a PEM certificate file" if isinstance(error, ssl.SSLError) else error.strerror
                raise ConfigurationError(
                    f"location {self._location.name!r}: cannot use sslcacert {str(self._location.ca_file)!r}: {reason}"
                ) from error
        if not verify:
            # The site has chosen this once and for all; a warning per request would only fill the log.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _pool_classes(self, guard: AddressGuard | None) -> dict[str, Any]:
        settings, window = self._settings, self._window

        def open_socket(connection: HTTPConnection | HTTPSConnection) -> socket.socket:
            host, port = connection.host, connection.port
            limits = {"timeout": settings.connect_timeout, "window": window}
            try:
                return connect(host, port, guard=guard, min_rate=settings.min_rate, **limits)
            except socket.gaierror as error:
                raise NameResolutionError(host, connection, error) from error
            except UnicodeError as error:
                raise LocationParseError(host) from error
            except TimeoutError as error:
                raise ConnectTimeoutError(connection, str(error)) from error
            except OSError as error:
                raise NewConnectionError(connection, str(error)) from error

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return open_socket(self)

        class Tls(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return open_socket(self)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = Tls

        return {"http": PlainPool, "https": TlsPool}


def connection_failure(error: BaseException, where: str) -> RegistryUnreachable:
    """What a failed request or read means, in words without library internals, URLs or what the server said."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        lasting = _lasting_cause(link)
        if lasting is not None:
            return Unretryable(f"{where}: {lasting}")
    reason = next((link for link in reversed(chain) if isinstance(link, OSError)), None)
    if reason is not None:
        text = reason.strerror or str(reason) or type(reason).__name__
    elif any(isinstance(link, http.client.IncompleteRead) for link in chain):
        text = "the connection ended in the middle of the answer"
    else:
        text = "the answer is not proper HTTP"
    return RegistryUnreachable(f"{where}: {text}; check that the registry is up and reachable from the gateway")


def _lasting_cause(error: BaseException) -> str | None:
    """In words, what another attempt would not change; None for everything else."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message or error.reason
        return f"certificate not accepted ({reason}); configure the authority's file as sslcacert of the location"
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
        return "no TLS spoken there; if the registry really is without, the location's url must say http://"
    if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
        return f"host name not resolved ({error.strerror}); check the location's url and the name service"
    if isinstance(error, urllib3.exceptions.LocationValueError):
        return "not a usable address; check the location's url"
    return None


def _bypassed(url: Url, proxies: Mapping[str, str]) -> bool:
    """no_proxy as the standard library reads it (names and their subdomains), and networks such as 10.0.0.0/8."""
    host = (url.host or "").strip("[]")
    if urllib.request.proxy_bypass_environment(host, proxies):  # type: ignore[attr-defined]
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in proxies.get("no", "").split(","):
        try:
            if address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
