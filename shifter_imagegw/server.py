# SPDX-License-Identifier: BSD-3-Clause
"""The API server: gunicorn in the foreground, settings of ours only, nothing from its environment or from HOME."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from shifter_imagegw.app import create_app
from shifter_imagegw.config import Configuration
from shifter_imagegw.errors import ConfigurationError

_BACKLOG = 2048
_THREADS = 8
_GRACEFUL_SECONDS = 10
_MAX_REQUEST_LINE = 8190
_MAX_HEADER_BYTES = 256 * 1024
"""A credential with the logins for many registries is long."""

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - gunicorn's heartbeat files, which it unlinks at once


def listen(bind: str) -> socket.socket:
    """A bound socket for ``HOST:PORT``, ``[IPv6]:PORT`` or ``:PORT``; ConfigurationError says why not."""
    host, colon, port = bind.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigurationError(f"--bind {bind!r}: expected HOST:PORT, e.g. 0.0.0.0:5000")
    host = host.removeprefix("[").removesuffix("]") or "0.0.0.0"  # noqa: S104 - the historic default
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"--bind {bind!r}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Here, because a second gateway on the same port is only found out now.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {bind}: {error.strerror}; stop what uses this address, or choose another with --bind"
        ) from error
    return listener


class _PlainLogger(Logger):  # type: ignore[misc]
    """gunicorn's own messages go where ours go; requests are logged by the API."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.loglevel = logging.INFO
        self._access_log_enabled = False
        for log in (self.error_log, self.access_log):
            log.handlers[:] = []
            log.propagate = True
        # Which process starts and stops is gunicorn's business unless it is asked for.
        self.error_log.setLevel(max(logging.getLogger().level, logging.WARNING))

    def access(self, *arguments: Any) -> None:
        """Nothing: see above."""


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, configuration: Configuration, listener: socket.socket, workers: int) -> None:
        self._configuration = configuration
        # Once: gunicorn reads its settings again when it gets SIGHUP.
        self._bind = f"fd://{listener.detach()}"
        self._workers = workers
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, Any] = {
            "bind": self._bind,
            "backlog": _BACKLOG,
            "workers": self._workers,
            "worker_class": "shifter_imagegw.connections.AcceptingThreads",
            "threads": _THREADS,
            "timeout": 30,
            "graceful_timeout": _GRACEFUL_SECONDS,
            "limit_request_line": _MAX_REQUEST_LINE,
            "limit_request_field_size": _MAX_HEADER_BYTES,
            "logger_class": _PlainLogger,
            "proc_name": "shifter-imagegw",
            "umask": 0o077,
            "chdir": "/",
            "control_socket_disable": True,
        }
        if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
            settings["worker_tmp_dir"] = str(_SHARED_MEMORY)
        for name, value in settings.items():
            if name in self.cfg.settings:  # the control socket came with gunicorn 25
                self.cfg.set(name, value)

    def load(self) -> Any:
        """In each API process, after the fork."""
        return create_app(self._configuration)


def serve(configuration: Configuration, listener: socket.socket, workers: int) -> None:
    """Serve the API until SIGTERM or SIGINT; ends the process."""
    # Mistakes that every process would make are found before the first one starts.
    create_app(configuration)
    _Server(configuration, listener, workers).run()
