# SPDX-License-Identifier: BSD-3-Clause
"""The ``.meta`` file beside an image (gateway contract, sections 9.2 and 9.3; docs/image-store.md).

Line-based and read by setuid programs, old ones too: what cannot be said in one line is refused, never bent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shifter_imagegw.errors import ConversionError

_MAX_ENV_BYTES = 128 * 1024
"""Longest ``NAME=value``: what execve takes (Linux MAX_ARG_STRLEN)."""

_RECIPE_KEY = "# recipe"

_MAX_BYTES = 256 * 1024
"""Longest file. Most of it is in every answer about the image too, and in a list of all images; execve has room for two
megabytes of environment and arguments at most."""

_IMAGE_KEYS = frozenset({"ENTRY", "CMD", "WORKDIR", "ENV"})

_MAX_ACL_ENTRIES = 1000
"""Old runtimes abort on longer lists (section 9.3)."""


@dataclass(frozen=True)
class Metadata:
    """What the runtime learns about an image. ``user_acl`` and ``group_acl`` count only for ``private`` images."""

    image_format: str = "squashfs"
    env: Sequence[str] = ()
    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    workdir: str | None = None
    private: bool = False
    user_acl: Sequence[int] = ()
    group_acl: Sequence[int] = ()
    recipe: str | None = None
    """How the image was made (layers.recipe.Recipe.record); a comment, which no runtime reads."""


def render(metadata: Metadata) -> bytes:
    """The file's content; ConversionError names the variable or field that cannot be expressed."""
    entries = [(key, f"{key}: {value}\n".encode("utf-8", "surrogateescape")) for key, value in _entries(metadata)]
    content = b"".join(line for _, line in entries)
    if len(content) > _MAX_BYTES:
        own = sum(len(line) for key, line in entries if key in _IMAGE_KEYS)
        raise ConversionError(
            f"the metadata would have {len(content)} bytes, more than {_MAX_BYTES}: {own} are the image's ENV, "
            f"ENTRYPOINT and CMD, {len(content) - own} access lists and the like; shorten the larger of them"
        )
    return content


def recorded_recipe(content: bytes) -> str | None:
    """The recipe that a metadata file records, None without one. Only what is no value can start with ``#``."""
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        key, _, value = line.partition(":")
        if key == _RECIPE_KEY:
            return value.strip()
    return None


def _entries(metadata: Metadata) -> Iterator[tuple[str, str]]:
    yield "FORMAT", metadata.image_format
    if metadata.recipe:
        yield _RECIPE_KEY, metadata.recipe
    if metadata.entrypoint:
        yield "ENTRY", _argument_list("ENTRYPOINT", metadata.entrypoint)
    if metadata.cmd:
        yield "CMD", _argument_list("CMD", metadata.cmd)
    if metadata.workdir:
        yield "WORKDIR", _one_line("WORKDIR", metadata.workdir)
    if metadata.private:
        yield "PRIVATE", "1"
        yield "USERACL", _acl("user", metadata.user_acl)
        yield "GROUPACL", _acl("group", metadata.group_acl)
    for variable in metadata.env:
        name = variable.partition("=")[0]
        if not name or len(variable.encode("utf-8", "surrogateescape")) >= _MAX_ENV_BYTES:
            raise ConversionError(
                f"the image's ENV entry {name[:80]!r} has no name or more than {_MAX_ENV_BYTES} bytes; change it in the"
                " image"
            )
        yield "ENV", _one_line(f"ENV {name[:80]!r}", variable)


def _one_line(what: str, value: str) -> str:
    if any(char in value for char in "\n\r\0"):
        raise ConversionError(
            f"the image's {what} holds a line break or NUL, which no node could read; change it in the image"
        )
    if value.endswith("\\"):
        raise ConversionError(
            f"the image's {what} ends in a backslash, which no node could read; change it in the image"
        )
    # Readers trim as well: a value that only differs by that is not worth refusing an image for.
    return value.strip()


def _argument_list(what: str, arguments: Sequence[str]) -> str:
    """``['a', 'b']`` where that says it all, else JSON: old readers have no escapes between their quotes."""
    for argument in arguments:
        if "\0" in argument:
            raise ConversionError(f"the image's {what} holds NUL; change it in the image")
    if any(char in argument for argument in arguments for char in "'\\") or not all(
        argument.isprintable() or _only_high(argument) for argument in arguments
    ):
        return json.dumps(list(arguments))
    return "[" + ", ".join(f"'{argument}'" for argument in arguments) + "]"


def _only_high(argument: str) -> bool:
    """No control character below U+00A0, whatever Python's tables call printable."""
    return not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in argument)


def _acl(kind: str, ids: Sequence[int]) -> str:
    if len(ids) > _MAX_ACL_ENTRIES:
        raise ConversionError(
            f"the image's {kind} list has {len(ids)} entries; nodes take at most {_MAX_ACL_ENTRIES}: use a group"
        )
    return ",".join(str(number) for number in ids)
