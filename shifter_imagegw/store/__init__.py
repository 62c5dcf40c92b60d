# SPDX-License-Identifier: BSD-3-Clause
"""Where records live. ``open_store`` picks the implementation by URI."""

from __future__ import annotations

from shifter_imagegw.errors import ConfigurationError
from shifter_imagegw.store.interface import ImageStore, Metric
from shifter_imagegw.store.sqlite import SqliteStore

__all__ = ["ImageStore", "Metric", "open_store"]


def open_store(uri: str, database: str | None = None) -> ImageStore:
    """The store at ``mongodb://…`` (needs ``database``) or ``sqlite:///absolute/path``.

    Cheap; the connection is made at first use, in each process and thread that uses the store.
    """
    scheme, separator, rest = uri.partition("://")
    if scheme == "sqlite" and rest.startswith("/"):
        return SqliteStore(rest)
    if scheme in ("mongodb", "mongodb+srv") and separator and rest:
        if not database:
            raise ConfigurationError('MongoDB: the database name is missing; set "MongoDB", e.g. to "Shifter"')
        # A site without MongoDB does not wait for its driver to be loaded.
        from shifter_imagegw.store.mongo import MongoStore  # noqa: PLC0415

        return MongoStore(uri, database)
    raise ConfigurationError("MongoDBURI: expected mongodb://HOST/ or sqlite:///ABSOLUTE/PATH")
