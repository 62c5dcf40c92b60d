# SPDX-License-Identifier: BSD-3-Clause
"""Image references: the grammar, the default tag, and which registry is contacted (security register sec-45)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_imagegw.errors import ConfigurationError, InvalidReference, RegistryDenied
from shifter_imagegw.registry.location import Location, Login, choose_login
from shifter_imagegw.registry.reference import (
    Reference,
    check_repository,
    check_version,
    choose_location,
    normalize_reference,
    parse_reference,
)

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ubuntu", Reference(None, "ubuntu")),
        ("ubuntu:24.04", Reference(None, "ubuntu", "24.04")),
        ("proj/app:v1_2-x", Reference(None, "proj/app", "v1_2-x")),
        (f"ubuntu@{DIGEST}", Reference(None, "ubuntu", None, DIGEST)),
        (f"ubuntu:24.04@{DIGEST}", Reference(None, "ubuntu", "24.04", DIGEST)),
        ("registry.example/proj/app", Reference("registry.example", "proj/app")),
        ("registry.example:5000/app:v1", Reference("registry.example:5000", "app", "v1")),
        ("localhost/app", Reference("localhost", "app")),
        ("localhost:5000/app", Reference("localhost:5000", "app")),
        ("[::1]/app", Reference("[::1]", "app")),
        ("[fe80::1:2]:5000/a/b:c", Reference("[fe80::1:2]:5000", "a/b", "c")),
        ("192.0.2.1:80/app", Reference("192.0.2.1:80", "app")),
        ("Registry.EXAMPLE/app:V1", Reference("Registry.EXAMPLE", "app", "V1")),
        ("UPPER/app", Reference("UPPER", "app")),
        ("a/b/c/d/e", Reference(None, "a/b/c/d/e")),
        ("a__b/c--d/e.f_g", Reference(None, "a__b/c--d/e.f_g")),
        ("localhost", Reference(None, "localhost")),
        ("foo.bar", Reference(None, "foo.bar")),
    ],
)
def test_reference_is_split_by_the_distribution_grammar(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "/app", "app/", "a//b", ":tag", "@" + DIGEST, "app:", "app@", "app:tag:tag", "App", "proj/App",
        "app:ta/g", "app:-tag", "app:.tag", "app:" + "t" * 129, "a" * 256, "-app", "app-", "a..b/c!", "a___b", ".a",
        "../etc/passwd", "a/../b", "a/./b", "app name", "app\n", "app\x00", "äpp", "app:tä", "app:t\n",
        f"app@{DIGEST.upper()}", f"app@{DIGEST[:-1]}", f"app@{DIGEST}0", f"app@md5:{HEX[:32]}", f"app@sha512:{HEX}",
        f"app@{DIGEST}@{DIGEST}", "app@sha256:../../etc", "http://registry.example/app", "user:pw@registry.example/app",
        "registry.example:/app", "registry.example:0/app", "registry.example:65536/app", "registry.example:http/app",
        "-registry.example/app", "registry..example/app", "registry_x.example/app", "[::1/app", "[::g]/app",
        "[::1]x/app", "::1/app", "registry.example?x/app", "registry.example#/app", "registry.example\n/app", "٣:٣/app",
    ],
)  # fmt: skip
def test_reference_outside_the_grammar_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_reference(text)
    assert repr(text[:20])[1:10] in str(caught.value)


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused_and_parsed_text_is_stable(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return
    assert str(reference) == text
    assert parse_reference(str(reference)) == reference


def test_version_prefers_the_digest() -> None:
    assert parse_reference(f"a:b@{DIGEST}").version == DIGEST
    assert parse_reference("a:b").version == "b"
    assert parse_reference("a").version == "latest"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ubuntu", "ubuntu:latest"),
        ("ubuntu:24.04", "ubuntu:24.04"),
        ("host:5000/name", "host:5000/name:latest"),
        ("host:5000/name:v1", "host:5000/name:v1"),
        (f"host:5000/name@{DIGEST}", f"host:5000/name@{DIGEST}"),
        ("My Custom/Name", "My Custom/Name:latest"),
    ],
)
def test_latest_is_added_where_the_last_component_has_no_version(text: str, expected: str) -> None:
    assert normalize_reference(text) == expected
    assert normalize_reference(expected) == expected


LOCATIONS = {
    "docker.io": Location("docker.io", "https://registry-1.docker.io"),
    "lab.example:5000": Location("lab.example:5000"),
    "urltest": Location("urltest", "https://alias.example/prefix"),
    "[2001:db8::1]:5000": Location("[2001:db8::1]:5000"),
}


@pytest.mark.parametrize(
    ("text", "location", "repository", "version"),
    [
        ("ubuntu:24.04", "docker.io", "library/ubuntu", "24.04"),
        ("docker.io/ubuntu", "docker.io", "library/ubuntu", "latest"),
        ("docker.io/proj/app", "docker.io", "proj/app", "latest"),
        ("proj/app", "docker.io", "proj/app", "latest"),
        ("lab.example:5000/app:v1", "lab.example:5000", "app", "v1"),
        ("LAB.Example:5000/app:v1", "lab.example:5000", "app", "v1"),
        ("urltest/proj/app", "urltest", "proj/app", "latest"),
        ("urltest/localhost/app", "urltest", "localhost/app", "latest"),
        ("[2001:DB8::1]:5000/app", "[2001:db8::1]:5000", "app", "latest"),
        (f"lab.example:5000/app:v1@{DIGEST}", "lab.example:5000", "app", DIGEST),
    ],
)
def test_reference_goes_to_the_location_it_names(text: str, location: str, repository: str, version: str) -> None:
    chosen, reference = choose_location(text, LOCATIONS, "docker.io")
    assert (chosen.name, reference.repository, reference.version) == (location, repository, version)
    assert reference.host is None


@pytest.mark.parametrize(
    "text",
    [
        "lab.example/app", "lab.example:5001/app", "other.example/app", "localhost/app", "Urltest/app", "127.0.0.1/app",
        "[::1]:5000/app", "docker.io.evil.example/app", "registry-1.docker.io/library/ubuntu",
    ],
)  # fmt: skip
def test_unknown_registry_is_never_replaced_by_the_default_one(text: str) -> None:
    with pytest.raises(InvalidReference, match=r"not configured at this site; configured are: .*docker\.io"):
        choose_location(text, LOCATIONS, "docker.io")


def test_host_of_the_default_location_gets_no_library_prefix_unless_it_is_docker_hub() -> None:
    locations = {"lab": Location("lab", "https://notdocker.io")}
    assert choose_location("ubuntu", locations, "lab")[1].repository == "ubuntu"


def test_missing_default_location_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="DefaultImageLocation 'gone'"):
        choose_location("ubuntu", LOCATIONS, "gone")


@pytest.mark.parametrize("text", ["", "A", "a/../b", "a:b", "a@b", "a b", "/a", "a/", "a?b"])
def test_repository_and_version_are_checked_before_use_in_a_url(text: str) -> None:
    with pytest.raises(InvalidReference):
        check_repository(text)
    with pytest.raises(InvalidReference):
        check_version(text + "/x")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "x",
        "https://",
        "http://user@x",
        "https://x?y",
        "https://x#y",
        "https://x:0",
        "https://x:99999",
        "https://[x",
    ],
)
def test_location_url_must_be_a_plain_http_url(url: str) -> None:
    with pytest.raises(ConfigurationError, match="location 'lab'"):
        Location("lab", url)
    with pytest.raises(ConfigurationError, match="mirror of location 'lab'"):
        Location("lab", mirrors=(url,))


def test_location_defaults_to_https_and_docker_hub_to_its_api_host() -> None:
    assert Location("lab.example").url == "https://lab.example"
    assert Location("docker.io").url == "https://registry-1.docker.io"
    with pytest.raises(ConfigurationError, match="authMethod"):
        Location("lab.example", auth_method="digest")


@pytest.mark.parametrize(
    ("location", "tokens", "user"),
    [
        ("docker.io", {"docker.io": "own:x", "default": "def:y"}, "own"),
        ("docker.io", {"default": "def:y"}, "def"),
        ("lab.example", {"default": "def:y"}, None),
        ("lab.example", {"docker.io": "own:x"}, None),
        ("lab.example", {"lab.example": "lab:z", "default": "def:y"}, "lab"),
        ("docker.io", {}, None),
    ],
)
def test_default_login_is_for_the_default_location_only(
    location: str, tokens: dict[str, str], user: str | None
) -> None:
    login = choose_login(location, "docker.io", tokens)
    assert (login.user if login else None) == user


def test_password_keeps_its_colons_and_stays_out_of_repr() -> None:
    login = Login.from_text("ann:s3cret:with:colons")
    assert (login.user, login.password) == ("ann", "s3cret:with:colons")
    assert "s3cret" not in repr(login) + str(login)
    assert login.basic_header() == "Basic YW5uOnMzY3JldDp3aXRoOmNvbG9ucw=="


@pytest.mark.parametrize("text", ["", "s3cret", ":s3cret", "ann:s3cret\r\nX-Header: y", "ann:s3cret\x00"])
def test_malformed_login_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(RegistryDenied, match="shifterimg login") as caught:
        Login.from_text(text)
    assert "s3cret" not in str(caught.value)
