# SPDX-License-Identifier: BSD-3-Clause
"""Each system call that builds a container or gives rights up, failing or doing nothing: the launcher ends, or the
container is as restricted as ever, and nothing is left (sec-15, sec-28, sec-29; W-2, W-4, W-22)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.attacks import ROOT, calls_of, traced
from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"
EVERY_KERNEL = True
BUILDING = ["mount", "open_tree", "mount_setattr", "move_mount", "umount2", "pivot_root", "unshare", "mkdirat", "mkdir",
            "mknod", "symlinkat", "ioctl", "chdir", "fchdir", "unlinkat"]  # fmt: skip
DROPPING = ["prctl", "setresuid", "setresgid", "setgroups", "capset"]
SHOW = ["/bin/cat", "/proc/self/status", "/proc/self/mountinfo"]


@pytest.fixture
def sentinel(node: ShifterNode) -> Iterator[Path]:
    """A directory that the site shows; nothing may change in it, nor beside it."""
    place = node.base / "sentinel"
    (place / "inner").mkdir(parents=True, exist_ok=True)
    (place / "inner/file").write_text("kept\n")
    node.configure(siteFs=f"{place}:/site:ro;{place}/inner:/new/place")
    assert node.run(IMAGE, "/bin/true").returncode == 0  # which makes udiMount
    before = sorted(str(path) for path in node.base.glob("*/*"))
    yield place
    assert sorted(str(path) for path in node.base.glob("*/*")) == before
    assert (place / "inner/file").read_text() == "kept\n"


def count(node: ShifterNode, command: list[str], names: list[str], root: bool) -> list[tuple[str, int]]:
    """Each call of these names that the command makes, by its number in the process that makes it, as strace counts."""
    made = Counter((process, name) for process, name, _arguments in calls_of(node, command, ROOT if root else None))
    most = {name: max((made[key] for key in made if key[1] == name), default=0) for name in names}
    return [(name, number) for name in names for number in range(1, most[name] + 1)]


def is_restricted(node: ShifterNode, output: str) -> bool:
    """Whether what the command saw of itself and of the mounts is what it should be."""
    status = dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)
    ids = [status["Uid"].split(), status["Gid"].split()] == [[str(node.alice.uid)] * 4, [str(node.alice.gid)] * 4]
    capabilities = [int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
    groups = {int(gid) for gid in status["Groups"].split()} <= {node.alice.gid}
    mounts = {line.split()[4]: set(line.split()[5].split(",")) for line in output.splitlines() if " - " in line}
    flags = all("nosuid" in found and ("nodev" in found or point.startswith("/dev")) for point, found in mounts.items())
    flags = flags and "ro" in mounts["/"] and "noexec" in mounts["/proc"]
    flags = flags and all("ro" in found for point, found in mounts.items() if "site" in point or "udiImage" in point)
    inside = " - overlay shifter " in output and str(node.udi_mount) not in output
    return ids and groups and capabilities == [0] * 5 and status["NoNewPrivs"] == "1" and flags and inside


def fails_closed(node: ShifterNode, command: list[str], fault: str, *around: str) -> str:
    """What is wrong with how the launcher ended, strace running in the program `around`; empty when nothing is."""
    done = traced(node, command, "-o", "/dev/null", "-e", f"inject={fault}", around=around)
    if done.returncode == 125 and done.stdout == "" and done.stderr.startswith("shifter: "):
        return ""
    if done.returncode == 0 and is_restricted(node, done.stdout):
        return ""
    return f"{fault}: status {done.returncode}, {done.stderr}{done.stdout}"


def wrong(node: ShifterNode, command: list[str], faults: list[str], *around: str) -> list[str]:
    return [text for fault in faults if (text := fails_closed(node, command, fault, *around))]


def test_sec15_a_step_that_fails_ends_the_launcher_and_leaves_nothing(node: ShifterNode, sentinel: Path) -> None:
    command = node.command(IMAGE, "--volume=/srv/data:/mine", *SHOW)
    faults = count(node, command, BUILDING, root=False)
    assert len(faults) > 25
    assert wrong(node, command, [f"{name}:error=EIO:when={number}" for name, number in faults]) == []
    assert node.loop_devices() == []


def test_sec15_a_preparation_that_fails_undoes_itself(node: ShifterNode, sentinel: Path) -> None:
    command = [node.program("setupRoot"), "-u", node.alice.name, "id", image_id("base")]
    faults = count(node, command, BUILDING, root=True)
    assert node.as_root("unsetupRoot").returncode == 0
    assert len(faults) > 25
    for name, number in faults:
        fault = f"inject={name}:error=EIO:when={number}"
        done = traced(node, command, "-f", "-o", "/dev/null", "-e", fault, user=ROOT)
        assert done.returncode in (0, 1), fault
        assert done.returncode == 0 or done.stderr.startswith("setupRoot: "), fault
        # What could not be undone while a call fails is for the next one.
        assert node.as_root("unsetupRoot").returncode == 0, fault
        assert not node.state.exists(), fault


@pytest.mark.parametrize("node", [()], indirect=True)  # none of the newer calls has a part in it
def test_sec28_rights_that_cannot_be_given_up_end_the_launcher(node: ShifterNode) -> None:
    """An old kernel without no_new_privs, a bounding set that stays: there is no container then."""
    node.configure(siteFs=f"{node.base}/tree:/site:ro")
    command = node.command(IMAGE, *SHOW)
    faults = count(node, command, DROPPING, root=False)
    assert Counter(name for name, _number in faults)["prctl"] > 40
    for error in ("EPERM", "EINVAL"):
        assert wrong(node, command, [f"{name}:error={error}:when={number}" for name, number in faults]) == []


def test_sec29_what_the_kernel_only_pretends_to_do_is_noticed(node: ShifterNode) -> None:
    """Success without an effect: all hardening is read back. In a namespace apart, so that none of it is the host's."""
    tree = base_tree(node.base / "leading-tree")
    (tree / "link").symlink_to("srv")
    image = node.add_image("leading", tree)
    own = node.base / "own-tree"
    (own / "modules").mkdir(parents=True, exist_ok=True)
    maps = f"{tree}:/shown;{tree}:/link/site:ro"
    node.configure(f"module_m_copyPath={own}", siteFs=maps, optUdiImage=str(own), defaultModules="m")
    command = node.command(f"--image=id:{image}", "--volume=/srv/data:/users-site:ro", *SHOW)
    points = [line.split()[4] for line in node.as_user(command).stdout.splitlines() if " - " in line]
    assert {"/srv/site", "/users-site", "/opt/udiImage/modules/m"} <= set(points)
    names = ["mount"] if node.hidden else DROPPING
    faults = count(node, command, [*names, "mount_setattr", "pivot_root"], root=False)
    assert wrong(node, command, [f"{name}:retval=0:when={number}" for name, number in faults], "unshare", "-m") == []
