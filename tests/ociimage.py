# SPDX-License-Identifier: BSD-3-Clause
"""OCI image layouts from tar members: what the differential tests give to umoci and to us."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shifter_imagegw.registry.manifest import Descriptor


@dataclass(frozen=True)
class Member:
    """An entry of a layer's tar; `kind` is the letter of ls(1), "h" for a hard link."""

    name: bytes
    kind: str = "-"
    data: bytes = b""
    link: bytes = b""
    mode: int = 0o644
    mtime: int = 1000


LayerMembers = Sequence[Member]
_TYPES = {"-": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "p": tarfile.FIFOTYPE}


def file(name: bytes, data: bytes = b"", mode: int = 0o644, mtime: int = 1000) -> Member:
    return Member(name, data=data, mode=mode, mtime=mtime)


def directory(name: bytes, mode: int = 0o755, mtime: int = 1000) -> Member:
    return Member(name, "d", mode=mode, mtime=mtime)


def symlink(name: bytes, target: bytes) -> Member:
    return Member(name, "l", link=target, mode=0o777)


def hardlink(name: bytes, target: bytes) -> Member:
    return Member(name, "h", link=target)


def whiteout(name: bytes) -> Member:
    head, _slash, tail = name.rpartition(b"/")
    return Member((head + b"/" if head else b"") + b".wh." + tail)


def opaque(name: bytes) -> Member:
    return Member(name + b"/.wh..wh..opq")


def tar_of(members: LayerMembers) -> bytes:
    """GNU format: it takes any bytes as names."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as writer:
        for member in members:
            info = tarfile.TarInfo(os.fsdecode(member.name))
            info.type, info.mode, info.mtime = _TYPES[member.kind], member.mode, member.mtime
            info.linkname, info.size = os.fsdecode(member.link), len(member.data)
            writer.addfile(info, io.BytesIO(member.data))
    return stream.getvalue()


@dataclass(frozen=True)
class LayerBlob:
    """A layer as a registry holds it."""

    content: bytes
    descriptor: Descriptor
    diff_id: str


def layer_blob(tar: bytes, compression: str = "gzip") -> LayerBlob:
    if compression == "gzip":
        content = gzip.compress(tar, 1, mtime=0)
    elif compression == "zstd":
        content = subprocess.run(["zstd", "-q", "-3"], input=tar, check=True, capture_output=True).stdout
    else:
        content = tar
    suffix = f"+{compression}" if compression != "tar" else ""
    media_type = f"application/vnd.oci.image.layer.v1.tar{suffix}"
    return LayerBlob(content, Descriptor(media_type, _digest(content), len(content), ()), _digest(tar))


def write_layout(path: Path, layers: Sequence[LayerBlob]) -> None:
    """An OCI image layout with one image, tagged `latest`."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}}  # fmt: skip
    for layer in layers:
        _blob(blobs, "", layer.content)
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(blobs, "application/vnd.oci.image.config.v1+json", json.dumps(config).encode()),
        "layers": [
            {"mediaType": layer.descriptor.media_type, "digest": layer.descriptor.digest, "size": layer.descriptor.size}
            for layer in layers
        ],
    }
    entry = _blob(blobs, str(manifest["mediaType"]), json.dumps(manifest).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(directory: Path, media_type: str, content: bytes) -> dict[str, object]:
    digest = _digest(content)
    (directory / digest.split(":")[1]).write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}
