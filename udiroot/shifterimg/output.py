# SPDX-License-Identifier: BSD-3-Clause
"""What is printed, and how (gateway contract, 15.7). A gateway's text never reaches a terminal as control codes."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from udiroot.shifterimg import images

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from udiroot.shifterimg.settings import ImageName


def printable(text: str) -> str:
    """``text`` on one line: what is no printable character as a Python escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def tell(text: str) -> None:
    """A message for the user, on standard error."""
    print(f"shifterimg: {printable(text)}", file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """``value`` as one JSON document; everything outside ASCII is escaped."""
    print(json.dumps(value, indent=2))


def local_time(seconds: float | None = None) -> str:
    """``YYYY-MM-DDTHH:MM:SS`` in local time, now by default; a dash where the time is none."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "-"


def image_lines(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line per image and tag, sorted bytewise by tag."""
    tagged = [(tag, record) for record in records for tag in images.tags(record)]
    tagged.sort(key=lambda item: item[0].encode("utf-8", "surrogatepass"))
    return [_image_line(tag, record) for tag, record in tagged]


def _image_line(tag: str, record: Mapping[str, Any]) -> str:
    pulled = images.last_pull(record)
    when = "-" if pulled is None else local_time(pulled)
    columns = {name: printable(images.text(record, name)) for name in ("system", "itype", "status", "id")}
    return (
        f"{columns['system']:<10} {columns['itype']:<10} {columns['status']:<8} {columns['id'][:10]:<10}   "
        f"{when:<19} {printable(tag):<30}"
    )


def queue_lines(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """State and reference of each pull."""
    return [f"{printable(images.text(e, 'status')):<12} {printable(images.text(e, 'image'))}" for e in entries]


def progress_line(image: ImageName, status: str) -> str:
    """The line of a pull, with the time of day."""
    return f"{local_time()} Pulling Image: {image}, status: {printable(status)}"


def objects(value: Any) -> Sequence[Mapping[str, Any]]:
    """The elements of a list that are objects."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
