# SPDX-License-Identifier: BSD-3-Clause
"""Image specifications, metadata and access lists as the launcher reads them (runtime contract, sections 5 and 6)."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_imagegw.meta import Metadata, render
from shifter_imagegw.platforms.local import encode_reference
from udiroot import _core

ID = "0123456789abcdef" * 4


def tag(text: str, default: str | None = "docker") -> tuple[str, str]:
    kind, name, request = _core.parse_image_spec(text, default)
    assert request == text
    return kind, name


def refused(text: str, default: str | None = "docker") -> str:
    with pytest.raises(_core.Error) as caught:
        _core.parse_image_spec(text, default)
    return str(caught.value)


# specifications


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docker:ubuntu:24.04", ("docker", "ubuntu:24.04")),
        ("ubuntu:24.04", ("docker", "ubuntu:24.04")),
        ("ubuntu", ("docker", "ubuntu:latest")),
        ("docker:ubuntu", ("docker", "ubuntu:latest")),
        ("host:5000/name", ("docker", "host:5000/name:latest")),
        ("host:5000/name:v1", ("docker", "host:5000/name:v1")),
        ("a/b@sha256:0f", ("docker", "a/b@sha256:0f")),
        ("custom:mine", ("custom", "mine:latest")),
        ("custom:mine:1", ("custom", "mine:1")),
        (f"id:{ID}", ("id", ID)),
        ("local:/some//path/", ("local", "/some/path")),
        ("Docker:x", ("docker", "Docker:x")),  # type words exactly: this is a repository called Docker
        ("local/x", ("docker", "local/x:latest")),
        ("id", ("docker", "id:latest")),
    ],
)
def test_types_and_tags(text: str, expected: tuple[str, str]) -> None:
    assert tag(text) == expected


def test_the_default_type_is_the_sites() -> None:
    assert tag("mine", "custom") == ("custom", "mine:latest")
    assert tag("/x", "local") == ("local", "/x")
    assert "docker:ubuntu" in refused("ubuntu", None)
    assert "podman" in refused("ubuntu", "podman")


@pytest.mark.parametrize(
    "text", ["", "docker:", "id:", "docker:/x", "docker:x/", "custom:a/b", "local:x", "local:/a/../b"]
)
def test_names_that_are_none(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ubuntu;id", "';'"), ("a b", "0x20"), ("a$(x)", "'$'"), ("ü", "0xc3"), ("a\nb", "0x0a"), ("custom:a/b", "'/'"),
        ("a\x1b[0m", "0x1b"), ("a~b", "'~'"), ("local:/a b", "0x20"),
    ],
)  # fmt: skip
def test_illegal_characters_are_named_never_dropped(text: str, named: str) -> None:
    message = refused(text)
    assert named in message
    assert "\x1b" not in message


@pytest.mark.parametrize("bad", [ID[:-1], ID + "0", ID.upper(), "g" + ID[1:], f"../{ID}", ID[:-1] + "/", "." * 64])
def test_sec74_only_whole_lower_case_ids(bad: str) -> None:
    message = refused(f"id:{bad}")
    assert ("lower case" in message) == (bad == ID.upper())


def test_a_name_without_end_is_refused() -> None:
    assert "longer than" in refused("a" * 10**6)


# selection


def select(*env: str, option: str | None = None, default: str | None = "docker") -> tuple[str, str, str | None] | None:
    return _core.select_image_spec(option, env, default)


def test_precedence_from_option_to_slurm() -> None:
    env = [
        "SLURM_SPANK_SHIFTER_IMAGE=f", "SLURM_SPANK_SHIFTER_IMAGEREQUEST=e", "SHIFTER_IMAGE=d",
        "SHIFTER_IMAGEREQUEST=c", "SHIFTER=b",
    ]  # fmt: skip
    chosen = []
    found = select(*env, option="a")
    while found is not None:
        chosen.append(found[1])
        found = select(*env)
        if env:
            env.pop()
    assert chosen == [f"{name}:latest" for name in "abcdef"]
    assert select() is None


def test_a_pair_comes_before_the_request_which_is_kept() -> None:
    pair = ["SHIFTER_IMAGETYPE=id", f"SHIFTER_IMAGE={ID}"]
    assert select(*pair) == ("id", ID, None)
    assert select(*pair, "SHIFTER_IMAGEREQUEST=ubuntu:24.04") == ("id", ID, "ubuntu:24.04")
    slurm = [f"SLURM_SPANK_{item}" for item in (*pair, "SHIFTER_IMAGEREQUEST=docker:x")]
    assert select(*slurm) == ("id", ID, "docker:x")
    assert select("SHIFTER_IMAGETYPE=custom", "SHIFTER_IMAGE=x") == ("custom", "x:latest", "custom:x")


def test_w33_a_family_is_a_unit() -> None:
    slurm = ["SLURM_SPANK_SHIFTER_IMAGETYPE=id", f"SLURM_SPANK_SHIFTER_IMAGE={ID}"]
    assert select(*slurm, "SHIFTER_IMAGE=ubuntu") == ("docker", "ubuntu:latest", "ubuntu")
    assert select(*slurm, "SHIFTER_IMAGETYPE=docker") == ("id", ID, None)
    assert select("SHIFTER_IMAGETYPE=docker", "SHIFTER_IMAGEREQUEST=x") == ("docker", "x:latest", "x")


def test_a_lone_image_is_a_specification_or_an_id() -> None:
    assert select("SHIFTER_IMAGE=custom:x:1") == ("custom", "x:1", "custom:x:1")
    assert select(f"SHIFTER_IMAGE={ID}") == ("id", ID, None)


def test_empty_variables_are_not_set() -> None:
    assert select("SHIFTER=", "SHIFTER_IMAGE=", "SHIFTER_IMAGETYPE=", "SHIFTER_IMAGEREQUEST=x") is not None
    assert select("SHIFTER=", "SHIFTER_IMAGE=") is None


@pytest.mark.parametrize(
    ("env", "named"),
    [
        (["SHIFTER=a b"], "SHIFTER: "),
        (["SHIFTER_IMAGE=a b"], "SHIFTER_IMAGE: "),
        (["SHIFTER_IMAGEREQUEST=a b"], "SHIFTER_IMAGEREQUEST: "),
        (["SHIFTER_IMAGETYPE=x", "SHIFTER_IMAGE=a"], "SHIFTER_IMAGETYPE: "),
        (["SHIFTER_IMAGETYPE=id", "SHIFTER_IMAGE=a"], "SHIFTER_IMAGE with SHIFTER_IMAGETYPE: "),
        (["SLURM_SPANK_SHIFTER_IMAGE=a b"], "SLURM_SPANK_SHIFTER_IMAGE: "),
    ],
)
def test_a_bad_text_names_its_variable(env: list[str], named: str) -> None:
    with pytest.raises(_core.Error) as caught:
        select(*env)
    assert str(caught.value).startswith(named)
    with pytest.raises(_core.Error, match="--image: "):
        select(option="a b")


# the tag index


@given(st.text(st.characters(exclude_characters="\0", max_codepoint=0x2FF), min_size=1, max_size=100))
def test_the_gateway_encodes_tags_in_the_same_way(text: str) -> None:
    encoded = encode_reference(text)
    assert _core.encode_tag(text) == (encoded if len(encoded) <= 255 else None)


def test_a_tag_too_long_for_a_file_name_is_not_in_the_index() -> None:
    assert _core.encode_tag("a" * 255) == "a" * 255
    assert _core.encode_tag("a" * 256) is None
    assert _core.encode_tag("." + "a" * 253) is None
    assert _core.encode_tag("../x:1") == "%2E.%2Fx%3A1"


# metadata


def meta(text: str) -> dict[str, object]:
    return _core.parse_meta(text.encode("utf-8", "surrogateescape"))


def damaged(text: str) -> str:
    with pytest.raises(_core.Error) as caught:
        meta(text)
    return str(caught.value)


def test_the_contracts_example() -> None:
    text = (
        "FORMAT: squashfs\nENTRY: ['/bin/sh', '-c']\nCMD: ['/app.sh']\nWORKDIR: /data\nUSERACL: 1000,1001,500\n"
        "GROUPACL: \nENV: PATH=/usr/bin:/bin\nENV: LANG=C\nUSER: somebody\nNEW: thing\nVOLUME: /x\n"
    )
    assert meta(text) == {
        "format": "squashfs", "env": ["PATH=/usr/bin:/bin", "LANG=C"], "entry": ["/bin/sh", "-c"], "cmd": ["/app.sh"],
        "workdir": "/data", "restricted": True, "user_acl": [1000, 1001, 500], "group_acl": [],
    }


def test_what_is_absent() -> None:
    assert meta("") == {
        "format": "VFS", "env": [], "entry": [], "cmd": [], "workdir": None, "restricted": False, "user_acl": [],
        "group_acl": [],
    }


ARGUMENT = st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=12)


@given(st.lists(ARGUMENT, max_size=4), st.lists(ARGUMENT, max_size=4))
def test_the_gateways_lists_come_back(entry: list[str], cmd: list[str]) -> None:
    text = "".join([*entry, *cmd])
    if any("\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" for c in text):
        return
    raw = render(Metadata(entrypoint=entry, cmd=cmd))
    found = _core.parse_meta(raw)
    encoded = [[item.encode("utf-8", "surrogateescape") for item in items] for items in (entry, cmd)]
    read = [[item.encode("utf-8", "surrogateescape") for item in found[key]] for key in ("entry", "cmd")]
    assert read == encoded


VARIABLE = st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]), max_size=30)


@given(st.lists(VARIABLE.map(lambda text: f"N={text}x"), max_size=4))
def test_the_gateways_variables_come_back(env: list[str]) -> None:
    assert _core.parse_meta(render(Metadata(env=env, recipe="2 zstd 3 131072 bootSet")))["env"] == env


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("['a', 'b']", ["a", "b"]),
        ("[u'how', u'now']", ["how", "now"]),
        ("['a b','']", ["a b", ""]),
        ("['a\\b']", ["a\\b"]),
        ("[]", []),
        ('["a","b"]', ["a", "b"]),
        ('[ "a" , "b" ]', ["a", "b"]),
        ("['a', \"it's\"]", ["a", "it's"]),
        (r'["\u0041\n\t\"\\\/\u00e9\ud83d\ude00"]', ['A\n\t"\\/é😀']),
        (r'["\udcff"]', ["\udcff"]),
        ("/bin/run me", ["/bin/run me"]),
        ("[", ["["]),
        ("[ -f x ]", ["[ -f x ]"]),
    ],
)
def test_lists(text: str, expected: list[str]) -> None:
    assert meta(f"ENTRY: {text}\nCMD: {text}\n")["entry"] == expected


@pytest.mark.parametrize(
    "text",
    [
        "['a', 'b'", "['a]", "['a' 'b']", "['a',]", "['a'] x", "['a', b]", '["a]', '["\\x"]', '["\\u12"]',
        '["\\ud800"]', '["\\ud800\\u0041"]', '["\\udc00"]', '["\\u0000"]', '["a", 1]', '["a"', '["\\', "['",
        "[u'a', u b]",
    ],
)  # fmt: skip
def test_damaged_lists(text: str) -> None:
    message = damaged(f"FORMAT: squashfs\nCMD: {text}\n")
    assert "line 2, CMD" in message
    assert "pull the image again" in message


def test_w15_empty_values_and_backslashes() -> None:
    text = "WORKDIR: /a\\\nUSERACL: 7\nENV: A=\nENV: B=x\\\nENV: C=\\\nUSER: me\nENV: D=1 \\\n  2\n"
    found = meta(text)
    assert found["workdir"] == "/a\\"
    assert found["user_acl"] == [7]
    assert found["env"] == ["A=", "B=x\\", "C=\\", "D=1 2"]
    for end in ("", "\n", "\n\n"):
        assert meta(f"ENV: A=1\\{end}")["env"] == ["A=1\\"]


def test_what_sets_no_variable_is_ignored() -> None:
    assert meta("ENV: FOO\nENV: =x\nENV:\nENV: A=1\n")["env"] == ["A=1"]


def test_nul_is_refused() -> None:
    assert "NUL" in damaged("ENV: A=\0\n")


# access lists


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []), ("1", [1]), ("1,2", [1, 2]), ("1,2,3", [1, 2, 3]), ("1,", [1]), (",1", [1]), ("1,,2", [1, 2]),
        (" 1 , 2 ", [1, 2]), ("1,bob,2", [1, 2]), ("1,2x", [1]), ("4294967294,4294967295", [4294967294]), ("0", [0]),
        ("4294967297,5", [5]), (",,", []),
    ],
)  # fmt: skip
def test_id_lists(value: str, expected: list[int]) -> None:
    for key in ("USERACL", "GROUPACL"):
        assert meta(f"{key}: {value}\n")["user_acl" if key == "USERACL" else "group_acl"] == expected


@pytest.mark.parametrize("value", ["bob", "-1", "1.5", "4294967295", "99999999999999999999999", "0x1", "+1"])
def test_a_list_without_any_id_closes_the_image(value: str) -> None:
    assert "USERACL" in damaged(f"USERACL: {value}\n")


def test_too_many_ids() -> None:
    assert meta(f"USERACL: {','.join('1' * 1000)}\n")["restricted"]
    assert "1000" in damaged(f"USERACL: {','.join('1' * 1001)}\n")


@pytest.mark.parametrize("key", ["FORMAT: squashfs", "USERACL: 1", "GROUPACL:", "PRIVATE: 1"])
def test_sec67_what_decides_about_access_comes_once(key: str) -> None:
    """Gateways of old let a line end in an image's ENV smuggle a second list in."""
    assert "twice" in damaged(f"{key}\nENV: A=1\n{key}\n")


def allowed(text: str, uid: int, gid: int, groups: list[int]) -> bool:
    try:
        _core.check_acl(text.encode(), uid, gid, groups)
    except _core.Error:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("USERACL:\nGROUPACL:\n", True),  # old gateways: no restriction
        ("USERACL: 1000\n", True),
        ("USERACL: 1001\n", False),
        ("USERACL: 1001\nGROUPACL: 100\n", True),
        ("GROUPACL: 205\n", True),
        ("GROUPACL: 1000\n", False),
        ("PRIVATE: 1\n", False),  # W-17
        ("PRIVATE:\n", False),
        ("PRIVATE: 1\nUSERACL:\nGROUPACL:\n", False),
        ("PRIVATE: 1\nUSERACL: 1000\n", True),
        ("PRIVATE: 0\n", True),
    ],
)
def test_who_may_use_an_image(text: str, expected: bool) -> None:
    assert allowed(text, 1000, 100, [200, 205]) == expected


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_metadata_parser(text: bytes) -> None:
    with suppress(_core.Error):
        _core.parse_meta(text)


@given(st.text(alphabet="[]'\"\\u,d8cf0 a", max_size=40))
def test_no_list_crashes_and_json_reads_as_json(text: str) -> None:
    try:
        found = meta(f"CMD: {text}\n")["cmd"]
    except _core.Error:
        return
    if text.strip().startswith('["') and "'" not in text:
        expected = json.loads(text.strip())
        if not any("\ud800" <= c <= "\udfff" for item in expected for c in item):
            assert found == expected


@given(st.text(max_size=60), st.sampled_from(["docker", "custom", "id", "local", None, "x"]))
def test_no_specification_crashes(text: str, default: str | None) -> None:
    with suppress(_core.Error):
        kind, name, _ = _core.parse_image_spec(text, default)
        assert kind in ("docker", "custom", "id", "local")
        assert name
