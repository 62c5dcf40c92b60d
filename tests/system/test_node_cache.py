# SPDX-License-Identifier: BSD-3-Clause
"""perNodeCache: a real XFS in a nameless file, within the site's limits, and nothing of it afterwards."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.shifternode import ShifterNode, image_id

IMAGE = f"--image=id:{image_id('base')}"
CACHE = "--volume=/none:/cache:perNodeCache=size=320m"


@pytest.fixture
def caches(node: ShifterNode) -> Iterator[Path]:
    """Where the files are made; nothing is left there, neither a name nor space taken, nor a loop device."""
    place = node.base / "caches"
    place.mkdir(exist_ok=True)
    place.chmod(0o755)
    os.chown(place, 0, 0)
    allow(node)
    before = cache_devices()
    yield place
    node.configure()
    assert node.as_root("unsetupRoot").returncode == 0
    deadline = time.monotonic() + 5
    while (left := cache_devices() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == set()
    assert list(place.iterdir()) == []


def allow(node: ShifterNode, **settings: str) -> None:
    values = {"perNodeCachePath": str(node.base / "caches"), "perNodeCacheSizeLimit": "700m"}
    node.configure(**{**values, "mkfsXfsPath": "/usr/sbin/mkfs.xfs", **settings})


def cache_devices() -> set[str]:
    """Loop devices of files without a name."""
    listing = subprocess.run(["losetup", "-nl", "-O", "NAME,BACK-FILE"], check=True, capture_output=True, text=True)
    return {line for line in listing.stdout.splitlines() if "/caches/" in line}


def refused(node: ShifterNode, *options: str) -> str:
    return node.refused(IMAGE, *options, "/bin/true")


@pytest.mark.parametrize("masked", ["", "openat2,open_tree,move_mount,mount_setattr,close_range"])
def test_a_cache_is_the_users_own_file_system(node: ShifterNode, caches: Path, masked: str) -> None:
    script = "mkdir /cache/d; echo x > /cache/d/f; cat /cache/d/f; stat -c '%u %g' /cache; cat /proc/self/mountinfo"
    command = node.command(IMAGE, CACHE, "/bin/sh", "-c", script)
    if masked:
        trace = ["strace", "-f", "-o", "/dev/null", "-e", f"inject={masked}:error=ENOSYS", "-u", node.alice.name]
        done = subprocess.run([*trace, *command], check=False, capture_output=True, text=True, cwd="/")
    else:
        done = node.as_user(command)
    assert done.returncode == 0, done.stderr
    text, owner, *table = done.stdout.splitlines()
    assert (text, owner) == ("x", f"{node.alice.uid} {node.alice.gid}")
    (fields,) = [line.split() for line in table if line.split()[4] == "/cache"]
    assert {"rw", "nosuid", "nodev"} <= set(fields[5].split(","))
    assert fields[fields.index("-") + 1] == "xfs"


def test_the_device_stays_the_caches_while_it_is_formatted_whatever_becomes_of_the_launcher(
    node: ShifterNode, caches: Path
) -> None:
    """Its user can kill the launcher: the number of a device that is let go could be another user's a moment later."""
    begun, found = node.base / "format-begun", node.base / "format-found"
    for path in (begun, found):
        path.unlink(missing_ok=True)
    look = f"losetup -n -O BACK-FILE $4 > {found}.new 2>&1\nmv {found}.new {found}\n"
    script = f"#!/bin/sh\ntouch {begun}\nsleep 1\n{look}"
    allow(node, mkfsXfsPath=str(node.add_program("format", script)))
    node.kill_when(begun, IMAGE, CACHE, "/bin/true")
    deadline = time.monotonic() + 10
    while not found.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert str(caches) in found.read_text()


def test_the_size_is_the_one_asked_for_and_space_is_taken_as_it_is_written(node: ShifterNode, caches: Path) -> None:
    free = os.statvfs(caches).f_bavail * os.statvfs(caches).f_frsize
    done = node.run(IMAGE, CACHE, "/bin/sh", "-c", "stat -f -c '%b %S' /cache; head -c 400m /dev/zero > /cache/f")
    blocks, size = map(int, done.stdout.split())
    assert 200 << 20 < blocks * size <= 320 << 20
    assert done.returncode != 0
    assert "No space left" in done.stderr
    done = node.run(IMAGE, CACHE, "/bin/sleep", "0")
    assert done.returncode == 0
    assert os.statvfs(caches).f_bavail * os.statvfs(caches).f_frsize > free - (100 << 20)


def test_the_sites_limits_hold(node: ShifterNode, caches: Path) -> None:
    assert "perNodeCacheSizeLimit" in refused(node, "--volume=/x:/cache:perNodeCache=size=701m")
    assert "perNodeCacheSizeLimit" in refused(node, *(f"--volume=/x:/c{n}:perNodeCache=size=350m" for n in range(3)))
    assert "perNodeCacheSizeLimit" in refused(node, "--volume=/x:/cache:perNodeCache=size=15e")
    assert "below /etc" in refused(node, "--volume=/x:/etc/cache:perNodeCache=size=320m")
    allow(node, perNodeCacheAllowedFsType="ext4")
    assert "perNodeCacheAllowedFsType" in refused(node, CACHE)
    allow(node, perNodeCacheAllowedFsType="ext4 xfs")
    assert node.run(IMAGE, CACHE, "/bin/true").returncode == 0


def test_a_container_has_a_handful_of_them(node: ShifterNode, caches: Path) -> None:
    allow(node, perNodeCacheSizeLimit="0")
    assert "16 of them" in refused(node, *(f"--volume=/x:/c{n}:perNodeCache=size=300m" for n in range(17)))


@contextmanager
def small_disk(caches: Path) -> Iterator[int]:
    """A file system of its own for the caches, and the bytes that they may have of it: all but a tenth."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g,mode=755", "small", str(caches)], check=True)
    try:
        yield ((1 << 20) - (1 << 20) // 10) << 10
    finally:
        subprocess.run(["umount", "--lazy", str(caches)], check=True)


@pytest.mark.parametrize("limit", ["0", "2g"])
def test_a_cache_that_the_disk_could_not_fill_is_refused(node: ShifterNode, caches: Path, limit: str) -> None:
    allow(node, perNodeCacheSizeLimit=limit)
    with small_disk(caches) as room:
        said = refused(node, f"--volume=/x:/cache:perNodeCache=size={room + 4096}")
        assert f"has room for {room >> 10} KiB" in said
        assert "perNodeCachePath" in said
        both = [f"--volume=/x:/c{n}:perNodeCache=size=500m" for n in range(2)]
        assert "there would be 2 on this node" in refused(node, *both)
        assert node.run(IMAGE, "--volume=/x:/cache:perNodeCache=size=900m", "/bin/true").returncode == 0


def test_the_caches_of_a_users_containers_share_the_room(node: ShifterNode, caches: Path) -> None:
    """Without that, any number of files without a byte in them would each be small enough, and grow together."""
    allow(node, perNodeCacheSizeLimit="0")
    half = "--volume=/x:/cache:perNodeCache=size=500m"
    with small_disk(caches):
        first = node.start(IMAGE, half, "/bin/sh", "-c", "echo started; read line")
        assert first.stdout is not None
        assert first.stdout.readline() == "started\n"
        assert "there would be 2 on this node" in refused(node, half)
        prepared = node.as_root("setupRoot", "-u", node.alice.name, "-v", half.split("=", 1)[1], "id", image_id("base"))
        assert prepared.returncode == 1
        assert "there would be 2 on this node" in prepared.stderr
        assert node.run(IMAGE, half, "/bin/true", user=node.eve).returncode == 0
        first.communicate("\n")
        for _turn in range(3):  # what has just ended counts no longer
            assert node.run(IMAGE, half, "/bin/true").returncode == 0


def test_of_caches_that_are_made_at_once_never_more_than_fit_are(node: ShifterNode, caches: Path) -> None:
    allow(node, perNodeCacheSizeLimit="0")
    with small_disk(caches):
        command = [IMAGE, "--volume=/x:/cache:perNodeCache=size=400m", "/bin/sh", "-c", "echo started; read line"]
        crowd = [node.start(*command) for _ in range(6)]
        started = [process for process in crowd if process.stdout is not None and process.stdout.readline()]
        assert len(started) <= 2
        for process in crowd:
            _out, errors = process.communicate("\n")
            assert process.returncode == (0 if process in started else 125), errors


def test_what_the_node_lacks_is_said(node: ShifterNode, caches: Path) -> None:
    node.configure()
    assert "no caches on this system" in refused(node, CACHE)
    allow(node, mkfsXfsPath="NotFound")
    assert "mkfsXfsPath" in refused(node, CACHE)
    allow(node, perNodeCachePath=str(node.base / "nowhere"))
    assert "nowhere" in refused(node, CACHE)
    allow(node)
    assert "300MB" in refused(node, "--volume=/x:/cache:perNodeCache=size=20m")


def test_programs_and_places_that_others_could_have_written_are_refused(node: ShifterNode, caches: Path) -> None:
    foreign = node.base / "mkfs"
    foreign.write_text("#!/bin/sh\nid > /tmp/shifter-foreign-mkfs\n")
    foreign.chmod(0o777)
    allow(node, mkfsXfsPath=str(foreign))
    assert "by others" in refused(node, CACHE)
    assert not Path("/tmp/shifter-foreign-mkfs").exists()
    allow(node)
    caches.chmod(0o1777)
    assert "by others" in refused(node, CACHE)
    caches.chmod(0o755)
    os.chown(caches, node.alice.uid, 0)
    assert "must belong to root" in refused(node, CACHE)


def test_a_failing_mkfs_leaves_nothing_and_gets_nothing_of_the_user(node: ShifterNode, caches: Path) -> None:
    failing = node.base / "failing-mkfs"
    failing.write_text("#!/bin/sh\nls -l /proc/self/fd >&2; env >&2; id -u >&2; exit 1\n")
    failing.chmod(0o755)
    allow(node, mkfsXfsPath=str(failing))
    done = node.run(IMAGE, CACHE, "/bin/true", env={"PATH": "/tmp", "LD_PRELOAD": "/tmp/x", "BASH_ENV": "/tmp/y"})
    assert done.returncode == 125
    assert "PATH=/usr/bin:/usr/sbin:/bin:/sbin" in done.stderr
    assert "BASH_ENV" not in done.stderr
    assert str(caches) not in done.stderr
    assert done.stderr.rstrip().endswith(" 0")


def test_the_file_behind_a_cache_is_seen_by_the_kernel_alone(node: ShifterNode, caches: Path) -> None:
    process = subprocess.Popen(
        node.command(IMAGE, CACHE, "/bin/sh", "-c", "echo started; read line"), user=node.alice.uid,
        group=node.alice.gid, extra_groups=[], cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    assert len(cache_devices()) == 1
    assert list(caches.iterdir()) == []
    process.communicate(b"\n")
    assert process.returncode == 0


def test_killing_the_launcher_at_any_moment_leaves_no_cache(node: ShifterNode, caches: Path) -> None:
    for delay in range(0, 120, 6):
        process = subprocess.Popen(
            node.command(IMAGE, CACHE, "/bin/sleep", "100"), user=node.alice.uid, group=node.alice.gid,
            extra_groups=[], cwd="/", stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay / 1000)
        process.kill()
        process.wait()
        assert list(caches.iterdir()) == []


def test_each_private_container_has_its_own_and_a_prepared_one_shares_it(node: ShifterNode, caches: Path) -> None:
    put, look = ["/bin/sh", "-c", "echo x > /cache/$$"], ["/bin/sh", "-c", "ls /cache | wc -l"]
    assert node.run(IMAGE, CACHE, *put).returncode == 0
    assert node.run(IMAGE, CACHE, *look).stdout == "0\n"
    done = node.as_root("setupRoot", "-u", node.alice.name, "-v", CACHE.split("=", 1)[1], "id", image_id("base"))
    assert done.returncode == 0, done.stderr
    for count in range(1, 3):
        assert node.run(IMAGE, CACHE, *put).returncode == 0
        assert node.run(IMAGE, CACHE, *look).stdout == f"{count}\n"
    other = "--volume=/none:/cache:perNodeCache=size=321m"
    assert node.run(IMAGE, other, *look).stdout == "0\n"


def test_a_cache_of_the_site(node: ShifterNode, caches: Path) -> None:
    allow(node, siteFs="/none:/scratch:perNodeCache=size=320m")
    assert node.script("echo x > /scratch/f; cat /scratch/f") == "x\n"
    allow(node, siteFs="/none:/scratch:perNodeCache=size=701m")
    assert "perNodeCacheSizeLimit" in refused(node)


def test_a_place_without_nameless_files(node: ShifterNode, caches: Path) -> None:
    """File systems without O_TMPFILE: a name is there for a moment only."""
    trace = node.base / "trace"
    done = subprocess.run(
        ["strace", "-f", "-o", str(trace), "-P", str(caches), "-e", "inject=openat:error=EOPNOTSUPP:when=1", "-u",
         node.alice.name, *node.command(IMAGE, CACHE, "/bin/sh", "-c", "echo x > /cache/f; cat /cache/f")],
        check=False, capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "x\n"), done.stderr
    calls = trace.read_text()
    trace.unlink()
    assert "O_TMPFILE, 0600) = -1 EOPNOTSUPP" in calls
    assert calls.count("unlinkat(") == 2


def test_a_cache_of_the_site_is_not_shown_to_others(node: ShifterNode, caches: Path) -> None:
    """Its root directory has the mode that mkfs.xfs gives it, and files their user's umask."""
    for there in (True, False):
        allow(node, **({} if there else {"siteFs": "/none:/cache:perNodeCache=size=320m"}))
        done = node.as_root("setupRoot", "-u", node.alice.name, "id", image_id("base"))
        assert done.returncode == 0, done.stderr
        assert [path.name for path in node.udi_mount.glob("etc")] == ["etc"] * there
        assert node.as_root("unsetupRoot").returncode == 0
