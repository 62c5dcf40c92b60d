# SPDX-License-Identifier: BSD-3-Clause
"""Image records, their states, who may see them, and when a pull starts: pure functions, no I/O.

Sources: gateway contract, sections 2.4 (image object), 4.2 (read check), 4.3 (ACLs of a pull), 5.1-5.4 (records,
states, pull decision); docs/adr/0003-private-images.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from shifter_imagegw.session import are_marked, mark_logins

INIT = "INIT"
PENDING = "PENDING"
PULLING = "PULLING"
EXAMINATION = "EXAMINATION"
CONVERSION = "CONVERSION"
TRANSFER = "TRANSFER"
HASHING = "HASHING"
READY = "READY"
FAILURE = "FAILURE"
EXPIRING = "EXPIRING"
EXPIRED = "EXPIRED"
_LEGACY_READY = "SUCCESS"

IN_FLIGHT = (INIT, PENDING, PULLING, EXAMINATION, CONVERSION, TRANSFER, HASHING)
"""States of a pull that somebody works on or will work on."""

RECENT_SECONDS = 10.0
"""A READY image this fresh is returned whatever ACLs are asked for: it ends the polling loop of old clients."""

DENIED_BACKOFF_SECONDS = 30.0
"""How long one caller waits after the registry refused them with the same logins: ends their polling."""

DEAD_SECONDS = 3600.0
"""A record in flight without a lease (another gateway's) and without a heartbeat for so long is nobody's work."""

MISSING = "MISSING"

GroupsOf = Callable[[int], frozenset[int]]
"""Supplementary groups of a uid on the gateway host; an unknown uid has none."""


@dataclass(frozen=True)
class Image:
    """One record of the collection ``images``: a pull, and after its completion the image.

    Times are epoch seconds. ``None`` means the stored record has no such field. ``to_document`` knows the stored names.
    Fields from ``revision`` on are this gateway's own; records of older gateways do not have them.
    """

    system: str
    itype: str
    pulltag: str | None = None
    status: str = INIT
    record_id: str = ""
    status_message: str | None = None
    last_heartbeat: float | None = None
    last_pull: float | None = None
    tags: tuple[str, ...] = ()
    image_id: str | None = None
    format: str | None = None
    arch: str = "amd64"
    os: str = "linux"
    location: str = ""
    remotetype: str = "dockerv2"
    ostcount: str = "0"
    replication: str = "1"
    user_acl: tuple[int, ...] | None = None
    group_acl: tuple[int, ...] | None = None
    private: bool | None = None
    env: tuple[str, ...] | None = None
    entry: Any = None
    workdir: str | None = None
    labels: Mapping[str, str] | None = None
    expiration: float | None = None
    revision: int | None = None
    """Raised by every change of a READY record: who changes it says which state was seen."""
    slot: str | None = None
    """Unique in the store: one pull in flight per reference, one READY record per image id."""
    worker: str | None = None
    lease_expires: float | None = None
    attempts: int = 0
    requested_by: int | None = None
    """uid of the caller who started the pull."""
    requested_gid: int | None = None
    requested_user_acl: tuple[int, ...] | None = None
    requested_group_acl: tuple[int, ...] | None = None
    denied: bool = False
    """The pull failed for want of rights at the registry: somebody else may still succeed."""
    login_mark: str | None = None
    """``session.mark_logins`` of the logins this pull brought."""
    sealed_tokens: str | None = None
    moved_tag: str | None = None
    """A tag this record has gained and that older records may still hold."""

    @property
    def in_flight(self) -> bool:
        return self.status in IN_FLIGHT


STORED_NAMES = {
    "record_id": "_id", "tags": "tag", "image_id": "id", "user_acl": "userACL", "group_acl": "groupACL", "env": "ENV",
    "entry": "ENTRY", "workdir": "WORKDIR", "labels": "LABELS",
}  # fmt: skip
_FIELDS = tuple(each.name for each in fields(Image))
_BY_STORED_NAME = {STORED_NAMES.get(name, name): name for name in _FIELDS}
_UPSTREAM_NULLS = ("private", "user_acl", "group_acl")


def stored_name(name: str) -> str:
    """Name in the database of the field ``name`` of :class:`Image`."""
    return STORED_NAMES.get(name, name)


def stored_value(value: Any) -> Any:
    """``value`` with tuples as lists and mappings as plain dicts, as JSON and BSON want it."""
    if isinstance(value, (tuple, list)):
        return [stored_value(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def to_document(image: Image) -> dict[str, Any]:
    """The record as stored, without ``_id``; absent fields are absent, but ``private`` and the ACLs may be null."""
    document: dict[str, Any] = {}
    for name in _FIELDS:
        value = getattr(image, name)
        if name != "record_id" and (value is not None or name in _UPSTREAM_NULLS):
            document[stored_name(name)] = stored_value(value)
    return document


def from_document(document: Mapping[str, Any]) -> Image:
    """A record as any gateway may have stored it: string tags, null lists, ``SUCCESS``, missing fields (section
    5.1).
    """
    values: dict[str, Any] = {}
    for stored, value in document.items():
        name = _BY_STORED_NAME.get(stored)
        if name is not None and value is not None:
            convert = _CONVERT.get(name)
            values[name] = value if convert is None else convert(value)
    if values.get("status") == _LEGACY_READY:
        values["status"] = READY
    return Image(**{"system": "", "itype": "docker", "status": "", **values})


def _text_tuple(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(item) for item in value)


def _number_tuple(value: Any) -> tuple[int, ...]:
    return tuple(int(item) for item in value)


_CONVERT: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        ("record_id", "system", "itype", "pulltag", "status", "status_message", "image_id", "workdir"), str
    ),
    **dict.fromkeys(("last_heartbeat", "last_pull", "expiration", "lease_expires"), float),
    **dict.fromkeys(("user_acl", "group_acl", "requested_user_acl", "requested_group_acl"), _number_tuple),
    **dict.fromkeys(("tags", "env"), _text_tuple),
    "entry": lambda value: tuple(value) if isinstance(value, list) else value,
}


def image_object(record: Image) -> dict[str, Any]:
    """The 13 keys of an API answer (section 2.4). ``MISSING`` stands for what is unknown; ``last_pull`` is a float."""
    known = {
        "id": record.image_id,
        "system": record.system,
        "itype": record.itype,
        "tag": list(record.tags),
        "status": record.status or None,
        "ENV": record.env,
        "ENTRY": record.entry,
        "WORKDIR": record.workdir,
        "LABELS": record.labels,
        "last_pull": None if record.last_pull is None else float(record.last_pull),
        "status_message": record.status_message,
    }
    answer = {key: MISSING if value is None else stored_value(value) for key, value in known.items()}
    for key, acl in (("userACL", record.user_acl), ("groupACL", record.group_acl)):
        answer[key] = None if acl is None else list(acl)
    return answer


def queue_entry(record: Image) -> dict[str, str]:
    """One element of the answer to ``queue`` (section 2.7)."""
    return {"status": record.status, "image": record.pulltag or ""}


def may_read(record: Image, uid: int, gid: int, groups_of: GroupsOf) -> bool:
    """The read check of section 4.2; a null list restricts as little as an empty one. Admins get no exemption."""
    if record.private is False or not (record.user_acl or record.group_acl):
        return True
    if uid in (record.user_acl or ()):
        return True
    groups = record.group_acl or ()
    return gid in groups or (bool(groups) and not groups_of(uid).isdisjoint(groups))


def may_see(record: Image, uid: int, gid: int, groups_of: GroupsOf) -> bool:
    """Whether an answer to ``pull`` may show this caller all of ``record``; stricter than the read check while the
    pull of a private image runs: its ACLs are not settled yet."""
    if record.status == READY:
        return may_read(record, uid, gid, groups_of)
    if record.requested_by == uid:
        return True
    unsettled = record.private is True and not (record.user_acl or record.group_acl)
    return not unsettled and may_read(record, uid, gid, groups_of)


def without_secrets(record: Image) -> Image:
    """What a caller who fails the read check may see of somebody else's pull: that it runs, not what it pulls."""
    return replace(
        record,
        image_id=None,
        env=None,
        entry=None,
        workdir=None,
        labels=None,
        user_acl=(),
        group_acl=(),
        status_message=None,
    )


def requested_acl(ids: Iterable[int], own: int) -> tuple[int, ...]:
    """An ACL as asked for: in the caller's order, without repetitions, the caller's own id added; () stays ()."""
    listed = tuple(dict.fromkeys(ids))
    return listed if not listed or own in listed else (*listed, own)


@dataclass(frozen=True)
class PullRequest:
    """What the pull decision looks at: ``user_acl`` and ``group_acl`` come from :func:`requested_acl`."""

    system: str
    itype: str
    reference: str
    uid: int
    gid: int
    user_acl: tuple[int, ...] = ()
    group_acl: tuple[int, ...] = ()
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    def record(self, now: float, image_format: str) -> Image:
        """The new record of this pull."""
        return Image(
            system=self.system, itype=self.itype, pulltag=self.reference, status=PENDING, last_pull=now,
            last_heartbeat=now, format=image_format, user_acl=self.user_acl, group_acl=self.group_acl,
            requested_by=self.uid, requested_gid=self.gid, requested_user_acl=self.user_acl,
            requested_group_acl=self.group_acl, slot=pull_slot(self.system, self.itype, self.reference),
            lease_expires=0.0, login_mark=mark_logins(self.tokens),
        )  # fmt: skip


def pull_slot(system: str, itype: str, reference: str) -> str:
    """Value of ``slot`` while a pull of this reference is in flight."""
    return "\n".join(("pull", system, itype, reference))


def ready_slot(system: str, itype: str, image_id: str) -> str:
    """Value of ``slot`` of the READY record of an image."""
    return "\n".join(("image", system, itype, image_id))


def decide_pull(
    request: PullRequest,
    active: Image | None,
    pulls: Sequence[Image],
    *,
    readable: Callable[[Image], bool],
    now: float,
    update_timeout: float,
) -> Image | None:
    """The record that answers a pull as it stands, or None when a new pull must start (section 5.4).

    ``active`` is the READY record that holds the reference, ``pulls`` are the records of this reference in flight or
    failed (never EXPIRED ones: they would shadow the new pull for ever). Differences from the historic rule: a READY
    image the caller may not read counts as absent; a failure binds everybody only if it would hit everybody;
    requested ACLs are compared with what was requested, not with what was stored.
    """
    running = [pull for pull in pulls if pull.in_flight and not is_dead(pull, now)]
    if running:
        return running[0]
    failures = [pull for pull in pulls if pull.status == FAILURE and _blocks(pull, request, now, update_timeout)]
    newest = max(failures, key=lambda pull: pull.last_pull or 0.0, default=None)
    if active is not None and not readable(active):
        active = None
    if active is None or active.last_pull is None:
        return newest
    if newest is not None and (newest.last_pull or 0.0) >= active.last_pull:
        return newest
    age = now - active.last_pull
    fresh = age <= update_timeout and (age < RECENT_SECONDS or not _acl_changed(active, request))
    return active if fresh else None


def is_dead(pull: Image, now: float) -> bool:
    """Whether a record in flight belongs to a gateway without leases that stopped working on it."""
    if pull.lease_expires is not None:
        return False
    return now > max(pull.last_heartbeat or 0.0, pull.last_pull or 0.0) + DEAD_SECONDS


def is_stale_failure(pull: Image, now: float, update_timeout: float) -> bool:
    """Whether a FAILURE has had its time (section 5.7)."""
    return pull.status == FAILURE and now > (pull.last_pull or 0.0) + update_timeout


def _blocks(failure: Image, request: PullRequest, now: float, update_timeout: float) -> bool:
    if failure.denied and failure.requested_by is not None:
        backoff = min(DENIED_BACKOFF_SECONDS, update_timeout)
        if failure.login_mark is not None and not are_marked(failure.login_mark, request.tokens):
            return False
        return failure.requested_by == request.uid and now <= (failure.last_pull or 0.0) + backoff
    return not is_stale_failure(failure, now, update_timeout)


def _acl_changed(record: Image, request: PullRequest) -> bool:
    stored_users = record.user_acl if record.requested_user_acl is None else record.requested_user_acl
    stored_groups = record.group_acl if record.requested_group_acl is None else record.requested_group_acl
    return set(stored_users or ()) != set(request.user_acl) or set(stored_groups or ()) != set(request.group_acl)


def granted_acls(pull: Image, before: Image | None, groups_of: GroupsOf) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ACLs a private image gets from ``pull``; ``before`` is the READY record of the same image, if any.

    Lists that were asked for replace the old ones if the caller could read the image, and are added to them if not:
    nobody loses access through a stranger. Without lists the old ones stay and the caller, who has shown a valid
    login, is added; an image that had none is the caller's alone.
    """
    users, groups = pull.requested_user_acl or (), pull.requested_group_acl or ()
    uid = -1 if pull.requested_by is None else pull.requested_by
    gid = -1 if pull.requested_gid is None else pull.requested_gid
    restricted = before is not None and before.private is not False and bool(before.user_acl or before.group_acl)
    if before is None or not restricted:
        return (users, groups) if users or groups else ((uid,), ())
    could_read = may_read(before, uid, gid, groups_of)
    if (users or groups) and could_read:
        return users, groups
    old_users, old_groups = before.user_acl or (), before.group_acl or ()
    own = () if could_read or users or groups else (uid,)
    return tuple(dict.fromkeys((*old_users, *users, *own))), tuple(dict.fromkeys((*old_groups, *groups)))
