# SPDX-License-Identifier: BSD-3-Clause
"""Random histories of layers: the image is what a model of a few lines of Python says."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.imagetree import Item, listing, mounted
from tests.layerarchive import (
    IMPLIED,
    Directory,
    File,
    Layer,
    Object,
    OldLink,
    OwnLink,
    Symlink,
    Whiteout,
    build_image,
)

NAMES = st.sampled_from([b"a", b"b", b"a.b", b"\xc3\xa4\xff"])
CONTENTS = st.sampled_from([
    b"", b"tail", b"liat", b"block" * 4096, b"klobc" * 4096, bytes(4096), b"\x01" * 4096, bytes(9000) + b"end",
    b"".join(hashlib.sha256(bytes([number])).digest() for number in range(200)),
])  # fmt: skip
LEAVES = st.one_of(
    st.builds(File, CONTENTS, st.sampled_from([0o644, 0o500]), st.integers(0, 2**32 - 1)),
    st.just(Symlink(b"a/../b")),
    st.just(Whiteout()),
    st.just(OldLink(b"?")),
    st.just(OwnLink(b"?")),
)
DIRECTORIES = st.one_of(
    st.just(IMPLIED),
    st.builds(Directory, st.sampled_from([0o755, 0o700]), st.integers(0, 9), st.just(False), st.booleans()),
)


@dataclass
class Node:
    """An inode of the model; names that share the object are hard links."""

    entry: Object


Tree = dict[bytes, Node]


@st.composite
def trees(draw: st.DrawFn, depth: int = 0) -> dict[bytes, tuple[Object, dict[bytes, object]]]:
    found: dict[bytes, tuple[Object, dict[bytes, object]]] = {}
    for name in draw(st.lists(NAMES, unique=True, max_size=3)):
        if depth < 3 and draw(st.booleans()):
            found[name] = (draw(DIRECTORIES), draw(trees(depth + 1)))  # type: ignore[arg-type]
        else:
            found[name] = (draw(LEAVES), {})
    return found


def flatten(tree: Mapping[bytes, tuple[Object, dict[bytes, object]]], prefix: bytes = b"") -> dict[bytes, Object]:
    layer: dict[bytes, Object] = {}
    for name, (entry, children) in tree.items():
        layer[prefix + name] = entry
        layer.update(flatten(children, prefix + name + b"/"))  # type: ignore[arg-type]
    return layer


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Layer], Tree]:
    """Some layers and the tree they add up to."""
    tree: Tree = {b"": Node(IMPLIED)}
    layers: list[Layer] = []
    for _number in range(draw(st.integers(1, 4))):
        layer = flatten(draw(trees()))
        for path, entry in list(layer.items()):
            if isinstance(entry, (OldLink, OwnLink)):
                layer[path] = draw(links(tree, layer, path, old=isinstance(entry, OldLink)))
            elif entry == IMPLIED and path in tree and isinstance(tree[path].entry, Symlink):
                layer[path] = Directory()  # what is below a symlink has tests of its own
        layers.append(layer)
        tree = applied(tree, layer)
    return layers, tree


@st.composite
def links(draw: st.DrawFn, tree: Tree, layer: Layer, path: bytes, old: bool) -> Object:
    if old:
        targets: list[bytes] = [name for name, node in tree.items() if not isinstance(node.entry, Directory)]
    else:
        targets = [name for name, entry in layer.items() if isinstance(entry, File) and name < path]
    if not targets:
        return Whiteout()
    target = draw(st.sampled_from(sorted(targets)))
    return OldLink(target) if old else OwnLink(target)


def below(paths: Mapping[bytes, object], directory: bytes) -> list[bytes]:
    return [path for path in paths if directory == b"" or path.startswith(directory + b"/")]


def is_hollow(layer: Layer, path: bytes) -> bool:
    """Implied, and nothing but whiteouts below."""
    return layer[path] == IMPLIED and all(layer[name] in (IMPLIED, Whiteout()) for name in below(layer, path))


def applied(older: Tree, layer: Layer) -> Tree:
    tree = dict(older)
    own = {path: Node(entry) for path, entry in layer.items() if isinstance(entry, File)}

    def remove(path: bytes) -> None:
        for name in [*below(tree, path), path]:
            tree.pop(name, None)

    for path, entry in sorted(layer.items(), key=lambda item: item[0].split(b"/")):
        if isinstance(entry, Directory) and path in tree and isinstance(tree[path].entry, Directory):
            if entry.opaque:
                for name in below(tree, path):
                    del tree[name]
            if not entry.implied:
                tree[path] = Node(entry)
        elif isinstance(entry, Whiteout):
            remove(path)
        elif not (isinstance(entry, Directory) and is_hollow(layer, path)):
            remove(path)
            tree[path] = (
                older[entry.target] if isinstance(entry, OldLink)
                else own[entry.target] if isinstance(entry, OwnLink)
                else own.get(path) or Node(entry)
            )  # fmt: skip
    return tree


def item(tree: Tree, path: bytes) -> Item:
    entry = tree[path].entry
    names = tuple(sorted(name for name in tree if tree[name] is tree[path]))
    if isinstance(entry, File):
        return Item("-", entry.mode, entry.mtime, hashlib.sha256(entry.data).digest(), len(entry.data), names)
    if isinstance(entry, Symlink):
        return Item("l", 0o777, entry.mtime, entry.target, len(entry.target), names)
    assert isinstance(entry, Directory)
    return Item("d", entry.mode, entry.mtime, b"", 0, names)


@settings(max_examples=60)
@given(histories())
def test_the_image_is_what_the_model_says(history: tuple[list[Layer], Tree]) -> None:
    layers, tree = history
    with tempfile.TemporaryDirectory() as directory, mounted(build_image(Path(directory), *layers)) as root:
        assert listing(root) == {path: item(tree, path) for path in tree}
