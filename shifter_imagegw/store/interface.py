# SPDX-License-Identifier: BSD-3-Clause
"""What the use cases and the workers need from a database, and the logic that is the same on all of them.

A store offers single-record atomic primitives (the lower half of :class:`ImageStore`); everything that touches several
records is built from them here, in an order that survives a crash between any two of them. No transactions: a
stand-alone mongod has none.

* A unique ``slot`` keeps two pulls of one reference from being in flight, and two READY records of one image from
  existing.
* READY records change only if ``revision`` is still what the caller saw; records in flight only by who holds the lease.
* A tag is given to its new record first and taken from the old ones second; ``moved_tag`` marks the time in between, so
  that :meth:`ImageStore.repair` can finish what a killed process began. Look-ups prefer the record pulled last.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from shifter_imagegw.errors import LeaseLost
from shifter_imagegw.images import (
    FAILURE,
    PENDING,
    READY,
    Image,
    is_dead,
    is_stale_failure,
    ready_slot,
)

_NO_LEASE: Mapping[str, Any] = {"worker": None, "lease_expires": None, "sealed_tokens": None, "slot": None}
_RESULT_FIELDS = (
    "image_id", "env", "entry", "workdir", "labels", "private", "user_acl", "group_acl", "requested_user_acl",
    "requested_group_acl", "requested_by", "requested_gid", "format", "expiration",
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """One look-up, as stored in the collection ``metrics`` (section 5.1); ``time`` in epoch seconds."""

    user: str
    uid: int
    system: str
    type: str
    tag: str
    id: str
    time: float

    def document(self) -> dict[str, Any]:
        return asdict(self)


class SlotTakenError(Exception):
    """Another record holds the slot; raised by the primitives only."""


class ImageStore(ABC):
    """Records of images and pulls. Safe for threads and for processes that fork; errors are StoreError."""

    # Use cases ------------------------------------------------------------------------------------

    def start_pull(self, new: Image, now: float) -> Image:
        """Insert ``new`` unless a pull of that reference is in flight; returns whichever is. The caller's earlier
        failures of that reference and records nobody works on any more go away."""
        while True:
            self._clear_for(new, now)
            try:
                return self.insert(new)
            except SlotTakenError:
                running = self.holder(new.slot or "")
                if running is not None:
                    return running

    def _clear_for(self, new: Image, now: float) -> None:
        for old in self.pulls(new.system, new.itype, new.pulltag or ""):
            own_failure = old.status == FAILURE and (not old.denied or old.requested_by == new.requested_by)
            if own_failure or (old.in_flight and is_dead(old, now)) or not old.status:
                self.delete_if(old)

    def progress(self, pull: Image, now: float, lease_seconds: float, **changes: Any) -> None:
        """Write a state, a message or ``private`` and extend the lease; LeaseLost if it is somebody else's by now."""
        changes.update(last_heartbeat=now, lease_expires=now + lease_seconds)
        if not self.change_leased(pull, changes):
            raise LeaseLost(_lost(pull))

    def complete(self, pull: Image, result: Image, basis: Image | None, now: float) -> Image | None:
        """Turn ``pull`` into the READY image ``result`` describes, or merge it into the one there is (section 5.5).

        ``basis`` is the READY record of that image id which the caller saw when the ACLs were settled, or None.
        Returns the READY record, or None when that record has changed since (read it again, settle again, complete
        again). The pull's tag moves to the image from every other image of the same system and type. LeaseLost if the
        pull is lost.
        """
        if basis is None:
            image = self._complete_as_new(pull, result, now)
        else:
            image = self._complete_into(pull, result, basis, now)
        if image is not None and pull.pulltag is not None:
            self._take_tag(image, pull.pulltag)
        return image

    def _complete_as_new(self, pull: Image, result: Image, now: float) -> Image | None:
        changes = {name: getattr(result, name) for name in _RESULT_FIELDS}
        changes.update(
            _NO_LEASE, status=READY, last_pull=now, tags=_with_tag((), pull.pulltag), revision=1,
            moved_tag=pull.pulltag, slot=ready_slot(pull.system, pull.itype, result.image_id or ""),
        )  # fmt: skip
        try:
            if not self.change_leased(pull, changes):
                raise LeaseLost(_lost(pull))
        except SlotTakenError:
            return None
        return replace(pull, **changes)

    def _complete_into(self, pull: Image, result: Image, basis: Image, now: float) -> Image | None:
        if not self.change_leased(pull, {"last_heartbeat": now}):
            raise LeaseLost(_lost(pull))
        changes = {name: getattr(result, name) for name in _RESULT_FIELDS}
        changes.update(
            last_pull=now, tags=_with_tag(basis.tags, pull.pulltag), revision=(basis.revision or 0) + 1,
            moved_tag=pull.pulltag, slot=ready_slot(basis.system, basis.itype, result.image_id or ""),
        )  # fmt: skip
        if basis.moved_tag is not None and basis.moved_tag != pull.pulltag:
            self._take_tag(basis, basis.moved_tag)
            return None
        if not self.change_if(basis, changes):
            return None
        self.delete_leased(pull)
        return replace(basis, **changes)

    def _take_tag(self, image: Image, tag: str) -> None:
        """Remove ``tag`` from every other record of the image's system and type, then forget that it moved."""
        for other in self.holders_of_tag(image.system, image.itype, tag):
            if other.record_id != image.record_id:
                self._drop_tag(other, tag)
        if image.moved_tag == tag:
            self.change_if(image, {"moved_tag": None})

    def _drop_tag(self, image: Image | None, tag: str) -> None:
        while image is not None and tag in image.tags:
            changes: dict[str, Any] = {
                "tags": tuple(kept for kept in image.tags if kept != tag),
                "revision": (image.revision or 0) + 1,
            }
            if image.moved_tag == tag:
                changes["moved_tag"] = None
            if self.change_if(image, changes):
                return
            image = self.get(image.record_id)

    def fail(self, pull: Image, message: str, now: float, *, denied: bool = False) -> None:
        """End ``pull`` in FAILURE with a reason; LeaseLost if it is somebody else's by now."""
        changes: dict[str, Any] = {"status": FAILURE, "status_message": message, "last_pull": now, "denied": denied}
        if not self.change_leased(pull, {**_NO_LEASE, **changes}):
            raise LeaseLost(_lost(pull))

    def release(self, pull: Image) -> None:
        """Give an unfinished pull back to the queue, as if it had never been claimed; no error if it was lost."""
        changes: dict[str, Any] = {"status": PENDING, "status_message": None, "worker": None, "lease_expires": 0.0}
        self.change_leased(pull, {**changes, "attempts": max(pull.attempts - 1, 0)})

    def repair(self, now: float, update_timeout: float) -> None:
        """Finish interrupted tag moves and forget failures past their time (section 5.7)."""
        for image in self.with_moved_tag():
            if image.moved_tag in image.tags:
                self._take_tag(image, image.moved_tag)
            else:
                self.change_if(image, {"moved_tag": None})
        for record in self.with_status((FAILURE,)):
            if is_stale_failure(record, now, update_timeout):
                self.delete_if(record)

    # Queries --------------------------------------------------------------------------------------

    @abstractmethod
    def get(self, record_id: str) -> Image | None:
        """The record with that id."""

    @abstractmethod
    def ready_by_tag(self, system: str, itype: str, tag: str) -> Image | None:
        """The READY record holding ``tag``; the one pulled last if a tag is just moving."""

    @abstractmethod
    def ready_by_id(self, system: str, itype: str, image_id: str) -> Image | None:
        """The READY record of ``image_id`` pulled last."""

    @abstractmethod
    def pulls(self, system: str, itype: str, reference: str) -> list[Image]:
        """Records of this reference in flight or failed: neither READY nor EXPIRED nor EXPIRING."""

    @abstractmethod
    def queue(self, system: str) -> list[Image]:
        """The same for all references of a system, oldest first."""

    @abstractmethod
    def ready(self, system: str) -> list[Image]:
        """All READY records of a system."""

    @abstractmethod
    def with_status(self, states: Sequence[str]) -> list[Image]:
        """All records in one of these states, on all systems."""

    @abstractmethod
    def with_moved_tag(self) -> list[Image]:
        """Records whose ``moved_tag`` is set."""

    @abstractmethod
    def holders_of_tag(self, system: str, itype: str, tag: str) -> list[Image]:
        """All records, whatever their state, that hold ``tag``."""

    @abstractmethod
    def holder(self, slot: str) -> Image | None:
        """The record that occupies ``slot``."""

    # Primitives, each atomic ----------------------------------------------------------------------

    @abstractmethod
    def insert(self, image: Image) -> Image:
        """Insert and return with its ``record_id``; SlotTakenError."""

    @abstractmethod
    def claim(self, worker: str, now: float, lease_seconds: float, systems: Iterable[str]) -> Image | None:
        """The oldest pull in flight on one of ``systems`` whose lease is free or has expired, now leased to
        ``worker`` with ``attempts`` raised by one; None when there is nothing to do."""

    @abstractmethod
    def change_leased(self, pull: Image, changes: Mapping[str, Any]) -> bool:
        """Set fields (None removes one) if ``pull.worker`` still holds the lease of that claim; SlotTakenError."""

    @abstractmethod
    def change_if(self, image: Image, changes: Mapping[str, Any]) -> bool:
        """Set fields if ``status`` and ``revision`` are still those of ``image``; SlotTakenError."""

    @abstractmethod
    def set_expiration(self, image: Image, expiration: float) -> None:
        """Set ``expiration``; no revision changes, no error if the record is gone."""

    @abstractmethod
    def delete_if(self, image: Image) -> None:
        """Delete the record if ``status`` and ``revision`` are still those of ``image``."""

    @abstractmethod
    def delete_leased(self, pull: Image) -> None:
        """Delete the record if ``pull.worker`` still holds the lease of that claim."""

    @abstractmethod
    def add_metric(self, metric: Metric) -> None:
        """Append a look-up."""

    @abstractmethod
    def metrics(self, system: str, limit: int) -> list[Metric]:
        """The last ``limit`` look-ups on a system, oldest first."""

    @abstractmethod
    def ping(self) -> None:
        """StoreError unless the database answers."""

    @abstractmethod
    def close(self) -> None:
        """Drop the connections of this process."""


def _with_tag(tags: tuple[str, ...], tag: str | None) -> tuple[str, ...]:
    return tags if tag is None or tag in tags else (*tags, tag)


def _lost(pull: Image) -> str:
    return f"pull of {pull.pulltag} on {pull.system}: another worker has taken it over"
