# SPDX-License-Identifier: BSD-3-Clause
"""GPUs and MPI as docs/gpu-mpi.md has them: directories of extra/build-module, the modules of udiRoot.conf.example."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import ROOT
from tests.shifternode import ShifterNode, base_tree, image_id
from udiroot.check import check

IMAGE = f"--image=id:{image_id('mpi')}"
BUILDER = str(ROOT / "extra/build-module")
SAYS = 'const char *{0}(void); const char *{0}(void) {{ return "{1}"; }}'


def build(*arguments: str, path: str = "/usr/bin:/bin", libraries: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{path}:/usr/sbin:/sbin", "LD_LIBRARY_PATH": libraries}
    return subprocess.run([BUILDER, *arguments], check=False, capture_output=True, text=True, env=environment)


def lines_of_example(name: str, **places: Path) -> str:
    """The lines of a module as the example has them, with other directories."""
    text = (ROOT / "udiRoot.conf.example").read_text()
    lines = re.findall(rf"^#(module_{name}_(?:copyPath|siteEnvPrepend)=.*)$", text, re.MULTILINE)
    assert len(lines) == 2
    return "".join(re.sub("(?<=copyPath=).*", str(places[name]), line) + "\n" for line in lines)


def compile_c(target: Path, code: str, *options: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-x", "c", "-", "-x", "none", "-o", str(target), *options]
    subprocess.run(command, input=code, text=True, check=True)


def library(target: Path, code: str, *options: str) -> None:
    compile_c(target, code, "-shared", "-fPIC", f"-Wl,-soname,{target.name}", *options)


@pytest.fixture
def machine(node: ShifterNode) -> Iterator[Path]:
    """The site's MPI, its fabric library and a driver in a directory of root's; an image with a plain MPI."""
    site = node.base / "site"
    library(site / "fabric/libfabric.so.1", SAYS.format("fabric", "interconnect"))
    uses_fabric = "const char *fabric(void); const char *mpi(void); const char *mpi(void) { return fabric(); }"
    library(site / "mpi/libmpi.so.12", uses_fabric, str(site / "fabric/libfabric.so.1"))
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        library(site / "driver" / name, "")
    smi = site / "programs/nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho GPU $CUDA_VISIBLE_DEVICES\n")
    smi.chmod(0o4755)
    tree = base_tree(node.base / "mpi-tree")
    library(tree / "usr/lib/libmpi.so.12", SAYS.format("mpi", "plain"))
    program = '#include <stdio.h>\nconst char *mpi(void); int main(void) { return puts(mpi()) < 0; }'
    compile_c(tree / "bin/hello", program, str(tree / "usr/lib/libmpi.so.12"))
    node.add_image("mpi", tree, "ENV: LD_LIBRARY_PATH=/usr/lib\nENV: PATH=/bin\n")
    yield site
    shutil.rmtree(site)
    shutil.rmtree(tree)


def test_the_sites_mpi_takes_the_place_of_the_images(node: ShifterNode, machine: Path) -> None:
    target, fabric = machine / "mpich", str(machine / "fabric")
    for _again in range(2):
        done = build("mpi", str(target), str(machine / "mpi/libmpi.so.12"), libraries=fabric)
        assert (done.returncode, done.stdout) == (0, f"{target}: 1 libraries, and 1 that they need\n"), done.stderr
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*.so*")) == [
        "lib64/dep/libfabric.so.1", "lib64/libmpi.so.12",
    ]  # fmt: skip
    assert sorted(machine.iterdir()) == sorted({*machine.iterdir(), target})
    assert not list(machine.glob(".*"))
    node.configure(lines_of_example("mpich", mpich=target), defaultModules="mpich")
    assert [problem for problem in check(node.conf, installed=True) if problem.key.startswith("module_")] == []
    assert node.run(IMAGE, "hello").stdout == "interconnect\n"
    assert node.run(IMAGE, "--module=none", "hello").stdout == "plain\n"
    assert "Read-only" in node.run(IMAGE, "touch", "/opt/udiImage/modules/mpich/x").stderr


def test_the_nodes_driver_and_its_programs(node: ShifterNode, machine: Path) -> None:
    driver, programs, target = machine / "driver", machine / "programs", machine / "gpu"
    (programs / "ldconfig").write_text(
        "#!/bin/sh\necho '4 libs found in cache'\n"
        f"echo '\tlibcuda.so.1 (libc6,x86-64) => {driver}/libcuda.so.1'\n"
        f"echo '\tlibcuda.so.1 (libc6) => {driver}/libcuda.so.1'\n"
        f"echo '\tlibnvidia-ml.so.1 (libc6,x86-64) => {driver}/libnvidia-ml.so.1'\n"
        "echo '\tlibc.so.6 (libc6,x86-64) => /lib/libc.so.6'\n"
    )
    (programs / "ldconfig").chmod(0o755)
    done = build("gpu", str(target), path=f"{programs}:/usr/bin:/bin")
    assert (done.returncode, done.stdout) == (0, f"{target}: 3 libraries of the driver\n"), done.stderr
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == [
        "bin/nvidia-smi", "lib/libcuda.so.1", "lib64/libcuda.so.1", "lib64/libnvidia-ml.so.1",
    ]  # fmt: skip
    assert (target / "bin/nvidia-smi").stat().st_mode & 0o7777 == 0o755
    node.configure(lines_of_example("gpu", gpu=target), defaultModules="gpu")
    done = node.run(IMAGE, "nvidia-smi", env={"CUDA_VISIBLE_DEVICES": "0,1"})
    assert (done.stdout, done.stderr) == ("GPU 0,1\n", "")
    place = "/opt/udiImage/modules/gpu"
    assert node.run(IMAGE, "printenv", "LD_LIBRARY_PATH").stdout == f"{place}/lib64:{place}/lib:/usr/lib\n"
    assert node.run(IMAGE, "ls", f"{place}/lib64").stdout == "libcuda.so.1\nlibnvidia-ml.so.1\n"


def test_a_node_without_a_driver_starts_with_the_same_configuration(node: ShifterNode, machine: Path) -> None:
    target = machine / "gpu"
    done = build("gpu", str(target))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in target.iterdir()) == ["bin", "lib", "lib64"]
    node.configure(lines_of_example("gpu", gpu=target), defaultModules="gpu")
    assert node.run(IMAGE, "hello").stdout == "plain\n"


def test_what_cannot_be_built_leaves_what_was_there(machine: Path) -> None:
    target = machine / "mpich"
    done = build("mpi", str(target), str(machine / "mpi/libmpi.so.12"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "libfabric.so.1, not found here" in done.stderr or "libfabric.so.1" in done.stderr
    done = build("mpi", str(target), "/no/libmpi.so.12")
    assert (done.returncode, "/no/libmpi.so.12 is no file" in done.stderr) == (1, True)
    done = build("gpu", str(machine / "mpi"))
    assert (done.returncode, "was not made by build-module" in done.stderr) == (1, True)
    assert (machine / "mpi/libmpi.so.12").exists()
    assert not target.exists()
    assert not list(machine.glob(".*"))
    assert build("gpu").returncode == 2
