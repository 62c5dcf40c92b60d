# SPDX-License-Identifier: BSD-3-Clause
"""User volumes for real: what is mounted where, with which flags, and what is refused before the command starts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts import MARK, User
from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"
# Each newer system call answered with ENOSYS, as old kernels do; "" is this kernel as it is.
OLD_KERNELS = ["", "openat2", "open_tree", "mount_setattr", "openat2,open_tree,move_mount,mount_setattr,close_range"]


@pytest.fixture
def mine(node: ShifterNode) -> Iterator[Path]:
    """A directory of alice's in the host's /tmp, which every container shows."""
    place = Path(f"/tmp/shifter-volumes-{MARK}")
    shutil.rmtree(place, ignore_errors=True)
    (place / "data/sub").mkdir(parents=True)
    (place / "data/file").write_text("mine\n")
    (place / "target").mkdir()
    for path in (place, *place.rglob("*")):
        os.chown(path, node.alice.uid, node.alice.gid)
    yield place
    shutil.rmtree(place)


def volumes(node: ShifterNode, maps: list[str], script: str, masked: str = "", **options: object) -> str:
    """Output of a script in a container with these maps."""
    command = node.command(IMAGE, *(f"--volume={text}" for text in maps), "/bin/sh", "-c", script)
    if masked:
        trace = ["strace", "-f", "-o", "/dev/null", "-e", f"inject={masked}:error=ENOSYS", "-u", node.alice.name]
        done = subprocess.run([*trace, *command], check=False, capture_output=True, text=True, cwd="/")
    else:
        done = node.as_user(command, **options)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def refused(node: ShifterNode, text: str, user: User | None = None) -> str:
    """The one line that says why a map is not possible."""
    return node.refused(IMAGE, f"--volume={text}", "/bin/true", user=user)


def attributes(table: str) -> dict[str, set[str]]:
    """The options of what is on top at each mount point."""
    return {fields[4]: set(fields[5].split(",")) for fields in map(str.split, table.splitlines())}


@pytest.mark.parametrize("masked", OLD_KERNELS)
def test_directories_and_files_with_and_without_targets(node: ShifterNode, mine: Path, masked: str) -> None:
    maps = [
        f"{mine}/data:/srv/data", f"{mine}/data:/new/at/depth:ro", f"{mine}/data/file:/new/file",
        f"{mine}/data/file:/opt/one:ro", f"/bin:{mine}/target",
    ]
    script = f"""
        cat /srv/data/file /new/at/depth/file /new/file /opt/one
        echo more > /srv/data/made && cat {mine}/data/made
        (echo x > /new/at/depth/made) 2>/dev/null || echo locked
        (echo x > /opt/one) 2>/dev/null || echo locked
        test -x {mine}/target/cat && echo shown
        cat /proc/self/mountinfo"""
    shown = volumes(node, maps, script, masked).split("\n", 8)
    assert shown[:8] == ["mine"] * 4 + ["more", "locked", "locked", "shown"]
    found = attributes(shown[8])
    for point in ("/srv/data", "/new/at/depth", "/new/file", "/opt/one", f"{mine}/target"):
        assert {"nosuid", "nodev"} <= found[point], point
    assert "ro" not in found["/srv/data"]
    assert list((mine / "target").iterdir()) == []
    assert not Path("/new").exists()


@pytest.mark.parametrize("masked", OLD_KERNELS)
def test_what_the_site_shows_restricted_stays_restricted(node: ShifterNode, masked: str) -> None:
    """W-3: a map of a read-only site mount was writable."""
    site = node.base / "locked-site"
    site.mkdir(exist_ok=True)
    site.chmod(0o1777)
    node.configure(siteFs=f"{site}:/locked:ro")
    found = attributes(volumes(node, ["/locked:/open"], "cat /proc/self/mountinfo", masked))
    assert {"ro", "nosuid", "nodev"} <= found["/open"]


def test_devices_are_none_in_another_place(node: ShifterNode) -> None:
    done = node.run(IMAGE, "--volume=/dev:/devices", "/bin/cat", "/devices/zero")
    assert done.returncode == 1
    assert "denied" in done.stderr


def test_the_order_matters_where_one_map_covers_or_feeds_another(node: ShifterNode, mine: Path) -> None:
    maps = [f"{mine}/data:/z", "/z/sub:/a", f"{mine}/target:/z/sub"]
    assert volumes(node, maps, "ls -d /a /z/file") == "/a\n/z/file\n"
    assert volumes(node, [f"{mine}/data:/z", f"{mine}/target:/z"], "ls /z") == ""
    assert volumes(node, [f"{mine}/target:/z", f"{mine}/data:/z"], "ls /z") == "file\nsub\n"
    assert volumes(node, ["/srv/data:/d", "/srv/data:/d"], "cat /d/file") == "from the image\n"


def test_links_in_the_container_are_the_containers(node: ShifterNode, mine: Path) -> None:
    """W-18: links whose target stood right below the root lost its first component; and none leads to the host."""
    tree = base_tree(node.base / "linked-tree")
    for name, target in (("absolute", "/srv/data"), ("relative", "srv/data"), ("up", "../../srv"), ("host", str(mine))):
        (tree / name).symlink_to(target)
    identifier = node.add_image("linked-volumes", tree)
    maps = ["--volume=/absolute:/a", "--volume=/relative:/b", "--volume=/up/data:/c", f"--volume={mine}/data:/up/made"]
    script = "cat /a/file /b/file /c/file /srv/made/file"
    done = node.run(f"--image=id:{identifier}", *maps, "/bin/sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "from the image\n" * 3 + "mine\n"), done.stderr
    (tree / "tmp").mkdir(exist_ok=True)
    done = node.run(f"--image=id:{identifier}", "--volume=/srv:/host/data", "/bin/ls", f"{mine}/data")
    assert (done.returncode, done.stdout) == (0, "data\n"), done.stderr


def test_where_maps_come_from(node: ShifterNode) -> None:
    show = ["/bin/sh", "-c", "cat /one/file /two/file /three/file 2>/dev/null; cat /var/shifterConfig.json"]

    def signature(*options: str, **variables: str) -> str:
        done = node.run(IMAGE, *options, *show, env={"PATH": "/bin", **variables})
        assert done.returncode == 0, done.stderr
        *lines, state = done.stdout.splitlines()
        assert lines == ["from the image"] * len(lines)
        assert len(lines) == len([part for part in json.loads(state)["volMap"].split(";") if part])
        return str(json.loads(state)["volMap"])

    own = {"SHIFTER_VOLUME": "/srv/data:/two;/srv/data:/one"}
    slurms = {"SLURM_SPANK_SHIFTER_VOLUME": "/srv/data:/three"}
    assert signature(**own) == "/srv/data:/one;/srv/data:/two"
    assert signature(**slurms) == "/srv/data:/three"
    assert signature(**own, **slurms) == "/srv/data:/one;/srv/data:/two"
    assert signature(SHIFTER_VOLUME="") == ""
    assert signature(SHIFTER_VOLUME="", **slurms) == "/srv/data:/three"
    assert signature("-V/srv/data:/three", **own, **slurms) == "/srv/data:/three"
    assert signature("-V/srv/data/:/two:RO", "--volume=/srv//data:/one") == "/srv/data:/one;/srv/data:/two:ro"


def test_var_tmp_itself_can_be_covered(node: ShifterNode, mine: Path) -> None:
    """The one exception below /var (8.3), though it is the node's and root's."""
    assert volumes(node, [f"{mine}/data:/var/tmp"], "cat /var/tmp/file") == "mine\n"


def test_odd_names(node: ShifterNode, mine: Path) -> None:
    odd = mine / 'a b:c;d"e\\f -> é'
    odd.mkdir()
    text = str(odd).replace("\\", "\\\\")
    for character in ':;" ':
        text = text.replace(character, f"\\{character}")
    state = volumes(node, [f"{text}:/odd:ro"], "cat /var/shifterConfig.json")
    assert json.loads(state)["volMap"] == f"{text}:/odd:ro"


def test_the_state_file_is_utf8_whatever_the_names_are(node: ShifterNode, mine: Path) -> None:
    """In names that are not, the odd bytes are lone surrogates (PEP 383), and what is UTF-8 stays as it is."""
    name = os.fsencode(mine) + b"/\xe9t\xc3\xa9\xed\xa0\x80\xf4\x90\x80\x80\xc0\xaf\xe2\x82"
    os.mkdir(name)  # noqa: PTH102 -- bytes
    script = ["/bin/cat", "/var/shifterConfig.json"]
    done = subprocess.run(
        node.command(IMAGE, f"--volume={os.fsdecode(name)}:/odd", *script), user=node.alice.uid, group=node.alice.gid,
        extra_groups=[], cwd="/", capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("utf-8", "strict")
    assert os.fsencode(json.loads(text)["volMap"]) == name + b":/odd"
    assert "\\udce9t\u00e9\\udced" in text


@pytest.mark.parametrize(
    "text",
    [
        "/tmp", "tmp:/x", "/tmp:x", "/tmp:/x:rec", "/tmp:/x:slave", "/tmp:/x:private", "/tmp:/x:ro:ro",
        "/tmp:/x:shared", "/tmp:/x:ro=1", "/tmp/../etc:/x", "/tmp:/x/../y", "/tmp:/x\ny", "/:/x", "/tmp:/", "/tmp:/etc",
        "/tmp:/etc/passwd", "/tmp:/var", "/tmp:/var/log", "/tmp:/var/tmp/x", "/tmp:/opt", "/tmp:/opt/udiImage",
        "/tmp:/opt/udiImage/bin", "/tmp:/dev", "/tmp:/dev/shm", "/tmp:/proc", "/tmp:/proc/self", "/tmp:/sys/fs",
        "/tmp:/tmp", "/tmp:/x:perNodeCache",
        "/tmp:/x:perNodeCache=size=0", "/tmp:/x:perNodeCache=size=1g,fs=ext4", '"/tmp:/x', "/tmp:/x\\",
    ],
)  # fmt: skip
def test_what_the_grammar_does_not_have_is_refused(node: ShifterNode, text: str) -> None:
    assert "volume map '" in refused(node, text)


def test_what_cannot_be_mounted_is_refused(node: ShifterNode, mine: Path) -> None:
    tree = base_tree(node.base / "refusing-tree")
    for name, target in (("etcetera", "/etc"), ("whole", "/"), ("nowhere", "/gone"), ("round", "/round")):
        (tree / name).symlink_to(target)
    (tree / "root/inner").mkdir(parents=True)
    (tree / "root").chmod(0o700)
    node.add_image("base", tree)
    site = node.base / "refusing-site"
    (site / "sub").mkdir(parents=True, exist_ok=True)
    node.configure(siteFs=f"{site}:/site")
    os.mkfifo(mine / "pipe")
    expected = {
        "/gone:/x": "/gone", "/nowhere:/x": "/nowhere", "/round:/x": "symbolic links", "/whole:/x": "whole container",
        "/proc/self/cwd:/x": "symbolic links", "/proc/self/root:/x": "symbolic links", f"{mine}/pipe:/x": "neither",
        "/root/inner:/x": "Permission denied", "/tmp:/root/inner": "Permission denied",
        "/tmp:/etcetera/os-release": "below /etc", "/tmp:/etcetera/new": "below /etc", "/tmp:/whole": "at / itself",
        "/tmp:/nowhere": "dangling", "/tmp:/nowhere/x": "dangling", "/tmp:/round": "symbolic links",
        f"/tmp:{mine}/new": "create it on the host", "/tmp:/site/new": "create it on the host",
        "/tmp:/site": "does not belong to you", "/tmp:/site/sub": "does not belong to you",
        "/tmp:/srv/data/file": "is a file", f"{mine}/data/file:/srv/data": "is a directory",
        "/tmp:/srv/data/file/x": "Not a directory",
    }
    try:
        for text, words in expected.items():
            assert words in refused(node, text), text
    finally:
        node.add_image("base", base_tree(node.base / "tree"))
    assert sorted(path.name for path in mine.iterdir()) == ["data", "pipe", "target"]
    assert sorted(path.name for path in site.iterdir()) == ["sub"]


def test_a_source_needs_the_users_rights_and_groups(node: ShifterNode) -> None:
    site = node.base / "rights-site"
    (site / "closed/inner").mkdir(parents=True, exist_ok=True)
    os.chown(site / "closed", 0, 5000)
    (site / "closed").chmod(0o750)
    node.configure(siteFs=f"{site}:/site")
    assert "Permission denied" in refused(node, "/site/closed/inner:/x")
    member = User(node.alice.name, node.alice.uid, node.alice.gid, (5000,))
    assert volumes(node, ["/site/closed/inner:/x"], "ls -d /x", user=member) == "/x\n"


def test_own_directories_of_a_site_mount_can_be_targets(node: ShifterNode) -> None:
    homes = node.base / "homes"
    (homes / "alice/data").mkdir(parents=True, exist_ok=True)
    (homes / "alice/file").touch()
    for path in (homes / "alice", homes / "alice/data", homes / "alice/file"):
        os.chown(path, node.alice.uid, node.alice.gid)
    (homes / "alice").chmod(0o700)
    node.configure(siteFs=f"{homes}:/home")
    maps = ["/srv/data:/home/alice/data", "/srv/data/file:/home/alice/file"]
    assert volumes(node, maps, "cat /home/alice/data/file /home/alice/file") == "from the image\n" * 2
    assert "Permission denied" in refused(node, "/srv/data:/home/alice/data", user=node.eve)


def test_too_many_maps_and_too_long_ones(node: ShifterNode) -> None:
    assert "more than 1000" in refused(node, ";".join(f"/srv:/m{number}" for number in range(1001)))
    assert "more than 65536" in refused(node, ";".join(f"/srv:/{'d' * 240}{number}" for number in range(300)))
    script = "cat /proc/self/mountinfo | grep -c ' /m'"
    assert volumes(node, [f"/srv:/m{number}" for number in range(300)], script) == "300\n"


def test_a_volume_is_no_way_round_a_read_only_root(node: ShifterNode) -> None:
    done = node.run(IMAGE, "--volume=/srv/data:/open", "/bin/touch", "/open/x")
    assert done.returncode == 1
    assert "denied" in done.stderr or "Read-only" in done.stderr


def prepare(node: ShifterNode, *maps: str) -> subprocess.CompletedProcess[str]:
    options = [word for text in maps for word in ("-v", text)]
    return node.as_root("setupRoot", "-u", node.alice.name, *options, "id", image_id("base"))


def test_a_prepared_environment_is_found_by_the_same_volumes_only(node: ShifterNode, mine: Path) -> None:
    first, second = f"{mine}/data:/data:ro", "/srv/data:/own"
    done = prepare(node, first, second)
    assert done.returncode == 0, done.stderr
    show = "readlink /proc/self/ns/mnt; cat /data/file /own/file 2>/dev/null"
    namespace, *lines = volumes(node, [first, second], show).splitlines()
    assert lines == ["mine", "from the image"]
    assert volumes(node, [f"{second};{first}"], show).splitlines()[0] == namespace
    for other in ([], [first], [second, f"{mine}/data:/data"], [first, second, "/srv:/third"]):
        assert volumes(node, other, f"{show}; true").splitlines()[0] != namespace


def test_volumes_of_a_prepared_environment_are_not_shown_to_others(node: ShifterNode) -> None:
    homes = node.base / "closed-homes"
    (homes / "alice/data").mkdir(parents=True, exist_ok=True)
    (homes / "alice/data/file").write_text("private\n")
    os.chown(homes / "alice", node.alice.uid, node.alice.gid)
    (homes / "alice").chmod(0o700)
    node.configure(siteFs=f"{homes}:/home")
    assert prepare(node, "/home/alice/data:/data").returncode == 0
    assert "private" in volumes(node, ["/home/alice/data:/data"], "cat /data/file")
    assert list(node.udi_mount.iterdir()) == []


def test_a_prepared_environment_has_the_rights_of_its_user(node: ShifterNode) -> None:
    site = node.base / "prepared-site"
    (site / "closed/inner").mkdir(parents=True, exist_ok=True)
    (site / "closed").chmod(0o700)
    node.configure(siteFs=f"{site}:/site")
    done = prepare(node, "/site/closed/inner:/x")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Permission denied" in done.stderr
    assert "below /etc" in prepare(node, "/tmp:/etc/x").stderr
    assert not node.state.exists()
    os.chown(site / "closed", node.alice.uid, 0)
    assert prepare(node, "/site/closed/inner:/x").returncode == 0
