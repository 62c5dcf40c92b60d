# SPDX-License-Identifier: BSD-3-Clause
"""What the author of an image can try with the setuid launcher. The sec- numbers are those of the security
requirements; see docs/security.md."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"
EVERY_KERNEL = True


# sec-01, sec-03, sec-05: only the site's images reach the kernel


@pytest.mark.parametrize("kind", ["ext4", "xfs", "iso9660"])
def test_sec01_an_image_that_is_not_squashfs_never_reaches_the_kernel(node: ShifterNode, kind: str) -> None:
    identifier = node.add_image("other-kind", node.base / "tree")
    image = node.images / f"{identifier}.squashfs"
    image.write_bytes(b"")
    os.truncate(image, 300 << 20)
    if kind == "iso9660":
        with image.open("r+b") as handle:
            handle.seek(32768)
            handle.write(b"\1CD001\1")
    else:
        subprocess.run([f"mkfs.{kind}", "-q", "-F" if kind == "ext4" else "-f", str(image)], check=True)
    assert "not a squashfs" in node.refused(f"--image=id:{identifier}", "/bin/true")


def test_sec01_another_format_in_the_metadata_is_refused(node: ShifterNode) -> None:
    identifier = node.add_image("format", node.base / "tree")
    (node.images / f"{identifier}.meta").write_text("FORMAT: ext4\n")
    assert "ext4" in node.refused(f"--image=id:{identifier}", "/bin/true")


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, b"sqsh"), (0, b"hsqt"), (28, b"\3"), (28, b"\5"), (30, b"\1"), (40, b"\xff" * 8), (40, b"\0\0\0\0\1")],
)
def test_sec02_a_superblock_that_is_none_is_refused(node: ShifterNode, offset: int, value: bytes) -> None:
    """Other orders of bytes and versions, more content than the file has; the gateway looks at all the rest."""
    identifier = node.add_image("crafted", node.base / "tree")
    with (node.images / f"{identifier}.squashfs").open("r+b") as handle:
        handle.seek(offset)
        handle.write(value)
    assert identifier in node.refused(f"--image=id:{identifier}", "/bin/true")


def test_sec02_a_truncated_image_is_refused(node: ShifterNode) -> None:
    identifier = node.add_image("short", node.base / "tree")
    os.truncate(node.images / f"{identifier}.squashfs", 8192)
    assert "cut short" in node.refused(f"--image=id:{identifier}", "/bin/true")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_sec01_a_store_that_others_can_write_is_refused(node: ShifterNode, mode: int) -> None:
    node.images.chmod(mode)
    try:
        assert str(node.images) in node.refused(IMAGE, "/bin/true")
    finally:
        node.images.chmod(0o700)


def test_sec01_an_image_file_of_a_user_or_writable_by_others_is_refused(node: ShifterNode) -> None:
    image = node.images / f"{node.add_image('owned', node.base / 'tree')}.squashfs"
    os.chown(image, node.eve.uid, node.eve.gid)
    node.refused(f"--image=id:{image_id('owned')}", "/bin/true")
    os.chown(image, 0, 0)
    image.chmod(0o666)
    node.refused(f"--image=id:{image_id('owned')}", "/bin/true")


def test_sec03_a_link_in_place_of_the_image_is_refused(node: ShifterNode) -> None:
    image = node.images / f"{node.add_image('linked', node.base / 'tree')}.squashfs"
    image.unlink()
    image.symlink_to(f"{image_id('base')}.squashfs")
    node.refused(f"--image=id:{image_id('linked')}", "/bin/true")


# sec-07: nothing in an image is worth a privilege


def test_sec07_setuid_and_device_files_of_an_image_are_harmless(node: ShifterNode) -> None:
    tree = base_tree(node.base / "hostile-tree")
    (tree / "bin/id").chmod(0o6755)
    device = tree / "srv/zero"
    if not device.exists():
        os.mknod(device, 0o020666, os.makedev(1, 5))
    device.chmod(0o666)
    node.add_image("hostile", tree)
    assert node.script("id -u; id -g", image="hostile").split() == [str(node.alice.uid), str(node.alice.gid)]
    assert node.run(f"--image=id:{image_id('hostile')}", "/bin/cat", "/srv/zero").returncode != 0


# sec-12: the image's own tree cannot redirect what we put into it


@pytest.mark.parametrize("link", ["/", "/../../../../..", "..", "etc", "/srv", "/proc/self/cwd", "nowhere"])
def test_sec12_system_directories_that_are_links_lead_nowhere(node: ShifterNode, link: str) -> None:
    tree = base_tree(node.base / "links-tree")
    for name in ("etc", "proc", "sys", "dev", "tmp", "var"):
        subprocess.run(["rm", "-rf", str(tree / name)], check=True)
        (tree / name).symlink_to(link)
    node.add_image("links", tree)
    before = sorted(Path("/").iterdir())
    output = node.script("cat /proc/self/comm; cat /etc/passwd | head -1; head -c1 /dev/zero | wc -c", image="links")
    assert output.startswith("cat\nroot:")
    assert sorted(Path("/").iterdir()) == before


def test_sec12_system_directories_that_are_files_are_replaced(node: ShifterNode) -> None:
    tree = base_tree(node.base / "files-tree")
    for name in ("etc", "proc", "tmp", "var", "dev", "sys"):
        subprocess.run(["rm", "-rf", str(tree / name)], check=True)
        (tree / name).write_text("a file\n")
    node.add_image("files", tree)
    assert node.script("cat /proc/self/comm", image="files") == "cat\n"


def test_sec11_a_site_mount_below_a_link_of_the_image_stays_inside(node: ShifterNode) -> None:
    tree = base_tree(node.base / "escape-tree")
    (tree / "out").symlink_to("/")
    (tree / "up").symlink_to("../../../../../..")
    (tree / "host").symlink_to(node.base)
    (tree / "conf").symlink_to("srv/../etc")
    node.add_image("escape", tree)
    node.configure(siteFs="/usr/share:/out/made-a;/usr/share:/up/made-b")
    assert node.script("ls -d /made-a /made-b", image="escape") == "/made-a\n/made-b\n"
    node.configure(siteFs="/usr/share:/host/made-c")
    assert "dangling" in node.refused(f"--image=id:{image_id('escape')}", "/bin/true")
    node.configure(siteFs="/etc/hostname:/conf/passwd")
    assert "/conf/passwd leads to /etc/passwd" in node.refused(f"--image=id:{image_id('escape')}", "/bin/true")
    assert not [name for name in ("made-a", "made-b") if Path("/", name).exists()]
    assert not (node.base / "made-c").exists()


def test_w29_nothing_is_created_on_a_file_system_of_the_host(node: ShifterNode) -> None:
    site = node.base / "host-directory"
    site.mkdir(exist_ok=True)
    node.configure(siteFs=f"{site}:/srv/data;/usr/share:/srv/data/made/here")
    assert "create it on the host" in node.refused(IMAGE, "/bin/true")
    assert list(site.iterdir()) == []
