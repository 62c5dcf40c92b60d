# SPDX-License-Identifier: BSD-3-Clause
"""`shifter`, `setupRoot` and `unsetupRoot` killed after each of their system calls: the node is clean, or the next call
makes it so. What SIGKILL can do, so can the kernel that runs out of memory, and Slurm when a prolog takes too long."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import oldkernel
from tests.accounts import User
from tests.killed import KillAfter
from tests.nodestate import check_clean
from tests.shifternode import ShifterNode, host_mounts, image_id

IMAGE = f"--image=id:{image_id('base')}"
HOLDER = "1@n"
VOLUME = "--volume=/home/site:/srv/mine:ro"
CACHE = "--volume=/none:/cache:perNodeCache=size=310m"


@dataclass
class Scene:
    """A node whose containers have something of everything; at first of what takes no program of the site."""

    node: ShifterNode
    tracer: KillAfter

    def configure(self, more: str = "", **settings: str) -> None:
        base = self.node.base
        self.node.configure(
            f"module_tools_copyPath={base}/tools\nmodule_tools_siteEnv=TOOLS=1\n"
            f"module_tools_siteFs=/usr/share:/made/share:ro:rec\n{more}",
            siteFs=f"{base}/mine:/home/site;/etc/hostname:/made/file", siteEnv="SITE=1", **settings,
        )  # fmt: skip

    def configure_with_programs(self) -> None:
        """Hooks that make something and read what is mounted, and caches."""
        caches = self.node.base / "swept-caches"
        caches.mkdir(exist_ok=True)
        script = "#!/bin/sh\nset -e\nmkdir -p hooked\ncat home/site/file >> hooked/file || true\n"
        hook = self.node.add_program("swept-hook", script)
        self.configure(
            f"module_tools_roothook={hook}", sitePreMountHook=str(hook), sitePostMountHook=str(hook),
            perNodeCachePath=str(caches), perNodeCacheSizeLimit="1g", mkfsXfsPath="/usr/sbin/mkfs.xfs",
        )  # fmt: skip

    def start(self, *command: str, volumes: tuple[str, ...] = (VOLUME,)) -> list[str]:
        """What fits what `setup` prepares with the same volumes."""
        return self.node.command(IMAGE, *volumes, "--module=tools", *command)

    def setup(self, volumes: tuple[str, ...] = ()) -> list[str]:
        alice = self.node.alice
        options = ["-u", alice.name, "-U", str(alice.uid), "-G", str(alice.gid), "-J", HOLDER]
        options += [volume.replace("--volume=", "-v") for volume in volumes]
        return [self.node.program("setupRoot"), *options, "-m", "tools", "-N", "n/2", "id", image_id("base")]

    def unsetup(self, *more: str) -> list[str]:
        return [self.node.program("unsetupRoot"), *more]

    def succeed(self, command: list[str], where: object) -> str:
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)
        assert done.returncode == 0, (where, done.stderr)
        return done.stdout

    def inside(self, where: object, volumes: tuple[str, ...] = (VOLUME,)) -> str:
        """A start of alice's, which must succeed: its mount namespace."""
        mine = "/srv/mine/file" if volumes else "/home/site/file"
        script = f"cat {mine} /opt/udiImage/modules/tools/file >&2 && readlink /proc/self/ns/mnt"
        command = self.start("/bin/sh", "-c", script, volumes=volumes)
        done = self.node.as_user(command)
        assert (done.returncode, done.stderr) == (0, "of alice\nof the site\n"), (where, done.stderr)
        return str(done.stdout)

    def environments(self) -> list[Path]:
        return sorted(self.node.state.glob("*/*"))


@pytest.fixture
def scene(node: ShifterNode, tmp_path: Path) -> Iterator[Scene]:
    volume, tools = node.base / "mine", node.base / "tools"
    for directory, text in ((volume, "of alice\n"), (tools, "of the site\n")):
        directory.mkdir(exist_ok=True)
        (directory / "file").write_text(text)
    os.chown(volume, node.alice.uid, node.alice.gid)
    scene = Scene(node, KillAfter(tmp_path))
    scene.configure()
    yield scene
    check_clean(scene.node, "at the end")


def sweep(
    scene: Scene, command: list[str], heal: Callable[[int, object], None], *,
    user: User | None = None, hidden: Sequence[str] = (), every: int = 1,
) -> None:  # fmt: skip
    """Kill after one call after the other, and see each time that all is well."""
    points = scene.tracer.points(command, user, every=every, hidden=hidden)
    heal(1, "not killed")
    for number in points:
        heal(number, scene.tracer.run(number, command, user, hidden=hidden))


@pytest.mark.slow
def test_a_start_killed_anywhere_leaves_nothing(scene: Scene) -> None:
    def look(_number: int, where: object) -> None:
        assert host_mounts() == [], where  # at once: nothing of a start ever is in the host's table
        check_clean(scene.node, where)
        assert scene.inside(where)

    sweep(scene, scene.start("/bin/true"), look, user=scene.node.alice)
    sweep(scene, scene.start("/bin/true"), look, user=scene.node.alice, hidden=oldkernel.EVERYTHING, every=8)


def ways_on(scene: Scene, volumes: tuple[str, ...] = (), *, shown: bool = True) -> Callable[[int, object], None]:
    """After a kill of `setupRoot` or `unsetupRoot`: each way to go on, in turn."""

    def heal(number: int, where: object) -> None:
        if number % 3 == 0:  # what was being prepared is no longer wanted
            scene.succeed(scene.unsetup("-J", HOLDER), where)
        elif number % 3 == 1:  # the prolog runs again
            scene.succeed(scene.setup(volumes), where)
            (environment,) = scene.environments()
            assert scene.inside(where, volumes) == f"mnt:[{(environment / 'ns').stat().st_ino}]\n", where
            if shown:
                assert (scene.node.udi_mount / "var/shifterConfig.json").exists(), where
            scene.succeed(scene.unsetup("-J", HOLDER), where)
        else:  # nobody knows that the prolog failed; the node's own clean-up comes later
            scene.inside(where, volumes)
            scene.succeed(scene.unsetup(), where)
        check_clean(scene.node, where)

    return heal


@pytest.mark.slow
def test_a_setup_killed_anywhere_is_healed_by_the_next_call(scene: Scene) -> None:
    sweep(scene, scene.setup(), ways_on(scene))
    old = ways_on(scene, shown=False)  # only a kernel with open_tree can show it
    sweep(scene, scene.setup(), old, hidden=oldkernel.EVERYTHING, every=4)
    sweep(scene, scene.setup((VOLUME,)), ways_on(scene, (VOLUME,), shown=False), every=4)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["-J", HOLDER], []], ids=["holder", "all"])
def test_a_teardown_killed_anywhere_is_healed_by_the_next_call(scene: Scene, options: list[str]) -> None:
    way_on = ways_on(scene)

    def heal(number: int, where: object) -> None:
        way_on(number, where)
        scene.succeed(scene.setup(), where)

    scene.succeed(scene.setup(), "first")
    sweep(scene, scene.unsetup(*options), heal)
    scene.succeed(scene.unsetup(), "last")


@pytest.mark.slow
def test_a_builder_killed_anywhere_fails_the_setup_and_leaves_nothing(scene: Scene) -> None:
    """The process that builds for setupRoot: the kernel may choose that one when it runs out of memory."""
    command, tracer = scene.setup((VOLUME,)), scene.tracer
    points = tracer.points(command, of_child=True)
    scene.succeed(scene.unsetup(), "first")
    for number in points:
        hit = tracer.run(number, command, of_child=True)
        if hit.status == 0:  # it had sent what it built, or was left alone
            scene.succeed(scene.unsetup("-J", HOLDER), hit)
        else:
            assert (hit.status, hit.said.count("\n")) == (1, 1), hit
            assert hit.said.startswith("setupRoot: the process that built the container ended"), hit
        check_clean(scene.node, hit)


@pytest.mark.slow
def test_neither_hooks_nor_caches_stay_of_what_is_killed(scene: Scene) -> None:
    """What root's programs have begun they finish, and then nothing of it is left."""
    scene.configure_with_programs()
    volumes = (VOLUME, CACHE)

    def look(_number: int, where: object) -> None:
        check_clean(scene.node, where)
        assert list((scene.node.base / "swept-caches").iterdir()) == [], where

    made = scene.node.as_user(scene.start("/bin/cat", "/hooked/file", volumes=volumes))
    assert (made.returncode, made.stdout) == (0, "of alice\nof alice\n"), made.stderr
    sweep(scene, scene.start("/bin/true", volumes=volumes), look, user=scene.node.alice, every=3)
    assert scene.inside("after all", volumes)
    sweep(scene, scene.setup(volumes), ways_on(scene, volumes, shown=False), every=3)
    look(0, "after all")
