# SPDX-License-Identifier: BSD-3-Clause
"""``shifter-imagegw verify``: what it finds in a real image directory, and what it makes again."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.errors import NotFound, NotSupported
from shifter_imagegw.images import Image
from shifter_imagegw.layers.recipe import RECIPE, Recipe
from shifter_imagegw.rebuild import sweep
from shifter_imagegw.verify import Verifier
from tests.gatewayserver import PROGRAM, SYSTEM, worker_process
from tests.munged import Munged
from tests.pulledsite import OLD, PulledSite, make_site
from tests.registryserver import RegistryServer, registry_server, tar_of
from tests.scriptedserver import Request, fake_image, scripted_server, serve_image

OTHER = "ab" * 32


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        server.push_image("app", "1", [tar_of({"bin/sh": b"shell" * 50_000}), tar_of({"file": b"text" * 50_000})])
        server.push_image("app", "2", [tar_of({"bin/sh": b"shell" * 50_000})])
        yield server


@pytest.fixture
def site(tmp_path: Path, munge: Munged, registry: RegistryServer) -> Iterator[PulledSite]:
    made = make_site(tmp_path, munge, registry, {"compressor": "gzip"})
    yield made
    made.store.close()
    assert list(made.configuration.expand_directory.glob("rebuild-*")) == []


def problems(site: PulledSite, *images: str, system: str = SYSTEM) -> list[str]:
    return Verifier(site.configuration, site.store, system, wait=lambda _seconds: None).problems(images)


def verify(site: PulledSite, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, "--config", str(site.config), "verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def await_true(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def spoil(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def test_sound_images_are_sound(site: PulledSite) -> None:
    one, two = site.pulled(), site.pulled(reference="app:2")
    assert problems(site) == []
    assert problems(site, "app:1", "docker:app:2", one.image_id or "") == []
    done = verify(site, SYSTEM)
    assert (done.returncode, done.stdout) == (0, f"{SYSTEM}: 2 images, 0 problems\n"), done.stderr
    assert one.image_id != two.image_id


def damage_superblock(site: PulledSite, image: Image) -> None:
    spoil(site.file(SYSTEM, image), 0, b"xxxx")


def damage_tables(site: PulledSite, image: Image) -> None:
    path = site.file(SYSTEM, image)
    start = int.from_bytes(path.read_bytes()[64:72], "little")
    spoil(path, start + 2, b"\xff" * 16)


def cut_off(site: PulledSite, image: Image) -> None:
    path = site.file(SYSTEM, image)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def remove_image(site: PulledSite, image: Image) -> None:
    site.file(SYSTEM, image).unlink()


def remove_metadata(site: PulledSite, image: Image) -> None:
    site.file(SYSTEM, image, "meta").unlink()


def damage_metadata(site: PulledSite, image: Image) -> None:
    site.file(SYSTEM, image, "meta").write_bytes(b"FORMAT: squashfs\nFORMAT: ext4\n")


def close_metadata(site: PulledSite, image: Image) -> None:
    site.file(SYSTEM, image, "meta").write_bytes(b"FORMAT: squashfs\nPRIVATE: 1\nUSERACL: \nGROUPACL: \n")


def write_nonsense_recipe(site: PulledSite, image: Image) -> None:
    site.file(SYSTEM, image, "meta").write_bytes(b"FORMAT: squashfs\n# recipe: 2 zstd\n")


def tag_file(site: PulledSite, name: str = "app%3A1") -> Path:
    return site.configuration.platforms[SYSTEM].image_directory / "tags" / SYSTEM / "docker" / name


def move_tag(site: PulledSite, image: Image) -> None:
    tag_file(site).write_text(f"{OTHER}\n")


def remove_tag(site: PulledSite, image: Image) -> None:
    tag_file(site).unlink()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (damage_superblock, "remove the file first"),
        (damage_tables, "it must not be mounted: pull or import it again; remove the file first"),
        (cut_off, "remove the file first"),
        (remove_image, ".squashfs: No such file or directory; pull it again"),
        (remove_metadata, ".meta: is missing: nodes cannot start it"),
        (damage_metadata, "line 2, FORMAT: the key is there twice"),
        (close_metadata, ".meta: not for everybody, the record says: for everybody"),
        (write_nonsense_recipe, "recipe '2 zstd' cannot be read"),
        (move_tag, f"the tag index says {OTHER} for app:1, the record says"),
        (remove_tag, "the tag index has no entry for app:1, the record says"),
    ],
)
def test_damage_is_named(
    site: PulledSite, damage: Callable[[PulledSite, Image], None], expected: str
) -> None:
    image = site.pulled()
    site.pulled(reference="app:2")
    damage(site, image)
    for found in (problems(site), problems(site, "app:1")):
        assert len(found) == 1
        assert found[0].startswith("app:1: ")
        assert expected in found[0]
    assert problems(site, "app:2") == []


def test_problems_are_lines_and_an_exit_status(site: PulledSite) -> None:
    image = site.pulled()
    damage_tables(site, image)
    remove_tag(site, image)
    done = verify(site, SYSTEM, "app:1")
    *found, summary = done.stdout.splitlines()
    assert (done.returncode, len(found), summary) == (1, 2, f"{SYSTEM}: 1 images, 2 problems"), done.stderr
    assert all(line.startswith("app:1: ") for line in found)


def test_what_belongs_to_nobody_is_listed(site: PulledSite) -> None:
    site.pulled()
    stray = site.configuration.platforms[SYSTEM].image_directory / f"{OTHER}.squashfs"
    stray.write_bytes(b"")
    tag_file(site, "gone%3A1").write_text(f"{OTHER}\n")
    assert problems(site) == [
        f"{stray}: belongs to no record; nobody uses it through this gateway",
        f"the tag index has docker/gone%3A1 for {OTHER}, but no record has that tag",
    ]
    assert problems(site, "app:1") == []


def test_what_is_over_by_the_second_look_is_no_problem(site: PulledSite) -> None:
    site.pulled()
    stray = site.configuration.platforms[SYSTEM].image_directory / f"{OTHER}.meta"
    stray.write_bytes(b"")
    verifier = Verifier(site.configuration, site.store, SYSTEM, wait=lambda _seconds: stray.unlink())
    assert verifier.problems() == []


def test_systems_that_share_a_directory_own_its_files_together(
    tmp_path: Path, munge: Munged, registry: RegistryServer
) -> None:
    def share(document: dict[str, Any]) -> None:
        document["Platforms"][OLD]["local"] = document["Platforms"][SYSTEM]["local"]

    site = make_site(tmp_path, munge, registry).changed(share)
    site.pulled(OLD)
    assert problems(site) == problems(site, system=OLD) == []
    site.store.close()


def test_unknown_systems_and_images(site: PulledSite) -> None:
    with pytest.raises(NotFound, match=r"system 'clutser' is not served here; configured are: cluster, old"):
        Verifier(site.configuration, site.store, "clutser")
    with pytest.raises(NotFound, match=r"app:9: no such image on cluster"):
        problems(site, "app:9")
    done = verify(site, SYSTEM, "app:9")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("shifter-imagegw: app:9: no such image on cluster")
    assert verify(site, SYSTEM, "--rebuild").returncode == 2


def test_only_the_account_of_the_gateway_may_open_its_database(site: PulledSite) -> None:
    directory = site.configuration.platforms[SYSTEM].image_directory
    os.chown(directory, 12345, -1)
    done = verify(site, SYSTEM)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{directory}: belongs to uid 12345; run this as that, the gateway's account" in done.stderr
    directory.rmdir()
    assert f"{directory}: No such file or directory" in verify(site, SYSTEM).stderr


class TestRebuild:
    def test_the_same_manifest_gives_the_same_bytes(self, site: PulledSite) -> None:
        image, old = site.pulled(), site.pulled(OLD)
        before = site.file(SYSTEM, image).stat()
        done = verify(site, SYSTEM, "app:1", image.image_id or "", "--rebuild")
        assert done.stdout == (
            f"app:1: identical\n{image.image_id}: identical\n{SYSTEM}: 2 images, 0 problems\n"
        ), done.stderr
        assert done.returncode == 0
        after = site.file(SYSTEM, image).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert site.facts(OLD, old).compressor == "gzip"
        assert verify(site, OLD, "app:1", "--rebuild").stdout.startswith("app:1: identical\n")

    def test_it_is_the_recorded_recipe_that_counts(self, site: PulledSite) -> None:
        def change(document: dict[str, Any]) -> None:
            document["Platforms"][OLD]["recipe"] = {"compressor": "xz", "keepOwners": True}

        image = site.pulled(OLD)
        changed = site.changed(change)
        changed.store.close()
        assert verify(changed, OLD, image.image_id or "", "--rebuild").returncode == 0

    def test_what_a_killed_one_leaves_is_removed_by_a_worker(self, site: PulledSite) -> None:
        image = fake_image(tar_of({"file": b"text" * 50_000}))
        slow = threading.Event()

        def blob(request: Request) -> None:
            request.head(200, {"Content-Length": str(len(image.layer))})
            request.wfile.write(image.layer[:100_000])
            request.wfile.flush()
            if slow.is_set():
                server.over.wait(120)
            request.wfile.write(image.layer[100_000:])

        expand = site.configuration.expand_directory
        other = expand / "rebuild-1"
        other.mkdir()
        (expand / "rebuild-00000000").symlink_to(other)
        with scripted_server(serve_image(image, blob)) as server:
            scripted = {"remotetype": "dockerv2", "url": server.url}
            moved = site.changed(lambda document: document["Locations"].update(plain=scripted))
            moved.pulled()
            moved.store.close()
            slow.set()
            command = [*PROGRAM, "--config", str(site.config), "verify", SYSTEM, "app:1", "--rebuild"]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                await_true(lambda: list(expand.glob("rebuild-*/layers/.*.part")))
                assert sweep(expand) == []  # it is alive
                process.kill()
        (left,) = expand.glob("rebuild-*/layers")
        with worker_process(site.config):
            await_true(lambda: not left.parent.exists())
        assert other.is_dir()
        other.rmdir()
        (expand / "rebuild-00000000").unlink()

    def test_the_cache_is_not_believed(self, site: PulledSite) -> None:
        site.pulled()
        for archive in site.configuration.cache_directory.glob("*.layer"):
            archive.write_bytes(b"other")
        assert verify(site, SYSTEM, "app:1", "--rebuild").returncode == 0

    def test_any_tag_whose_repository_has_the_image_will_do(self, site: PulledSite) -> None:
        image = site.pulled()
        tags = ("unknown.example:5000/app:1", "removed:1", *image.tags)
        assert site.store.change_if(image, {"tags": tags})
        assert f"\n{image.image_id}: identical\n" in verify(site, SYSTEM, image.image_id or "", "--rebuild").stdout

    def test_a_changed_byte_is_found(self, site: PulledSite) -> None:
        image = site.pulled()
        path = site.file(SYSTEM, image)
        spoil(path, 2000, bytes([path.read_bytes()[2000] ^ 1]))
        done = verify(site, SYSTEM, "app:1", "--rebuild")
        size = path.stat().st_size
        assert done.returncode == 1
        assert done.stdout.startswith(
            f"app:1: {path}: differs from byte 2000 on (contents of files); {size} bytes, made again {size}\n"
        )
        with path.open("ab") as file:
            file.write(bytes(4096))
        spoil(path, 2000, bytes([path.read_bytes()[2000] ^ 1]))
        done = verify(site, SYSTEM, "app:1", "--rebuild")
        assert f"differs from byte {size} on (inodes and directories); {size + 4096} bytes" in done.stdout

    @pytest.mark.parametrize(
        ("recipe", "reason"),
        [
            ("", "its metadata do not say by which recipe it was made; remove it and pull it again"),
            (f"# recipe: {Recipe().record()}\n".replace(f" {RECIPE} ", " 1 "), "version 1 of the conversion made it"),
        ],
    )
    def test_images_that_cannot_be_compared(self, site: PulledSite, recipe: str, reason: str) -> None:
        image = site.pulled()
        site.file(SYSTEM, image, "meta").write_text(f"FORMAT: squashfs\n{recipe}")
        done = verify(site, SYSTEM, "app:1", "--rebuild")
        assert done.returncode == 1
        assert f"app:1: cannot be compared: {reason}" in done.stdout

    def test_private_images_take_a_login(self, tmp_path: Path, munge: Munged) -> None:
        with registry_server(tmp_path / "registry", token_users={"ann": "secret"}) as private:
            private.push_image("app", "1", [tar_of({"file": b"secret"})])
            site = make_site(tmp_path, munge, private)
            site.pulled(tokens={"plain": "ann:secret"})
            done = verify(site, SYSTEM, "app:1", "--rebuild")
            site.store.close()
        assert "app:1: cannot be compared: it is private: pulling it again takes a login" in done.stdout
        assert done.returncode == 1


def test_a_directory_that_is_not_here(site: PulledSite) -> None:
    def add(document: dict[str, Any]) -> None:
        remote = {"accesstype": "remote", "host": ["far1"], "ssh": {"imageDir": "/images", "username": "shifter"}}
        document["Platforms"]["far"] = {**document["Platforms"][SYSTEM], **remote}

    far = site.changed(add)
    far.store.close()
    with pytest.raises(NotSupported, match="its image directory is not mounted here"):
        Verifier(far.configuration, far.store, "far")
