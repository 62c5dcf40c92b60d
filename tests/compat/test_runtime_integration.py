# SPDX-License-Identifier: BSD-3-Clause
"""The reference's integration tests (runtime contract, section 20, "Integration"): a real registry, gateway and client,
and the installed `shifter`. Each test is named after its line there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.registryserver import Pushed, RegistryServer
from tests.shifternode import base_tree
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
