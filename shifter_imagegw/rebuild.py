# SPDX-License-Identifier: BSD-3-Clause
"""Makes a published image once more and compares the bytes: for ``shifter-imagegw verify --rebuild``."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from shifter_imagegw.config.model import Configuration
from shifter_imagegw.errors import ConversionError, InvalidReference, RegistryError
from shifter_imagegw.fairness import FairGate
from shifter_imagegw.fetch import LayerEngine, layer_archives
from shifter_imagegw.images import Image
from shifter_imagegw.layers.recipe import RECIPE, Recipe
from shifter_imagegw.locks import locked
from shifter_imagegw.meta import recorded_recipe
from shifter_imagegw.platforms.local import LocalPlatform
from shifter_imagegw.registry.client import RegistryClient
from shifter_imagegw.registry.reference import choose_location

_CHUNK = 1 << 20
_SCRATCH = re.compile(r"rebuild-[a-z0-9_]{8}")  # as mkdtemp(3) of Python names it


def rebuild(configuration: Configuration, record: Image, make_engine: Callable[[Path], LayerEngine]) -> str | None:
    """What differs between the published image and one that is made now of the same manifest by the recorded recipe;
    None when nothing does.

    Layers are fetched and converted anew, below ExpandDirectory, whatever the cache holds; nothing is published.
    PullError when it cannot be made again, and why.
    """
    image_id = record.image_id or ""
    platform = LocalPlatform(record.system, configuration.platforms[record.system].image_directory)
    recipe = _recipe(record, platform)
    try:
        with _scratch(configuration.expand_directory) as scratch:
            made = scratch / "image"
            _convert_any(configuration, record, recipe, make_engine(scratch / "layers"), made)
            return _difference(platform.path(image_id, "squashfs"), made)
    except OSError as error:
        where = error.filename or configuration.expand_directory
        raise ConversionError(f"{where}: {error.strerror}; check ExpandDirectory and the image directory") from error


def sweep(expand_directory: Path) -> list[Path]:
    """Remove the scratch of rebuilds that were killed, which nobody has locked; returns it."""
    return [path for path in sorted(expand_directory.iterdir()) if _SCRATCH.fullmatch(path.name) and _removed(path)]


def _removed(scratch: Path) -> bool:
    with suppress(OSError), locked(scratch, os.O_RDONLY | os.O_DIRECTORY) as held:
        if held is not None:
            shutil.rmtree(scratch)
            return True
    return False


@contextmanager
def _scratch(expand_directory: Path) -> Iterator[Path]:
    """A new directory, locked while it is in use."""
    with ExitStack() as stack:
        while True:
            scratch = Path(tempfile.mkdtemp(prefix="rebuild-", dir=expand_directory))
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            try:
                held = stack.enter_context(locked(scratch, os.O_RDONLY | os.O_DIRECTORY))
            except FileNotFoundError:
                continue
            except OSError:  # no locks there, or none on directories (NFS): then a sweep cannot lock it either
                break
            if held is not None:  # else a sweep came between making and locking it
                break
        yield scratch


def _recipe(record: Image, platform: LocalPlatform) -> Recipe:
    if record.itype != "docker" or not (record.tags or record.pulltag):
        raise ConversionError("it was not pulled from a registry, so it cannot be pulled again")
    if record.private:
        raise ConversionError("it is private: pulling it again takes a login, and this command has none")
    recorded = recorded_recipe(platform.metadata(record.image_id or "") or b"")
    if recorded is None:
        raise ConversionError("its metadata do not say by which recipe it was made; remove it and pull it again")
    try:
        version, recipe = Recipe.of_record(recorded)
    except ValueError as error:
        raise ConversionError(f"its {error}") from error
    if version != RECIPE:
        raise ConversionError(
            f"version {version} of the conversion made it and this is version {RECIPE}: other bytes are no damage"
        )
    return recipe


def _convert_any(
    configuration: Configuration, record: Image, recipe: Recipe, engine: LayerEngine, made: Path
) -> None:
    """From the first of its tags whose repository still has it for everybody: a public image may have private copies,
    and tags of registries that are not configured any more."""
    *others, last = record.tags or (record.pulltag or "",)
    for tag in others:
        try:
            return _convert(configuration, record, tag, recipe=recipe, engine=engine, made=made)
        except (RegistryError, InvalidReference):
            continue
    return _convert(configuration, record, last, recipe=recipe, engine=engine, made=made)


def _convert(
    configuration: Configuration, record: Image, tag: str, *, recipe: Recipe, engine: LayerEngine, made: Path
) -> None:
    location, reference = choose_location(tag, configuration.locations, configuration.default_location)
    architecture = configuration.platforms[record.system].architecture
    with RegistryClient(location, None, configuration.http) as client:
        image = client.resolve(reference.repository, f"sha256:{record.image_id}", architecture)
        with layer_archives(
            client, reference.repository, image, engine,
            recipe=recipe, parallel=configuration.parallel_layers, gate=FairGate(), report=_Unwatched(),
        ) as archives:  # fmt: skip
            engine.merge(archives, made, lambda: None, [layer.digest for layer in image.layers])


class _Unwatched:
    """The progress of work that nobody has a record of."""

    def phase(self, status: str, text: str, total: int = 0) -> None: ...

    def advance(self, count: int) -> None: ...

    def check(self) -> None: ...


def _difference(published: Path, made: Path) -> str | None:
    offset = _first_difference(published, made)
    if offset is None:
        return None
    sizes = f"{published.stat().st_size} bytes, made again {made.stat().st_size}"
    return f"{published}: differs from byte {offset} on ({_part(made, offset)}); {sizes}"


def _first_difference(one: Path, other: Path) -> int | None:
    offset = 0
    with one.open("rb") as left_file, other.open("rb") as right_file:
        while True:
            left, right = left_file.read(_CHUNK), right_file.read(_CHUNK)
            if left != right:
                pairs = enumerate(zip(left, right))
                return offset + next((at for at, (a, b) in pairs if a != b), min(len(left), len(right)))
            if not left:
                return None
            offset += len(left)


def _part(image: Path, offset: int) -> str:
    """What lies there; the superblock has the start of the inode table at byte 64 (squashfs format 4.0)."""
    with image.open("rb") as file:
        superblock = file.read(96)
    if offset < len(superblock):
        return "superblock"
    return "contents of files" if offset < int.from_bytes(superblock[64:72], "little") else "inodes and directories"
