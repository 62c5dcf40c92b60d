# SPDX-License-Identifier: BSD-3-Clause
"""Image objects, the read check, and the pull decision: the tables of the contract."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shifter_imagegw.images import (
    EXPIRED,
    FAILURE,
    PULLING,
    READY,
    Image,
    PullRequest,
    decide_pull,
    from_document,
    granted_acls,
    image_object,
    may_read,
    may_see,
    requested_acl,
    to_document,
    without_secrets,
)
from shifter_imagegw.session import mark_logins

NOW = 1_700_000_000.0
TIMEOUT = 300.0
KEYS = {
    "id", "system", "itype", "tag", "status", "userACL", "groupACL", "ENV", "ENTRY", "WORKDIR", "LABELS", "last_pull",
    "status_message",
}  # fmt: skip


def no_groups(uid: int) -> frozenset[int]:
    return frozenset()


class TestImageObject:
    def test_of_a_new_pull(self) -> None:
        record = Image("c", "docker", pulltag="x:1", user_acl=(1000, 500), group_acl=())
        answer = image_object(record)
        assert set(answer) == KEYS
        assert (answer["id"], answer["ENV"], answer["last_pull"]) == ("MISSING", "MISSING", "MISSING")
        assert (answer["tag"], answer["userACL"], answer["groupACL"], answer["status"]) == ([], [1000, 500], [], "INIT")

    def test_last_pull_is_always_a_float(self) -> None:
        record = from_document({"system": "c", "itype": "docker", "status": "READY", "last_pull": 1700000000})
        assert repr(image_object(record)["last_pull"]) == "1700000000.0"

    def test_of_an_old_record(self) -> None:
        record = from_document(
            {"_id": 7, "system": "c", "itype": "docker", "status": "SUCCESS", "tag": "x:1", "ENTRY": "/a"}
        )
        answer = image_object(record)
        assert set(answer) == KEYS
        assert (answer["status"], answer["tag"], answer["ENTRY"], answer["userACL"]) == ("READY", ["x:1"], "/a", None)


def test_records_survive_storage() -> None:
    image = Image(
        "c", "docker", "x:1", READY, tags=("x:1",), image_id="a" * 64, env=("A=b",), entry=("/sh",), labels={"k": "v"},
        user_acl=(1,), group_acl=(), private=True, last_pull=NOW, revision=3, denied=True, requested_user_acl=(1,),
    )  # fmt: skip
    document = to_document(image)
    assert document["userACL"] == [1]
    assert document["tag"] == ["x:1"]
    assert document["id"] == "a" * 64
    assert from_document({**document, "_id": ""}) == image


@pytest.mark.parametrize(
    ("private", "users", "groups", "allowed"),
    [
        (False, (1,), (1,), True),
        (None, None, None, True),
        (True, (), (), True),
        (True, None, (), True),
        (True, (), None, True),
        (True, (500,), (), True),
        (True, (), (50,), True),
        (True, (), (77,), True),
        (True, (501,), (51,), False),
        (None, (501,), None, False),
        (True, (), (500,), False),
    ],
)
def test_the_read_check(private: bool | None, users: Any, groups: Any, allowed: bool) -> None:
    record = Image("c", "docker", status=READY, private=private, user_acl=users, group_acl=groups)
    assert may_read(record, 500, 50, lambda uid: frozenset({77})) is allowed


def test_groups_are_asked_for_only_when_they_matter() -> None:
    def fail(uid: int) -> frozenset[int]:
        raise AssertionError("asked")

    assert may_read(Image("c", "docker", user_acl=(1,), group_acl=(2,)), 1, 9, fail)
    assert may_read(Image("c", "docker", user_acl=(1,), group_acl=(2,)), 9, 2, fail)
    assert not may_read(Image("c", "docker", user_acl=(1,)), 9, 9, fail)


def test_the_running_pull_of_a_private_image_is_its_starters_business() -> None:
    pull = Image(
        "c", "docker", "x:1", PULLING, private=True, requested_by=1, status_message="Pulling layers", env=("A",)
    )
    assert may_see(pull, 1, 1, no_groups)
    assert not may_see(pull, 2, 2, no_groups)
    assert may_see(replace(pull, private=None), 2, 2, no_groups)
    hidden = without_secrets(replace(pull, image_id="a", user_acl=(1,), workdir="/w", entry="x", labels={}))
    shown = image_object(hidden)
    assert {shown[key] for key in ("id", "ENV", "ENTRY", "WORKDIR", "LABELS", "status_message")} == {"MISSING"}
    assert (shown["userACL"], shown["status"]) == ([], PULLING)


def test_requested_lists_gain_the_callers_own_id() -> None:
    assert requested_acl([1000, 1001, 1000], 500) == (1000, 1001, 500)
    assert requested_acl([500, 1], 500) == (500, 1)
    assert requested_acl([], 500) == ()


class TestPullDecision:
    request = PullRequest("c", "docker", "x:1", uid=500, gid=50)
    ready = Image("c", "docker", "x:1", READY, tags=("x:1",), last_pull=NOW - 100, user_acl=(), group_acl=())
    failed = Image("c", "docker", "x:1", FAILURE, last_pull=NOW - 20, requested_by=500)
    running = Image("c", "docker", "x:1", PULLING, last_pull=NOW - 9999, last_heartbeat=NOW, lease_expires=NOW + 60)

    def decide(self, active: Image | None, *pulls: Image, request: PullRequest | None = None) -> Image | None:
        asked = request or self.request
        return decide_pull(
            asked,
            active,
            pulls,
            readable=lambda image: may_read(image, asked.uid, asked.gid, no_groups),
            now=NOW,
            update_timeout=TIMEOUT,
        )

    def test_nothing_known_starts(self) -> None:
        assert self.decide(None) is None

    def test_fresh_is_returned_without_work(self) -> None:
        assert self.decide(self.ready) is self.ready
        assert self.decide(replace(self.ready, last_heartbeat=1.0)) is not None

    def test_old_or_undated_is_checked_again(self) -> None:
        assert self.decide(replace(self.ready, last_pull=NOW - 301)) is None
        assert self.decide(replace(self.ready, last_pull=None)) is None

    def test_a_running_pull_is_joined_whatever_else_is_there(self) -> None:
        other = replace(self.request, user_acl=(7, 500))
        assert self.decide(replace(self.ready, last_pull=1.0), self.failed, self.running) is self.running
        assert self.decide(self.ready, self.running, request=other) is self.running

    def test_a_slow_pull_with_a_lease_is_never_started_twice(self) -> None:
        slow = replace(self.running, last_heartbeat=NOW - 99999)
        assert self.decide(None, slow) is slow

    def test_a_pull_of_an_older_gateway_dies_after_an_hour_without_heartbeat(self) -> None:
        foreign = replace(self.running, lease_expires=None)
        assert self.decide(None, replace(foreign, last_heartbeat=NOW - 3599)) is not None
        assert self.decide(None, replace(foreign, last_heartbeat=NOW - 3601, last_pull=NOW - 3601)) is None

    def test_a_failure_is_answered_until_its_time_is_over(self) -> None:
        assert self.decide(None, self.failed) is self.failed
        assert self.decide(None, replace(self.failed, last_pull=NOW - 301)) is None
        assert self.decide(None, replace(self.failed, requested_by=501)) is not None

    def test_a_refusal_at_the_registry_binds_its_caller_only_and_not_for_long(self) -> None:
        denied = replace(self.failed, denied=True)
        assert self.decide(None, denied) is denied
        assert self.decide(None, replace(denied, requested_by=501)) is None
        assert self.decide(None, replace(denied, login_mark=mark_logins({}))) is not None
        assert self.decide(None, replace(denied, login_mark=mark_logins({"default": "a:b"}))) is None
        assert self.decide(None, replace(denied, last_pull=NOW - 31)) is None

    def test_polling_of_two_refused_callers_ends_for_both(self) -> None:
        mine, theirs = replace(self.failed, denied=True), replace(self.failed, denied=True, requested_by=501)
        assert self.decide(None, mine, theirs) is mine
        assert self.decide(None, mine, theirs, request=replace(self.request, uid=501)) is theirs

    def test_a_failure_older_than_the_image_is_history(self) -> None:
        assert self.decide(replace(self.ready, last_pull=NOW - 10), self.failed) is not self.failed

    def test_other_acls_than_requested_before_start_a_pull(self) -> None:
        changed = replace(self.request, user_acl=(7, 500))
        assert self.decide(self.ready, request=changed) is None

    def test_requested_acls_in_another_order_do_not(self) -> None:
        record = replace(self.ready, user_acl=(500, 7), private=True, requested_user_acl=(500, 7))
        assert self.decide(record, request=replace(self.request, user_acl=(7, 500))) is record

    def test_a_public_image_pulled_with_acls_is_not_pulled_again_and_again(self) -> None:
        stored = replace(self.ready, private=False, user_acl=(), requested_user_acl=(7, 500))
        assert self.decide(stored, request=replace(self.request, user_acl=(7, 500))) is stored

    def test_just_pulled_is_returned_whatever_the_acls(self) -> None:
        recent = replace(self.ready, last_pull=NOW - 9)
        assert self.decide(recent, request=replace(self.request, user_acl=(7, 500))) is recent

    def test_an_image_the_caller_may_not_read_is_as_good_as_absent(self) -> None:
        secret = replace(self.ready, private=True, user_acl=(1,), last_pull=NOW - 1)
        assert self.decide(secret) is None
        assert self.decide(secret, self.failed) is self.failed

    def test_expired_records_never_stand_in_the_way(self) -> None:
        expired = replace(self.ready, status=EXPIRED, user_acl=(9,))
        assert self.decide(None, expired) is None


class TestGrantedAcls:
    pull = Image("c", "docker", "x:1", PULLING, requested_by=500, requested_gid=50)
    mine = Image("c", "docker", "x:1", READY, private=True, user_acl=(500,), group_acl=())
    others = replace(mine, user_acl=(1, 2), group_acl=(3,))

    def test_without_lists_the_image_is_its_pullers_alone(self) -> None:
        assert granted_acls(self.pull, None, no_groups) == ((500,), ())

    def test_lists_are_taken_as_asked_for(self) -> None:
        pull = replace(self.pull, requested_group_acl=(7, 50))
        assert granted_acls(pull, None, no_groups) == ((), (7, 50))

    def test_lists_replace_what_the_caller_could_read(self) -> None:
        pull = replace(self.pull, requested_user_acl=(8, 500))
        assert granted_acls(pull, self.mine, no_groups) == ((8, 500), ())

    def test_lists_of_a_stranger_take_nobodys_access(self) -> None:
        pull = replace(self.pull, requested_user_acl=(8, 500))
        assert granted_acls(pull, self.others, no_groups) == ((1, 2, 8, 500), (3,))

    def test_no_lists_keep_the_old_ones_and_add_the_caller(self) -> None:
        assert granted_acls(self.pull, self.mine, no_groups) == ((500,), ())
        assert granted_acls(self.pull, self.others, no_groups) == ((1, 2, 500), (3,))

    def test_an_image_that_was_open_becomes_its_pullers_alone(self) -> None:
        before = replace(self.mine, user_acl=(), group_acl=())
        assert granted_acls(self.pull, before, no_groups) == ((500,), ())
        assert granted_acls(self.pull, replace(self.others, private=False), no_groups) == ((500,), ())
