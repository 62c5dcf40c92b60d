# SPDX-License-Identifier: BSD-3-Clause
"""Images that cannot be converted, all in one worker beside good ones: each fails by itself, with its reason."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.images import FAILURE, READY, Image
from tests.faulty import check_consistent, check_nothing_left, queued
from tests.gatewayserver import SYSTEM, worker_process
from tests.layers import Layer
from tests.munged import Munged
from tests.pulledsite import PulledSite, make_site
from tests.registryserver import OCI_LAYER, RegistryServer, descriptor, digest_of, registry_server
from tests.security.test_layer_hostile import sparse_map

NOISE = random.Random(14).randbytes(100_000)
LIMITS = {
    "maxBytes": 70_000_000, "maxRatio": 50, "maxEntries": 40, "maxText": 1500, "maxPath": 200, "maxName": 60,
    "maxDepth": 10, "maxTarget": 100, "maxLinks": 3, "maxXattrs": 1000,
}  # fmt: skip
HTTP = {"maxLayers": 4, "maxBlobBytes": 10_000_000, "retries": 1, "backoff": 0.1}
GOOD = ("good/one:1", "good/two:1")

Damage = Callable[[bytes], bytes]
Edit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Bad:
    """A layer above a good one. ``tar`` is what the diff_id is of (long ones are made when needed), ``blob`` what the
    registry gets (default: gzip of it); ``damage`` is done to the registry's file, ``manifest`` and ``config`` to the
    image's documents. The message has all ``words``, the layer's digest unless a document is at fault, and ``entry``.
    """

    tar: bytes | Callable[[], bytes]
    words: tuple[str, ...]
    entry: str | None = None
    blob: bytes | None = None
    damage: Damage | None = None
    manifest: Edit | None = None
    config: Edit | None = None
    names_layer: bool = True


def with_field(name: str, value: object) -> Edit:
    """A manifest whose newest layer has another value."""
    return lambda document: document["layers"][-1].update({name: value})


def mixed(size: int) -> bytes:
    """A tar of so many bytes that gzip makes a twentieth of."""
    piece = NOISE[:4096] + bytes(76_000)
    return Layer().add("big", piece * (size // len(piece) + 1)).bytes()


def other_diff_id(document: dict[str, Any]) -> None:
    document["rootfs"]["diff_ids"][-1] = digest_of(b"something else")


def more_diff_ids(document: dict[str, Any]) -> None:
    document["rootfs"]["diff_ids"].append(digest_of(b"something else"))


def ten_layers(document: dict[str, Any]) -> None:
    document["layers"] = [document["layers"][0]] * 10


def plain(content: str) -> bytes:
    """A sound layer; each has a blob of its own, as registries share those that one test damages."""
    return Layer().add("f", content.encode() + NOISE).bytes()


def headers(names: list[str]) -> bytes:
    """A tar of empty files."""
    return b"".join(Layer(tarfile.USTAR_FORMAT).add(name).bytes()[:512] for name in names)


PLAIN = plain("sound")
BAD = {
    # What comes is not what was promised.
    "no tar": Bad(b"this is no archive at all" * 1000, ("archive",)),
    "wrong digest": Bad(
        plain("1"), ("digest", "damaged or hostile"), blob=plain("1"),
        damage=lambda blob: blob[:9000] + b"other" + blob[9005:],
    ),
    "damaged stream": Bad(plain("2"), ("digest",), damage=lambda blob: blob[:9000] + b"other" + blob[9005:]),
    "truncated": Bad(plain("3"), ("bytes offered",), damage=lambda blob: blob[:-20]),
    "too long": Bad(plain("4"), ("bytes offered",), damage=lambda blob: blob + b"more"),
    "pushed truncated": Bad(PLAIN, ("gzip stream ends too early",), blob=gzip.compress(PLAIN)[:-20]),
    "pushed tar truncated": Bad(PLAIN[:50_000], ("runcated",), entry="f"),
    "garbage after it": Bad(PLAIN, ("garbage after the end",), blob=gzip.compress(PLAIN) + b"garbage"),
    "wrong diff_id": Bad(PLAIN, ("diff_id", "built or pushed wrongly"), config=other_diff_id),
    "more diff_ids": Bad(PLAIN, ("3 diff_ids for 2 layers",), config=more_diff_ids, names_layer=False),
    # Ways of writing that nobody reads.
    "bzip2": Bad(PLAIN, ("bzip2", "layers are gzip, zstd or plain tar"), blob=bz2.compress(PLAIN)),
    "xz": Bad(PLAIN, ("xz", "layers are gzip, zstd or plain tar"), blob=lzma.compress(PLAIN)),
    "unknown compression": Bad(
        PLAIN, ("unknown media type", "tar+br"), manifest=with_field("mediaType", f"{OCI_LAYER}+br")
    ),
    "unknown media type": Bad(PLAIN, ("unknown media type", "x/y"), manifest=with_field("mediaType", "x/y")),
    "encrypted": Bad(
        PLAIN, ("encrypted layers are not supported",), manifest=with_field("mediaType", f"{OCI_LAYER}+gzip+encrypted")
    ),
    # Entries that contradict themselves or each other.
    "below a file": Bad(Layer().add("a", b"x").add("a/b").bytes(), ("not a directory in this layer",), entry="a/b"),
    "out of the tree": Bad(Layer().add("../../etc/evil").bytes(), ("with `..`",), entry="../../etc/evil"),
    "root is a file": Bad(Layer().add(".", b"x").bytes(), ("the root directory cannot be anything else",), entry="."),
    "link to itself": Bad(Layer().hardlink("h", "./h").bytes(), ("a hard link to itself",), entry="h"),
    "link to a directory": Bad(
        Layer().directory("d").hardlink("h", "d").bytes(), ("a hard link to the directory d",), entry="h"
    ),
    "link to nothing": Bad(
        Layer().hardlink("h", "nowhere").bytes(), ("hard link to a path that no older layer has",), entry="h"
    ),
    "link to an older directory": Bad(Layer().hardlink("h", "bin").bytes(), ("hard link to a directory",), entry="h"),
    "links in a circle": Bad(
        Layer().symlink("a", "b/c").symlink("b", "a/d").add("a/x").bytes(), ("more than 40 symbolic links",),
        entry="a/x",
    ),
    "symbolic link to nothing": Bad(Layer().symlink("s", "").bytes(), ("a symbolic link to nothing",), entry="s"),
    "whiteout of nothing": Bad(Layer().add("d/.wh.").bytes(), ("a whiteout of nothing",), entry="d/.wh."),
    # Limits.
    "maxBytes": Bad(lambda: mixed(75_000_000), ("more than 70000000 bytes",)),
    "maxBytes of files": Bad(
        Layer().add("s", b"1\n0\n0\n".ljust(512, b"\0"), pax_headers={
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": "80000000",
        }).bytes(), ("its files have more than 70000000 bytes",), entry="s",
    ),
    "maxRatio": Bad(lambda: Layer().add("zeros", bytes(69_000_000)).bytes(), ("over 50 times as much",)),
    "maxEntries": Bad(headers([f"f{number}" for number in range(41)]), ("more than 40 entries",), entry="f40"),
    "maxText": Bad(
        headers([f"{number:02}" + "n" * 50 for number in range(39)]), ("more than 1500 bytes of names",), entry="27nn"
    ),
    "maxPath": Bad(Layer().add("/".join(["p" * 50] * 5)).bytes(), ("a path of more than 200 bytes",), entry="pppp"),
    "maxName": Bad(Layer().add("n" * 61).bytes(), ("a name of more than 60 bytes",), entry="n" * 61),
    "maxDepth": Bad(Layer().add("d/" * 11 + "f").bytes(), ("more than 10 directories deep",), entry="d/" * 11 + "f"),
    "maxTarget": Bad(Layer().symlink("s", "t" * 101).bytes(), ("a link target of more than 100 bytes",), entry="s"),
    "maxLinks": Bad(
        Layer().add("f").hardlink("g", "f").hardlink("h", "f").hardlink("i", "f").bytes(),
        ("more than 3 hard links",), entry="i",
    ),
    "maxXattrs": Bad(
        Layer().add("f", pax_headers={"SCHILY.xattr.user.big": "x" * 2000}).bytes(),
        ("more than 1000 bytes of extended attributes",), entry="f",
    ),
    "headers": Bad(sparse_map("pax", 1_500_000), ("bytes of headers for one entry",)),
    "maxBlobBytes": Bad(PLAIN, ("is not between 0 and 10000000",), manifest=with_field("size", 10_000_001),
                        names_layer=False),
    "maxLayers": Bad(PLAIN, ("10 layers; the limit is 4",), manifest=ten_layers, names_layer=False),
}  # fmt: skip


def tar_of(bad: Bad) -> bytes:
    return bad.tar() if callable(bad.tar) else bad.tar


@cache
def blob_of(bad: Bad) -> bytes:
    return gzip.compress(tar_of(bad), 1, mtime=0) if bad.blob is None else bad.blob


def reference(name: str) -> str:
    return f"bad/{name.lower().replace(' ', '-')}:1"


def push(server: RegistryServer, name: str, bad: Bad, base: bytes) -> None:
    """Put the image there; damage comes last, when the registry has taken it."""
    repository = reference(name).partition(":")[0]
    blob = blob_of(bad)
    config: dict[str, Any] = {
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(base), digest_of(tar_of(bad))]},
    }  # fmt: skip
    if bad.config is not None:
        bad.config(config)
    config_body = json.dumps(config).encode()
    layers = [descriptor(f"{OCI_LAYER}+gzip", each) for each in (gzip.compress(base, 1, mtime=0), blob)]
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config_body), "layers": layers,
    }  # fmt: skip
    for body in (config_body, gzip.compress(base, 1, mtime=0), blob):
        server.push_blob(repository, body)
    if bad.manifest is not None:
        bad.manifest(manifest)
    server.push_document(repository, "1", json.dumps(manifest).encode(), str(manifest["mediaType"]))
    if bad.damage is not None:
        path = server.blob_path(digest_of(blob))
        path.write_bytes(bad.damage(path.read_bytes()))


@dataclass
class Outcome:
    site: PulledSite
    records: dict[str, Image]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, munge: Munged) -> Iterator[Outcome]:
    """All of them pulled by one worker process that works on six at a time."""
    directory = tmp_path_factory.mktemp("bad")
    base = Layer().directory("bin").add("bin/sh", NOISE[:50_000]).bytes()
    with registry_server(directory) as server:
        for name, bad in BAD.items():
            # A layer of its own for each: what one damages is no other's.
            push(server, name, bad, base)
        for number, name in enumerate(GOOD):
            layer = Layer().add(f"good{number}", NOISE[number:]).bytes()
            server.push_image(name.partition(":")[0], "1", [base, layer])
        site = make_site(
            directory, munge, server, limits=LIMITS, http=HTTP, WorkerThreads=6, recipe={"keepUserXattrs": True}
        )
        pulls = {GOOD[0]: queued(site, GOOD[0])}
        pulls.update((name, queued(site, reference(name))) for name in BAD)
        pulls[GOOD[1]] = queued(site, GOOD[1])
        with worker_process(site.config):
            records = {name: await_end(site, pull) for name, pull in pulls.items()}
        yield Outcome(site, records)
        site.store.close()


def await_end(site: PulledSite, pull: Image) -> Image:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        record = site.store.get(pull.record_id)
        assert record is not None
        if record.status in (READY, FAILURE):
            return record
        time.sleep(0.05)
    raise AssertionError(f"{pull.pulltag} does not end")


@pytest.mark.parametrize("name", BAD)
def test_the_message_says_which_layer_which_entry_and_why(outcome: Outcome, name: str) -> None:
    bad, record = BAD[name], outcome.records[name]
    message = record.status_message or ""
    assert record.status == FAILURE, message
    for word in bad.words:
        assert word in message
    assert (digest_of(blob_of(bad)) in message) == bad.names_layer, message
    if bad.entry is not None:
        assert f"entry '{bad.entry}" in message
    assert "internal error" not in message


@pytest.mark.parametrize("name", GOOD)
def test_good_pulls_beside_them_go_on(outcome: Outcome, name: str) -> None:
    assert outcome.records[name].status == READY
    assert outcome.records[name].attempts <= 1


def test_nothing_of_them_stays(outcome: Outcome) -> None:
    site = outcome.site
    check_consistent(site)
    check_nothing_left(site)
    images: Path = site.configuration.platforms[SYSTEM].image_directory
    good = {outcome.records[name].image_id for name in GOOD}
    assert {path.stem for path in images.iterdir() if path.is_file()} == good
    # The base that all have, what the good ones have above it, and sound layers that fit on no older ones.
    sound = {name for name in BAD if name in ("link to nothing", "link to an older directory")}
    # By their diff_ids: a layer that was pushed in two compressions is there for each.
    kept = {path.name.split("-")[1] for path in site.configuration.cache_directory.iterdir()}
    assert len(kept) == 1 + len(GOOD) + len(sound)
