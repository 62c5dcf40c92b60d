# SPDX-License-Identifier: BSD-3-Clause
"""The documents of an image: index, manifest, configuration. Pure: bytes in, checked values out.

Sources: OCI image specification 1.1 (image-index, manifest, descriptor, config, media-types), distribution manifest
schema 2.
A document that two readers could understand differently is refused (CVE-2021-41190): both ``manifests`` and ``layers``,
a media type that contradicts the header or the parent, keys given twice or in another case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shifter_imagegw.errors import ManifestInvalid, ManifestNotFound
from shifter_imagegw.registry.digest import checked_digest
from shifter_imagegw.registry.jsondocument import parse_object, text_list, text_map
from shifter_imagegw.registry.settings import HttpSettings

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
_CONFIG_TYPES = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
_DOCKER_LAYER = "application/vnd.docker.image.rootfs."
_OCI_LAYER = "application/vnd.oci.image.layer."
_LAYER_TYPES = frozenset(
    {f"{_DOCKER_LAYER}diff.tar{suffix}" for suffix in ("", ".gzip", ".zstd")}
    | {f"{_OCI_LAYER}v1.tar{suffix}" for suffix in ("", "+gzip", "+zstd")}
)
_FOREIGN_LAYER_TYPES = frozenset(
    {f"{_DOCKER_LAYER}foreign.diff.tar{suffix}" for suffix in ("", ".gzip")}
    | {f"{_OCI_LAYER}nondistributable.v1.tar{suffix}" for suffix in ("", "+gzip", "+zstd")}
)
# Servers of plain files say these about any document.
_UNSPECIFIC_TYPES = frozenset({"", "application/json", "application/octet-stream", "text/plain"})
_STRUCTURE = frozenset(
    {"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "fsLayers"}
)
# The variant that an entry without one means, and what runs where that one runs.
_BASELINE_VARIANTS: Mapping[str, tuple[str | None, ...]] = {
    "amd64": (None, "v1"),
    "arm64": (None, "v8"),
    "arm": (None, "v7", "v6", "v5"),
}
_ALSO_RUNS = {"amd64": "386", "arm64": "arm"}


@dataclass(frozen=True)
class Descriptor:
    """What a parent document promises about a child: media type, digest, size in bytes; ``urls`` of foreign layers."""

    media_type: str
    digest: str
    size: int
    urls: tuple[str, ...] = ()

    @property
    def is_foreign(self) -> bool:
        """Whether the registry may not hold this layer itself."""
        return self.media_type in _FOREIGN_LAYER_TYPES


@dataclass(frozen=True)
class OciPlatform:
    """What the nodes of a cluster run; ``variant`` None means the architecture's baseline."""

    architecture: str = "amd64"
    os: str = "linux"
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True)
class ImageConfig:
    """The parts of an image configuration that the runtime uses; absent and null lists are empty."""

    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    workdir: str | None
    labels: Mapping[str, str]
    diff_ids: tuple[str, ...]
    created: str | None = None


@dataclass(frozen=True)
class ResolvedImage:
    """An image at a registry, all of its documents verified.

    ``digest`` is that of the top-level document as served (index or manifest); its hex part is the image id.
    ``manifest_digest`` is that of the manifest chosen for the platform. ``layers`` are oldest first and match
    ``config.diff_ids`` one to one. ``private``: the login was needed.
    """

    digest: str
    manifest_digest: str
    config: ImageConfig
    layers: tuple[Descriptor, ...]
    private: bool

    @property
    def id(self) -> str:
        """Image id: the hex digits of ``digest``."""
        return self.digest.partition(":")[2]

    @property
    def size(self) -> int:
        """Bytes of all layers as transferred."""
        return sum(layer.size for layer in self.layers)


@dataclass(frozen=True)
class Manifest:
    """A parsed image manifest."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class IndexEntry:
    """One entry of an index; ``platform`` as given, None when absent."""

    descriptor: Descriptor
    platform: OciPlatform | None


def open_document(body: bytes, content_type: str, where: str) -> tuple[str, dict[str, Any]]:
    """Media type and content of an index or manifest, after all checks on what kind of document it is."""
    header = content_type.partition(";")[0].strip().lower()
    if header.startswith(_SCHEMA_1):
        raise ManifestInvalid(_schema_1(where))
    document = parse_object(body, where)
    for key in document:
        if key not in _STRUCTURE and key.lower() in {name.lower() for name in _STRUCTURE}:
            raise ManifestInvalid(f"{where}: ambiguous key {key!r} in the manifest")
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        raise ManifestInvalid(_schema_1(where))
    if document.get("schemaVersion") != 2 or isinstance(document["schemaVersion"], bool):
        raise ManifestInvalid(f"{where}: not a manifest (schemaVersion is not 2)")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise ManifestInvalid(f"{where}: the document claims to be an index and a manifest at once; refused")
    own = document.get("mediaType", header if header not in _UNSPECIFIC_TYPES else None)
    if own is None:
        own = OCI_INDEX if "manifests" in document else OCI_MANIFEST
    if not isinstance(own, str) or (header not in _UNSPECIFIC_TYPES and own != header):
        raise ManifestInvalid(f"{where}: mediaType {str(own)[:100]!r} contradicts the Content-Type {header[:100]!r}")
    if own not in INDEX_TYPES | MANIFEST_TYPES:
        raise ManifestInvalid(f"{where}: {own[:100]!r} is not a container image")
    if (own in INDEX_TYPES) != ("manifests" in document):
        raise ManifestInvalid(f"{where}: content contradicts the media type {own!r}")
    return own, document


def parse_manifest(document: Mapping[str, Any], where: str, limits: HttpSettings) -> Manifest:
    """Config and layers of a document that :func:`open_document` said is a manifest."""
    config = _descriptor(document.get("config"), f"{where}, config", limits.max_config_bytes)
    if config.media_type not in _CONFIG_TYPES:
        kind = document.get("artifactType") or config.media_type
        raise ManifestInvalid(f"{where}: an artifact of type {str(kind)[:100]!r}, not a container image")
    layers = document.get("layers")
    if not isinstance(layers, list):
        raise ManifestInvalid(f"{where}: 'layers' is not a list")
    if len(layers) > limits.max_layers:
        raise ManifestInvalid(f"{where}: {len(layers)} layers; the limit is {limits.max_layers}")
    parsed = tuple(
        _descriptor(layer, f"{where}, layer {number}", limits.max_blob_bytes) for number, layer in enumerate(layers, 1)
    )
    for number, layer in enumerate(parsed, 1):
        if layer.media_type not in _LAYER_TYPES | _FOREIGN_LAYER_TYPES:
            hint = "; encrypted layers are not supported" if layer.media_type.endswith("+encrypted") else ""
            which = f"layer {number}, {layer.digest},"
            raise ManifestInvalid(f"{where}: {which} has unknown media type {layer.media_type[:100]!r}{hint}")
    return Manifest(config, parsed)


def parse_index(document: Mapping[str, Any], where: str, limits: HttpSettings) -> list[IndexEntry]:
    """Entries of an index that can lead to an image; others (signatures, attestations of other types) are left out."""
    entries = document.get("manifests")
    if not isinstance(entries, list) or len(entries) > limits.max_index_entries:
        raise ManifestInvalid(f"{where}: 'manifests' is not a list of at most {limits.max_index_entries} entries")
    usable = []
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, dict) and entry.get("mediaType") not in (*INDEX_TYPES, *MANIFEST_TYPES):
            continue
        descriptor = _descriptor(entry, f"{where}, entry {number}", limits.max_manifest_bytes)
        usable.append(IndexEntry(descriptor, _platform(entry.get("platform"), f"{where}, entry {number}")))
    return usable


def choose_entry(entries: list[IndexEntry], wanted: OciPlatform, where: str) -> Descriptor:
    """The entry for a platform: the wanted variant, else the baseline; an only entry without platform serves too."""
    baseline = _BASELINE_VARIANTS.get(wanted.architecture, (None,))
    variants = baseline if wanted.variant is None else (wanted.variant, *baseline)
    for variant in variants:
        for entry in entries:
            if entry.platform == OciPlatform(wanted.architecture, wanted.os, variant):
                return entry.descriptor
    if len(entries) == 1 and entries[0].platform is None:
        return entries[0].descriptor
    offered = sorted({str(entry.platform) for entry in entries if entry.platform and entry.platform.os != "unknown"})
    raise ManifestNotFound(f"{where}: no image for {wanted}; available: {', '.join(offered[:20]) or 'nothing'}")


def parse_config(body: bytes, layer_count: int, wanted: OciPlatform, where: str) -> ImageConfig:
    """The configuration of an image with ``layer_count`` layers, which must be made for the wanted platform."""
    document = parse_object(body, where)
    _check_platform(document, wanted, where)
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) and rootfs.get("type") == "layers" else None
    if diff_ids is None and isinstance(rootfs, dict) and layer_count == 0:
        diff_ids = []
    if not isinstance(diff_ids, list):
        raise ManifestInvalid(f"{where}: no layer list in rootfs; an artifact, not a container image")
    if len(diff_ids) != layer_count:
        raise ManifestInvalid(f"{where}: {len(diff_ids)} diff_ids for {layer_count} layers")
    config = document.get("config")
    if config is None:
        config = {}
    if not isinstance(config, dict):
        raise ManifestInvalid(f"{where}: 'config' is not an object")
    workdir = config.get("WorkingDir")
    created = document.get("created")
    if workdir is not None and not isinstance(workdir, str):
        raise ManifestInvalid(f"{where}: WorkingDir is not a string")
    return ImageConfig(
        env=text_list(config.get("Env"), f"{where}, Env"),
        entrypoint=_command(config.get("Entrypoint"), f"{where}, Entrypoint"),
        cmd=_command(config.get("Cmd"), f"{where}, Cmd"),
        workdir=workdir or None,
        labels=text_map(config.get("Labels"), f"{where}, Labels"),
        diff_ids=tuple(checked_digest(item, f"{where}, diff_id {n}") for n, item in enumerate(diff_ids, 1)),
        created=created if isinstance(created, str) else None,
    )


def _command(value: object, where: str) -> tuple[str, ...]:
    """Entrypoint and Cmd: null, a list, or in old images a string, which Docker takes as the only word."""
    if isinstance(value, str):
        return (value,) if value else ()
    return text_list(value, where)


def _check_platform(document: Mapping[str, Any], wanted: OciPlatform, where: str) -> None:
    architecture, system = document.get("architecture"), document.get("os")
    runs = ("", None, wanted.architecture, _ALSO_RUNS.get(wanted.architecture, ""))
    if system not in ("", None, wanted.os) or architecture not in runs:
        raise ManifestNotFound(
            f"{where}: the image is made for {str(system)[:40]}/{str(architecture)[:40]}, not for {wanted}"
        )


def _descriptor(value: object, where: str, max_size: int) -> Descriptor:
    if not isinstance(value, dict):
        raise ManifestInvalid(f"{where}: not a descriptor object")
    media_type, size = value.get("mediaType"), value.get("size")
    if not isinstance(media_type, str) or not media_type:
        raise ManifestInvalid(f"{where}: no mediaType")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= max_size:
        raise ManifestInvalid(f"{where}: size {str(size)[:40]} is not between 0 and {max_size} bytes")
    digest = checked_digest(value.get("digest"), where)
    return Descriptor(media_type, digest, size, text_list(value.get("urls"), f"{where}, urls"))


def _platform(value: object, where: str) -> OciPlatform | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ManifestInvalid(f"{where}: platform is not an object")
    fields = [value.get(name) or "" for name in ("architecture", "os", "variant")]
    if not all(isinstance(item, str) and len(item) <= 64 for item in fields):
        raise ManifestInvalid(f"{where}: platform has a field that is not a short string")
    return OciPlatform(fields[0], fields[1], fields[2] or None)


def _schema_1(where: str) -> str:
    return (
        f"{where}: the image has only a schema 1 manifest, a format that is no longer supported; push it again with a "
        "current tool"
    )
