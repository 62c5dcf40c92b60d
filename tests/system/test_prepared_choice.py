# SPDX-License-Identifier: BSD-3-Clause
"""`shifter` without an image enters what the node is prepared with, and which shell a start without a command gives."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.shifternode import ShifterNode, base_tree, image_id
from tests.system.test_runtime_prepared import setup, unsetup

NAMESPACE = ("/bin/readlink", "/proc/self/ns/mnt")
JOB = {"PATH": "/bin", "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1"}


@pytest.fixture
def other(node: ShifterNode) -> Iterator[str]:
    """A second image."""
    tree = base_tree(node.base / "other-tree")
    (tree / "etc/os-release").write_text("NAME=Other\n")
    yield node.add_image("other", tree, "ENV: FROM=other\n")
    shutil.rmtree(tree)


def names_what_to_do(node: ShifterNode, *words: str, env: dict[str, str] | None = None) -> bool:
    done = node.run("/bin/true", env=env)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.count("\n") == 1
    return all(word in done.stderr for word in ("no image named", "--image", *words))


def test_it_enters_what_is_prepared_with_the_images_environment(node: ShifterNode, other: str) -> None:
    setup(node, "-J", "7@n1", image="other")
    named = node.run(f"--image=id:{other}", *NAMESPACE)
    done = node.run("/bin/sh", "-c", "readlink /proc/self/ns/mnt; printenv FROM SHIFTER_IMAGE; cat /etc/os-release")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{named.stdout}other\n{other}\nNAME=Other\n"
    assert node.run("/bin/printenv", "SHIFTER_IMAGEREQUEST").returncode == 1  # nobody asked for it by name


def test_modules_and_volumes_are_those_it_was_prepared_with(node: ShifterNode) -> None:
    node.configure("module_m_siteEnv=M=on\nmodule_d_siteEnv=D=on\n", defaultModules="d")
    setup(node, "-m", "m", "-v", "/srv/data:/a b", "-v", "/srv/data:/z:ro")
    done = node.run("/bin/sh", "-c", "cat '/a b/file'; env; cat /proc/self/mountinfo")
    assert done.stdout.startswith("from the image\n"), done.stderr
    assert "\nM=on\n" in done.stdout
    assert "\nD=on\n" not in done.stdout
    assert node.run(*NAMESPACE).stdout == node.run(*NAMESPACE).stdout
    unsetup(node)
    setup(node, "-m", "none")
    assert node.run("/bin/printenv", "D").returncode == 1
    assert node.run("--module=d", "/bin/printenv", "D").stdout == "on\n"  # said, so built


def test_a_job_means_its_own_and_else_what_nobody_prepared_for_a_job(node: ShifterNode, other: str) -> None:
    setup(node, "-J", "8@n1")
    assert names_what_to_do(node, "no container is prepared", env=JOB)  # another job's is not this one's
    setup(node, image="other")
    assert node.run("/bin/printenv", "SHIFTER_IMAGE", env=JOB).stdout == f"{other}\n"
    setup(node, "-J", "7@n1")
    assert node.run("/bin/printenv", "SHIFTER_IMAGE", env=JOB).stdout == f"{image_id('base')}\n"


def test_several_that_differ_are_named(node: ShifterNode, other: str) -> None:
    setup(node, "-J", "7@n1", "-N", "a/1")
    setup(node, "-J", "8@n1", "-N", "b/1")
    assert node.run("/bin/true").returncode == 0  # two of the same
    setup(node, "-J", "9@n1", image="other")
    assert names_what_to_do(node, "2 different", f"id:{other} (modules none)", f"id:{image_id('base')}")
    assert node.run(f"--image=id:{other}", "/bin/true").returncode == 0


def test_what_others_have_prepared_is_no_answer(node: ShifterNode) -> None:
    assert names_what_to_do(node, "no container is prepared")
    setup(node, user=node.eve)
    assert names_what_to_do(node, "no container is prepared")
    assert node.run("/bin/true", user=node.eve).returncode == 0


def test_the_access_list_is_asked_all_the_same(node: ShifterNode) -> None:
    identifier = node.add_image("mine", node.base / "tree", f"USERACL: {node.alice.uid}\n")
    setup(node, image="mine")
    assert node.run("/bin/true").returncode == 0
    node.add_image("mine", node.base / "tree", f"USERACL: {node.eve.uid}\n")
    done = node.run("/bin/true")
    assert (done.returncode, done.stdout) == (125, "")
    assert identifier in done.stderr


def test_a_directory_that_is_prepared_in_place_of_an_image(node: ShifterNode) -> None:
    node.configure(allowLocalChroot="1")
    tree = str(node.base / "tree")
    assert node.as_root("setupRoot", "-u", node.alice.name, "local", tree).returncode == 0
    assert node.run("/bin/printenv", "SHIFTER_IMAGE").stdout == f"{tree}\n"


@pytest.mark.parametrize("prepared", [False, True])
def test_without_a_command_the_users_shell_runs_if_the_container_has_it(node: ShifterNode, prepared: bool) -> None:
    image = f"--image=id:{image_id('base')}"
    if prepared:
        setup(node)

    def shell(value: str | None, *options: str) -> str:
        env = {"PATH": "/usr/bin:/bin"} if value is None else {"PATH": "/usr/bin:/bin", "SHELL": value}
        done = node.run(image, *options, env=env, input="echo $0; readlink /proc/$$/exe\n")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert shell("/bin/dash") == "/bin/dash\n/bin/dash\n"
    for missing in (None, "", "dash", "/usr/bin/zsh", "/etc/os-release", "/srv", "/etc/os-release/x"):
        assert shell(missing) == "/bin/sh\n/bin/dash\n", missing
    assert shell("/bin/dash", "--entrypoint=/bin/sh") == "/bin/sh\n/bin/dash\n"
