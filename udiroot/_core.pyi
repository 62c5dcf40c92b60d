# SPDX-License-Identifier: BSD-3-Clause
"""The launcher's parsers (udiroot/src); text is UTF-8 with surrogateescape. Bad input raises Error, whose text is the
launcher's message."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

class Error(Exception): ...

options_help: str

def load_config(path: str | PathLike[str], trust_any_owner: bool = False) -> dict[str, Any]:
    """udiRoot.conf after its trust checks. Keys are those of the file, with values of their types (None: not set), and
    ``modules`` (name to its keys) and ``remarks`` ("file:line: what an administrator should know")."""

def parse_config(text: bytes, name: str, /) -> dict[str, Any]:
    """The same from memory; ``name`` appears in messages."""

def examine_config(text: bytes, name: str, /) -> tuple[dict[str, Any], list[str]]:
    """For a checker: what of it is good, and every error ("name:LINE: key: message"). Error for what is no text."""

def config_lines(text: bytes, /) -> list[tuple[int, str, str]]:
    """Each ``key=value`` as (line it starts at, key, value), continued lines joined."""

def check_trust(path: str, owner: int, owner_name: str, follow: bool, /) -> None:
    """Error unless every component of ``path`` belongs to root or uid ``owner`` and nobody else can write it. A
    symbolic link is an error unless ``follow``."""

def config_keys() -> list[str]:
    """Every key of udiRoot.conf; a module's as ``module_<name>_siteFs``."""

def parse_image_spec(text: str, default_type: str | None, /) -> tuple[str, str, str]:
    """``[type:]tag`` to (type, normalised tag, the text)."""

def select_image_spec(
    option: str | None, env: Sequence[str], default_type: str | None, /
) -> tuple[str, str, str | None] | None:
    """The image that ``--image`` or the environment (``NAME=value``) names; None when nothing does."""

def encode_tag(tag: str, /) -> str | None:
    """The tag's file name in the tag index; None when it is too long for one."""

def parse_meta(text: bytes, name: str = "image", /) -> dict[str, Any]:
    """A .meta file: format, env, entry, cmd, workdir, restricted, user_acl, group_acl."""

def check_acl(text: bytes, uid: int, gid: int, groups: Sequence[int], /) -> None:
    """Error unless the .meta file ``text`` lets this user use the image."""

def parse_volumes(text: str, origin: str, /) -> list[dict[str, Any]]:
    """Volume maps of a ``user`` or the ``site``: from, to, flags, cache_size (bytes)."""

def volumes_signature(text: str, origin: str, /) -> str:
    """Their canonical text."""

def parse_options(argv: Sequence[str], /) -> dict[str, Any]:
    """The command line of ``shifter``, its name first."""

def environ_get(env: Sequence[str], name: str, /) -> str | None: ...
def environ_set(env: Sequence[str], name_value: str, /) -> list[str]: ...
def environ_append(env: Sequence[str], name_value: str, /) -> list[str]: ...
def environ_prepend(env: Sequence[str], name_value: str, /) -> list[str]: ...
def environ_unset(env: Sequence[str], name: str, /) -> list[str]: ...
def environ_apply_site(
    env: Sequence[str], set_: Sequence[str], append: Sequence[str], prepend: Sequence[str], unset: Sequence[str], /
) -> list[str]: ...
def environ_check(name_value: str, /) -> None: ...
def environ_read_file(descriptor: int, name: str, /) -> list[str]:
    """The variables of an env-file; ``name`` appears in messages."""

def path_is_below(path: str, base: str, /) -> bool: ...
def path_clean(path: str, /) -> str | None:
    """None for a relative path and one with "..". """

def parse_size(text: str, /) -> int:
    """Bytes."""
