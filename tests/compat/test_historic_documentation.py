# SPDX-License-Identifier: BSD-3-Clause
"""What the historic documentation tells administrators and users to do, done as it says (docs/coming-from-shifter.md).

Where this code wants something else of an administrator, such as a hook that is executable, the test does that and
says so.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"


@pytest.fixture
def global_file_systems(node: ShifterNode) -> Iterator[Path]:
    """A site's parallel file systems, as the recommended practices name them."""
    top = node.base / "site"
    mounts = ("home", "global/project", "global/common", "alps", "cvmfs_nfs")
    for name in (*mounts, "modules/mpich/lib64", "modules/mpich/bin"):
        (top / name).mkdir(parents=True)
        (top / name / "README").write_text(f"{name}\n")
    yield top
    shutil.rmtree(top)


def test_recommended_practices_make_file_systems_available(node: ShifterNode, global_file_systems: Path) -> None:
    """siteFs over several lines, a pre-mount hook that makes the directories above, a post-mount hook that links."""
    site = global_file_systems
    pre = node.add_program("premount.sh", "#!/bin/bash\nmkdir global\nmkdir -p var/opt/cray\n")
    post = node.add_program("postmount.sh", "#!/bin/bash\nln -s global/project project\n")
    node.configure(
        f"siteFs={site}/home:/home;\\\n"
        f"       {site}/global/project:/global/project;\\\n"
        f"       {site}/global/common:/global/common;\n"  # the example lacks a backslash here
        f"       {site}/alps:/var/opt/cray/alps\n"
        f"siteFs={site}/alps:/var/opt/cray/alps:rec\n",
        sitePreMountHook=str(pre), sitePostMountHook=str(post),
    )  # fmt: skip
    paths = ("/home", "/global/project", "/global/common", "/var/opt/cray/alps", "/project")
    shown = node.script("; ".join(f"cat {path}/README" for path in paths))
    assert shown.split() == ["home", "global/project", "global/common", "alps", "global/project"]


def test_a_site_file_system_hides_what_the_image_has_there(node: ShifterNode, global_file_systems: Path) -> None:
    node.configure(siteFs=f"{global_file_systems}/home:/srv")
    assert node.script("ls /srv") == "README\n"


def test_opt_udi_image_adds_content_and_the_variables_of_the_reference(
    node: ShifterNode, global_file_systems: Path
) -> None:
    """optUdiImage under its own name and that of the sshd page; siteEnv* as in the examples."""
    for key in ("optUdiImage", "udiImagePath"):
        node.configure(
            f"{key}={global_file_systems}/modules\n", siteEnv="SHIFTER_RUNTIME=1",
            siteEnvAppend="PATH=/opt/udiImage/bin", siteEnvUnset="LOADEDMODULES _LMFILES_",
        )  # fmt: skip
        done = node.run(
            IMAGE, "/bin/sh", "-c", "cat /opt/udiImage/mpich/bin/README; env",
            env={"PATH": "/bin", "LOADEDMODULES": "a:b", "_LMFILES_": "x"},
        )  # fmt: skip
        lines = done.stdout.splitlines()
        assert lines[0] == "modules/mpich/bin"
        assert {"SHIFTER_RUNTIME=1", "PATH=/bin:/opt/udiImage/bin"} < set(lines)
        assert not [line for line in lines if line.startswith(("LOADEDMODULES", "_LMFILES_"))]


def test_the_cvmfs_module(node: ShifterNode, global_file_systems: Path) -> None:
    node.configure(
        f"module_cvmfs_siteFs = {global_file_systems}/cvmfs_nfs:/cvmfs\n"
        "module_cvmfs_siteEnv = SHIFTER_MODULE_CVMFS=1\n"
    )
    show = ("/bin/sh", "-c", "cat /cvmfs/README; printenv SHIFTER_MODULE_CVMFS")
    assert node.run(IMAGE, "--module=cvmfs", *show).stdout == "cvmfs_nfs\n1\n"
    assert node.run(IMAGE, *show).stdout == ""


def test_the_mpich_module_is_on_by_default_and_can_be_switched_off(
    node: ShifterNode, global_file_systems: Path
) -> None:
    mpich = global_file_systems / "modules/mpich"
    (mpich / "bin/init.sh").write_text("#!/bin/sh\necho checked by $(id -u)\n")
    (mpich / "bin/init.sh").chmod(0o755)
    node.configure(
        f"module_mpich_copyPath = {mpich}\n"
        "module_mpich_siteEnvPrepend = LD_LIBRARY_PATH=/opt/udiImage/modules/mpich/lib64\n"
        "module_mpich_userhook = /opt/udiImage/modules/mpich/bin/init.sh\n"
        "defaultModules = mpich\n"
    )
    done = node.run(IMAGE, "printenv", "LD_LIBRARY_PATH")
    assert done.stdout == f"checked by {node.alice.uid}\n/opt/udiImage/modules/mpich/lib64\n"
    assert node.run(IMAGE, "--module=none", "printenv", "LD_LIBRARY_PATH").stdout == ""
    node.configure(f"module_mpich_siteFs = {mpich}:/shifter/mpich\n", defaultModules="mpich")
    assert node.script("cat /shifter/mpich/lib64/README") == "modules/mpich/lib64\n"  # no hook has to make /shifter


def test_a_roothook_finds_the_container_in_its_working_directory(node: ShifterNode) -> None:
    hook = node.add_program("roothook", "#!/bin/sh\necho $(id -u) > etc/from-hook\n[ -e etc/passwd ]\n")
    node.configure(f"module_r_roothook={hook}\n", defaultModules="r")
    assert node.script("cat /etc/from-hook") == "0\n"
    node.add_program("roothook", "#!/bin/sh\nexit 3\n")
    assert node.run(IMAGE, "/bin/true").returncode == 125


def test_data_warp_file_systems_that_come_in_later(node: ShifterNode) -> None:
    """siteFs=/var/opt/cray/dws:/var/opt/cray/dws:rec:slave."""
    top = node.base / "dws"
    (top / "mounts/batch").mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(top), str(top)], check=True)
    subprocess.run(["mount", "--make-shared", str(top)], check=True)
    try:
        node.configure(siteFs=f"{top}:/var/opt/cray/dws:rec:slave")
        running = node.start(IMAGE, "/bin/sh", "-c", "echo in; read go; cat /var/opt/cray/dws/mounts/batch/data")
        assert running.stdout is not None
        assert running.stdout.readline() == "in\n"
        subprocess.run(["mount", "-t", "tmpfs", "dws", str(top / "mounts/batch")], check=True)
        (top / "mounts/batch/data").write_text("burst buffer\n")
        assert running.communicate("go\n", timeout=60)[0] == "burst buffer\n"
    finally:
        subprocess.run(["umount", "-R", str(top)], check=True)
        shutil.rmtree(top)


@pytest.mark.parametrize("spelt", ["ubuntu:14.04", "docker:ubuntu:14.04"])
def test_a_tag_with_and_without_its_type(node: ShifterNode, spelt: str) -> None:
    node.tag("docker", "ubuntu%3A14.04", "base")
    for options, env in ((["--image", spelt], {}), (["-i", spelt], {}), ([], {"SHIFTER": spelt})):
        done = node.run(*options, "/bin/cat", "/etc/os-release", env={"PATH": "/bin", **env})
        assert done.stdout == "NAME=TestImage\n", done.stderr


def test_the_option_overrides_the_environment_whatever_the_batch_system_says(node: ShifterNode) -> None:
    other = node.add_image("other", base_tree(node.base / "other-tree"))
    base = image_id("base")
    batch = {"SLURM_SPANK_SHIFTER_IMAGE": base, "SLURM_SPANK_SHIFTER_IMAGETYPE": "id"}
    own = {"SHIFTER_IMAGE": other, "SHIFTER_IMAGETYPE": "id"}
    show = ("/bin/printenv", "SHIFTER_IMAGE")
    assert node.run(*show, env={**batch}).stdout == f"{base}\n"
    assert node.run(*show, env={**batch, **own}).stdout == f"{other}\n"
    assert node.run(*show, env={**batch, **own, "SHIFTER": f"id:{base}"}).stdout == f"{base}\n"
    assert node.run(f"--image=id:{other}", *show, env={**batch, "SHIFTER": f"id:{base}"}).stdout == f"{other}\n"
    shutil.rmtree(node.base / "other-tree")


def test_a_prepared_environment_is_used_again_and_other_arguments_make_another(node: ShifterNode) -> None:
    volume = "--volume=/srv/data:/input"
    done = node.as_root("setupRoot", "-u", node.alice.name, "-v", "/srv/data:/input", "id", image_id("base"))
    assert done.returncode == 0, done.stderr
    namespace = ("/bin/readlink", "/proc/self/ns/mnt")
    prepared = node.run(IMAGE, volume, *namespace).stdout
    assert node.run(IMAGE, volume, *namespace).stdout == prepared
    assert node.run(*namespace).stdout == prepared  # "use what is already set up"
    assert node.run(IMAGE, *namespace).stdout != prepared


def test_a_local_directory_as_image_when_the_site_allows_it(node: ShifterNode) -> None:
    tree = node.base / "tree"
    assert "allowLocalChroot" in node.run(f"--image=local:{tree}", "/bin/true").stderr
    node.configure(allowLocalChroot="1")
    assert node.run(f"--image=local:{tree}", "/bin/cat", "/etc/os-release").stdout == "NAME=TestImage\n"
    assert node.run("--image=local:/", "/usr/bin/id", "-u").stdout == f"{node.alice.uid}\n"  # what --ccm made


def test_the_parameters_of_the_gpu_installation_page(node: ShifterNode) -> None:
    node.configure("autoLoadKernelModule=0\nsiteResources=/opt/shifter/site-resources\nallowLocalChroot=1\n")
    done = node.run(IMAGE, "/bin/true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_dotfiles_can_tell_that_they_run_in_a_container(node: ShifterNode) -> None:
    node.configure(siteEnv="SHIFTER_RUNTIME=1")
    script = 'if [ -n "$SHIFTER_RUNTIME" ]; then echo container; else echo node; fi'
    assert node.run(IMAGE, "--clearenv", "/bin/sh", "-c", script).stdout == "container\n"


def test_many_start_at_once_without_udi_mount_having_been_made(node: ShifterNode) -> None:
    """The documentation warns of a race here."""
    if node.udi_mount.exists():
        node.udi_mount.rmdir()
    running = [node.start(IMAGE, "/bin/true") for _ in range(16)]
    assert [process.communicate(timeout=60) for process in running] == [("", "")] * 16
    assert [process.returncode for process in running] == [0] * 16
