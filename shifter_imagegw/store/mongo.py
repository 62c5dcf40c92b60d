# SPDX-License-Identifier: BSD-3-Clause
"""Records in a MongoDB server, in the collections and with the names of earlier gateways (gateway contract, section
5.1).

Only single-document operations, no transactions, no TTL index: a stand-alone mongod and FerretDB both do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pymongo
from bson import ObjectId
from bson.errors import BSONError
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, PyMongoError

from shifter_imagegw.errors import StoreError
from shifter_imagegw.images import (
    EXPIRED,
    EXPIRING,
    IN_FLIGHT,
    READY,
    Image,
    from_document,
    stored_name,
    stored_value,
    to_document,
)
from shifter_imagegw.store.interface import ImageStore, Metric, SlotTakenError

_SERVER_SELECTION_MS = 5000
_READY_STATES = [READY, "SUCCESS"]
_NOT_PULLS = [*_READY_STATES, EXPIRED, EXPIRING]
_NEWEST_FIRST = [("last_pull", pymongo.DESCENDING)]
Document = dict[str, Any]


class MongoStore(ImageStore):
    """Records in ``database`` of the server at ``uri``. One client per process: pymongo's is not safe across a fork."""

    def __init__(self, uri: str, database: str) -> None:
        self._uri = uri
        self._name = database
        self._lock = threading.Lock()
        self._pid = 0
        self._client: pymongo.MongoClient[Document] | None = None

    # Queries --------------------------------------------------------------------------------------

    def get(self, record_id: str) -> Image | None:
        return self._one({"_id": _key(record_id)})

    def ready_by_tag(self, system: str, itype: str, tag: str) -> Image | None:
        return self._one({"system": system, "itype": itype, "tag": tag, "status": {"$in": _READY_STATES}})

    def ready_by_id(self, system: str, itype: str, image_id: str) -> Image | None:
        return self._one({"id": image_id, "system": system, "itype": itype, "status": {"$in": _READY_STATES}})

    def pulls(self, system: str, itype: str, reference: str) -> list[Image]:
        return self._many({"system": system, "itype": itype, "pulltag": reference, "status": {"$nin": _NOT_PULLS}})

    def queue(self, system: str) -> list[Image]:
        records = self._many({"system": system, "status": {"$nin": _NOT_PULLS}})
        return sorted((record for record in records if record.pulltag), key=lambda record: record.last_pull or 0.0)

    def ready(self, system: str) -> list[Image]:
        return self._many({"status": {"$in": _READY_STATES}, "system": system})

    def with_status(self, states: Sequence[str]) -> list[Image]:
        return self._many({"status": {"$in": list(states)}})

    def with_moved_tag(self) -> list[Image]:
        return self._many({"moved_tag": {"$exists": True}})

    def holders_of_tag(self, system: str, itype: str, tag: str) -> list[Image]:
        return self._many({"system": system, "itype": itype, "tag": tag})

    def holder(self, slot: str) -> Image | None:
        return self._one({"slot": slot})

    # Primitives -----------------------------------------------------------------------------------

    def insert(self, image: Image) -> Image:
        with self._images() as images:
            key = images.insert_one(to_document(image)).inserted_id
        return replace(image, record_id=str(key))

    def claim(self, worker: str, now: float, lease_seconds: float, systems: Iterable[str]) -> Image | None:
        free = {"status": {"$in": list(IN_FLIGHT)}, "lease_expires": {"$lt": now}, "system": {"$in": list(systems)}}
        with self._images() as images:
            # Found first and taken second, on the lease that was seen: of several workers one modifies the record.
            for found in images.find(free).sort("last_pull", pymongo.ASCENDING).limit(16):
                seen = {name: found[name] for name in ("_id", "status", "lease_expires")}
                taken = images.update_one(
                    {**seen, "attempts": found.get("attempts", 0)},
                    {
                        "$set": {"worker": worker, "lease_expires": now + lease_seconds, "last_heartbeat": now},
                        "$inc": {"attempts": 1},
                    },
                )
                if taken.modified_count == 1:
                    return self.get(str(found["_id"]))
        return None

    def change_leased(self, pull: Image, changes: Mapping[str, Any]) -> bool:
        return self._change(_leased(pull), changes)

    def change_if(self, image: Image, changes: Mapping[str, Any]) -> bool:
        return self._change(_seen(image), changes)

    def set_expiration(self, image: Image, expiration: float) -> None:
        with self._images() as images:
            images.update_one({"_id": _key(image.record_id)}, {"$set": {"expiration": expiration}})

    def delete_if(self, image: Image) -> None:
        with self._images() as images:
            images.delete_one(_seen(image))

    def delete_leased(self, pull: Image) -> None:
        with self._images() as images:
            images.delete_one(_leased(pull))

    def add_metric(self, metric: Metric) -> None:
        with self._database() as database:
            database["metrics"].insert_one(metric.document())

    def metrics(self, system: str, limit: int) -> list[Metric]:
        with self._database() as database:
            newest = database["metrics"].find({"system": system}, {"_id": False}).sort("time", -1).limit(limit)
            return [Metric(**document) for document in reversed(list(newest))]

    def ping(self) -> None:
        with self._database() as database:
            database.command("ping")

    def close(self) -> None:
        with self._lock:
            if self._client is not None and self._pid == os.getpid():
                self._client.close()
            self._client = None

    # Inside ---------------------------------------------------------------------------------------

    @contextmanager
    def _database(self) -> Iterator[Database[Document]]:
        try:
            yield self._connected()[self._name]
        except DuplicateKeyError as error:
            raise SlotTakenError(str(error)) from error
        except (PyMongoError, BSONError) as error:
            server = urlsplit(self._uri).hostname or "the server"
            if "UNIQUE constraint failed" in str(error):  # FerretDB's way to say so for an update
                raise SlotTakenError(str(error)) from error
            raise StoreError(f"MongoDB at {server}: {error}; check MongoDBURI and that the server runs") from error

    @contextmanager
    def _images(self) -> Iterator[Collection[Document]]:
        with self._database() as database:
            yield database["images"]

    def _connected(self) -> pymongo.MongoClient[Document]:
        with self._lock:
            if self._client is None or self._pid != os.getpid():
                client: pymongo.MongoClient[Document] = pymongo.MongoClient(
                    self._uri, serverSelectionTimeoutMS=_SERVER_SELECTION_MS, appname="shifter-imagegw"
                )
                try:
                    _create_indexes(client[self._name])
                except PyMongoError:
                    client.close()
                    raise
                self._client, self._pid = client, os.getpid()
            return self._client

    def _one(self, query: Document) -> Image | None:
        with self._images() as images:
            found = images.find_one(query, sort=_NEWEST_FIRST)
        return None if found is None else from_document(found)

    def _many(self, query: Document) -> list[Image]:
        with self._images() as images:
            return [from_document(found) for found in images.find(query)]

    def _change(self, query: Document, changes: Mapping[str, Any]) -> bool:
        update: Document = {}
        for name, value in changes.items():
            operator = "$unset" if value is None else "$set"
            update.setdefault(operator, {})[stored_name(name)] = "" if value is None else stored_value(value)
        with self._images() as images:
            return images.update_one(query, update).matched_count == 1


def _create_indexes(database: Database[Document]) -> None:
    """Those of section 5.1, and the unique ``slot``: sparse, as records of earlier gateways have none."""
    images = database["images"]
    images.create_index([("slot", 1)], unique=True, sparse=True)
    for keys in (
        ("system", "itype", "tag", "status"),
        ("system", "itype", "pulltag"),
        ("status", "last_pull"),
        ("id", "system", "status"),
    ):
        images.create_index([(key, 1) for key in keys])
    database["metrics"].create_index([("time", 1)])


def _key(record_id: str) -> Any:
    return ObjectId(record_id) if ObjectId.is_valid(record_id) else record_id


def _leased(pull: Image) -> Document:
    return {"_id": _key(pull.record_id), "worker": pull.worker, "attempts": pull.attempts}


def _seen(image: Image) -> Document:
    status: Any = {"$in": _READY_STATES} if image.status == READY else image.status
    return {"_id": _key(image.record_id), "status": status, "revision": image.revision}
