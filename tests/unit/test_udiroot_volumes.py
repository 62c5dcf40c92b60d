# SPDX-License-Identifier: BSD-3-Clause
"""Volume maps, paths and sizes as the launcher reads them (runtime contract, sections 4.3 and 8)."""

from __future__ import annotations

import string
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot import _core

MIB = 1 << 20


def user(text: str) -> list[dict[str, Any]]:
    return _core.parse_volumes(text, "user")


def site(text: str) -> list[dict[str, Any]]:
    return _core.parse_volumes(text, "site")


def pairs(volumes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(volume["from"], volume["to"]) for volume in volumes]


def refused(text: str, origin: str = "user") -> str:
    with pytest.raises(_core.Error) as caught:
        _core.parse_volumes(text, origin)
    assert len(str(caught.value)) < 500
    return str(caught.value)


# grammar


def test_maps_are_joined_with_semicolons_and_empty_ones_skipped() -> None:
    assert pairs(user(";/a:/b;; /c:/d ;")) == [("/a", "/b"), ("/c", "/d")]
    assert user("") == []


def test_paths_are_cleaned_never_edited() -> None:
    assert pairs(user("//a//./b/:/c/./")) == [("/a/b", "/c")]
    assert pairs(user("/we ird/@~=,é:/x,y")) == [("/we ird/@~=,é", "/x,y")]
    assert pairs(user("/a..b/...:/..c")) == [("/a..b/...", "/..c")]


def test_backslash_and_quotes() -> None:
    assert pairs(user(r"/a\:b\;c\\:/d")) == [("/a:b;c\\", "/d")]
    assert pairs(user('"/a;b c:/d"; /e:/f')) == [("/a;b c", "/d"), ("/e", "/f")]
    assert pairs(user(r"/a\ :/b\ ")) == [("/a ", "/b ")]
    assert pairs(user('/a"b:/c"')) == [('/a"b', '/c"')]
    assert pairs(site('"/a b:/c d" /e\\ f')) == [("/a b", "/c d"), ("/e f", "/e f")]


@pytest.mark.parametrize("text", ["/a:/b\\", '"/a:/b', '"/a:/b"x', '"', "\\", '"\\'])
def test_open_quotes_and_backslashes(text: str) -> None:
    for origin in ("user", "site"):
        assert "quote" in refused(text, origin) or "backslash" in refused(text, origin)


def test_a_site_map_may_leave_the_target_out_a_users_may_not() -> None:
    assert pairs(site("/home;/a:/b")) == [("/home", "/home"), ("/a", "/b")]
    assert "no target" in refused("/home")


@pytest.mark.parametrize(
    "text",
    [
        "a:/b", "/a:b", ":/b", "/a:", ":", "/a/../b:/c", "/a:/b/..", "/..:/b", "/a\n:/b", "/a:/b\x1b", "$HOME:/x",
        "~/x:/y",
    ],
)  # fmt: skip
def test_bad_paths(text: str) -> None:
    message = refused(text)
    assert message.startswith("volume map '")
    assert "\n" not in message


def test_the_map_at_fault_is_named_and_nothing_is_kept() -> None:
    assert refused("/a:/b;/c:/d:wild;/e:/f").startswith("volume map '/c:/d:wild' has an unknown flag")


# flags


def test_flags() -> None:
    assert [v["flags"] for v in site("/a:/b:ro;/a:/c:REC;/a:/d:Slave:ro;/a:/e:private;/a:/f:ro,rec")] == [
        ["ro"], ["rec"], ["ro", "slave"], ["private"], ["ro", "rec"],
    ]  # fmt: skip
    assert user("/a:/b:ro")[0]["flags"] == ["ro"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/a:/b:rec", "only the site"), ("/a:/b:slave", "only the site"), ("/a:/b:private", "only the site"),
        ("/a:/b:ro:ro", "twice"), ("/a:/b:ro,RO", "twice"), ("/a:/b:ro=1", "takes none"), ("/a:/b:shared", "unknown"),
        ("/a:/b:", "unknown"), ("/a:/b:ro:", "unknown"), ("/a:/b:r o", "unknown"),
    ],
)  # fmt: skip
def test_flags_users_cannot_have(text: str, why: str) -> None:
    assert why in refused(text)


def test_flags_the_site_cannot_have() -> None:
    assert "both slave and private" in refused("/a:/b:slave:private", "site")
    assert "takes none" in refused("/a:/b:rec=1", "site")


def test_per_node_cache() -> None:
    (cache,) = user("/a:/b:perNodeCache=size=100m")
    assert (cache["flags"], cache["cache_size"]) == (["perNodeCache"], 100 * MIB)
    assert user("/a:/b:pernodecache=SIZE=1.5g,bs=2m,method=loop,fs=xfs:ro")[0]["cache_size"] == 1536 * MIB
    assert user("/a:/b:perNodeCache=size=1g,ro")[0]["flags"] == ["ro", "perNodeCache"]
    for text in (
        "perNodeCache", "perNodeCache=", "perNodeCache=size", "perNodeCache=size=", "perNodeCache=size=0",
        "perNodeCache=size=-1", "perNodeCache=bs=1m", "perNodeCache=size=1x", "perNodeCache=size=1m,fs=ext4",
        "perNodeCache=size=1m,method=direct", "perNodeCache=size=1m,color=red", "perNodeCache=size=1m,bs=0",
    ):  # fmt: skip
        refused(f"/a:/b:{text}")


def test_sec19_a_million_characters_of_flags() -> None:
    refused("/a:/b" + ":ro" * 333_333)
    refused("/a:/b:" + "x" * 1_000_000)
    refused("/a:/b:ro" + "," * 1_000_000)
    assert "more than 1000" in refused("/a:/b;" * 1001)


def test_sec19_a_thousand_deep_maps_in_no_order_do_not_keep_a_prolog_busy() -> None:
    maps = [f"/{'/a' * 450}/x{number}:/{'/a' * 450}/y{number}" for number in range(1000, 2000)]
    began = time.process_time()
    assert _core.volumes_signature(";".join(reversed(maps)), "user").count(";") == 999
    assert time.process_time() - began < 8  # half a second; component by component it was 17


# targets


@pytest.mark.parametrize(
    "target",
    [
        "/", "//", "/.", "/etc", "/etc/", "/etc/passwd", "//etc//x", "/./etc", "/var", "/var/log", "/var/tmp/x", "/opt",
        "/opt/", "/opt/udiImage", "/opt/udiImage/bin", "/dev", "/dev/shm", "/proc", "/proc/1", "/sys", "/sys/fs",
        "/tmp", "opt", "etc",
    ],
)  # fmt: skip
def test_targets_users_cannot_have(target: str) -> None:
    refused(f"/a:{target}")


@pytest.mark.parametrize(
    "target",
    [
        "/var/tmp", "/mnt", "/opt/myStuff", "/input", "/tmp/x", "/etcetera", "/variables", "/opt/udiImageX", "/device",
        "/procs", "/system", "/home", "/usr/lib", "/var/tmp/",
    ],
)  # fmt: skip
def test_sec10_targets_users_can_have(target: str) -> None:
    assert user(f"/a:{target}")[0]["to"] == target.rstrip("/")


def test_users_cannot_map_the_whole_container() -> None:
    assert "whole container" in refused("/:/mnt")
    assert pairs(site("/:/host")) == [("/", "/host")]


@pytest.mark.parametrize(
    "target", ["/", "/opt", "/etc", "/var", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc//"]
)
def test_targets_the_site_cannot_have(target: str) -> None:
    refused(f"/a:{target}", "site")


def test_targets_the_site_can_have() -> None:
    maps = "/a:/var/opt/cray/spool:rec;/a:/etc/opt/cray;/a:/opt/x;/a:/etc/passwd.d;/a:/dev/x"
    assert len(site(maps)) == 5


def test_a_production_string() -> None:
    maps = [
        "/var/opt/cray/alps:/var/opt/cray/alps:rec", "/var/opt/cray/dws:/var/opt/cray/dws:rec:slave", "/home:/home",
        "/global/homes:/global/homes", "/global/project:/global/project:ro", "/global/common:/global/common:ro:rec",
        "/scratch1:/scratch1", "/scratch2:/scratch2", "/scratch3:/scratch3", "/dsl/opt:/dsl/opt",
        "/usr/common:/usr/common", "/etc/opt/cray/wlm_detect:/etc/opt/cray/wlm_detect", "/project:/project:slave",
    ]  # fmt: skip
    assert pairs(site(";\\\n       ".join(maps).replace("\\\n", " "))) == [tuple(m.split(":")[:2]) for m in maps]


# signature


def test_the_contracts_signature() -> None:
    text = "/q:/r;/a:/b;/a:/c:perNodeCache=size=100m:REC,ro;/d:/c/"
    expected = "/a:/b;/a:/c:ro:rec:perNodeCache=size=104857600,bs=1048576,method=loop,fstype=xfs;/d:/c;/q:/r"
    assert _core.volumes_signature(text, "site") == expected
    assert _core.volumes_signature("", "user") == ""


def test_w34_equal_requests_have_equal_signatures() -> None:
    assert _core.volumes_signature("//data//:/x", "user") == _core.volumes_signature("/data:/x/", "user")
    assert _core.volumes_signature("/b:/y;/a:/x", "user") == _core.volumes_signature("/a:/x;/b:/y", "user")
    assert _core.volumes_signature("/a:/x;/a:/x", "user") == "/a:/x;/a:/x"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/a:/x/y", "/b:/x"),  # one covers the other
        ("/a:/x", "/b:/x"),  # the later one is seen
        ("/x/s:/q", "/b:/x"),  # one shows what the other put there
    ],
)
def test_w34_order_counts_where_maps_depend_on_each_other(one: str, other: str) -> None:
    forward, backward = (_core.volumes_signature(text, "user") for text in (f"{one};{other}", f"{other};{one}"))
    assert forward != backward
    assert {forward, backward} == {f"{one};{other}", f"{other};{one}"}


NAME = st.text(string.ascii_letters + ":;\\\" ,=.é~\x7f", min_size=1, max_size=6).filter(lambda text: text != "..")
PATH = st.lists(NAME, min_size=1, max_size=3).map(lambda names: "/m/" + "/".join(names))


def escaped(path: str) -> str:
    return "".join(f"\\{c}" if c in ':;\\" ' else c for c in path)


@given(st.lists(st.tuples(PATH, PATH, st.booleans()), max_size=5), st.sampled_from(["user", "site"]))
def test_a_signature_reads_back(maps: list[tuple[str, str, bool]], origin: str) -> None:
    text = ";".join(f"{escaped(source)}:{escaped(target)}{':ro' * ro}" for source, target, ro in maps)
    if "\x7f" in text or any(part == ".." for source, target, _ in maps for part in (source + "/" + target).split("/")):
        return
    parsed = _core.parse_volumes(text, origin)
    clean = [tuple("/" + "/".join(p for p in path.split("/") if p not in ("", ".")) for path in m[:2]) for m in maps]
    assert pairs(parsed) == clean
    signature = _core.volumes_signature(text, origin)
    assert _core.volumes_signature(signature, origin) == signature
    assert sorted(map(str, _core.parse_volumes(signature, origin))) == sorted(map(str, parsed))


@given(st.text(alphabet="/ab:;\\\" ,=.\0\nroecperNodeCacheSIZE=1m", max_size=60), st.sampled_from(["user", "site"]))
def test_no_map_crashes(text: str, origin: str) -> None:
    with suppress(_core.Error):
        volumes = _core.parse_volumes(text, origin)
        for volume in volumes:
            assert volume["to"].startswith("/")
            assert ".." not in volume["to"].split("/")
        _core.volumes_signature(text, origin)


# sizes and paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5), ("5k", 5 << 10), ("500K", 500 << 10), ("500KB", 500 << 10), ("500kib", 500 << 10), ("1.5m", 3 << 19),
        ("0.5b", 0), ("2g", 2 << 30), ("1t", 1 << 40), ("1p", 1 << 50), ("15e", 15 << 60), ("007", 7), ("1.", 1),
        ("0", 0), ("18446744073709551615", (1 << 64) - 1),
    ],
)  # fmt: skip
def test_sizes(text: str, expected: int) -> None:
    assert _core.parse_size(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "k", ".5", "-1", "1x", "1 k", "1k2", "0x10", "inf", "nan", "1e9k1", "16e", "18446744073709551616", "1.2."],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(_core.Error):
        _core.parse_size(text)


def components(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


SOME_PATH = st.text(alphabet="/ab.", max_size=12).map(lambda text: "/" + text)


@given(SOME_PATH, SOME_PATH)
def test_sec10_paths_are_compared_by_components(path: str, base: str) -> None:
    wanted = components(base)
    assert _core.path_is_below(path, base) == (components(path)[: len(wanted)] == wanted)


@pytest.mark.parametrize(
    ("path", "base", "below"),
    [
        ("/a/b", "/a", True), ("/ab", "/a", False), ("/a", "/a/", True), ("//a//b", "/a/b/", True),
        ("/a", "/a/b", False), ("/", "/", True), ("/a", "/", True), ("/", "/a", False),
        ("/var/udiMount2", "/var/udiMount", False),
        ("a/b", "/a", False), ("/a", "a", False), ("", "", False),
    ],
)  # fmt: skip
def test_paths(path: str, base: str, below: bool) -> None:
    assert _core.path_is_below(path, base) is below


@given(SOME_PATH)
def test_clean_paths(path: str) -> None:
    names = [name for name in components(path) if name != "."]
    assert _core.path_clean(path) == (None if ".." in names else "/" + "/".join(names))


def test_relative_paths_are_none() -> None:
    assert [_core.path_clean(path) for path in ("", "a", "./a", "/", "///", "/a/", "/a/./b")] == [
        None, None, None, "/", "/", "/a", "/a/b",
    ]  # fmt: skip
