# SPDX-License-Identifier: BSD-3-Clause
"""Site modules: who chooses them, what they bring along, and that a prepared container is one of the same modules."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from tests.shifternode import ShifterNode, image_id

IMAGE = f"--image=id:{image_id('base')}"
STATE = ["/bin/cat", "/var/shifterConfig.json"]
MODULES = """
module_one_siteEnv=ONE=1 LAST=one
module_two_siteEnv=TWO=2 LAST=two
module_old_enabled=0
module_old_siteEnv=OLD=1
module_rival_conflict=two
module_with_under_score_siteEnv=UNDER=1
"""


def active(node: ShifterNode, *options: str, env: Mapping[str, str] | None = None) -> str:
    """The state file's word on modules."""
    done = node.run(IMAGE, *options, *STATE, env={"PATH": "/bin", **(env or {})})
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["modules"])


def refusal(node: ShifterNode, *options: str, env: Mapping[str, str] | None = None) -> str:
    return node.refused(IMAGE, *options, "/bin/true", env={"PATH": "/bin", **(env or {})})


def test_what_is_chosen_replaces_the_defaults(node: ShifterNode) -> None:
    node.configure(MODULES, defaultModules="one")
    assert active(node) == "one,"
    assert active(node, "--module=two,with_under_score") == "two,with_under_score,"
    assert active(node, "-m", "two", "-m", "two, one ,two") == "two,one,"
    assert active(node, "--module=none") == active(node, "--module=NONE") == ""
    node.configure(MODULES)
    assert active(node) == ""


def test_the_option_goes_over_the_variables_and_these_over_the_defaults(node: ShifterNode) -> None:
    node.configure(MODULES, defaultModules="one")
    own, slurm = {"SHIFTER_MODULE": "two"}, {"SLURM_SPANK_SHIFTER_MODULE": "with_under_score"}
    assert active(node, env=slurm) == "with_under_score,"
    assert active(node, env=own | slurm) == "two,"
    assert active(node, "--module=one", env=own | slurm) == "one,"
    assert active(node, env={"SHIFTER_MODULE": "none"}) == ""
    assert active(node, env={"SHIFTER_MODULE": ""}) == "one,"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("nothing", "there is no module 'nothing'; this site has: one, two, rival, with_under_score"),
        ("one,old", "module 'old' is not enabled"),
        ("two,rival", "modules 'two' and 'rival' conflict"),
        ("rival,one,two", "modules 'rival' and 'two' conflict"),
        ("none,one", "there is no module 'none'"),
        (" , ", "' , ' names no module"),
        ("one/../two", "there is no module 'one/../two'"),
        ("\x1b[31m", "there is no module '?[31m'"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_the_reason(node: ShifterNode, asked: str, words: str) -> None:
    node.configure(MODULES)
    assert f"shifter: --module: {words}" in refusal(node, f"--module={asked}")
    assert f"shifter: SHIFTER_MODULE: {words}" in refusal(node, env={"SHIFTER_MODULE": asked})
    done = node.as_root("setupRoot", "-u", node.alice.name, "-m", asked, "id", image_id("base"))
    assert done.returncode == 1
    assert words in done.stderr


def test_an_empty_option_is_a_variable_of_a_script_that_was_not_set(node: ShifterNode) -> None:
    assert "--module has an empty value" in refusal(node, "--module=")


def test_module_variables_come_after_the_users_and_before_the_sites(node: ShifterNode) -> None:
    node.configure(
        "module_m_siteEnv=PATH=/modpath GONE=module\nmodule_m_siteEnvAppend=PATH=/modapp\n"
        "module_m_siteEnvPrepend=PATH=/modpre\nmodule_m_siteEnvUnset=USERS\n" + MODULES,
        siteEnvAppend="PATH=/opt/udiImage/bin", siteEnvUnset="GONE",
    )
    shown = node.run(
        *(IMAGE, "--clearenv", "--module=m,one,two"),
        *("-e", "PATH=/userpath", "-e", "USERS=1", "-e", "LAST=user", "/bin/env"),
    ).stdout
    found = dict(line.split("=", 1) for line in shown.splitlines())
    assert found["PATH"] == "/modpre:/modpath:/modapp:/opt/udiImage/bin"
    assert (found["ONE"], found["TWO"], found["LAST"]) == ("1", "2", "two")
    assert not {"GONE", "USERS"} & found.keys()


def test_mounts_of_modules_come_after_the_sites(node: ShifterNode) -> None:
    site = node.base / "module-site"
    for name in ("site", "first", "second"):
        (site / name).mkdir(parents=True, exist_ok=True)
        (site / name / name).write_text(f"{name}\n")
    node.configure(
        f"module_a_siteFs={site}/first:/mnt/first:ro\nmodule_a_siteFs={site}/first:/srv/data\n"
        f"module_b_siteFs={site}/second:/srv/data",
        siteFs=f"{site}/site:/srv/data",
    )
    for modules, shown in (("none", "site"), ("a", "first"), ("b", "second"), ("a,b", "second"), ("b,a", "first")):
        done = node.run(IMAGE, f"--module={modules}", "/bin/ls", "/srv/data")
        assert done.stdout == f"{shown}\n", (modules, done.stderr)
    assert node.run(IMAGE, "--module=a", "/bin/ls", "/mnt/first").stdout == "first\n"


def test_a_cache_of_a_module_is_refused_only_when_the_module_is_active(node: ShifterNode) -> None:
    node.configure("module_c_siteFs=/tmp:/cache:perNodeCache=size=300M")
    assert active(node) == ""
    assert "perNodeCache" in refusal(node, "--module=c")


def test_a_prepared_container_is_entered_by_those_who_want_its_modules(node: ShifterNode) -> None:
    node.configure(MODULES, defaultModules="one")
    done = node.as_root(
        "setupRoot", "-u", node.alice.name, "-m", "two,one", "-N", "here/1", "id", image_id("base")
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((node.udi_mount / "var/shifterConfig.json").read_text())["modules"] == "two,one,"
    look = ["/bin/sh", "-c", "test -e /var/hostsfile && echo prepared || echo own"]
    for modules, expected in (("two,one", "prepared"), ("one,two", "own"), ("two", "own"), ("none", "own")):
        assert node.run(IMAGE, f"--module={modules}", *look).stdout == f"{expected}\n", modules
    assert node.run(IMAGE, *look).stdout == "own\n"


def test_setup_without_modules_prepares_the_default_ones(node: ShifterNode) -> None:
    node.configure(MODULES, defaultModules="one")
    for options, expected in ((["-m", ""], "one,"), ([], "one,"), (["-m", "none"], "")):
        done = node.as_root("setupRoot", "-V", "-u", node.alice.name, *options, "id", image_id("base"))
        assert done.returncode == 0, done.stderr
        assert f"\nmodules {expected}\n" in done.stdout
