# SPDX-License-Identifier: BSD-3-Clause
"""One pull from its reference to READY (gateway contract, section 6.2).

What may go wrong between two steps, and why the order is this one:

* Image, metadata, tag, record: each is complete and durable before the next one makes it visible. A worker killed in
  between leaves a pull in flight; whoever takes it over repeats the steps, which is harmless.
* The metadata with the settled access lists is written before the tag and the record, so that no reader finds a private
  image without them. An image never appears beside metadata of an earlier time: those are closed first.
* The tag is written before the record, because whoever sees READY uses the tag at once. If the record then says
  otherwise (another pull was quicker, the lease is lost, the database fails), tag and metadata follow the record.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from shifter_imagegw.attended import attended
from shifter_imagegw.config.model import Configuration
from shifter_imagegw.errors import (
    ConversionError,
    ExaminerRejected,
    InvalidReference,
    LeaseLost,
    PublishError,
    ShifterError,
)
from shifter_imagegw.fairness import FairGate
from shifter_imagegw.fetch import LayerEngine, holds_layers, layer_archives
from shifter_imagegw.images import CONVERSION, PULLING, TRANSFER, GroupsOf, Image, granted_acls
from shifter_imagegw.layers.recipe import Recipe
from shifter_imagegw.meta import Metadata, recorded_recipe, render
from shifter_imagegw.platforms.local import LocalPlatform
from shifter_imagegw.progress import Reporter
from shifter_imagegw.registry.client import RegistryClient
from shifter_imagegw.registry.location import Location, Login, choose_login
from shifter_imagegw.registry.manifest import ImageConfig, ResolvedImage
from shifter_imagegw.registry.reference import choose_location
from shifter_imagegw.session import TokenSealer
from shifter_imagegw.store import ImageStore

_FORMAT = "squashfs"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pipeline:
    """What a pull needs. ``platforms``: the image directories by system; ``gate``: the places that all pulls share.
    Safe for threads."""

    configuration: Configuration
    store: ImageStore
    sealer: TokenSealer
    engine: LayerEngine
    platforms: Mapping[str, LocalPlatform]
    groups_of: GroupsOf
    clock: Callable[[], float] = field(default=time.time)
    gate: FairGate = field(default_factory=FairGate)

    def pull_image(self, pull: Image, report: Reporter) -> Image:
        """The READY record that ``pull`` became or was merged into.

        PullError and other ShifterErrors say why not; PullInterruptedError when the worker stops.
        """
        report.phase(PULLING, "Getting manifest")
        platform = self._platform(pull.system)
        architecture = self.configuration.platforms[pull.system].architecture
        location, reference = choose_location(
            pull.pulltag or "", self.configuration.locations, self.configuration.default_location
        )
        login = self._login(pull, location)
        with RegistryClient(location, login, self.configuration.http) as client:
            resolve = partial(client.resolve, reference.repository, reference.version, architecture)
            [image] = attended([resolve], 1, report.check)
            recipe = self.configuration.platforms[pull.system].recipe
            metadata = _metadata(image.config)
            # What no metadata file can say is found out before anything is transferred.
            check = partial(self._check_metadata, pull, image, metadata, recipe)
            check(client.private)
            # Until its lists are settled, the record of a private image shows nothing to others.
            report.phase(PULLING, "Getting manifest", private=image.private)
            if not self._is_there(
                pull, image, client, reference.repository, platform=platform, report=report
            ) and self._convert(
                pull, image, client, reference.repository, recipe=recipe, platform=platform, check=check, report=report
            ):
                metadata = replace(metadata, recipe=recipe.record())
            private = client.private
        return self._settle(pull, image, metadata, private, platform=platform, report=report)

    def _platform(self, system: str) -> LocalPlatform:
        if self.configuration.examiner is not None:
            raise ExaminerRejected(
                "this site wants images examined (examiner), which this release cannot do; remove the key to pull"
            )
        if self.configuration.default_format != _FORMAT:
            raise ConversionError(
                f"DefaultImageFormat {self.configuration.default_format!r} cannot be made; use {_FORMAT!r}"
            )
        platform = self.platforms.get(system)
        if platform is None:
            raise PublishError(f"system {system}: its accesstype is not supported by this release; use 'local'")
        return platform

    def _login(self, pull: Image, location: Location) -> Login | None:
        if pull.sealed_tokens is None:
            return None
        tokens = self.sealer.unseal(pull.sealed_tokens, pull.system)
        return choose_login(location.name, self.configuration.default_location, tokens)

    def _check_metadata(
        self, pull: Image, image: ResolvedImage, metadata: Metadata, recipe: Recipe, private: bool
    ) -> None:
        """ConversionError where the metadata file, access lists included, could not be written as things are now."""
        basis = self.store.ready_by_id(pull.system, pull.itype, image.id)
        whole = self._with_access(metadata, self._result(pull, image, private, basis))
        render(replace(whole, recipe=recipe.record()))

    def _is_there(
        self,
        pull: Image,
        image: ResolvedImage,
        client: RegistryClient,
        repository: str,
        *,
        platform: LocalPlatform,
        report: Reporter,
    ) -> bool:
        """Whether the image file exists and this pull may have it.

        Who has seen the documents of a private image can put them into a repository of his own. That he could not have
        fetched its layers is found out here, and where the registry does not answer, by fetching them.
        """
        if not _is_published(platform, image.id):
            return False
        basis = self.store.ready_by_id(pull.system, pull.itype, image.id)
        if basis is not None and basis.private is False:
            return True
        return holds_layers(
            client, repository, image, parallel=self.configuration.parallel_layers, report=report
        )

    def _convert(
        self,
        pull: Image,
        image: ResolvedImage,
        client: RegistryClient,
        repository: str,
        *,
        recipe: Recipe,
        platform: LocalPlatform,
        check: Callable[[bool], None],
        report: Reporter,
    ) -> bool:
        """From the registry to ``<id>.squashfs`` in the image directory; False when another pull was quicker.

        ``check`` is told whether the image is private, and raises when its metadata could not be published.
        """
        parallel = self.configuration.parallel_layers
        names = [layer.digest for layer in image.layers]
        with layer_archives(
            client, repository, image, self.engine, recipe=recipe, parallel=parallel, gate=self.gate, report=report
        ) as archives:
            report.phase(CONVERSION, "Converting image")
            with platform.part(f"{image.id}.{_FORMAT}", pull.record_id, pull.attempts) as part:
                self.engine.merge(archives, part, report.check, names)
                report.phase(TRANSFER, "Transferring image")
                if _is_published(platform, image.id):
                    return False  # by the same recipe its bytes are the same
                check(client.private)
                if platform.has_metadata(image.id) and self.configuration.acl_metadata:
                    closed = render(Metadata(private=True, recipe=recipe.record()))
                    platform.publish_metadata(image.id, closed, pull.record_id, pull.attempts)
                platform.publish_image(image.id, _FORMAT, part)
        return True

    def _settle(
        self,
        pull: Image,
        image: ResolvedImage,
        metadata: Metadata,
        private: bool,
        *,
        platform: LocalPlatform,
        report: Reporter,
    ) -> Image:
        """Decide who may use the image, and say so in metadata, tag and record."""
        report.phase(TRANSFER, "Transferring metadata", private=private)
        try:
            ready = None
            while ready is None:
                basis = self.store.ready_by_id(pull.system, pull.itype, image.id)
                result = self._result(pull, image, private, basis)
                self._publish_metadata(pull, metadata, result, platform)
                platform.publish_tag(pull.itype, pull.pulltag or "", image.id, pull.record_id, pull.attempts)
                # None: the image's record has changed since; then its lists are settled anew.
                ready = self.store.complete(pull, result, basis, self.clock())
        except Exception as error:
            self._follow_records(pull, image, metadata, platform, lost=isinstance(error, LeaseLost))
            raise
        if platform.tagged(pull.itype, pull.pulltag or "") != image.id:
            # A predecessor that does not know yet that it lost this pull wrote it late.
            self._follow_records(pull, image, metadata, platform, lost=True)
        return ready

    def _result(self, pull: Image, image: ResolvedImage, private: bool, basis: Image | None) -> Image:
        private = private and not self._is_public_elsewhere(pull, basis)
        users, groups = granted_acls(pull, basis, self.groups_of) if private else ((), ())
        config = image.config
        return replace(
            pull,
            image_id=image.id,
            private=private,
            user_acl=users,
            group_acl=groups,
            env=config.env,
            entry=config.entrypoint or None,
            workdir=config.workdir,
            labels=config.labels if self.configuration.labels else None,
            format=_FORMAT,
            expiration=self.clock() + self.configuration.image_expiration,
        )

    def _is_public_elsewhere(self, pull: Image, basis: Image | None) -> bool:
        """Whether anybody gets the image from another repository: a private copy of a public image, which everybody
        can make, must not take it away from those who use it (docs/adr/0003)."""
        if basis is None or basis.private is not False:
            return False
        return not {self._repository(tag) for tag in basis.tags} <= {None, self._repository(pull.pulltag or "")}

    def _repository(self, tag: str) -> tuple[str, str] | None:
        """Location and repository of a tag; None where the site knows no such registry any more."""
        try:
            location, reference = choose_location(
                tag, self.configuration.locations, self.configuration.default_location
            )
        except InvalidReference:
            return None
        return location.name, reference.repository

    def _publish_metadata(self, pull: Image, metadata: Metadata, record: Image, platform: LocalPlatform) -> None:
        if metadata.recipe is None:  # the image was there; what it was made by need not be today's recipe
            metadata = replace(metadata, recipe=recorded_recipe(platform.metadata(record.image_id or "") or b""))
        content = render(self._with_access(metadata, record))
        platform.publish_metadata(record.image_id or "", content, pull.record_id, pull.attempts)

    def _with_access(self, metadata: Metadata, record: Image) -> Metadata:
        """``metadata`` with the access lists that the record has."""
        users, groups = record.user_acl or (), record.group_acl or ()
        # A record of old times may not say whether it is private; then its lists do.
        restricted = record.private or (record.private is None and bool(users or groups))
        if not (restricted and self.configuration.acl_metadata):
            return metadata
        return replace(metadata, private=True, user_acl=users, group_acl=groups)

    def _follow_records(
        self, pull: Image, image: ResolvedImage, metadata: Metadata, platform: LocalPlatform, *, lost: bool
    ) -> None:
        """Make tag and metadata say what the records say, after a pull that wrote them and then did not complete.

        ``lost``: somebody else completes it, and where no record exists yet will write both.
        """
        reference = pull.pulltag or ""
        try:
            tagged = self.store.ready_by_tag(pull.system, pull.itype, reference)
            if tagged is not None and tagged.image_id:
                platform.publish_tag(pull.itype, reference, tagged.image_id, pull.record_id, pull.attempts)
            elif not lost:
                platform.remove_tag(pull.itype, reference, image.id)
            record = self.store.ready_by_id(pull.system, pull.itype, image.id)
            if record is not None:
                self._publish_metadata(pull, metadata, record, platform)
        except ShifterError as error:
            _log.error(
                "pull of %s on %s: tag and metadata may be ahead of the records: %s", reference, pull.system, error
            )


def _is_published(platform: LocalPlatform, image_id: str) -> bool:
    """Whether there is nothing to convert. An image without metadata, which a killed worker leaves, is made again:
    nobody could say by which recipe it was made."""
    return platform.exists(image_id, _FORMAT) and platform.has_metadata(image_id)


def _metadata(config: ImageConfig) -> Metadata:
    return Metadata(
        image_format=_FORMAT, env=config.env, entrypoint=config.entrypoint, cmd=config.cmd, workdir=config.workdir
    )
