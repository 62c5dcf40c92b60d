# SPDX-License-Identifier: BSD-3-Clause
"""Whether what lies in an image directory is sound and what the records say: for ``shifter-imagegw verify``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from shifter_imagegw.config.model import Configuration
from shifter_imagegw.errors import ConfigurationError, ConversionError, NotFound, NotSupported, RequestError
from shifter_imagegw.images import EXPIRED, EXPIRING, Image
from shifter_imagegw.layers.recipe import Recipe
from shifter_imagegw.meta import recorded_recipe
from shifter_imagegw.platforms.local import ITYPES, LocalPlatform, encode_reference
from shifter_imagegw.squashfs.validate import validate_image
from shifter_imagegw.store import ImageStore
from udiroot import _core

_FORMAT = "squashfs"
_HEX = frozenset("0123456789abcdef")
_SETTLE_SECONDS = 2.0
"""A pull that completes meanwhile writes image, metadata, tag and record within that time."""


class Verifier:
    """Looks at one system. NotFound when it is not configured, NotSupported when its directory is not mounted here,
    ConfigurationError when it is not there or somebody else's."""

    def __init__(
        self,
        configuration: Configuration,
        store: ImageStore,
        system: str,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        platform = configuration.platforms.get(system)
        if platform is None:
            known = ", ".join(sorted(configuration.platforms))
            raise NotFound(f"system {system!r} is not served here; configured are: {known}")
        if platform.ssh is not None:
            raise NotSupported(f"system {system!r}: its image directory is not mounted here; run this where it is")
        _check_account(platform.image_directory)
        self._configuration = configuration
        self._store = store
        self._system = system
        self._directory = platform.image_directory
        self._platform = LocalPlatform(system, platform.image_directory)
        self._wait = wait

    def find(self, image: str) -> Image:
        """The READY record of an id, or of a reference as ``shifter --image`` takes it; NotFound, RequestError."""
        if len(image) == 64 and _HEX.issuperset(image):
            found = [self._store.ready_by_id(self._system, itype, image) for itype in ITYPES]
        else:
            try:
                itype, tag, _ = _core.parse_image_spec(image, "docker")
            except _core.Error as error:
                raise RequestError(str(error)) from error
            found = [self._store.ready_by_tag(self._system, itype, tag)]
        record = next((each for each in found if each is not None), None)
        if record is None:
            raise NotFound(f"{image}: no such image on {self._system}; `shifterimg images` lists those there are")
        return record

    def count(self) -> int:
        """Images of the system."""
        return len(self._store.ready(self._system))

    def problems(self, images: Sequence[str] = ()) -> list[str]:
        """One line for each thing that is wrong with these images; without any, with all of the system and the rest of
        its directory. Only what is wrong twice counts: pulls go on meanwhile."""
        found = list(self._problems(images))
        if not found:
            return []
        self._wait(_SETTLE_SECONDS)
        still = set(self._problems(images))
        return [problem for problem in found if problem in still]

    def _problems(self, images: Sequence[str]) -> Iterator[str]:
        # Names first: what comes after them has a record by the time that those are read.
        files, index = self._platform.image_files(), self._platform.tag_index()
        records = [self.find(image) for image in images] or self._store.ready(self._system)
        for record in sorted(records, key=lambda each: (each.tags, each.image_id or "")):
            for problem in self._image_problems(record):
                yield f"{', '.join(record.tags) or record.record_id}: {problem}"
        if not images:
            yield from self._unowned_files(files)
            yield from self._unowned_tags(index, records)

    def _image_problems(self, record: Image) -> Iterator[str]:
        if record.image_id is None:
            yield "its record has no image id; pull it again"
            return
        yield from self._file_problems(self._platform.path(record.image_id, record.format or _FORMAT))
        yield from self._metadata_problems(record.image_id, record)
        for tag in record.tags:
            tagged = self._platform.tagged(record.itype, tag)
            if tagged != record.image_id and self._platform.indexes(tag):
                says = "has no entry" if tagged is None else f"says {tagged}"
                yield f"the tag index {says} for {tag}, the record says {record.image_id}; pull {tag} again"

    def _file_problems(self, path: Path) -> Iterator[str]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            yield f"{path}: {error.strerror}; pull it again"
            return
        try:
            if path.suffix == f".{_FORMAT}":
                validate_image(fd)
        except ConversionError as error:
            yield f"{path}: {error}; remove the file first"
        finally:
            os.close(fd)

    def _metadata_problems(self, image_id: str, record: Image) -> Iterator[str]:
        path, content = self._platform.path(image_id, "meta"), self._platform.metadata(image_id)
        if content is None:
            yield f"{path}: is missing: nodes cannot start it; pull it again"
            return
        try:
            read = _core.parse_meta(content, image_id)  # as nodes read it
            Recipe.of_record(recorded_recipe(content) or Recipe().record())
        except (_core.Error, ValueError) as error:
            yield f"{path}: {error}"
            return
        if read["format"] != (record.format or _FORMAT):
            yield f"{path}: FORMAT is {read['format']}, the record says {record.format}; pull it again"
        users, groups = set(record.user_acl or ()), set(record.group_acl or ())
        restricted = record.private or (record.private is None and bool(users or groups))
        if not self._configuration.acl_metadata:
            return
        if bool(restricted) != read["restricted"]:
            yield f"{path}: {_access(read['restricted'])}, the record says: {_access(bool(restricted))}; pull it again"
        elif restricted and (set(read["user_acl"]), set(read["group_acl"])) != (users, groups):
            yield f"{path}: its access lists are not those of the record; pull it again"

    def _unowned_files(self, files: Iterable[Path]) -> Iterator[str]:
        """Systems may share a directory."""
        sharing = {
            name
            for name, platform in self._configuration.platforms.items()
            if platform.image_directory.resolve() == self._directory.resolve()
        }
        owned = {record.image_id for system in sharing for record in self._store.ready(system)}
        leaving = self._store.with_status((EXPIRING, EXPIRED))
        owned.update(record.image_id for record in leaving if record.system in sharing)
        for path in files:
            if path.stem not in owned and path.exists():
                yield f"{path}: belongs to no record; nobody uses it through this gateway"

    def _unowned_tags(self, index: dict[tuple[str, str], str], records: Iterable[Image]) -> Iterator[str]:
        known = {(record.itype, encode_reference(tag)) for record in records for tag in record.tags}
        for (itype, name), image_id in index.items():
            if (itype, name) not in known:
                yield f"the tag index has {itype}/{name} for {image_id[:80]}, but no record has that tag"


def _check_account(directory: Path) -> None:
    """An embedded database keeps files beside it that belong to whoever opens it: root's would lock the gateway out."""
    try:
        owner = directory.stat().st_uid
    except OSError as error:
        raise ConfigurationError(f"{directory}: {error.strerror}; check-config says what else is wrong") from error
    if owner != os.geteuid():
        raise ConfigurationError(f"{directory}: belongs to uid {owner}; run this as that, the gateway's account")


def _access(restricted: bool) -> str:
    return "not for everybody" if restricted else "for everybody"
