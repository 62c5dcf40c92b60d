# SPDX-License-Identifier: BSD-3-Clause
"""The reference's integration tests (runtime contract, section 20, "Integration"): a real registry, gateway and client,
and the installed `shifter`. Each test is named after its line there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.installation import ROOT
from tests.registryserver import Pushed, RegistryServer
from tests.shifternode import ShifterNode, base_tree, image_id
from tests.site import Site


@pytest.fixture(scope="module")
def image(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Pushed:
    tree = base_tree(tmp_path_factory.mktemp("image") / "tree")
    layer = subprocess.run(["tar", "-C", str(tree), "-cf", "-", "."], check=True, capture_output=True).stdout
    return registry.push_image("compat/ubuntu", "16.04", [layer], config={"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]})


@pytest.fixture(scope="module")
def pulled(module_site: Site, image: Pushed) -> Iterator[tuple[Site, str]]:
    """The centre after `shifterimg pull`, and how its users name the image."""
    module_site.clear()
    module_site.configure()
    module_site.start()
    reference = f"docker:{module_site.name}/compat/ubuntu:16.04"
    done = module_site.shifterimg("pull", reference)
    assert done.returncode == 0, done.stderr + module_site.log.read_text()
    yield module_site, reference
    module_site.stop()


def run(pulled: tuple[Site, str], *command: str) -> str:
    site, reference = pulled
    done = site.shifter(f"--image={reference}", *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pull_lookup_run_echo(pulled: tuple[Site, str], image: Pushed) -> None:
    site, reference = pulled
    assert site.shifterimg("lookup", reference).stdout == f"{image.id}\n"
    assert run(pulled, "sh", "-c", "echo hello world") == "hello world\n"


def test_shifter_config_json_has_exactly_the_documented_text(pulled: tuple[Site, str], image: Pushed) -> None:
    expected = f'{{"identifier":"{image.id}","user":"{pulled[0].alice.name}","volMap":"","modules":""}}\n'
    assert run(pulled, "cat", "/var/shifterConfig.json") == expected


def test_all_five_capability_sets_are_zero(pulled: tuple[Site, str]) -> None:
    lines = [line.split() for line in run(pulled, "grep", "^Cap", "/proc/self/status").splitlines()]
    assert lines == [[f"Cap{name}:", "0" * 16] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")]


def test_mtab_links_to_proc_mounts(pulled: tuple[Site, str]) -> None:
    assert run(pulled, "readlink", "/etc/mtab") == "/proc/mounts\n"
    assert " / overlay " in run(pulled, "cat", "/etc/mtab")


def test_the_users_getent_line_is_in_etc_passwd(pulled: tuple[Site, str]) -> None:
    """With populateEtcDynamically; the password field is always x."""
    getent = ["getent", "passwd", pulled[0].alice.name]
    line = subprocess.run(getent, check=True, capture_output=True, text=True).stdout
    assert line in run(pulled, "cat", "/etc/passwd")


def test_explain_of_the_installed_programs(pulled: tuple[Site, str], image: Pushed) -> None:
    """What `shifter` tells, the `udiroot` that was installed with it reads."""
    site, reference = pulled
    done = site.shifter("--explain=json", f"--image={reference}")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["image"], told["request"], told["prepared"]) == (image.id, reference, False)
    assert "prepared   no: the container is built\n" in run(pulled, "--explain")


# GPU. The reference's shell script bound the driver when CUDA_VISIBLE_DEVICES named a device. Here a module does, of
# which that variable decides nothing: nobody's container without it has anything, everybody's with it has all.

GPU = "/opt/udiImage/modules/gpu"
DEVICES: list[dict[str, str]] = [
    {} if value is None else {"CUDA_VISIBLE_DEVICES": value} for value in (None, "", "NoDevFiles", "0", "1", "0,1")
]
LOOK = f"echo ${{CUDA_VISIBLE_DEVICES-unset}}; echo $PATH; echo $LD_LIBRARY_PATH; cat {GPU}/lib*/* && nvidia-smi"


@pytest.fixture
def gpu_node(node: ShifterNode) -> Iterator[ShifterNode]:
    """A node with a driver, its module made and configured as docs/gpu-mpi.md says, for who asks for it."""
    driver, target = node.base / "driver", node.base / "gpu"
    driver.mkdir()
    (driver / "libcuda.so.1").write_text("64 bits\n")
    (driver / "libcuda-32.so.1").write_text("32 bits\n")
    programs = {
        "nvidia-smi": "echo GPU",
        "ldconfig": f"echo ' libcuda.so.1 (libc6,x86-64) => {driver}/libcuda.so.1'\n"
        f"echo ' libcuda.so.1 (libc6) => {driver}/libcuda-32.so.1'",
    }
    for name, text in programs.items():
        (driver / name).write_text(f"#!/bin/sh\n{text}\n")
        (driver / name).chmod(0o755)
    builder = [str(ROOT / "extra/build-module"), "gpu", str(target)]
    subprocess.run(builder, check=True, env={"PATH": f"{driver}:/usr/bin:/bin"})
    page = (ROOT / "docs/gpu-mpi.md").read_text()
    lines = re.findall(r"^module_gpu_(?:copyPath=.*|siteEnvPrepend=.*udiImage.*)$", page, re.MULTILINE)
    node.configure("".join(f"{line}\n" for line in lines).replace("=/opt/shifter/gpu\n", f"={target}\n"))
    yield node
    node.configure()
    shutil.rmtree(driver)
    shutil.rmtree(target)


@pytest.mark.parametrize("devices", DEVICES, ids=[device.get("CUDA_VISIBLE_DEVICES") for device in DEVICES])
def test_gpu_libraries_and_programs_are_there_with_the_module_alone(
    gpu_node: ShifterNode, devices: dict[str, str]
) -> None:
    seen = devices.get("CUDA_VISIBLE_DEVICES", "unset")
    image, environment = f"--image=id:{image_id('base')}", {"PATH": "/bin", **devices}
    done = gpu_node.run(image, "/bin/sh", "-c", LOOK, env=environment)
    assert (done.returncode, done.stdout) == (1, f"{seen}\n/bin\n\n")
    done = gpu_node.run(image, "--module=gpu", "/bin/sh", "-c", LOOK, env=environment)
    expected = f"{seen}\n{GPU}/bin:/bin\n{GPU}/lib64:{GPU}/lib\n32 bits\n64 bits\nGPU\n"
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
