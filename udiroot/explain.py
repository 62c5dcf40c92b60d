# SPDX-License-Identifier: BSD-3-Clause
"""``shifter --explain``: the records that the launcher writes (src/as_user/explain.c), as text or one JSON object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field


class Incomplete(Exception):
    """The records end before their end."""


@dataclass(frozen=True)
class Step:
    """One operation on the container, in the order in which root would do them."""

    kind: str
    source: str
    target: str
    flags: list[str]
    reason: str


@dataclass(frozen=True)
class Variable:
    """``origins``: who said parts of the value, in the order in which they stand in it."""

    value: str
    origins: list[str]


@dataclass
class Explanation:
    """What a start would do; ``modules`` and ``userhooks`` in their order.

    ``prepared``: the node has this container already, so ``mounts`` were done before. ``shell`` is tried before
    ``command``.
    """

    image: str = ""
    request: str = ""
    user: str = ""
    modules: list[str] = field(default_factory=list)
    workdir: str = ""
    prepared: bool = False
    shell: str = ""
    command: list[str] = field(default_factory=list)
    mounts: list[Step] = field(default_factory=list)
    userhooks: list[str] = field(default_factory=list)
    environment: dict[str, Variable] = field(default_factory=dict)


def read_explanation(records: bytes) -> Explanation:
    """Incomplete for what does not end as it should."""
    told = Explanation()
    fields = iter(records.decode("utf-8", "surrogateescape").split("\0"))
    try:
        while (name := next(fields)) != "end":
            _take(told, name, fields)
    except StopIteration:
        raise Incomplete("the explanation is incomplete; it is read from shifter --explain") from None
    return told


def _take(told: Explanation, name: str, fields: Iterator[str]) -> None:
    if name == "step":
        kind, source, target, flags, reason = [next(fields) for _ in range(5)]
        told.mounts.append(Step(kind, source, target, flags.split(), reason))
    elif name == "variable":
        key, _, value = next(fields).partition("=")
        told.environment[key] = Variable(value, next(fields).split(":"))
    elif name == "word":
        told.command.append(next(fields))
    elif name == "userhook":
        told.userhooks.append(next(fields))
    elif name == "modules":
        told.modules = [module for module in next(fields).split(",") if module]
    elif name == "prepared":
        told.prepared = next(fields) == "yes"
    elif name in ("image", "request", "user", "workdir", "shell"):
        setattr(told, name, next(fields))
    else:
        raise Incomplete(f"{name!r} is no part of an explanation; shifter and udiroot are of different versions")


def as_json(told: Explanation) -> str:
    """One object; bytes that are no UTF-8 are lone surrogates."""
    return json.dumps(asdict(told), indent=2)


def as_text(told: Explanation) -> str:
    """For people."""
    lines = [
        f"image      {told.image}" + (f" ({told.request})" if told.request else ""),
        f"user       {told.user}",
        f"modules    {', '.join(told.modules) or 'none'}",
        f"directory  {told.workdir}",
        f"command    {f'{told.shell}, or where the container lacks it ' if told.shell else ''}{' '.join(told.command)}",
        f"prepared   {'yes: the container is entered as it is' if told.prepared else 'no: the container is built'}",
        *(f"userhook   {path}" for path in told.userhooks),
        "",
        "What root did when it was prepared, in this order" if told.prepared else "What root does, in this order",
    ]
    for step in told.mounts:
        what = f"{step.source} -> {step.target}" if step.source else step.target
        lines.append(f"  {step.kind:<10} {what} [{' '.join(step.flags)}]: {step.reason}")
    lines += ["", "Environment of the command, and who says so"]
    for name, variable in sorted(told.environment.items()):
        lines.append(f"  {name}={variable.value} [{', '.join(variable.origins)}]")
    return "\n".join(_printable(line) for line in lines)


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
