# SPDX-License-Identifier: BSD-3-Clause
"""What users, registries and administrators can get wrong: a clear message, a documented status, nothing left over."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mongoserver import free_port
from tests.registryserver import RegistryServer, digest_of, registry_server, tar_of
from tests.shifternode import host_mounts
from tests.site import Done, Site


def files(name: str) -> bytes:
    """A layer of its own for each test: registries share the blobs that one test damages."""
    return tar_of({"bin/": b"", "bin/app": name.encode() * 100_000})


@pytest.fixture
def running(centre: Site) -> Iterator[Site]:
    """A centre whose gateway answers; afterwards nothing of a failed pull is left."""
    centre.start()
    yield centre
    assert centre.debris() == []
    assert list(centre.images.glob("*.squashfs")) == []


def failed(done: Done, *words: str) -> None:
    """Status 1 and a message with all of these words on standard error, no trace."""
    assert done.returncode == 1, (done.stdout, done.stderr)
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def pull(centre: Site, name: str) -> Done:
    return centre.shifterimg("pull", f"docker:{centre.name}/{name}")


def test_unknown_image(running: Site) -> None:
    failed(pull(running, "no/such:1"), "no/such:1")


def test_unknown_registry(running: Site) -> None:
    failed(running.shifterimg("pull", "docker:other.example/app:1"), "other.example")


def test_unreachable_registry(centre: Site) -> None:
    port = free_port()
    locations = {f"127.0.0.1:{port}": {"remotetype": "dockerv2", "url": f"http://127.0.0.1:{port}"}}
    centre.configure(Locations=locations, DefaultImageLocation=f"127.0.0.1:{port}")
    centre.start()
    failed(centre.shifterimg("pull", "docker:app:1"), f"127.0.0.1:{port}", "refused")
    assert centre.debris() == []


def test_wrong_credentials(centre: Site, tmp_path: Path) -> None:
    with registry_server(tmp_path, users={"bob": "secret"}) as private:
        private.push_image("p/app", "1", [files("p/app")])
        centre.configure(Locations={private.host: {"remotetype": "dockerv2", "url": private.url}},
                         DefaultImageLocation=private.host)  # fmt: skip
        centre.start()
        failed(centre.shifterimg("pull", f"docker:{private.host}/p/app:1"), private.host, "login")
        assert centre.debris() == []


def test_corrupt_layer(running: Site, registry: RegistryServer) -> None:
    pushed = registry.push_image("bad/corrupt", "1", [files("bad/corrupt")])
    path = registry.blob_path(digest_of(pushed.blobs[0]))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(bytes(content))
    failed(pull(running, "bad/corrupt:1"), digest_of(pushed.blobs[0]))


def test_truncated_layer(running: Site, registry: RegistryServer) -> None:
    pushed = registry.push_image("bad/short", "1", [files("bad/short") + tar_of({"more": b"y"})])
    path = registry.blob_path(digest_of(pushed.blobs[0]))
    path.write_bytes(path.read_bytes()[:-20])
    failed(pull(running, "bad/short:1"), digest_of(pushed.blobs[0]))


def test_layer_that_is_no_tar(running: Site, registry: RegistryServer) -> None:
    pushed = registry.push_image("bad/garbage", "1", [b"this is no archive at all" * 1000])
    failed(pull(running, "bad/garbage:1"), digest_of(pushed.blobs[0]))


def test_layer_that_does_not_match_its_diff_id(running: Site, registry: RegistryServer) -> None:
    pushed = registry.push_image("bad/diff", "1", [files("bad/diff")])
    config = json.loads(pushed.config)
    config["rootfs"]["diff_ids"] = [digest_of(b"something else")]
    body = json.dumps(config).encode()
    registry.push_blob("bad/diff", body)
    manifest = json.loads(pushed.manifest)
    manifest["config"].update(digest=digest_of(body), size=len(body))
    registry.push_document("bad/diff", "2", json.dumps(manifest).encode(), pushed.media_type)
    failed(pull(running, "bad/diff:2"), digest_of(pushed.blobs[0]), "diff_id")


def test_layer_with_a_way_out(running: Site, registry: RegistryServer) -> None:
    registry.push_image("bad/dotdot", "1", [tar_of({"../../etc/evil": b"x"})])
    failed(pull(running, "bad/dotdot:1"), "../../etc/evil")


@pytest.mark.parametrize("where", ["images", "cache"])
def test_disk_full(centre: Site, registry: RegistryServer, where: str) -> None:
    directory = centre.images if where == "images" else centre.base / "gateway/cache"
    options = f"size=64k,mode=0700,uid={centre.gateway_account.uid},gid={centre.gateway_account.gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "full", str(directory)], check=True)
    try:
        centre.start()
        registry.push_image("big/app", "1", [tar_of({"noise": random.Random(3).randbytes(1 << 20)})])
        failed(pull(centre, "big/app:1"), "space")
        assert centre.debris() == []
        assert list(centre.images.glob("*.squashfs")) == []
    finally:
        centre.stop()
        subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.parametrize("program", ["shifter", "shifterimg"])
def test_configuration_that_is_missing_or_writable_by_others(centre: Site, program: str) -> None:
    conf = centre.product.sysconfdir / "udiRoot.conf"
    status = {"shifter": 125, "shifterimg": 1}[program]
    call = {"shifter": ("--image=app", "true"), "shifterimg": ("images",)}[program]
    run = centre.shifter if program == "shifter" else centre.shifterimg
    conf.chmod(0o666)
    done = run(*call)
    assert done.returncode == status
    assert str(conf) in done.stderr
    assert "writ" in done.stderr
    conf.unlink()
    done = run(*call)
    assert done.returncode == status
    assert str(conf) in done.stderr
    assert "No such file or directory" in done.stderr


def test_gateway_configuration_writable_by_others_or_wrong(centre: Site) -> None:
    path = centre.product.sysconfdir / "imagemanager.json"
    path.chmod(0o666)
    done = centre.run([str(centre.product.imagegw), "check-config"], centre.gateway_account)
    failed(done, str(path), "chmod go-w")
    centre.configure(PullUpdateTimeouts=3)
    failed(centre.run([str(centre.product.imagegw), "serve"], centre.gateway_account), "PullUpdateTimeout")


def test_missing_munge_socket(centre: Site) -> None:
    platforms = {"testsite": {"accesstype": "local", "local": {"imageDir": str(centre.images)},
                              "mungeSocketPath": "/run/no-such.socket"}}  # fmt: skip
    centre.configure(Platforms=platforms)
    checked = centre.run([str(centre.product.imagegw), "check-config"], centre.gateway_account)
    assert checked.returncode == 1
    assert "/run/no-such.socket" in checked.stdout
    centre.start()
    failed(centre.shifterimg("images"), "munge")


def test_no_gateway(centre: Site) -> None:
    failed(centre.shifterimg("images"), f"127.0.0.1:{centre.port}")
    done = centre.shifter("--image=docker:app:1", "true")
    assert done.returncode == 125
    assert "app:1" in done.stderr


def test_image_file_removed_after_the_lookup(centre: Site, registry: RegistryServer) -> None:
    pushed = registry.push_image("gone/app", "1", [files("gone/app")])
    centre.start()
    done = pull(centre, "gone/app:1")
    assert done.returncode == 0, done.stderr
    (centre.images / f"{pushed.id}.squashfs").unlink()
    before = host_mounts()
    run = centre.shifter(f"--image=docker:{centre.name}/gone/app:1", "/bin/app")
    assert run.returncode == 125
    assert pushed.id in run.stderr
    assert host_mounts() == before


def test_usage_errors_have_a_status_of_their_own(centre: Site) -> None:
    for arguments in ((), ("bogus",), ("pull",), ("pull", "docker:bad name")):
        done = centre.shifterimg(*arguments)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
