# SPDX-License-Identifier: BSD-3-Clause
"""Random layers, as builders write them, beside `umoci unpack`: the same tree, and a file that other readers accept."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.functional.test_differential_umoci import ROOT, convert, policy, unpacked
from tests.imagetree import listing, mounted
from tests.ociimage import (
    LayerMembers,
    Member,
    directory,
    file,
    hardlink,
    layer_blob,
    opaque,
    symlink,
    tar_of,
    whiteout,
)

NAMES = st.sampled_from([b"a", b"b", b"a.b", b"\xc3\xa4\xff"])
CONTENTS = st.sampled_from([b"", b"tail", b"block" * 40_000, bytes(200_000), b"\x01" * 131_072, b"x" * 131_073])
MODES = st.sampled_from([0o644, 0o755, 0o600, 0o4755, 0o2711])
TIMES = st.integers(0, 2**32 - 1)


@dataclass
class Builder:
    """A layer in the making: what older layers show, and what this one has written so far (path to kind)."""

    older: dict[bytes, str]
    members: list[Member] = field(default_factory=list)
    written: dict[bytes, str] = field(default_factory=dict)

    def seen(self) -> dict[bytes, str]:
        return {**self.older, **self.written}

    def hide(self, path: bytes) -> None:
        for name in list(self.older):
            if name == path or name.startswith(path + b"/"):
                del self.older[name]

    def write(self, member: Member) -> None:
        if member.kind != "d" or self.older.get(member.name) != "d":
            self.hide(member.name)
        self.written[member.name] = member.kind
        self.members.append(member)


@st.composite
def layer(draw: st.DrawFn, older: dict[bytes, str]) -> tuple[LayerMembers, dict[bytes, str]]:
    """Whiteouts first, as all builders put them; every directory has an entry before what is in it: what is not so has
    cases of its own in test_differential_umoci."""
    builder = Builder(dict(older))
    for path in draw(st.lists(st.sampled_from(sorted(older)), max_size=2, unique=True)) if older else []:
        if path not in builder.older or any(name.startswith(path + b"/") for name in builder.written):
            continue
        if builder.older[path] == "d" and draw(st.booleans()):
            builder.write(directory(path, mtime=draw(TIMES)))
            builder.members.append(opaque(path))
            for name in [name for name in builder.older if name.startswith(path + b"/")]:
                builder.hide(name)
        else:
            builder.hide(path)
            builder.members.append(whiteout(path))
    for _entry in range(draw(st.integers(0, 8))):
        draw(entry(builder))
    kinds = builder.seen()
    # A hard link shares what it links to; its kind is that of a file or of a symlink for later layers alike.
    return builder.members, {path: "-" if kind == "h" else kind for path, kind in kinds.items()}


@st.composite
def entry(draw: st.DrawFn, builder: Builder) -> None:
    parents = [b"", *(path for path, kind in builder.seen().items() if kind == "d" and path.count(b"/") < 3)]
    parent = draw(st.sampled_from(sorted(parents)))
    name = draw(NAMES)
    path = parent + b"/" + name if parent else name
    if any(name == path or name.startswith(path + b"/") for name in builder.written):
        return
    targets = sorted(name for name, kind in builder.seen().items() if kind in "-l" and name != path)
    kind = draw(st.sampled_from("--ddlh" if targets else "--ddl"))
    if kind == "-":
        builder.write(file(path, draw(CONTENTS), draw(MODES), draw(TIMES)))
    elif kind == "d":
        builder.write(directory(path, draw(MODES), draw(TIMES)))
    elif kind == "l":
        builder.write(symlink(path, b"b/../a"))
    else:
        target = draw(st.sampled_from(targets))
        if not target.startswith(path + b"/"):
            builder.write(hardlink(path, target))


@st.composite
def images(draw: st.DrawFn) -> list[LayerMembers]:
    layers: list[LayerMembers] = []
    tree: dict[bytes, str] = {}
    for number in range(draw(st.integers(1, 4))):
        members, tree = draw(layer(tree))
        layers.append([ROOT, *members] if number == 0 else members)
    return layers


@settings(max_examples=100)
@given(images())
def test_random_images_are_what_umoci_unpacks(layers: list[LayerMembers]) -> None:
    blobs = [layer_blob(tar_of(members)) for members in layers]
    with tempfile.TemporaryDirectory() as scratch:
        expected = policy(unpacked(Path(scratch), blobs))
        with mounted(convert(Path(scratch), blobs, "image")) as root:
            assert listing(root) == expected
