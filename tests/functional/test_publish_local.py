# SPDX-License-Identifier: BSD-3-Clause
"""Publishing into an image directory: names, modes, atomicity, debris."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shifter_imagegw.errors import PublishError
from shifter_imagegw.platforms.local import LocalPlatform, encode_reference

ID = "ab" * 32
PULL = "0123456789abcdef"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def platform(directory: Path) -> LocalPlatform:
    return LocalPlatform("cluster", directory)


@pytest.fixture(scope="module")
def squashfs(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    tree = tmp_path_factory.mktemp("tree")
    (tree / "file").write_bytes(os.urandom(100_000))
    image = tree.parent / "sample.squashfs"
    subprocess.run(
        ["mksquashfs", str(tree), str(image), "-quiet", "-no-progress"], check=True, stdout=subprocess.DEVNULL
    )
    return image.read_bytes()


def publish(platform: LocalPlatform, content: bytes) -> None:
    with platform.part(f"{ID}.squashfs", PULL, 1) as part:
        part.write_bytes(content)
        platform.publish_image(ID, "squashfs", part)
    platform.publish_metadata(ID, b"FORMAT: squashfs\n", PULL, 1)
    platform.publish_tag("docker", "alpine:3", ID, PULL, 1)


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def test_an_image_is_three_private_files(platform: LocalPlatform, directory: Path, squashfs: bytes) -> None:
    publish(platform, squashfs)
    tag = "tags/cluster/docker/alpine:3".replace(":", "%3A")
    assert files(directory) == {f"{ID}.squashfs", f"{ID}.meta", tag}
    assert {(directory / name).stat().st_mode & 0o777 for name in files(directory)} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in directory.rglob("*") if path.is_dir()} == {0o700}
    assert directory.stat().st_mode & 0o777 == 0o755
    assert (directory / tag).read_text() == f"{ID}\n"


def test_exists_means_whole(platform: LocalPlatform, directory: Path, squashfs: bytes) -> None:
    assert not platform.exists(ID, "squashfs")
    publish(platform, squashfs)
    assert platform.exists(ID, "squashfs")
    for damaged in (squashfs[: len(squashfs) // 2], b"", b"hsqs", b"x" * len(squashfs)):
        (directory / f"{ID}.squashfs").write_bytes(damaged)
        assert not platform.exists(ID, "squashfs")


def test_a_part_that_is_not_published_is_removed(platform: LocalPlatform, directory: Path) -> None:
    def write_until_full() -> None:
        with platform.part("x.squashfs", PULL, 1) as part:
            part.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(PublishError, match="No space left"):
        write_until_full()
    assert files(directory) == set()


def test_stale_parts_are_known_by_pull_and_attempt(platform: LocalPlatform, directory: Path) -> None:
    platform.publish_tag("docker", "alpine:3", ID, PULL, 1)
    tags = directory / "tags/cluster/docker"
    for place, name in ((directory, f"{ID}.squashfs"), (directory, f"{ID}.meta"), (tags, "alpine%3A3")):
        for attempt in (1, 2):
            (place / f".{name}.{PULL}-{attempt}-00000000.part").write_bytes(b"")
    (directory / ".something.else.part").write_bytes(b"")
    removed = platform.remove_stale_parts(lambda pull, attempt, _: (pull, attempt) == (PULL, 1))
    assert len(removed) == 3
    assert sorted(name for name in files(directory) if name.endswith(".part")) == sorted(
        [
            ".something.else.part",
            f".{ID}.squashfs.{PULL}-2-00000000.part",
            f".{ID}.meta.{PULL}-2-00000000.part",
            f"tags/cluster/docker/.alpine%3A3.{PULL}-2-00000000.part",
        ]
    )


def test_a_tag_moves_by_rename_and_is_removed_only_from_its_image(platform: LocalPlatform, directory: Path) -> None:
    entry = directory / "tags/cluster/docker/x%3A1"
    platform.publish_tag("docker", "x:1", ID, PULL, 1)
    platform.publish_tag("docker", "x:1", "cd" * 32, PULL, 1)
    assert entry.read_text() == "cd" * 32 + "\n"
    platform.remove_tag("docker", "x:1", ID)
    assert entry.exists()
    platform.remove_tag("docker", "x:1", "cd" * 32)
    assert not entry.exists()


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("ubuntu:24.04", "ubuntu%3A24.04"),
        ("registry.example:5000/proj/app:v1", "registry.example%3A5000%2Fproj%2Fapp%3Av1"),
        ("a_b-c+d@sha256:0", "a_b-c+d%40sha256%3A0"),
        (".hidden:1", "%2Ehidden%3A1"),
        ("../../etc:1", "%2E.%2F..%2Fetc%3A1"),
        ("é:1", "%C3%A9%3A1"),
        ("a%3A:1", "a%253A%3A1"),
    ],
)
def test_encoding_of_references(reference: str, name: str) -> None:
    assert encode_reference(reference) == name


def test_a_reference_too_long_for_a_file_name_is_left_out(platform: LocalPlatform, directory: Path) -> None:
    platform.publish_tag("docker", f"{'a' * 252}:1", ID, PULL, 1)
    platform.publish_tag("docker", f"{'/' * 90}:1", ID, PULL, 1)
    assert files(directory) == set()
    platform.publish_tag("docker", f"{'a' * 251}:1", ID, PULL, 1)
    assert len(files(directory)) == 1


def test_errors_name_file_cause_and_remedy(tmp_path: Path) -> None:
    platform = LocalPlatform("cluster", tmp_path / "none")
    with pytest.raises(
        PublishError, match=rf"system cluster: {tmp_path}/none/{ID}.meta: No such file or directory; check"
    ):
        platform.publish_metadata(ID, b"", PULL, 1)


class TestDiskFull:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        path = tmp_path / "small"
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)], check=True)
        yield path
        subprocess.run(["umount", str(path)], check=True)

    def test_leaves_no_debris_and_says_so(self, small: Path) -> None:
        platform = LocalPlatform("cluster", small)
        with pytest.raises(PublishError, match="No space left on device; free some space"):
            platform.publish_metadata(ID, b"x" * 100_000, PULL, 1)
        assert list(small.iterdir()) == []


def test_removal_takes_metadata_and_image(platform: LocalPlatform, directory: Path, squashfs: bytes) -> None:
    publish(platform, squashfs)
    platform.remove_tag("docker", "alpine:3", ID)
    platform.remove(ID, "squashfs")
    platform.remove(ID, "squashfs")
    assert files(directory) == set()
