# SPDX-License-Identifier: BSD-3-Clause
"""The embedded store: one SQLite file on a local disk, for gateways that run on one host.

What queries look at has a column; the record itself is JSON in ``document``, with the same names as in MongoDB. WAL
mode, so that readers never wait for a writer (SQLite documentation, "Write-Ahead Logging": not on network filesystems).
"""

# ruff: noqa: S608 - the queries are assembled from constants of this module; every value is a bound parameter

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from shifter_imagegw.errors import StoreError
from shifter_imagegw.images import EXPIRED, EXPIRING, IN_FLIGHT, READY, Image, from_document, to_document
from shifter_imagegw.store.interface import ImageStore, Metric, SlotTakenError

_BUSY_TIMEOUT_SECONDS = 30.0
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE images (
    record_id TEXT PRIMARY KEY, system TEXT NOT NULL, itype TEXT NOT NULL, pulltag TEXT,
    status TEXT NOT NULL, image_id TEXT, last_pull REAL, slot TEXT UNIQUE, worker TEXT, lease_expires REAL, attempts
    INTEGER NOT NULL, revision INTEGER, moved_tag TEXT, expiration REAL, document TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX images_pulltag ON images (system, itype, pulltag);
CREATE INDEX images_id ON images (image_id, system, status);
CREATE INDEX images_status ON images (status, last_pull);
CREATE INDEX images_moved_tag ON images (moved_tag) WHERE moved_tag IS NOT NULL;
CREATE TABLE tags (
    system TEXT NOT NULL, itype TEXT NOT NULL, tag TEXT NOT NULL, record_id TEXT NOT NULL,
    PRIMARY KEY (system, itype, tag, record_id)
) WITHOUT ROWID;
CREATE INDEX tags_record ON tags (record_id);
CREATE TABLE metrics (time REAL NOT NULL, system TEXT NOT NULL, document TEXT NOT NULL);
CREATE INDEX metrics_system ON metrics (system, time);
"""
_COLUMNS = (
    "system", "itype", "pulltag", "status", "image_id", "last_pull", "slot", "worker", "lease_expires", "attempts",
    "revision", "moved_tag",
)  # fmt: skip
_NOT_PULLS = (READY, EXPIRED, EXPIRING)


class SqliteStore(ImageStore):
    """Records in the SQLite file ``path``; one connection per process and thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._local = threading.local()

    # Queries --------------------------------------------------------------------------------------

    def get(self, record_id: str) -> Image | None:
        return self._one("record_id = ?", record_id)

    def ready_by_tag(self, system: str, itype: str, tag: str) -> Image | None:
        query = (
            "SELECT i.record_id, i.document, i.expiration FROM tags t JOIN images i ON i.record_id = t.record_id"
            " WHERE t.system = ? AND t.itype = ? AND t.tag = ? AND i.status = ? ORDER BY i.last_pull DESC LIMIT 1"
        )
        return next(iter(self._images(query, (system, itype, tag, READY))), None)

    def ready_by_id(self, system: str, itype: str, image_id: str) -> Image | None:
        return self._one("image_id = ? AND system = ? AND status = ? AND itype = ?", image_id, system, READY, itype)

    def pulls(self, system: str, itype: str, reference: str) -> list[Image]:
        condition = "system = ? AND itype = ? AND pulltag = ? AND status NOT IN (?, ?, ?)"
        return self._many(condition, system, itype, reference, *_NOT_PULLS)

    def queue(self, system: str) -> list[Image]:
        condition = "system = ? AND pulltag IS NOT NULL AND status NOT IN (?, ?, ?) ORDER BY last_pull"
        return self._many(condition, system, *_NOT_PULLS)

    def ready(self, system: str) -> list[Image]:
        return self._many("status = ? AND system = ?", READY, system)

    def with_status(self, states: Sequence[str]) -> list[Image]:
        return self._many(f"status IN ({_marks(states)})", *states)

    def with_moved_tag(self) -> list[Image]:
        return self._many("moved_tag IS NOT NULL")

    def holders_of_tag(self, system: str, itype: str, tag: str) -> list[Image]:
        condition = "record_id IN (SELECT record_id FROM tags WHERE system = ? AND itype = ? AND tag = ?)"
        return self._many(condition, system, itype, tag)

    def holder(self, slot: str) -> Image | None:
        return self._one("slot = ?", slot)

    # Primitives -----------------------------------------------------------------------------------

    def insert(self, image: Image) -> Image:
        stored = replace(image, record_id=uuid.uuid4().hex)
        with self._transaction() as database:
            self._write(database, stored)
        return stored

    def claim(self, worker: str, now: float, lease_seconds: float, systems: Iterable[str]) -> Image | None:
        names = tuple(systems)
        condition = (
            f"WHERE status IN ({_marks(IN_FLIGHT)}) AND lease_expires < ? AND system IN ({_marks(names)})"
            " ORDER BY last_pull LIMIT 1"
        )
        arguments = (*IN_FLIGHT, now, *names)
        # An idle worker looks without taking the write lock.
        if not self._images(f"SELECT record_id, document, expiration FROM images {condition}", arguments):
            return None
        with self._transaction() as database:
            rows = database.execute(f"SELECT record_id, document, expiration FROM images {condition}", arguments)
            row = rows.fetchone()
            if row is None:
                return None
            pull = _image(row)
            pull = replace(
                pull, worker=worker, lease_expires=now + lease_seconds, last_heartbeat=now, attempts=pull.attempts + 1
            )
            self._write(database, pull)
        return pull

    def change_leased(self, pull: Image, changes: Mapping[str, Any]) -> bool:
        condition = "record_id = ? AND worker = ? AND attempts = ?"
        return self._change(condition, (pull.record_id, pull.worker, pull.attempts), changes)

    def change_if(self, image: Image, changes: Mapping[str, Any]) -> bool:
        condition = "record_id = ? AND status = ? AND revision IS ?"
        return self._change(condition, (image.record_id, image.status, image.revision), changes)

    def set_expiration(self, image: Image, expiration: float) -> None:
        with self._transaction() as database:
            database.execute("UPDATE images SET expiration = ? WHERE record_id = ?", (expiration, image.record_id))

    def delete_if(self, image: Image) -> None:
        self._delete("record_id = ? AND status = ? AND revision IS ?", image.record_id, image.status, image.revision)

    def delete_leased(self, pull: Image) -> None:
        self._delete("record_id = ? AND worker = ? AND attempts = ?", pull.record_id, pull.worker, pull.attempts)

    def add_metric(self, metric: Metric) -> None:
        with self._transaction() as database:
            row = (metric.time, metric.system, json.dumps(asdict(metric)))
            database.execute("INSERT INTO metrics (time, system, document) VALUES (?, ?, ?)", row)

    def metrics(self, system: str, limit: int) -> list[Metric]:
        query = "SELECT document FROM metrics WHERE system = ? ORDER BY time DESC, rowid DESC LIMIT ?"
        with self._database() as database:
            rows = database.execute(query, (system, limit)).fetchall()
        return [Metric(**json.loads(document)) for (document,) in reversed(rows)]

    def ping(self) -> None:
        with self._database() as database:
            database.execute("SELECT 1 FROM images LIMIT 1").fetchall()

    def close(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None and self._local.pid == os.getpid():
            connection.close()
        self._local.connection = None

    # Inside ---------------------------------------------------------------------------------------

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; sqlite3 errors inside become StoreError."""
        try:
            if getattr(self._local, "connection", None) is None or self._local.pid != os.getpid():
                self._local.connection = self._connect()
                self._local.pid = os.getpid()
            yield self._local.connection
        except sqlite3.Error as error:
            raise StoreError(
                f"database {self._path}: {error}; check that its directory exists, is on a local disk with free space,"
                " and is writable by the gateway's account"
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._database() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise

    def _connect(self) -> sqlite3.Connection:
        try:  # logins are in it, sealed, for as long as a pull runs: nobody else reads it
            # Only a new file may be closed here: closing another descriptor of a database drops this process's locks
            # on it.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise StoreError(
                f"database {self._path}: {error.strerror}; create its directory, writable by the gateway's account"
            ) from error
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        if connection.execute("PRAGMA user_version").fetchone()[0] != _SCHEMA_VERSION:
            self._create(connection)
        return connection

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        connection.execute("COMMIT")
        if version > _SCHEMA_VERSION:
            connection.close()
            raise StoreError(f"database {self._path}: written by a newer release ({version}); upgrade this gateway")

    def _one(self, condition: str, *arguments: Any) -> Image | None:
        found = self._many(f"{condition} ORDER BY last_pull DESC LIMIT 1", *arguments)
        return found[0] if found else None

    def _many(self, condition: str, *arguments: Any) -> list[Image]:
        return self._images(f"SELECT record_id, document, expiration FROM images WHERE {condition}", arguments)

    def _images(self, query: str, arguments: Sequence[Any]) -> list[Image]:
        with self._database() as database:
            return [_image(row) for row in database.execute(query, arguments)]

    def _change(self, condition: str, arguments: Sequence[Any], changes: Mapping[str, Any]) -> bool:
        with self._transaction() as database:
            rows = database.execute(f"SELECT record_id, document, expiration FROM images WHERE {condition}", arguments)
            row = rows.fetchone()
            if row is None:
                return False
            self._write(database, replace(_image(row), **changes))
        return True

    def _write(self, database: sqlite3.Connection, image: Image) -> None:
        document = to_document(image)
        document.pop("expiration", None)
        values = [getattr(image, column) for column in _COLUMNS]
        try:
            database.execute(
                f"INSERT INTO images (record_id, expiration, document, {', '.join(_COLUMNS)})"
                f" VALUES (?, ?, ?, {_marks(_COLUMNS)})"
                " ON CONFLICT (record_id) DO UPDATE SET expiration = excluded.expiration,"
                f" document = excluded.document, {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS)}",
                (image.record_id, image.expiration, json.dumps(document), *values),
            )
        except sqlite3.IntegrityError as error:
            raise SlotTakenError(image.slot) from error
        database.execute("DELETE FROM tags WHERE record_id = ?", (image.record_id,))
        database.executemany(
            "INSERT INTO tags (system, itype, tag, record_id) VALUES (?, ?, ?, ?)",
            [(image.system, image.itype, tag, image.record_id) for tag in dict.fromkeys(image.tags)],
        )

    def _delete(self, condition: str, *arguments: Any) -> None:
        with self._transaction() as database:
            found = database.execute(f"SELECT record_id FROM images WHERE {condition}", arguments).fetchone()
            if found is not None:
                database.execute("DELETE FROM images WHERE record_id = ?", found)
                database.execute("DELETE FROM tags WHERE record_id = ?", found)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL. The switch needs the file for itself and does not wait for it, so several first openers
    have to take turns."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _image(row: tuple[str, str, float | None]) -> Image:
    record_id, document, expiration = row
    return from_document({**json.loads(document), "_id": record_id, "expiration": expiration})
