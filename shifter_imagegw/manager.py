# SPDX-License-Identifier: BSD-3-Clause
"""The use cases of the API: pull, look up, list, queue (gateway contract, sections 2.7, 4 and 5).

One object per process, for all its threads; keeps no state of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from shifter_imagegw.config.model import Configuration
from shifter_imagegw.errors import NotFound, PermissionDenied, RequestError, StoreError
from shifter_imagegw.images import (
    INIT,
    GroupsOf,
    Image,
    PullRequest,
    decide_pull,
    is_stale_failure,
    may_read,
    may_see,
    requested_acl,
    without_secrets,
)
from shifter_imagegw.registry.reference import choose_location, normalize_reference
from shifter_imagegw.session import Session, TokenSealer
from shifter_imagegw.store import ImageStore, Metric

_ITYPES = ("docker", "custom")
_MAX_REFERENCE = 1024
_MAX_ACL_ENTRIES = 1000
_MAX_ID = 2**32 - 2
_MAX_METRICS = 10_000
_EXPIRATION_SLACK = 60.0
"""A look-up moves the expiration only by at least so many seconds: a popular image is not written at every look-up."""

_log = logging.getLogger(__name__)


class ImageManager:
    """What an authenticated caller can do. ``groups_of`` gives the supplementary groups of a uid on this host;
    ``on_queued`` is called when there is a new pull to work on."""

    def __init__(
        self,
        configuration: Configuration,
        store: ImageStore,
        sealer: TokenSealer,
        groups_of: GroupsOf,
        clock: Callable[[], float] = time.time,
        *,
        on_queued: Callable[[], None] | None = None,
    ) -> None:
        self._configuration = configuration
        self._store = store
        self._sealer = sealer
        self._groups_of = groups_of
        self._clock = clock
        self._on_queued = on_queued

    def pull(
        self,
        session: Session,
        itype: str,
        reference: str,
        allowed_uids: Iterable[int] = (),
        allowed_gids: Iterable[int] = (),
    ) -> Image:
        """Start a pull, or report on the one there is; cheap and harmless to repeat: it is how clients poll.

        The answer holds only what this caller may see. RequestError, InvalidReference, NotFound (unknown system),
        PermissionDenied (too many pulls), StoreError.
        """
        self._check_system(session)
        reference = self._reference(itype, reference)
        if itype != "docker":
            raise RequestError(f"images of type {itype!r} are imported, not pulled; pull docker:{reference} instead")
        choose_location(reference, self._configuration.locations, self._configuration.default_location)
        request = PullRequest(
            session.system, itype, reference, session.uid, session.gid,
            _acl("allowed_uids", allowed_uids, session.uid), _acl("allowed_gids", allowed_gids, session.gid),
            session.tokens,
        )  # fmt: skip
        now = self._clock()
        answer = decide_pull(
            request,
            self._store.ready_by_tag(session.system, itype, reference),
            self._store.pulls(session.system, itype, reference),
            readable=lambda image: may_read(image, session.uid, session.gid, self._groups_of),
            now=now,
            update_timeout=self._configuration.pull_update_timeout,
        )
        if answer is None:
            answer = self._start(request, session, now)
        visible = may_see(answer, session.uid, session.gid, self._groups_of)
        return answer if visible else without_secrets(answer)

    def lookup(self, session: Session, itype: str, reference: str) -> Image:
        """The READY image a reference points at; NotFound also when the caller may not read it."""
        self._check_system(session)
        reference = self._reference(itype, reference)
        image = self._store.ready_by_tag(session.system, itype, reference)
        if image is None or not may_read(image, session.uid, session.gid, self._groups_of):
            raise NotFound("image not found")
        try:
            return self._note_use(session, itype, reference, image)
        except StoreError as error:
            # A full disk must not keep jobs from images that are there (section 5.1).
            _log.warning("lookup of %s on %s is not recorded: %s", reference, session.system, error)
            return image

    def _note_use(self, session: Session, itype: str, reference: str, image: Image) -> Image:
        """Move the expiration on, record the metric; StoreError."""
        now = self._clock()
        expiration = now + self._configuration.image_expiration
        if image.expiration is None or abs(expiration - image.expiration) > _EXPIRATION_SLACK:
            self._store.set_expiration(image, expiration)
            image = replace(image, expiration=expiration)
        if self._configuration.metrics:
            self._store.add_metric(
                Metric(session.user, session.uid, session.system, itype, reference, image.image_id or "", now)
            )
        return image

    def list_images(self, session: Session) -> list[Image]:
        """The READY images of the system that the caller may read."""
        self._check_system(session)
        groups: dict[int, frozenset[int]] = {}

        def groups_of(uid: int) -> frozenset[int]:
            if uid not in groups:
                groups[uid] = self._groups_of(uid)
            return groups[uid]

        return [
            image for image in self._store.ready(session.system) if may_read(image, session.uid, session.gid, groups_of)
        ]

    def queue(self, session: Session) -> list[Image]:
        """Pulls in progress or failed lately; ``images.queue_entry`` makes the answer."""
        self._check_system(session)
        now = self._clock()
        timeout = self._configuration.pull_update_timeout
        return [pull for pull in self._store.queue(session.system) if not is_stale_failure(pull, now, timeout)]

    def metrics(self, session: Session, limit: int) -> list[Metric]:
        """The last ``limit`` look-ups on the system, oldest first; nothing for whoever is no admin."""
        self._check_system(session)
        if limit <= 0 or not self.is_admin(session):
            return []
        return self._store.metrics(session.system, min(limit, _MAX_METRICS))

    def may_import(self, session: Session) -> bool:
        """Whether the caller may import ready-made images (``ImportUsers``, exact match)."""
        return self._configuration.import_by_all or session.user in self._configuration.import_users

    def is_admin(self, session: Session) -> bool:
        """Exact match of the user name (section 4.1)."""
        platform = self._configuration.platforms.get(session.system)
        return platform is not None and session.user in platform.admins

    def _start(self, request: PullRequest, session: Session, now: float) -> Image:
        running = [pull for pull in self._store.queue(session.system) if pull.in_flight]
        own = sum(pull.requested_by == session.uid for pull in running)
        if own >= self._configuration.pulls_per_user:
            raise PermissionDenied(f"you have {own} pulls in progress on {session.system}; wait for some to finish")
        new = request.record(now, self._configuration.default_format)
        if session.tokens:
            new = replace(new, sealed_tokens=self._sealer.seal(session.tokens, session.system))
        pull = self._store.start_pull(new, now)
        if self._on_queued is not None:
            self._on_queued()
        if pull.requested_by == session.uid and pull.attempts == 0:
            # Old clients expect the first answer to look like this (section 2.4).
            return replace(pull, status=INIT, last_pull=None)
        return pull

    def _check_system(self, session: Session) -> None:
        if session.system not in self._configuration.platforms:
            raise NotFound(f"system {session.system!r} is not served here")

    def _reference(self, itype: str, reference: str) -> str:
        if itype not in _ITYPES:
            raise RequestError(f"image type {itype!r} is unknown; use {' or '.join(_ITYPES)}")
        if not reference or len(reference) > _MAX_REFERENCE:
            raise RequestError(f"the image reference is empty or longer than {_MAX_REFERENCE} characters")
        try:
            reference.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RequestError(f"image reference {reference[:80]!r} is not UTF-8") from error
        return normalize_reference(reference)


def _acl(name: str, ids: Iterable[int], own: int) -> tuple[int, ...]:
    listed = requested_acl(ids, own)
    if len(listed) > _MAX_ACL_ENTRIES:
        raise RequestError(f"{name}: {len(listed)} entries; at most {_MAX_ACL_ENTRIES} are possible: use a group")
    for number in listed:
        if not 0 <= number <= _MAX_ID:
            raise RequestError(f"{name}: {number} is not a valid id")
    return listed
