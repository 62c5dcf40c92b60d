# SPDX-License-Identifier: BSD-3-Clause
"""What an index, a manifest and a configuration mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shifter_imagegw.errors import ManifestInvalid, ManifestNotFound
from shifter_imagegw.registry.manifest import (
    OCI_INDEX,
    OCI_MANIFEST,
    OciPlatform,
    choose_entry,
    open_document,
    parse_config,
    parse_index,
    parse_manifest,
)
from shifter_imagegw.registry.settings import HttpSettings

LIMITS = HttpSettings()
DIGEST = "sha256:" + "a" * 64


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def index(*platforms: Any) -> list[Any]:
    document = {
        "manifests": [
            {"mediaType": OCI_MANIFEST, "digest": digest(number), "size": 1, "platform": platform}
            for number, platform in enumerate(platforms)
        ]
    }
    return parse_index(document, "index", LIMITS)


def entry(architecture: str, variant: str | None = None, system: str = "linux") -> dict[str, Any]:
    return {"os": system, "architecture": architecture, **({"variant": variant} if variant else {})}


ATTESTATION = entry("unknown", system="unknown")


@pytest.mark.parametrize(
    ("platforms", "wanted", "chosen"),
    [
        ([entry("arm64"), entry("amd64"), ATTESTATION], OciPlatform(), 1),
        ([entry("amd64", "v3"), entry("amd64")], OciPlatform(), 1),
        ([entry("amd64", "v3"), entry("amd64", "v1")], OciPlatform(), 1),
        ([entry("amd64"), entry("amd64", "v3")], OciPlatform(variant="v3"), 1),
        ([entry("amd64"), entry("arm64")], OciPlatform(variant="v3"), 0),
        ([entry("arm", "v6"), entry("arm", "v7")], OciPlatform("arm"), 1),
        ([entry("arm64", "v8")], OciPlatform("arm64"), 0),
        ([entry("amd64", system="windows"), entry("amd64")], OciPlatform(), 1),
        ([entry("amd64"), entry("amd64")], OciPlatform(), 0),
        ([None], OciPlatform(), 0),
    ],
)
def test_entry_of_the_wanted_platform_is_chosen(platforms: list[Any], wanted: OciPlatform, chosen: int) -> None:
    assert choose_entry(index(*platforms), wanted, "index").digest == digest(chosen)


@pytest.mark.parametrize("platforms", [[], [entry("arm64")], [entry("amd64", "v3")], [None, None], [ATTESTATION]])
def test_index_without_the_platform_says_what_there_is(platforms: list[Any]) -> None:
    with pytest.raises(ManifestNotFound, match="no image for linux/amd64; available: "):
        choose_entry(index(*platforms), OciPlatform(), "index")


def test_entries_of_other_media_types_are_left_out() -> None:
    document = {"manifests": [{"mediaType": "application/x-signature", "digest": "odd", "size": 10**12}]}
    assert parse_index(document, "index", LIMITS) == []


@pytest.mark.parametrize(
    "header", [OCI_MANIFEST, f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST.upper(), "application/json", ""]
)
def test_manifest_without_media_type_is_known_by_header_or_shape(header: str) -> None:
    media_type, _ = open_document(b'{"schemaVersion": 2, "config": {}, "layers": []}', header, "m")
    assert media_type == OCI_MANIFEST


def test_index_without_media_type_is_known_by_shape() -> None:
    assert open_document(b'{"schemaVersion": 2, "manifests": []}', "text/plain", "m")[0] == OCI_INDEX


def config(**values: Any) -> bytes:
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}, **values}
    ).encode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, ()), ([], ()), (["a", "b c"], ("a", "b c")), ("a b", ("a b",)), ("", ())],
)
def test_entrypoint_and_cmd_may_be_null_a_list_or_a_string(value: Any, expected: tuple[str, ...]) -> None:
    parsed = parse_config(config(config={"Entrypoint": value, "Cmd": value}), 1, OciPlatform(), "c")
    assert (parsed.entrypoint, parsed.cmd) == (expected, expected)


def test_absent_and_null_parts_of_the_configuration_are_empty() -> None:
    for document in (config(), config(config=None), config(config={"Env": None, "Labels": None, "WorkingDir": ""})):
        parsed = parse_config(document, 1, OciPlatform(), "c")
        assert (parsed.env, parsed.labels, parsed.workdir, parsed.diff_ids) == ((), {}, None, (DIGEST,))


@pytest.mark.parametrize(
    "values",
    [
        {"config": []}, {"config": {"Env": "A=1"}}, {"config": {"Env": [1]}}, {"config": {"Env": {"A": "1"}}},
        {"config": {"Cmd": {}}}, {"config": {"Entrypoint": [["a"]]}}, {"config": {"Labels": ["a"]}},
        {"config": {"Labels": {"a": 1}}}, {"config": {"WorkingDir": 1}}, {"rootfs": None}, {"rootfs": []},
        {"rootfs": {"type": "layers"}}, {"rootfs": {"type": "other", "diff_ids": [DIGEST]}},
        {"rootfs": {"type": "layers", "diff_ids": []}}, {"rootfs": {"type": "layers", "diff_ids": [DIGEST, DIGEST]}},
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:x"]}}, {"rootfs": {"type": "layers", "diff_ids": [None]}},
    ],
)  # fmt: skip
def test_configuration_of_the_wrong_shape_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid, match=r"^the config"):
        parse_config(config(**values), 1, OciPlatform(), "the config")


@pytest.mark.parametrize("values", [{"architecture": "arm64"}, {"os": "windows"}, {"architecture": ["amd64"]}])
def test_image_made_for_another_platform_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ManifestNotFound, match=r"made for .* not for linux/amd64"):
        parse_config(config(**values), 1, OciPlatform(), "c")


@pytest.mark.parametrize("values", [{"architecture": "386"}, {"architecture": ""}, {"architecture": None, "os": None}])
def test_image_that_runs_or_does_not_say_is_accepted(values: dict[str, Any]) -> None:
    assert parse_config(config(**values), 1, OciPlatform(), "c").diff_ids == (DIGEST,)


def test_foreign_layers_keep_their_urls() -> None:
    layer = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": DIGEST,
        "size": 5,
        "urls": ["https://a.example/layer"],
    }
    document = {
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 5},
        "layers": [layer],
    }
    (parsed,) = parse_manifest(document, "m", LIMITS).layers
    assert (parsed.is_foreign, parsed.urls) == (True, ("https://a.example/layer",))
