# SPDX-License-Identifier: BSD-3-Clause
"""Documents that try to confuse, overflow or escape (security register sec-43, sec-44, sec-48)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_imagegw.errors import InvalidReference, ManifestInvalid, RegistryError
from shifter_imagegw.registry.client import HttpSettings, RegistryClient
from shifter_imagegw.registry.digest import checked_digest, is_digest
from shifter_imagegw.registry.location import Location
from shifter_imagegw.registry.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    OciPlatform,
    choose_entry,
    open_document,
    parse_config,
    parse_index,
    parse_manifest,
)
from tests.registryserver import OCI_CONFIG, OCI_LAYER, descriptor, digest_of
from tests.scriptedserver import Request, fake_image, scripted_server, serve_image

LIMITS = HttpSettings()
QUICK = HttpSettings(retries=0, backoff=0.01, connect_timeout=5, read_timeout=5)
HEX = "0123456789abcdef" * 4
BAD_DIGESTS = [
    "", "sha256", "sha256:", HEX, f"sha256:{HEX[:-1]}", f"sha256:{HEX}0", f"sha256:{HEX.upper()}", f"SHA256:{HEX}",
    f"sha1:{HEX[:40]}", f"md5:{HEX[:32]}", f"sha512:{HEX}", f"sha256:{HEX}\n", f" sha256:{HEX}",
    "sha256:../../../../etc/passwd", f"sha256:{'.' * 64}", f"sha256:{'/' * 64}", f"../sha256:{HEX}",
    f"sha256:{'٣' * 64}",
    f"sha256:{HEX}/..", f"sha256+b64:{HEX}", f"sha256:{HEX}?x=y", f"sha256:{HEX}#", f"sha256%3A{HEX}",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_DIGESTS)
def test_malformed_digest_reaches_no_url(text: str) -> None:
    with scripted_server(lambda r: r.reply(200, b"")) as server, RegistryClient(Location("r", server.url)) as client:
        with pytest.raises(ManifestInvalid, match="is not a digest"):
            client.open_blob("a/b", Descriptor(OCI_LAYER, text, 5))
        with pytest.raises(InvalidReference):
            client.resolve("a/b", f"{text}:", OciPlatform())
        assert server.requests == []


@pytest.mark.parametrize("text", BAD_DIGESTS)
@pytest.mark.parametrize("place", ["config", "layers"])
def test_malformed_digest_in_a_manifest_is_refused(text: str, place: str) -> None:
    bad: Any = {"mediaType": OCI_LAYER if place == "layers" else OCI_CONFIG, "digest": text, "size": 5}
    changes: dict[str, Any] = {place: [bad] if place == "layers" else bad}
    image = fake_image(**changes)
    with scripted_server(serve_image(image)) as server, RegistryClient(Location("r", server.url), http=QUICK) as client:
        with pytest.raises(ManifestInvalid, match="is not a digest"):
            client.resolve("a/b", "v1", OciPlatform())
        assert len(server.requests) == 1


@given(st.one_of(st.text(), st.integers(), st.none(), st.lists(st.text(), max_size=2)))
def test_only_the_grammar_passes_as_digest(value: object) -> None:
    with pytest.raises(ManifestInvalid):
        checked_digest(value, "somewhere")


def test_both_algorithms_of_the_grammar_pass() -> None:
    assert is_digest(f"sha256:{HEX}")
    assert is_digest(f"sha512:{HEX}{HEX}")


def manifest(**changes: Any) -> dict[str, Any]:
    config = {"mediaType": OCI_CONFIG, "digest": f"sha256:{HEX}", "size": 5}
    layer = {"mediaType": OCI_LAYER, "digest": f"sha256:{HEX}", "size": 5}
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer], **changes}


@pytest.mark.parametrize(
    ("document", "header"),
    [
        (manifest(manifests=[]), OCI_MANIFEST),
        (manifest(manifests=[], mediaType=OCI_INDEX), OCI_INDEX),
        (manifest(manifests=[], mediaType=None), ""),
        ({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "config": {}}, OCI_INDEX),
        ({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []}, OCI_MANIFEST),
        (manifest(mediaType=OCI_INDEX), OCI_INDEX),
        (manifest(), OCI_INDEX),
        (manifest(), DOCKER_MANIFEST),
        (manifest(mediaType=DOCKER_LIST), OCI_MANIFEST),
        (manifest(Layers=[]), OCI_MANIFEST),
        (manifest(MANIFESTS=[]), OCI_MANIFEST),
        (manifest(mediaType="application/x-tar"), "application/x-tar"),
        (manifest(mediaType=["a"]), ""),
        (manifest(), "text/html"),
        (manifest(schemaVersion=3), OCI_MANIFEST),
        (manifest(schemaVersion="2"), OCI_MANIFEST),
        (manifest(schemaVersion=True), OCI_MANIFEST),
        ([], OCI_MANIFEST),
        ("manifest", OCI_MANIFEST),
    ],
)
def test_ambiguous_or_unknown_document_is_refused(document: Any, header: str) -> None:
    with pytest.raises(ManifestInvalid, match=r"^the image"):
        open_document(json.dumps(document).encode(), header, "the image")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff\xfe{\x00}\x00", b'{"schemaVersion": 2, "schemaVersion": 2}', b'{"a": NaN}', b"[" * 100000,
        b'{"a":' * 100000, b'{"schemaVersion": ' + b"9" * 5000 + b"}", b'{"schemaVersion": 2, "a": "\\ud800"}',
        b'\xef\xbb\xbf{"schemaVersion": 2}', b'{"schemaVersion": 2} x', b"\x1f\x8b\x08\x00",
    ],
)  # fmt: skip
def test_body_that_is_not_clean_json_is_refused(body: bytes) -> None:
    with pytest.raises(ManifestInvalid, match=r"^the image"):
        open_document(body, OCI_MANIFEST, "the image")


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "application/json"),
        (b'{"schemaVersion": 2, "fsLayers": []}', ""),
    ],
)
def test_schema_1_is_refused_by_name(body: bytes, header: str) -> None:
    with pytest.raises(ManifestInvalid, match=r"schema 1 .* push it again"):
        open_document(body, header, "the image")


@pytest.mark.parametrize(
    "size", [-1, -(2**63), 2**63, 2**64, LIMITS.max_blob_bytes + 1, 1.5, "5", None, True, 10**4000]
)
def test_impossible_size_is_refused(size: Any) -> None:
    for changes in (
        {"layers": [{"mediaType": OCI_LAYER, "digest": f"sha256:{HEX}", "size": size}]},
        {"config": {"mediaType": OCI_CONFIG, "digest": f"sha256:{HEX}", "size": size}},
    ):
        with pytest.raises(ManifestInvalid, match=r"size .{0,60} is not between 0 and"):
            parse_manifest(manifest(**changes), "the image", LIMITS)


@pytest.mark.parametrize(
    "changes",
    [
        {"config": None}, {"config": []}, {"layers": None}, {"layers": {}}, {"layers": [None]}, {"layers": [[]]},
        {"layers": [{"digest": f"sha256:{HEX}", "size": 5}]},
        {"layers": [{"mediaType": f"{OCI_LAYER}+gzip+encrypted", "digest": f"sha256:{HEX}", "size": 5}]},
        {"layers": [{"mediaType": "text/html", "digest": f"sha256:{HEX}", "size": 5}]},
        {"layers": [{"mediaType": OCI_LAYER, "digest": f"sha256:{HEX}", "size": 5, "urls": "https://x"}]},
        {"config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": f"sha256:{HEX}", "size": 5}},
        {"config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": f"sha256:{HEX}", "size": 2}},
    ],
)  # fmt: skip
def test_manifest_of_the_wrong_shape_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid, match=r"^the image"):
        parse_manifest(manifest(**changes), "the image", LIMITS)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner))
)


@given(st.data())
def test_any_value_anywhere_is_refused_or_understood(data: st.DataObject) -> None:
    platform = {"os": "linux", "architecture": "amd64"}
    entry = {"mediaType": OCI_MANIFEST, "digest": f"sha256:{HEX}", "size": 5, "platform": platform}
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": [], "Cmd": [], "Entrypoint": [], "Labels": {}, "WorkingDir": ""},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{HEX}"]},
    }
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    document: Any = json.loads(json.dumps(data.draw(st.sampled_from([manifest(), index, config]))))
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(ANYTHING)
    body = json.dumps(document).encode()
    with contextlib.suppress(RegistryError):
        if "rootfs" in document:
            parse_config(body, 1, OciPlatform(), "the image")
        else:
            media_type, opened = open_document(body, "", "the image")
            if media_type == OCI_INDEX:
                choose_entry(parse_index(opened, "the image", LIMITS), OciPlatform(), "the image")
            else:
                parse_manifest(opened, "the image", LIMITS)


def test_number_of_layers_is_bounded() -> None:
    layer = {"mediaType": OCI_LAYER, "digest": f"sha256:{HEX}", "size": 0}
    with pytest.raises(ManifestInvalid, match="1001 layers; the limit is 1000"):
        parse_manifest(manifest(layers=[layer] * 1001), "the image", LIMITS)


def test_artifact_is_refused_by_its_type() -> None:
    changes = {"artifactType": "application/vnd.example.sbom", "config": {**manifest()["config"], "mediaType": "x/y"}}
    with pytest.raises(ManifestInvalid, match=r"an artifact of type 'application/vnd\.example\.sbom'"):
        parse_manifest(manifest(**changes), "the image", LIMITS)


def test_index_that_contains_itself_ends() -> None:
    def script(request: Request) -> None:
        entry = {**descriptor(OCI_INDEX, bodies[-1]), "platform": {"os": "linux", "architecture": "amd64"}}
        bodies.append(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode())
        wanted = request.path.rpartition("/")[2]
        body = next((b for b in bodies if digest_of(b) == wanted), bodies[-1])
        request.reply(200, body, {"Content-Type": OCI_INDEX})

    bodies: list[bytes] = [b"{}"]
    for _ in range(6):
        entry = {**descriptor(OCI_INDEX, bodies[-1]), "platform": {"os": "linux", "architecture": "amd64"}}
        bodies.append(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode())
    with scripted_server(script) as server, RegistryClient(Location("r", server.url), http=QUICK) as client:
        with pytest.raises(ManifestInvalid, match="nested more than 3 deep"):
            client.resolve("a/b", "v1", OciPlatform())
        assert len(server.requests) == QUICK.max_index_depth + 1


def test_child_of_an_index_must_be_what_the_index_promised() -> None:
    image = fake_image()

    def script(request: Request) -> None:
        if request.path.endswith("/v1"):
            request.reply(200, index, {"Content-Type": OCI_INDEX})
        else:
            request.reply(200, image.manifest, {"Content-Type": OCI_MANIFEST})

    for wrong in ({"mediaType": DOCKER_MANIFEST}, {"size": len(image.manifest) + 1}):
        entry = {**descriptor(OCI_MANIFEST, image.manifest), **wrong}
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
        with (
            scripted_server(script) as server,
            RegistryClient(Location("r", server.url), http=QUICK) as client,
            pytest.raises(RegistryError, match="index promises"),
        ):
            client.resolve("a/b", "v1", OciPlatform())


def test_nothing_of_a_refused_document_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = fake_image(layers=[{"mediaType": OCI_LAYER, "digest": "sha256:../../x", "size": 5}])
    with (
        scripted_server(serve_image(image)) as server,
        RegistryClient(Location("r", server.url), http=QUICK) as client,
        pytest.raises(ManifestInvalid),
    ):
        client.resolve("a/b", "v1", OciPlatform())
    assert list(tmp_path.iterdir()) == []
