# SPDX-License-Identifier: BSD-3-Clause
"""The .meta file: its grammar, and what it refuses."""

from __future__ import annotations

import pytest

from shifter_imagegw.errors import ConversionError
from shifter_imagegw.meta import Metadata, recorded_recipe, render


def test_the_documented_example() -> None:
    metadata = Metadata(
        entrypoint=["/bin/sh", "-c"], cmd=["/app.sh"], workdir="/data", private=True,
        user_acl=[1000, 1001, 500], group_acl=[], env=["PATH=/usr/bin:/bin", "LANG=C"],
    )  # fmt: skip
    assert render(metadata).decode() == (
        "FORMAT: squashfs\n"
        "ENTRY: ['/bin/sh', '-c']\n"
        "CMD: ['/app.sh']\n"
        "WORKDIR: /data\n"
        "PRIVATE: 1\n"
        "USERACL: 1000,1001,500\n"
        "GROUPACL: \n"
        "ENV: PATH=/usr/bin:/bin\n"
        "ENV: LANG=C\n"
    )


def test_a_public_image_has_no_acl_lines() -> None:
    assert render(Metadata(user_acl=[1], group_acl=[2])) == b"FORMAT: squashfs\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["it's"], '["it\'s"]'),
        (["a\\b"], '["a\\\\b"]'),
        (["a\nUSERACL: 0"], '["a\\nUSERACL: 0"]'),
        (["é", "a b", ""], "['é', 'a b', '']"),
        (["\x7f"], '["\\u007f"]'),
    ],
)
def test_lists_old_readers_cannot_take_are_json(arguments: list[str], expected: str) -> None:
    assert render(Metadata(cmd=arguments)).decode().replace("\\u007f", "\\u007f").splitlines()[1] in (
        f"CMD: {expected}",
        f"CMD: {expected}".replace("\\u007f", "\x7f"),
    )


@pytest.mark.parametrize("bad", ["a\nUSERACL: 0", "a\rb", "a\0b", "ends in \\"])
def test_values_that_could_inject_lines_are_refused_by_name(bad: str) -> None:
    with pytest.raises(ConversionError, match="ENV 'NAME'"):
        render(Metadata(env=[f"NAME={bad}"]))
    with pytest.raises(ConversionError, match="WORKDIR"):
        render(Metadata(workdir=bad))


def test_nul_in_an_argument_and_a_nameless_or_huge_variable_are_refused() -> None:
    with pytest.raises(ConversionError, match="CMD holds NUL"):
        render(Metadata(cmd=["a\0"]))
    for variable in ("=x", f"NAME={'x' * 200_000}"):
        with pytest.raises(ConversionError, match="ENV entry"):
            render(Metadata(env=[variable]))


def test_every_value_stays_one_line() -> None:
    content = render(Metadata(env=["A=\x0b\x0c\x1c\x85\u2028b"])).decode()
    assert content.count("\n") == 2


def test_bytes_that_are_not_utf8_survive() -> None:
    assert render(Metadata(env=["A=\udcff"])) == b"FORMAT: squashfs\nENV: A=\xff\n"


def test_lists_longer_than_nodes_take_are_refused() -> None:
    with pytest.raises(ConversionError, match="user list has 1001 entries"):
        render(Metadata(private=True, user_acl=range(1001)))


def test_the_recipe_is_a_comment_which_no_reader_of_values_sees() -> None:
    content = render(Metadata(env=["A=1"], recipe="2 zstd 3 131072 bootSet"))
    assert content == b"FORMAT: squashfs\n# recipe: 2 zstd 3 131072 bootSet\nENV: A=1\n"
    assert recorded_recipe(content) == "2 zstd 3 131072 bootSet"


def test_no_value_is_taken_for_the_recipe() -> None:
    assert recorded_recipe(render(Metadata(env=["# recipe: 1=x", "A=# recipe: 1"], workdir="# recipe: 2"))) is None
    assert recorded_recipe(b"\xff\nENV: A=\r# recipe: 1") is None


def test_the_whole_is_bounded() -> None:
    variables = [f"V{number:04}={'x' * 90}" for number in range(2500)]
    assert len(render(Metadata(env=variables))) < 256 * 1024
    for more in (Metadata(env=variables * 2), Metadata(cmd=variables * 3), Metadata(entrypoint=["x" * 300_000])):
        with pytest.raises(ConversionError, match=r"would have \d+ bytes, more than 262144: \d+ are the image's ENV"):
            render(more)
    ids = range(2**32 - 1000, 2**32)
    assert render(Metadata(env=variables[:2300], private=True, user_acl=ids, group_acl=ids))
    with pytest.raises(ConversionError, match=r"CMD, 220\d\d access lists and the like"):
        render(Metadata(env=variables, private=True, user_acl=ids, group_acl=ids))
