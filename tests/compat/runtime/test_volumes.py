# SPDX-License-Identifier: BSD-3-Clause
"""What the reference's own tests check of volume maps, mount lists and paths (runtime contract, section 20, "Volumes",
"Mount list and path list"), asked of the installed programs. Each test is named after its line there."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts import MARK
from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"


def signature(node: ShifterNode, *maps: str) -> str:
    """The maps of a container that runs, in their canonical form."""
    done = node.run(IMAGE, *(f"--volume={text}" for text in maps), "/bin/cat", "/var/shifterConfig.json")
    assert done.returncode == 0, (maps, done.stderr)
    return str(json.loads(done.stdout)["volMap"])


def refused(node: ShifterNode, *maps: str) -> str:
    done = node.run(IMAGE, *(f"--volume={text}" for text in maps), "/bin/true")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1), (maps, done.stderr)
    return str(done.stderr)


def attributes(node: ShifterNode, *options: str) -> dict[str, set[str]]:
    """Flags of what is on top at each mount point."""
    done = node.run(IMAGE, *options, "/bin/cat", "/proc/self/mountinfo")
    assert done.returncode == 0, done.stderr
    return {fields[4]: set(fields[5].split(",")) for fields in map(str.split, done.stdout.splitlines())}


@pytest.fixture
def site(node: ShifterNode) -> Iterator[Path]:
    """Directories of the node, such as a site shows."""
    site = node.base / "compat-site"
    for name in ("a", "b", "c", "d", "e/sub"):
        (site / name).mkdir(parents=True)
        (site / name / f"file-{name[0]}").touch()
    yield site
    shutil.rmtree(site)


# Volumes


def test_end_of_map_search(node: ShifterNode) -> None:
    """With and without ";", and in quotes."""
    assert signature(node, "/srv/data:/a") == "/srv/data:/a"
    assert signature(node, "/srv/data:/a;/srv:/b") == "/srv/data:/a;/srv:/b"
    assert signature(node, ";;/srv/data:/a;;/srv:/b;") == "/srv/data:/a;/srv:/b"
    assert signature(node, '"/srv/data:/a";"/srv:/b"') == "/srv/data:/a;/srv:/b"
    assert signature(node, '"/srv/data:/x;y:ro"') == "/srv/data:/x\\;y:ro"
    assert "volume map" in refused(node, '"/srv:/x')


def test_tokeniser(node: ShifterNode, site: Path) -> None:
    """One, two, three and four tokens."""
    for text, point in ((f"{site}/a", f"{site}/a"), (f"{site}/a:/t", "/t"), (f"{site}/a:/t:ro", "/t")):
        node.configure(siteFs=text)
        assert ("ro" in attributes(node)[point]) == text.endswith(":ro")
    node.configure(siteFs=f"{site}/e:/t:ro:rec")
    assert "ro" in attributes(node)["/t"]
    assert "'/srv/data'" in refused(node, "/srv/data")


def test_flags(node: ShifterNode) -> None:
    """`ro`; `rec` takes no arguments; none that is unknown."""
    assert signature(node, "/srv/data:/a:ro") == signature(node, "/srv/data:/a:RO") == "/srv/data:/a:ro"
    assert "ro" in attributes(node, "-V/srv/data:/a:ro")["/a"]
    for flags in ("ro=1", "rec=1", "shared", "ro:ro", "perNodeCache", "perNodeCache=bs=1m", "perNodeCache=size=0"):
        assert "volume map" in refused(node, f"/srv/data:/a:{flags}")


def test_user_maps(node: ShifterNode) -> None:
    """Plain and `ro` are accepted; `/etc`, `rec` and a missing target refused; a refusal leaves nothing behind."""
    assert signature(node, "/srv/data:/a", "/srv/data:/b:ro") == "/srv/data:/a;/srv/data:/b:ro"
    for bad in ("/srv/data:/etc", "/srv/data:/a:rec", "/srv/data"):
        refused(node, "/srv/data:/a", bad, "/srv/data:/b:ro")
    assert signature(node) == ""


def test_site_maps(node: ShifterNode, site: Path) -> None:
    """A single path, `ro` and `rec` are accepted."""
    subprocess.run(["mount", "-t", "tmpfs", f"test-{MARK}", f"{site}/e/sub"], check=True)
    try:
        node.configure(siteFs=f"{site}/a;{site}/b:/ro:ro;{site}/e:/rec:rec")
        found = attributes(node)
    finally:
        subprocess.run(["umount", f"{site}/e/sub"], check=True)
    assert {f"{site}/a", "/ro", "/rec", "/rec/sub"} <= found.keys()
    assert "ro" in found["/ro"]
    assert "ro" not in found[f"{site}/a"]


@pytest.mark.parametrize("target", ["/etc/passwd", "/var/log", "/opt", "opt", "etc"])
def test_user_validation_refused(node: ShifterNode, target: str) -> None:
    assert target in refused(node, f"/srv/data:{target}")


@pytest.mark.parametrize(
    "target", ["/var/tmp", "/mnt", "/opt/myStuff", "/input", "/etcetera", "/variables", "/opt/udiImageX"]
)
def test_user_validation_accepted(node: ShifterNode, target: str) -> None:
    """The last three were refused by prefix: paths are compared by components now (section 8.3, W-13)."""
    assert signature(node, f"/srv/data:{target}") == f"/srv/data:{target}"
    assert node.run(IMAGE, f"-V/srv/data:{target}", "/bin/cat", f"{target}/file").stdout == "from the image\n"


def test_five_site_maps_with_mixed_flags(node: ShifterNode, site: Path) -> None:
    flags = {"a": "", "b": ":ro", "c": ":slave", "d": ":private:ro", "e": ":rec"}
    node.configure(siteFs=";".join(f"{site}/{name}:/m/{name}{flag}" for name, flag in flags.items()))
    found = attributes(node)
    assert {point for point, flags in found.items() if point.startswith("/m/") and "ro" in flags} == {"/m/b", "/m/d"}
    assert all({"nosuid", "nodev"} <= found[f"/m/{name}"] for name in "abcde")
    assert "file-e" in node.script("ls /m/e/sub")


def test_signature_of_four_maps(node: ShifterNode) -> None:
    """Sorted, canonical; section 8.4."""
    text = signature(node, "/srv:/r", "/srv/data:/c:RO", "/srv//data:/b/", "/bin:/a:ro")
    assert text == "/bin:/a:ro;/srv/data:/b;/srv/data:/c:ro;/srv:/r"


def test_production_site_fs_of_13_entries(node: ShifterNode, site: Path) -> None:
    names = ["home", "global/u1", "global/u2", "global/common", "global/scratch2", "scratch1", "scratch2", "scratch3",
             "etc/opt/cray/wlm_detect", "var/opt/cray/alps", "var/spool/alps", "opt/cray", "dsl/opt"]  # fmt: skip
    for name in names:
        (site / name).mkdir(parents=True)
    flags = ["", ":rec", ":ro", ":slave", ":rec:slave"]
    maps = [f"{site}/{name}:/{name}{flags[number % 5]}" for number, name in enumerate(names)]
    node.configure(siteFs=";\\\n       ".join(maps))
    assert {f"/{name}" for name in names} <= attributes(node).keys()


# Mount list


def test_mount_list(node: ShifterNode, site: Path) -> None:
    """What the kernel lists is understood: `/`, names with blanks and backslashes, points mounted on twice."""
    odd = site / "e/a b\\c"
    odd.mkdir()
    places = [odd, site / "e/sub", site / "e/sub", odd]
    for place in places:
        subprocess.run(["mount", "-t", "tmpfs", f"test-{MARK}", str(place)], check=True)
    try:
        node.configure(siteFs=f"{site}/e:/e:rec:ro")
        found = attributes(node)
        assert {"/", "/e", "/e/sub", "/e/a\\040b\\134c"} <= found.keys()
        for point in ("/e", "/e/sub", "/e/a\\040b\\134c"):
            assert {"ro", "nosuid", "nodev"} <= found[point], point
    finally:
        for place in reversed(places):
            subprocess.run(["umount", str(place)], check=True)


# Path list and the resolution of links


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/srv/./data", "/srv/data"), ("/srv//data", "/srv/data"), ("/srv/../srv/data", "/srv/data"),
        ("/../../srv/data", "/srv/data"), ("/../..", "/"), ("srv/data", "/srv/data"), ("/", "/"),
    ],
)  # fmt: skip
def test_path_list(node: ShifterNode, path: str, place: str) -> None:
    """Dot, double slash, dot-dot, dot-dot above the root, relative to the root."""
    assert node.run(IMAGE, f"--workdir={path}", "/bin/sh", "-c", "pwd").stdout == f"{place}\n"


def test_append_to_a_base_and_to_the_root(node: ShifterNode, site: Path) -> None:
    node.configure(siteFs=f"{site}/a:/top;{site}/b:/deep/er/still;{site}/c:/srv/data/../c")
    assert "'..'" in node.run(IMAGE, "/bin/true").stderr
    node.configure(siteFs=f"{site}/a:/top;{site}/b:/deep/er/still")
    assert node.script("ls /top /deep/er") == "/deep/er:\nstill\n\n/top:\nfile-a\n"


LINKS = {
    "first": "srv", "middle": "x/y", "end": "/srv/data", "surplus": "../../../../srv/data", "plain": "srv/data",
    "absolute": "/srv", "chain": "/first/data", "x/y/data": "../../srv/data", "x/far": "/../srv/./data/.",
}  # fmt: skip


@pytest.mark.parametrize(
    "path",
    ["/first/data", "/middle/data", "/end", "/surplus", "/plain", "/absolute/data", "/chain", "/x/y/data", "/x/far"],
)
def test_symlink_resolution_relative_to_a_root(node: ShifterNode, path: str) -> None:
    """In the middle, at the end, at the first component, with surplus "..", with more components: as source, as target,
    and as working directory (also "container realpath" of the unprivileged core)."""
    identifier = image_id("compat-links")
    if not (node.images / f"{identifier}.squashfs").exists():
        tree = base_tree(node.base / "links-of-compat")
        for name, target in LINKS.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / "x/y").mkdir(parents=True, exist_ok=True)
            (tree / name).symlink_to(target)
        node.add_image("compat-links", tree)
    image = f"--image=id:{identifier}"
    assert node.run(image, f"-V{path}:/shown", "/bin/cat", "/shown/file").stdout == "from the image\n"
    assert node.run(image, f"-V/bin:{path}", "/bin/ls", "-d", "/srv/data/cat").stdout == "/srv/data/cat\n"
    assert node.run(image, f"--workdir={path}", "/bin/sh", "-c", "pwd -P").stdout == "/srv/data\n"


def test_resolution_without_a_root(node: ShifterNode) -> None:
    """The site's side of a map is the host's: links there are the host's."""
    link = node.base / "link-of-host"
    link.symlink_to("/usr/share")
    node.configure(siteFs=f"{link}:/shown:ro")
    try:
        assert sorted(path.name for path in link.iterdir()) == sorted(node.script("ls -A /shown").splitlines())
    finally:
        link.unlink()


def test_append_components_and_common_path(node: ShifterNode, site: Path) -> None:
    """Partial, full, none: a mount below another one, at the same place, and beside it under a longer name."""
    (site / "a/inner").mkdir()
    node.configure(siteFs=f"{site}/a:/m;{site}/b:/m/inner;{site}/c:/mm;{site}/d:/mm")
    assert node.script("ls /m/inner /m /mm") == "/m:\nfile-a\ninner\n\n/m/inner:\nfile-b\n\n/mm:\nfile-d\n"
