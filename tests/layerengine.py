# SPDX-License-Identifier: BSD-3-Clause
"""A plain stand-in for the rooms that convert layers, for tests of what surrounds them: an archive is the layer's tar,
merging is unpacking in order and mksquashfs. It knows no whiteouts.
"""

from __future__ import annotations

import gzip
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from shifter_imagegw.errors import LayerError
from shifter_imagegw.fetch import Fetch, Held
from shifter_imagegw.layers.recipe import Recipe
from shifter_imagegw.registry.manifest import Descriptor
from tests.registryserver import digest_of


class PlainArchive:
    """An open file."""

    def __init__(self, path: Path, opened: list[PlainArchive]) -> None:
        self._file: BinaryIO = path.open("rb")
        self._opened = opened
        opened.append(self)

    @property
    def fd(self) -> int:
        return self._file.fileno()

    def __enter__(self) -> PlainArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._opened.remove(self)


class PlainEngine:
    """``opened`` are archives nobody has closed, ``fetched`` the digests that were not in the cache."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.opened: list[PlainArchive] = []
        self.fetched: list[str] = []
        self.recipes: set[Recipe] = set()
        self.swept = 0
        self._lock = threading.Lock()

    def archive(
        self,
        recipe: Recipe,
        descriptor: Descriptor,
        diff_id: str,
        fetch: Fetch,
        progress: Callable[[int], None],
        *,
        held: Held,
    ) -> PlainArchive:
        self.recipes.add(recipe)
        path = self.cache / diff_id.replace(":", "-")
        if not path.exists() or not held():
            with self._lock:
                self.fetched.append(descriptor.digest)
            blob = bytearray()
            with fetch() as chunks:
                for chunk in chunks:
                    blob += chunk
                    progress(len(chunk))
            content = gzip.decompress(blob) if descriptor.media_type.endswith("gzip") else bytes(blob)
            if digest_of(content) != diff_id:
                raise LayerError(f"it does not hash to its diff_id {diff_id}", digest=descriptor.digest)
            with tempfile.NamedTemporaryFile(dir=self.cache, delete=False) as file:
                file.write(content)
            Path(file.name).rename(path)
        return PlainArchive(path, self.opened)

    def merge(
        self, archives: Sequence[int], destination: Path, check: Callable[[], None], names: Sequence[str] = ()
    ) -> None:
        assert len(archives) == len(names)
        with tempfile.TemporaryDirectory() as tree:
            for descriptor in archives:
                check()
                with Path(f"/proc/self/fd/{descriptor}").open("rb") as file, tarfile.open(fileobj=file) as layer:
                    layer.extractall(tree)
            command = ["mksquashfs", tree, str(destination), "-quiet", "-no-progress", "-noappend", "-processors", "1"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def sweep(self) -> None:
        self.swept += 1
