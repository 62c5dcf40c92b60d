# SPDX-License-Identifier: BSD-3-Clause
"""Weaknesses of the reference (runtime contract, section 22) that no other test names. The rest:

Those of tests/unit, functional, system and security that answer W-1 to W-4, W-10 to W-13, W-15, W-17, W-22 to W-25,
W-29 and W-31 to W-34 say the number; W-14, W-18 and W-19 stand in the files beside this one. In tests/system: W-8,
test_own_directories_of_a_site_mount_can_be_targets; W-9, test_node_cache.py; W-11 and W-12, test_runtime_prepared.py
and test_kills.py; W-14 and W-30, test_sshd_lifetime.py; W-20, test_umask_is_kept; W-35, test_volumes.py; W-36,
test_runtime.py and test_explain.py; W-38, test_a_hook_is_run_by_its_own_interpreter_or_the_shell. W-28: test_sec04 in
tests/security.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.accounts import MARK
from tests.security.attacks import calls_of
from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"


def refused(node: ShifterNode, *arguments: str) -> str:
    done = node.run(IMAGE, *arguments, "/bin/true")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1), done.stderr
    return str(done.stderr)


@pytest.mark.parametrize(("flags", "arrives"), [("rec:slave", True), ("rec:private", False), ("rec", False)])
def test_w5_a_recursive_map_that_is_a_slave_gets_later_mounts(node: ShifterNode, flags: str, arrives: bool) -> None:
    site = node.base / "later"
    (site / "below/deep").mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", f"test-{MARK}", str(site / "below")], check=True)
    try:
        (site / "below/deep").mkdir()
        subprocess.run(["mount", "--make-shared", str(site / "below")], check=True)
        node.configure(siteFs=f"{site}:/site:{flags}")
        running = node.start(IMAGE, "/bin/sh", "-c", "echo ready; read x; ls /site/below/deep")
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        subprocess.run(["mount", "-t", "tmpfs", f"test-{MARK}", str(site / "below/deep")], check=True)
        (site / "below/deep/file").touch()
        assert running.communicate("go\n", timeout=60)[0] == ("file\n" if arrives else "")
    finally:
        subprocess.run(["umount", "-R", str(site / "below")], check=True)


def test_w6_no_name_is_edited_and_no_entry_lost(node: ShifterNode) -> None:
    """Odd names at the top of the image, large files in its /etc, and a source whose name the reference changed."""
    tree = base_tree(node.base / "odd-tree")
    names = ["at@dir", "with blank", "til~de", "equals=", "com,ma", "\u00e4\u00f6", "quote'", "semi;colon", "new\nline"]
    for name in names:
        (tree / name).mkdir()
        (tree / "etc" / f"{name}.conf").write_text(name)
    (tree / "etc/large").write_bytes(b"x" * (6 << 20))
    (tree / "weird").mkdir()
    (tree / "we ird").mkdir()
    (tree / "we ird/right").touch()
    node.add_image("odd", tree)
    shown = node.script("cd /; printf '%s|' *; printf '%s|' etc/*.conf; wc -c < etc/large", image="odd").split("|")
    assert shown[-1] == f"{6 << 20}\n"
    assert set(names) | {f"etc/{name}.conf" for name in names} <= set(shown)
    done = node.run(f"--image=id:{image_id('odd')}", "--volume=/we ird:/x", "/bin/ls", "/x")
    assert done.stdout == "right\n", done.stderr


def test_w7_what_the_site_mounted_cannot_be_covered(node: ShifterNode) -> None:
    site = node.base / "sites"
    (site / "below").mkdir(parents=True, exist_ok=True)
    node.configure(siteFs=f"{site}:/site;{site}:/srv/data")
    for target in ("/site", "/site/below", "/srv/data", "/proc", "/dev", "/sys", "/tmp"):
        assert target in refused(node, f"--volume=/bin:{target}")


def test_w16_metadata_of_images_is_not_talked_about(node: ShifterNode) -> None:
    """USER is in practically every image."""
    node.add_image("talkative", node.base / "tree", 'USER: "1000"\nVOLUME: /data\nSOMETHING: new\n')
    done = node.run(f"--image=id:{image_id('talkative')}", "/bin/true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_w21_a_file_of_variables_is_a_file_of_the_callers(node: ShifterNode, tmp_path: Path) -> None:
    """On the host, with his rights; the container's file of that name is another."""
    place = node.base / "variables"
    place.write_text("ORIGIN=host\n")
    place.chmod(0o644)
    assert node.run(IMAGE, f"--env-file={place}", "/bin/printenv", "ORIGIN").stdout == "host\n"
    place.chmod(0o600)
    assert "Permission denied" in refused(node, f"--env-file={place}")
    assert "No such file" in refused(node, "--env-file=/srv/data/file")


def test_w26_a_start_by_tag_runs_no_other_program(node: ShifterNode) -> None:
    node.tag("docker", "app%3A1", "base")
    made = {name for _process, name, _arguments in calls_of(node, node.command("--image=docker:app:1", "/bin/true"))}
    assert not made & {"fork", "vfork", "clone", "clone3", "execve"}
    assert not (node.base / "bin/shifterimg").exists()  # it could not even be asked


def test_w27_nothing_of_the_hosts_tree_is_mounted_in_the_container(node: ShifterNode) -> None:
    table = [line.split() for line in node.script("cat /proc/self/mountinfo").splitlines()]
    points = {fields[4] for fields in table}
    assert all(point == "/" or point.split("/")[1] in {"proc", "sys", "dev", "tmp", "var"} for point in points), points
    roots = [fields for fields in table if fields[4] == "/"]
    assert len(roots) == 1
    assert roots[0][roots[0].index("-") + 1] == "overlay"


def test_w37_no_failure_waits_for_time_to_pass(node: ShifterNode) -> None:
    log = node.base / "waits"
    for arguments in ([IMAGE, "--volume=/no/such:/x"], [f"--image=id:{'0' * 64}"], [IMAGE, "--module=nosuch"]):
        trace = ["strace", "-f", "-o", str(log), "-e", "trace=nanosleep,clock_nanosleep,poll,ppoll,select,pselect6"]
        command = [*trace, "-u", node.alice.name, *node.command(*arguments, "/bin/true")]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd="/")
        assert done.returncode == 125, done.stderr
        waits = [line for line in log.read_text().splitlines() if "(" in line]
        assert all("poll([{fd=0" in line and ", 0)" in line for line in waits), waits  # are 0 to 2 open?
    log.unlink()


def test_w39_what_is_not_the_images_has_a_bound(node: ShifterNode) -> None:
    made = calls_of(node, node.command(IMAGE, "/bin/true"))
    scratch = [arguments for _process, name, arguments in made if name == "mount" and '"tmpfs"' in arguments]
    assert len(scratch) == 1
    assert "size=" in scratch[0]
    assert "nr_inodes=" in scratch[0]
    tree = base_tree(node.base / "etc-tree")
    (tree / "etc/large").write_bytes(os.urandom(1 << 20) * 300)  # more than the bound: it is not copied
    node.add_image("large-etc", tree)
    assert node.script("wc -c < /etc/large", image="large-etc") == f"{300 << 20}\n"


def test_w40_an_environment_whose_plan_only_begins_alike_is_another(node: ShifterNode) -> None:
    """The reference compared as much of the state file as it had itself."""
    site = node.base / "plain"
    site.mkdir(exist_ok=True)
    node.configure(siteFs=f"{site}:/site")
    maps = "/srv/data:/x;/srv/data:/y"
    prepared = node.as_root("setupRoot", "-u", node.alice.name, "-v", maps, "id", image_id("base"))
    assert prepared.returncode == 0, prepared.stderr
    command = node.command(IMAGE, "--volume=/srv/data:/x", "/bin/true")
    assert "setns" not in {name for _process, name, _arguments in calls_of(node, command)}
    same = node.command(IMAGE, f"--volume={maps}", "/bin/true")
    assert "setns" in {name for _process, name, _arguments in calls_of(node, same)}
    plan = next(node.state.glob("*/*/plan"))
    whole = plan.read_bytes()
    for changed in (whole[:-1], whole + b"\n", whole[: len(whole) // 2], b""):
        plan.write_bytes(changed)
        assert "setns" not in {name for _process, name, _arguments in calls_of(node, same)}
