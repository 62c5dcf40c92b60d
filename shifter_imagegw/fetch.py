# SPDX-License-Identifier: BSD-3-Clause
"""All layers of an image at once: each is fetched and converted by a thread, the first failure ends all of them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Callable, Protocol

from shifter_imagegw.attended import CHECK_SECONDS, attended
from shifter_imagegw.fairness import FairGate
from shifter_imagegw.images import PULLING
from shifter_imagegw.layers.recipe import Recipe
from shifter_imagegw.registry.client import RegistryClient
from shifter_imagegw.registry.manifest import Descriptor, ResolvedImage

_LEAVE_SECONDS = 2.0
"""How long the threads of a failed pull may take to notice; one that waits for a registry ends at its time-out."""

_Key = tuple[str, str]  # digest, diff_id
Fetch = Callable[[], AbstractContextManager[Iterator[bytes]]]
Held = Callable[[], bool]


class OpenArchive(Protocol):
    """A layer archive, open for reading as ``fd``."""

    @property
    def fd(self) -> int: ...


class _Archive(Protocol):
    """LayerEngine.archive of one recipe."""

    def __call__(
        self, descriptor: Descriptor, diff_id: str, fetch: Fetch, progress: Callable[[int], None], /, *, held: Held
    ) -> AbstractContextManager[OpenArchive]: ...


class LayerEngine(Protocol):
    """What turns layers into an image (layers.cache.LayerCache, layers.merge.merge_archives)."""

    def archive(
        self,
        recipe: Recipe,
        descriptor: Descriptor,
        diff_id: str,
        fetch: Fetch,
        progress: Callable[[int], None],
        *,
        held: Held,
    ) -> AbstractContextManager[OpenArchive]:
        """The archive of a layer: from the cache if ``held`` says that the pull may have the blob, else made of the
        stream that ``fetch`` opens; PullError."""

    def merge(
        self, archives: Sequence[int], destination: Path, check: Callable[[], None], names: Sequence[str]
    ) -> object:
        """Write the validated image of archives (oldest first) to a new file; PullError."""

    def sweep(self) -> object:
        """Remove what killed workers left behind, and what the cache shall not keep."""


class Progress(Protocol):
    """Who is told how far it is (progress.Reporter). Each call may raise to end the work."""

    def phase(self, status: str, text: str, total: int = 0) -> None: ...

    def advance(self, count: int) -> None: ...

    def check(self) -> None: ...


class _AbandonedError(Exception):
    """Another layer of the same image has failed."""


def holds_layers(
    client: RegistryClient, repository: str, image: ResolvedImage, *, parallel: int, report: Progress
) -> bool:
    """Whether the repository says that it has all layers of the image, without a transfer."""
    layers = dict.fromkeys(image.layers)
    tasks = [partial(client.holds_blob, repository, layer) for layer in layers]
    return all(attended(tasks, parallel, report.check))


@contextmanager
def layer_archives(
    client: RegistryClient,
    repository: str,
    image: ResolvedImage,
    engine: LayerEngine,
    *,
    recipe: Recipe,
    parallel: int,
    gate: FairGate,
    report: Progress,
) -> Iterator[list[int]]:
    """Descriptors of the archives of all layers, oldest first; a layer that the manifest lists twice is fetched once.

    ``parallel`` layers at once, as far as ``gate``, which other pulls of the process share, has places for them.
    Whatever ends this early also ends the other layers and closes ``client``.
    """
    keys = [(layer.digest, diff_id) for layer, diff_id in zip(image.layers, image.config.diff_ids)]
    distinct = dict(zip(keys, image.layers))
    report.phase(PULLING, "Pulling layers", total=sum(layer.size for layer in distinct.values()))
    with ExitStack() as stack:
        crew = _Crew(client, repository, distinct, partial(engine.archive, recipe), gate=gate, report=report)
        stack.callback(crew.leave)
        crew.start(min(parallel, len(distinct)))
        opened: dict[_Key, int] = {}
        while len(opened) < len(distinct):
            key, archive = crew.next_result()
            opened[key] = stack.enter_context(archive).fd
        yield [opened[key] for key in keys]


class _Crew:
    """The threads of one image."""

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        layers: dict[_Key, Descriptor],
        archive: _Archive,
        *,
        gate: FairGate,
        report: Progress,
    ) -> None:
        self._client = client
        self._repository = repository
        self._archive = archive
        self._gate = gate
        self._report = report
        self._todo = iter(layers.items())
        self._lock = threading.Lock()
        self._left = False
        self._done: int = 0
        self._total = len(layers)
        self._results: queue.SimpleQueue[tuple[_Key, AbstractContextManager[OpenArchive] | BaseException]]
        self._results = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self, count: int) -> None:
        for number in range(count):
            name = f"layer-{number}"
            # Daemons: a registry that keeps one waiting must not keep the process from ending.
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def next_result(self) -> tuple[_Key, AbstractContextManager[OpenArchive]]:
        """The next finished layer; raises what its thread raised, or what ends the pull meanwhile."""
        while True:
            try:
                key, outcome = self._results.get(timeout=CHECK_SECONDS)
            except queue.Empty:
                self._report.check()
                continue
            if isinstance(outcome, BaseException):
                raise outcome
            self._done += 1
            return key, outcome

    def leave(self) -> None:
        """End what still runs, close what nobody took."""
        with self._lock:
            self._left = True
        while not self._results.empty():
            _, outcome = self._results.get()
            if not isinstance(outcome, BaseException):
                with outcome:
                    pass
        if self._done < self._total:
            self._client.close()
        deadline = time.monotonic() + _LEAVE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while True:
            with self._lock:
                item = None if self._left else next(self._todo, None)
            if item is None:
                return
            key, descriptor = item
            try:
                fetch = partial(self._client.open_blob, self._repository, descriptor)
                held = partial(self._client.holds_blob, self._repository, descriptor)
                # Also while the layer lies in the cache or another pull makes it: that ends without a place of ours.
                with self._gate.place(self, self._check):
                    archive = self._archive(descriptor, key[1], fetch, self._advance, held=held)
            except BaseException as error:
                self._results.put((key, error))
                return
            with self._lock:
                if not self._left:
                    self._results.put((key, archive))
                    continue
            with archive:
                return

    def _check(self) -> None:
        if self._left:
            raise _AbandonedError
        self._report.check()

    def _advance(self, count: int) -> None:
        self._check()
        self._report.advance(count)
