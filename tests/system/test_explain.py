# SPDX-License-Identifier: BSD-3-Clause
"""`shifter --explain` says what a start then does, without any right and without doing it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.installation import ROOT
from tests.shifternode import ShifterNode, host_mounts, image_id

IMAGE = f"--image=id:{image_id('explained')}"


@pytest.fixture
def tool(node: ShifterNode) -> Iterator[Path]:
    """`udiroot`, where `make install` puts it, with a copy of the package; any interpreter will do."""
    library = node.base / "lib"
    shutil.copytree(ROOT / "udiroot", library / "udiroot", ignore=shutil.ignore_patterns("src", "__pycache__"))
    program = node.base / "sbin/udiroot"
    program.parent.mkdir()
    program.write_text(
        f"#!{Path(sys.executable).resolve()} -I\nimport sys\nsys.path.insert(0, {str(library)!r})\n"
        "from udiroot.cli import main\nmain()\n"
    )
    program.chmod(0o755)
    yield program
    shutil.rmtree(program.parent)
    shutil.rmtree(library)


@pytest.fixture
def site(node: ShifterNode) -> Iterator[ShifterNode]:
    """Every source of variables and mounts."""
    node.add_image("explained", node.base / "tree", "ENV: PATH=/bin\nENV: IMG=image\nWORKDIR: /srv/data\n")
    node.configure(
        "module_m_siteEnvPrepend=PATH=/modpre\nmodule_m_siteEnv=MOD=1\nmodule_m_siteFs=/usr/share:/from/module:ro\n",
        siteFs="/usr/share:/share:rec:slave", siteEnv="SITE=site", siteEnvAppend="PATH=/site ADDED=x",
        siteEnvUnset="GONE",
    )  # fmt: skip
    file = node.base / "variables"
    file.write_text("FILE=file\n")
    file.chmod(0o644)
    yield node
    file.unlink()


def arguments(node: ShifterNode) -> list[str]:
    return [
        IMAGE, "--module=m", "--env=OPT=1", f"--env-file={node.base / 'variables'}", "--keepenv=TMPDIR",
        "--volume=/srv/data:/vol", "--workdir",
    ]  # fmt: skip


OUTER = {"PATH": "/usr/bin", "GONE": "1", "OUTER": "x", "TMPDIR": "/t", "LD_PRELOAD": "/no.so", "NL": "a\nb"}


def explained(node: ShifterNode, *command: str) -> dict[str, Any]:
    done = node.run(*arguments(node), "--explain=json", *command, env=OUTER)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.usefixtures("tool")
def test_the_environment_is_the_commands_and_every_variable_has_its_origin(site: ShifterNode) -> None:
    told = explained(site, "/bin/env", "-0")
    real = site.run(*arguments(site), "/bin/env", "-0", env=OUTER)
    variables = dict(item.split("=", 1) for item in real.stdout.split("\0") if item)
    assert {name: variable["value"] for name, variable in told["environment"].items()} == variables
    assert {name: variable["origins"] for name, variable in told["environment"].items()} == {
        "PATH": ["module_m_siteEnvPrepend", "image", "siteEnvAppend"], "OUTER": ["caller"], "NL": ["caller"],
        "TMPDIR": ["--keepenv"], "IMG": ["image"], "FILE": ["--env-file"], "OPT": ["--env"], "ADDED": ["siteEnvAppend"],
        "MOD": ["module_m_siteEnv"], "SITE": ["siteEnv"], "SHIFTER_IMAGE": ["shifter"],
        "SHIFTER_IMAGEREQUEST": ["shifter"],
    }  # fmt: skip
    assert told["command"] == ["/bin/env", "-0"]
    assert (told["workdir"], told["modules"], told["user"]) == ("/srv/data", ["m"], site.alice.name)
    assert (told["image"], told["request"]) == (image_id("explained"), f"id:{image_id('explained')}")


@pytest.mark.usefixtures("tool")
def test_the_mounts_are_the_containers_in_their_order(site: ShifterNode) -> None:
    told = explained(site)["mounts"]
    targets = [step["target"] for step in told if step["kind"] in ("bind", "proc", "volume")]
    assert targets.index("/share") < targets.index("/from/module") < targets.index("/tmp")
    assert all(step["reason"] for step in told)
    share = next(step for step in told if step["target"] == "/share")
    assert (share["source"], share["reason"]) == ("/usr/share", "siteFs")
    assert {"nosuid", "nodev", "rec", "slave"} == set(share["flags"])
    real = site.run(*arguments(site), "/bin/cat", "/proc/self/mountinfo", env=OUTER).stdout
    points = [line.split()[4] for line in real.splitlines()]
    assert "/vol" in points
    assert set(targets) - {"/"} <= set(points)
    assert {"/share", "/from/module", "/vol", "/proc", "/dev", "/sys", "/tmp"} <= set(targets)


@pytest.mark.usefixtures("tool")
def test_it_says_whether_such_a_container_is_prepared(site: ShifterNode) -> None:
    def asked(*options: str) -> tuple[bool, str]:
        told = json.loads(site.run(IMAGE, "--explain=json", *options).stdout)
        text = site.run(IMAGE, "--explain", *options).stdout
        return told["prepared"], next(line for line in text.splitlines() if line.startswith("prepared "))

    assert asked() == (False, "prepared   no: the container is built")
    done = site.as_root("setupRoot", "-u", site.alice.name, "-m", "m", "id", image_id("explained"))
    assert done.returncode == 0, done.stderr
    assert asked("--module=m") == (True, "prepared   yes: the container is entered as it is")
    assert asked()[0] is False
    assert asked("--module=m", "--volume=/srv/data:/vol")[0] is False
    unnamed = json.loads(site.run("--explain=json").stdout)  # nothing but what is prepared
    assert (unnamed["prepared"], unnamed["image"], unnamed["modules"]) == (True, image_id("explained"), ["m"])
    as_eve = json.loads(site.run(IMAGE, "--explain=json", "--module=m", user=site.eve).stdout)
    assert as_eve["prepared"] is False


@pytest.mark.usefixtures("tool")
def test_without_a_command_it_names_both_shells(site: ShifterNode) -> None:
    done = site.run(IMAGE, "--explain=json", env={"SHELL": "/bin/zsh"})
    told = json.loads(done.stdout)
    assert (told["shell"], told["command"]) == ("/bin/zsh", ["/bin/sh"])
    text = site.run(IMAGE, "--explain", env={"SHELL": "/bin/zsh"}).stdout
    assert "command    /bin/zsh, or where the container lacks it /bin/sh\n" in text
    assert json.loads(site.run(IMAGE, "--explain=json", "/bin/true", env={"SHELL": "/bin/zsh"}).stdout)["shell"] == ""


@pytest.mark.usefixtures("tool")
def test_text_for_people(site: ShifterNode) -> None:
    done = site.run(*arguments(site), "--explain", "/bin/echo", "a", env=OUTER)
    assert (done.returncode, done.stderr) == (0, "")
    assert "command    /bin/echo a\n" in done.stdout
    assert "/usr/share -> /share [nosuid nodev rec slave]: siteFs\n" in done.stdout
    assert "  PATH=/modpre:/bin:/site [module_m_siteEnvPrepend, image, siteEnvAppend]\n" in done.stdout
    assert "  NL=a\\nb [caller]\n" in done.stdout


def test_what_explains_has_no_right_and_no_descriptor(site: ShifterNode, tool: Path) -> None:
    tool.write_text("#!/bin/sh\ncat /proc/self/status; ls /proc/self/fd; umask; exit 7\n")
    done = site.run(*arguments(site), "--explain", env={**OUTER, "PATH": "/usr/bin:/bin"})
    assert done.returncode == 7, done.stderr
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    assert status["Uid"].split() == [str(site.alice.uid)] * 4
    assert status["Gid"].split() == [str(site.alice.gid)] * 4
    assert [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4
    assert done.stdout.split()[-5:-1] == ["0", "1", "2", "3"]  # 3 is that of ls


def test_nothing_is_mounted(site: ShifterNode, tool: Path) -> None:
    before, trace = host_mounts(), site.base / "trace"
    tool.write_text("#!/bin/sh\nexit 0\n")
    calls = "mount,umount2,unshare,setns,pivot_root,chroot,open_tree,move_mount,fsopen,mount_setattr,mkdir,mkdirat"
    command = site.command(*arguments(site), "--explain")
    subprocess.run(
        ["strace", "-f", "-o", str(trace), "-e", f"trace={calls},execve", "-u", site.alice.name, *command],
        check=True, cwd="/", env=OUTER,
    )
    lines = trace.read_text().split("execve(")
    assert len(lines) == 3  # shifter, the tool
    done = [line for line in lines[1].splitlines()[1:] if "exited" not in line and "+++" not in line]
    assert [line for line in done if not line.rstrip().isdigit()] == []
    assert host_mounts() == before
    trace.unlink()


@pytest.mark.usefixtures("tool")
def test_an_explanation_needs_the_same_rights_as_a_start(site: ShifterNode) -> None:
    site.add_image("hers", site.base / "tree", f"USERACL: {site.eve.uid}\nENV: SECRET=1\n")
    for spec in (f"id:{image_id('hers')}", "id:" + "0" * 64, "docker:not/there"):
        done = site.run(f"--image={spec}", "--explain=json")
        assert (done.returncode, done.stdout) == (125, "")
        assert "SECRET" not in done.stderr
    allowed = site.run(f"--image=id:{image_id('hers')}", "--explain=json", user=site.eve)
    assert json.loads(allowed.stdout)["environment"]["SECRET"]["origins"] == ["image"]
    assert site.run("--explain").returncode == 125
