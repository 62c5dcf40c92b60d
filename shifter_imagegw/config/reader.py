# SPDX-License-Identifier: BSD-3-Clause
"""Typed reading of a JSON object: every key is known, has a type, and an error says where it is in the file."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from shifter_imagegw.errors import ConfigurationError

T = TypeVar("T")
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


class ObjectReader:
    """Hands out the values of one JSON object; ``finish`` refuses what nobody asked for."""

    def __init__(self, value: Any, where: str, source: str) -> None:
        self.where = where
        self._source = source
        self._known: set[str] = set()
        self._values: Mapping[str, Any] = {}
        if not isinstance(value, dict):
            raise self.error(None, f"expected an object, got {_kind(value)}")
        self._values = value

    def error(self, key: str | None, reason: str) -> ConfigurationError:
        """The error for ``key`` of this object (None: the object itself)."""
        path = ".".join(part for part in (self.where, key) if part)
        return ConfigurationError(f"{self._source}: {path}: {reason}" if path else f"{self._source}: {reason}")

    def invalid(self, error: ValueError) -> ConfigurationError:
        """What a dataclass said about its fields, in the words of the file."""
        return self.error(None, camel_case(str(error)))

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def is_list(self, key: str) -> bool:
        return isinstance(self._values.get(key), list)

    def keys(self) -> Iterable[str]:
        return self._values.keys()

    def text(self, key: str, default: str | None = None, *, choices: Iterable[str] = ()) -> str:
        """Non-empty text; required unless there is a default."""
        value = str(self._take(key, str, default))
        if self.has(key):
            if not value or any(ord(char) < 32 for char in value):
                raise self.error(key, "is empty or holds control characters")
            options = tuple(choices)
            if options and value not in options:
                raise self.error(key, f"{value!r} is not one of {', '.join(options)}{_meant(value, options)}")
        return value

    def number(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number of at least ``least``."""
        value = int(self._take(key, int, default))
        if value < least:
            raise self.error(key, f"{value} is too small: at least {least}")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        return bool(self._take(key, bool, default))

    def path(self, key: str, default: Path | None = None) -> Path:
        """An absolute path."""
        if default is not None and not self.has(key):
            self._known.add(key)
            return default
        value = Path(self.text(key))
        if not value.is_absolute():
            raise self.error(key, f"{str(value)!r} is not an absolute path")
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A list of texts; one text alone is a list of one."""
        value = self._take(key, (list, str), default)
        items = (value,) if isinstance(value, str) else tuple(value)
        for item in items:
            if not isinstance(item, str):
                raise self.error(key, f"expected a list of texts, found {_kind(item)} in it")
        return items

    def object(self, key: str, *, required: bool = True) -> ObjectReader:
        """The object below ``key``; an empty one if it may be absent and is."""
        value = self._take(key, dict, None if required else {})
        return ObjectReader(value, ".".join(part for part in (self.where, key) if part), self._source)

    def each(self, read: Callable[[str, ObjectReader], T]) -> dict[str, T]:
        """``read(name, object)`` for every key of this object, which names things."""
        return {name: read(name, self.object(name)) for name in list(self._values)}

    def unused(self, *keys: str) -> tuple[str, ...]:
        """Keys that are known and have no effect; those that are there, with their place in the file."""
        self._known.update(keys)
        return tuple(f"{self.where}.{key}".lstrip(".") for key in keys if key in self._values)

    def settings(self, kind: Callable[..., T]) -> T:
        """A dataclass of plain fields from this object, whose keys are the field names in camelCase."""
        hints = typing.get_type_hints(kind)
        values = {}
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            key = camel_case(field.name)
            if key in self._values:
                values[field.name] = self._plain(key, hints[field.name])
        self._known.update(camel_case(field.name) for field in dataclasses.fields(kind))  # type: ignore[arg-type]
        self.finish()
        try:
            return kind(**values)
        except ValueError as error:
            raise self.invalid(error) from error

    def finish(self) -> None:
        """Refuse unknown keys, each with the known one it resembles."""
        for key in self._values:
            if key not in self._known:
                known = ", ".join(sorted(self._known))
                raise self.error(key, f"unknown key{_meant(key, self._known) or f'; known here: {known}'}")

    def _plain(self, key: str, hint: Any) -> Any:
        optional = type(None) in typing.get_args(hint)
        value = self._values[key]
        if value is None and optional:
            return None
        wanted = next((kind for kind in (bool, str, int, float) if kind is hint or kind in typing.get_args(hint)), None)
        if wanted is None:
            raise self.error(key, "cannot be set in this file")
        taken = self._take(key, (int, float) if wanted is float else wanted, None)
        if not isinstance(taken, (bool, str)) and taken < 0:
            raise self.error(key, f"{taken} is negative")
        return float(taken) if wanted is float else taken

    def _take(self, key: str, kind: type | tuple[type, ...], default: Any) -> Any:
        self._known.add(key)
        value = self._values.get(key)
        if value is None:
            if default is None:
                raise self.error(key, f"is missing{_meant(key, set(self._values) - self._known)}")
            return default
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            expected = " or ".join(dict.fromkeys(_KINDS[one] for one in kinds))
            raise self.error(key, f"expected {expected}, got {_kind(value)}")
        return value


def camel_case(name: str) -> str:
    """``block_size`` as ``blockSize``."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


def _kind(value: Any) -> str:
    if isinstance(value, float):
        return "a fraction"
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


def _meant(word: str, known: Iterable[str]) -> str:
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.7)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
