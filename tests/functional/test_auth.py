# SPDX-License-Identifier: BSD-3-Clause
"""Credentials, sessions and sealed logins against a real munged."""

from __future__ import annotations

import grp
import json
import os
import pwd
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.auth import MockAuthenticator, MungeAuthenticator, MungeSealer
from shifter_imagegw.config import Configuration, parse_configuration
from shifter_imagegw.errors import AuthenticationError, AuthenticationUnavailable, NotFound
from shifter_imagegw.groups import UNKNOWN, Accounts
from shifter_imagegw.munge import MungeSocket
from tests.munged import Munged, munged

LOGINS = {"default": "alice:secret", "registry.example": "bob:pw:with:colons"}


def configuration(**sockets: Path) -> Configuration:
    document = {
        "Platforms": {
            name: {"accesstype": "local", "local": {"imageDir": "/images"}, "mungeSocketPath": str(path)}
            for name, path in sockets.items()
        },
        "Locations": {"docker.io": {"remotetype": "dockerv2"}},
        "DefaultImageLocation": "docker.io",
        "DefaultImageFormat": "squashfs",
        "CacheDirectory": "/c",
        "ExpandDirectory": "/e",
        "MongoDBURI": "sqlite:///x",
    }
    return parse_configuration(json.dumps(document).encode(), Path("x"), {})


@pytest.fixture
def authenticator(munge: Munged) -> MungeAuthenticator:
    return MungeAuthenticator(configuration(cluster=munge.socket), Accounts())


def test_a_credential_says_who_calls(munge: Munged, authenticator: MungeAuthenticator) -> None:
    session = authenticator.authenticate(munge.credential(uid=1), "cluster")
    expected: tuple[Any, ...] = ("cluster", 1, 1, pwd.getpwuid(1).pw_name, grp.getgrgid(1).gr_name, {})
    assert (session.system, session.uid, session.gid, session.user, session.group, session.tokens) == expected


def test_an_id_that_this_host_does_not_know_has_the_name_munge_gives_it(
    munge: Munged, authenticator: MungeAuthenticator
) -> None:
    session = authenticator.authenticate(munge.credential(uid=3_999_999_999), "cluster")
    assert (session.uid, session.user, session.group) == (3_999_999_999, UNKNOWN, UNKNOWN)


def test_logins_come_with_the_payload_and_stay_out_of_texts(munge: Munged, authenticator: MungeAuthenticator) -> None:
    credential = munge.credential(json.dumps({"authorized_locations": LOGINS}))
    session = authenticator.authenticate(credential, "cluster")
    assert session.tokens == LOGINS
    assert "secret" not in repr(session) + str(session)


@pytest.mark.parametrize(
    "payload",
    [
        "plain text",
        "[]",
        "null",
        '{"authorized_locations": ""}',
        '{"authorized_locations": ["a"]}',
        '{"authorized_locations": {"a": 1, "b": null}}',
        '{"other": {}}',
        "[" * 100_000,
        b"\xff\xfe\x00",
        "x" * 100_000,
    ],
    ids=lambda payload: str(payload)[:20],
)
def test_any_other_payload_means_no_logins(
    munge: Munged, authenticator: MungeAuthenticator, payload: str | bytes
) -> None:
    assert authenticator.authenticate(munge.credential(payload), "cluster").tokens == {}


def test_a_credential_serves_once(munge: Munged, authenticator: MungeAuthenticator) -> None:
    credential = munge.credential()
    authenticator.authenticate(credential, "cluster")
    with pytest.raises(AuthenticationError, match="Replayed"):
        authenticator.authenticate(credential, "cluster")


def test_an_expired_credential_is_refused(munge: Munged, authenticator: MungeAuthenticator) -> None:
    credential = munge.credential("", "--ttl=1")
    made = time.time()
    while time.time() < made + 2.5:  # munge counts whole seconds
        time.sleep(0.1)
    with pytest.raises(AuthenticationError, match="Expired"):
        authenticator.authenticate(credential, "cluster")


@pytest.mark.parametrize("text", [None, "", "MUNGE:", "MUNGE:AAAA:", "garbage", "MUNGE:\u00e9:", "x" * 100_000])
def test_what_is_no_credential_is_refused(authenticator: MungeAuthenticator, text: str | None) -> None:
    with pytest.raises(AuthenticationError):
        authenticator.authenticate(text, "cluster")


def test_a_credential_for_another_uid_is_refused(munge: Munged) -> None:
    credential = munge.credential("", "--restrict-uid=1")
    with pytest.raises(AuthenticationError, match="Unauthorized"):
        MungeSocket(munge.socket).decode(credential.encode())


def test_the_key_of_one_system_opens_nothing_on_another(munge: Munged) -> None:
    with munged() as foreign:
        authenticator = MungeAuthenticator(configuration(here=munge.socket, there=foreign.socket), Accounts())
        with pytest.raises(AuthenticationError, match="Invalid"):
            authenticator.authenticate(foreign.credential(), "here")
        assert authenticator.authenticate(foreign.credential(), "there").uid == os.getuid()


def test_a_system_nobody_configured_is_not_found(munge: Munged, authenticator: MungeAuthenticator) -> None:
    with pytest.raises(NotFound, match="'elsewhere' is not served"):
        authenticator.authenticate(munge.credential(), "elsewhere")


def test_without_munged_the_message_says_so_and_service_returns_with_it() -> None:
    with munged() as own:
        authenticator = MungeAuthenticator(configuration(cluster=own.socket), Accounts())
        credential = own.credential()
        own.stop()
        with pytest.raises(AuthenticationUnavailable, match=str(own.socket)):
            authenticator.authenticate(credential, "cluster")
        own.start()
        assert authenticator.authenticate(own.credential(), "cluster").uid == os.getuid()


def test_threads_decode_side_by_side(munge: Munged, authenticator: MungeAuthenticator) -> None:
    credentials = [munge.credential(uid=number) for number in range(40)]
    found: list[int] = []

    def decode(part: list[str]) -> None:
        found.extend(authenticator.authenticate(credential, "cluster").uid for credential in part)

    threads = [threading.Thread(target=decode, args=(credentials[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(40))


def test_sealed_logins_open_for_this_account_again_and_again(munge: Munged) -> None:
    sealer = MungeSealer(configuration(cluster=munge.socket))
    sealed = sealer.seal(LOGINS, "cluster")
    assert "secret" not in sealed
    assert sealer.unseal(sealed, "cluster") == LOGINS
    assert sealer.unseal(sealed, "cluster") == LOGINS


def test_sealed_logins_do_not_open_for_others(munge: Munged) -> None:
    sealed = MungeSealer(configuration(cluster=munge.socket)).seal(LOGINS, "cluster")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            MungeSocket(munge.socket).decode(sealed.encode(), outlived=True)
        except AuthenticationError:
            os.write(write, b"refused")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"refused"


def test_what_another_account_sealed_is_not_trusted(munge: Munged) -> None:
    forged = munge.credential(json.dumps({"authorized_locations": LOGINS}), uid=1)
    with pytest.raises(AuthenticationError, match="sealed by uid 1"):
        MungeSealer(configuration(cluster=munge.socket)).unseal(forged, "cluster")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("good:alice:users:token:1000:100", (1000, 100, "alice", "users")),
        ("good:root:root", (0, 0, "root", "root")),
        ("good:nobody-knows-me:users:token", (65534, 65534, "nobody-knows-me", "users")),
    ],
)
def test_mock_credentials_of_the_contract(header: str, expected: tuple[Any, ...]) -> None:
    session = MockAuthenticator(configuration(cluster=Path("/x"))).authenticate(header, "cluster")
    assert (session.uid, session.gid, session.user, session.group) == expected


@pytest.mark.parametrize("header", ["bad:a:b", "good:a", "good:a:b:c:1", "good:a:b:c:x:y", "good:a:b:c:1:2:3", ""])
def test_other_mock_credentials_are_refused(header: str) -> None:
    with pytest.raises(AuthenticationError):
        MockAuthenticator(configuration(cluster=Path("/x"))).authenticate(header, "cluster")


def test_names_and_groups_are_asked_for_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real: Callable[[int], pwd.struct_passwd] = pwd.getpwuid

    def counting(uid: int) -> pwd.struct_passwd:
        asked.append(uid)
        return real(uid)

    monkeypatch.setattr(pwd, "getpwuid", counting)
    now = 0.0
    accounts = Accounts(lambda: now)
    assert [accounts.user_name(0) for _ in range(3)] == ["root"] * 3
    assert accounts.groups_of(0) == frozenset(os.getgrouplist("root", 0))
    assert accounts.groups_of(4_000_000_000) == frozenset()
    assert asked == [0, 0, 4_000_000_000]
    now = 61.0
    accounts.user_name(0)
    assert asked[3:] == [0]
