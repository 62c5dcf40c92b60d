# SPDX-License-Identifier: BSD-3-Clause
"""`shifter` for real: a setuid program, an unprivileged user, the kernel's loop devices, squashfs and overlayfs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.shifternode import ShifterNode, base_tree, image_id

IMAGE = f"--image=id:{image_id('base')}"


def test_the_command_sees_the_image(node: ShifterNode) -> None:
    assert node.script("cat /etc/os-release; cat /srv/data/file") == "NAME=TestImage\nfrom the image\n"


def test_the_command_runs_as_the_caller(node: ShifterNode) -> None:
    fields = node.script("id -u; id -g; id -G").split("\n")
    assert fields[:2] == [str(node.alice.uid), str(node.alice.gid)]
    assert fields[2].split() == [str(node.alice.gid)]


def test_no_privilege_is_left(node: ShifterNode) -> None:
    status = dict(line.split(":\t", 1) for line in node.script("cat /proc/self/status").splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == [str(node.alice.uid)] * 4
    assert status["Gid"].split() == [str(node.alice.gid)] * 4


def test_the_command_takes_the_place_of_the_launcher(node: ShifterNode) -> None:
    process = subprocess.Popen(
        node.command(IMAGE, "/bin/sh", "-c", "echo $$; cat /proc/$$/stat"),
        user=node.alice.uid, group=node.alice.gid, extra_groups=[], stdout=subprocess.PIPE, text=True, cwd="/",
    )
    output = process.communicate(timeout=60)[0].splitlines()
    assert output[0] == str(process.pid)
    assert output[1].split()[3] == str(os.getpid())


@pytest.mark.parametrize("status", [0, 1, 7, 125, 255])
def test_exit_status_passes_through(node: ShifterNode, status: int) -> None:
    assert node.run(IMAGE, "/bin/sh", "-c", f"exit {status}").returncode == status


def test_death_by_signal_passes_through(node: ShifterNode) -> None:
    assert node.run(IMAGE, "/bin/sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_a_command_that_is_not_there_is_127(node: ShifterNode) -> None:
    done = node.run(IMAGE, "/bin/nothing")
    assert done.returncode == 127
    assert "/bin/nothing" in done.stderr


def test_a_command_that_cannot_be_executed_is_126(node: ShifterNode) -> None:
    done = node.run(IMAGE, "/etc/os-release")
    assert done.returncode == 126
    assert "Permission denied" in done.stderr


def test_errors_before_the_command_are_125_and_leave_stdout_clean(node: ShifterNode) -> None:
    for arguments in (["--image=id:" + "0" * 64, "true"], ["--image=id:xyz", "true"], ["--nonsense"], []):
        done = node.run(*arguments)
        assert (done.returncode, done.stdout) == (125, ""), arguments
        assert done.stderr.startswith("shifter: ")


def test_version_and_help_need_no_image(node: ShifterNode) -> None:
    assert node.run("--version").stdout.startswith("shifter ")
    assert "--image" in node.run("--help").stdout


def test_umask_is_kept(node: ShifterNode) -> None:
    assert node.script("umask", preexec_fn=lambda: os.umask(0o027)) == "0027\n"


def test_the_callers_directory_is_kept_when_the_container_has_it(node: ShifterNode) -> None:
    assert node.script("pwd", cwd="/tmp") == "/tmp\n"
    assert node.script("pwd", cwd="/etc") == "/etc\n"
    assert node.script("pwd", cwd="/usr/share") == "/\n"


def test_workdir_options(node: ShifterNode) -> None:
    node.add_image("placed", node.base / "tree", "WORKDIR: /srv/data\n")
    placed = f"--image=id:{image_id('placed')}"
    show = ["/bin/sh", "-c", "pwd"]
    assert node.run(placed, *show).stdout == "/\n"
    assert node.run(placed, "--workdir", *show).stdout == "/srv/data\n"
    assert node.run(placed, "--workdir=/etc", *show).stdout == "/etc\n"
    missing = node.run(placed, "--workdir=/missing", *show)
    assert missing.stdout == "/\n"
    assert "/missing" in missing.stderr
    assert node.run(IMAGE, "--workdir", *show).returncode == 125


def test_entrypoint_rules(node: ShifterNode) -> None:
    node.add_image("entry", node.base / "tree", "ENTRY: ['/bin/printenv']\nCMD: ['A']\nENV: A=1\nENV: B=2\n")
    entry = f"--image=id:{image_id('entry')}"
    assert node.run(entry, "--entrypoint").stdout == "1\n"
    assert node.run(entry, "--entrypoint", "B").stdout == "2\n"
    assert node.run(entry, "--entrypoint=/bin/true", "B").stdout == ""
    assert node.run(entry, "printenv", "B").stdout == "2\n"
    assert node.run(IMAGE, "--entrypoint").returncode == 125


def test_without_a_command_the_shell_runs(node: ShifterNode) -> None:
    assert node.run(IMAGE, input="echo from the shell\n").stdout == "from the shell\n"


def test_environment_is_applied_in_the_contracts_order(node: ShifterNode, tmp_path: Path) -> None:
    node.configure(siteEnv="BY_SITE=site LAST=site", siteEnvAppend="PATH=/opt/udiImage/bin", siteEnvUnset="GONE")
    node.add_image("env", node.base / "tree", "ENV: PATH=/bin\nENV: IMG=image\nENV: LAST=image\n")
    variables = {"PATH": "/usr/bin", "OUTER": "kept", "IMG": "outer", "GONE": "x", "LAST": "outer"}
    Path("/tmp/shifter-env-file").write_text("# comment\nFILE=file\nBOTH=file\n")
    Path("/tmp/shifter-env-file").chmod(0o644)
    try:
        arguments = [f"--image=id:{image_id('env')}", "--env-file=/tmp/shifter-env-file", "--env=BOTH=option"]
        arguments.append("/bin/env")
        shown = node.run(*arguments, env=variables).stdout
        found = dict(line.split("=", 1) for line in shown.splitlines())
        assert found["PATH"] == "/bin:/opt/udiImage/bin"
        expected = {"OUTER": "kept", "IMG": "image", "LAST": "site", "BY_SITE": "site", "FILE": "file"}
        assert found["BOTH"] == "option"
        assert {name: found.get(name) for name in expected} == expected
        assert "GONE" not in found
        assert found["SHIFTER_IMAGE"] == image_id("env")
        assert found["SHIFTER_IMAGEREQUEST"] == f"id:{image_id('env')}"
        cleared = node.run("--clearenv", *arguments, env=variables).stdout
        assert "OUTER" not in cleared
        assert "BY_SITE=site" in cleared
    finally:
        Path("/tmp/shifter-env-file").unlink()


def test_variables_that_the_loader_takes_away_come_back_on_request(node: ShifterNode) -> None:
    variables = {"PATH": "/bin", "TMPDIR": "/scratch", "LD_LIBRARY_PATH": "/lib/x", "HOME": "/home/x", "OTHER": "1"}

    def shown(*options: str) -> set[str]:
        return set(node.run(IMAGE, *options, "/bin/env", env=variables).stdout.splitlines())

    plain = shown()
    assert {"HOME=/home/x", "OTHER=1"} <= plain
    assert not {"TMPDIR=/scratch", "LD_LIBRARY_PATH=/lib/x"} & plain
    assert shown("--keepenv=TMPDIR,NOT_SET") == plain | {"TMPDIR=/scratch"}
    alone = shown("--clearenv", "--keepenv=HOME", "--keepenv=LD_LIBRARY_PATH")
    assert {"HOME=/home/x", "LD_LIBRARY_PATH=/lib/x"} <= alone
    assert "OTHER=1" not in alone
    # Named by the user, the image or the site, they are variables like all others.
    assert "LD_LIBRARY_PATH=/y" in shown("--keepenv=LD_LIBRARY_PATH", "--env=LD_LIBRARY_PATH=/y", "-eTMPDIR=/z")
    node.configure(siteEnvPrepend="LD_LIBRARY_PATH=/site", siteEnvUnset="TMPDIR")
    assert "LD_LIBRARY_PATH=/site:/lib/x" in shown("--keepenv=LD_LIBRARY_PATH,TMPDIR")
    assert "TMPDIR=/scratch" not in shown("--keepenv=LD_LIBRARY_PATH,TMPDIR")


def test_a_tag_resolves_through_the_index_without_any_other_process(node: ShifterNode, tmp_path: Path) -> None:
    node.tag("docker", "some%2Fbase:v1".replace(":", "%3A"), "base")
    trace = node.base / "trace"
    done = subprocess.run(
        ["strace", "-f", "-o", str(trace), "-e", "trace=execve,fork,vfork,clone,clone3", "-u", node.alice.name,
         *node.command("--image=docker:some/base:v1", "/bin/cat", "/etc/os-release")],
        check=False, capture_output=True, text=True, cwd="/",
    )
    assert (done.returncode, done.stdout) == (0, "NAME=TestImage\n"), done.stderr
    calls = [line.split(" ", 1)[1] for line in trace.read_text().splitlines() if "exited" not in line]
    assert [call.split("(")[0].strip() for call in calls] == ["execve", "execve"]
    trace.unlink()


def test_etc_files_are_the_sites_and_the_rest_the_images(node: ShifterNode) -> None:
    shown = node.script("cat /etc/hosts; readlink /etc/mtab; wc -c /etc/shadow; cat /etc/os-release")
    assert "image hosts" not in shown
    assert "/proc/mounts\n0 /etc/shadow\nNAME=TestImage\n" in shown
    assert node.script("cat /etc/resolv.conf") == Path("/etc/resolv.conf").read_text()
    assert f"{node.alice.name}:x:{node.alice.gid}:{node.alice.name}\n" in node.script("cat /etc/group")
    assert node.script("id -un") == f"{node.alice.name}\n"


def test_dynamic_etc_knows_the_user_and_the_imported_accounts(node: ShifterNode) -> None:
    node.configure(populateEtcDynamically="1", usersToImport="daemon")
    names = [line.split(":")[0] for line in node.script("cat /etc/passwd").splitlines()]
    assert names == [node.alice.name, "root", "daemon"]
    assert node.script("cat /etc/nsswitch.conf").startswith("passwd: files\n")


def test_the_state_file_is_as_the_contract_says(node: ShifterNode) -> None:
    expected = {"identifier": image_id("base"), "user": node.alice.name, "volMap": "", "modules": ""}
    text = node.script("cat /var/shifterConfig.json")
    assert json.loads(text) == expected
    assert text == json.dumps(expected, separators=(",", ":")) + "\n"


def test_proc_sys_dev_and_tmp_are_the_nodes(node: ShifterNode) -> None:
    Path("/tmp/shifter-seen").write_text("tmp of the host\n")
    try:
        assert node.script("cat /tmp/shifter-seen; cat /proc/$$/comm; head -c1 /dev/zero | wc -c; ls /sys") .startswith(
            "tmp of the host\nsh\n1\n"
        )
    finally:
        Path("/tmp/shifter-seen").unlink()


def test_every_mount_is_nosuid_and_nodev_but_dev(node: ShifterNode) -> None:
    for line in node.script("cat /proc/self/mountinfo").splitlines():
        point, options = line.split()[4:6]
        assert "nosuid" in options.split(","), line
        assert "nodev" in options.split(",") or point == "/dev" or point.startswith("/dev/"), line


def test_the_root_is_read_only_unless_configured(node: ShifterNode) -> None:
    done = node.run(IMAGE, "/bin/touch", "/etc/new")
    assert "Read-only" in done.stderr
    tree = node.base / "open-tree"
    base_tree(tree)
    (tree / "scratch").mkdir(mode=0o777)
    (tree / "scratch").chmod(0o1777)
    node.add_image("open", tree)
    node.configure(mountUdiRootWritable="1")
    assert node.script("echo x > /scratch/new; cat /scratch/new", image="open") == "x\n"
    assert not (tree / "scratch/new").exists()


def test_site_mounts_with_flags_files_and_missing_targets(node: ShifterNode) -> None:
    site = node.base / "site"
    for name in ("plain", "locked", "nested/inner"):
        (site / name).mkdir(parents=True, exist_ok=True)
        (site / name).chmod(0o1777)
    (site / "plain/file").write_text("site\n")
    (site / "plain/file").chmod(0o644)
    maps = [f"{site}/plain:/deep/er/plain", f"{site}/locked:/locked:ro", f"{site}/plain/file:/etc/site.conf"]
    node.configure(siteFs=";".join([*maps, f"{site}/nested:/srv/data"]))
    output = node.script(
        "cat /deep/er/plain/file /etc/site.conf; ls /srv/data; touch /deep/er/plain/made;"
        "touch /locked/made || echo locked"
    )
    assert output == "site\nsite\ninner\nlocked\n"
    assert (site / "plain/made").exists()
    assert not Path("/deep").exists()


def test_recursive_site_mounts_bring_their_submounts(node: ShifterNode) -> None:
    site = node.base / "tree-with-mounts"
    (site / "sub").mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(site / "sub")], check=True)
    try:
        (site / "sub/file").write_text("below\n")
        node.configure(siteFs=f"{site}:/flat;{site}:/whole:rec:ro")
        assert node.script("ls /flat/sub; cat /whole/sub/file; touch /whole/sub/x || echo ro") == "below\nro\n"
    finally:
        subprocess.run(["umount", str(site / "sub")], check=True)


def test_flags_of_the_source_mount_are_kept(node: ShifterNode) -> None:
    site = node.base / "noexec"
    site.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,mode=1777", "tmpfs", str(site)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro,noexec", str(site)], check=True)
    try:
        node.configure(siteFs=f"{site}:/srv/data")
        mounts = [line.split() for line in node.script("cat /proc/self/mountinfo").splitlines()]
        options = next(fields[5] for fields in mounts if fields[4] == "/srv/data")
        assert {"ro", "noexec", "nosuid", "nodev"} <= set(options.split(","))
    finally:
        subprocess.run(["umount", str(site)], check=True)


def test_thirty_two_starts_at_once_share_one_loop_device(node: ShifterNode) -> None:
    script = "readlink /proc/self/ns/mnt; stat -c %d /bin/dash; while test ! -e /tmp/shifter-go; do sleep 0.05; done"
    running = [
        subprocess.Popen(
            node.command(IMAGE, "/bin/sh", "-c", script), user=node.alice.uid, group=node.alice.gid, extra_groups=[],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
        )
        for _ in range(32)
    ]
    namespaces = {process.stdout.readline() for process in running if process.stdout is not None}
    devices = subprocess.run(["losetup", "-nl", "-O", "BACK-FILE"], check=True, capture_output=True, text=True).stdout
    Path("/tmp/shifter-go").touch()
    try:
        outcomes = [process.communicate(timeout=60) for process in running]
    finally:
        Path("/tmp/shifter-go").unlink()
    assert [process.returncode for process in running] == [0] * 32, outcomes
    assert len(namespaces) == 32
    assert sum(str(node.base) in line for line in devices.splitlines()) == 1


def test_two_images_run_at_the_same_time(node: ShifterNode) -> None:
    tree = base_tree(node.base / "second-tree")
    (tree / "etc/os-release").write_text("NAME=Second\n")
    node.add_image("second", tree)
    first = subprocess.Popen(
        node.command(IMAGE, "/bin/sleep", "5"), user=node.alice.uid, group=node.alice.gid, extra_groups=[], cwd="/"
    )
    try:
        assert node.script("cat /etc/os-release", image="second") == "NAME=Second\n"
    finally:
        first.kill()
        first.wait()


def test_killing_the_launcher_at_any_moment_leaves_nothing(node: ShifterNode) -> None:
    for delay in range(0, 20):
        process = subprocess.Popen(
            node.command(IMAGE, "/bin/sleep", "100"),
            user=node.alice.uid, group=node.alice.gid, extra_groups=[], cwd="/", stderr=subprocess.DEVNULL,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay / 1000)
        process.kill()
        process.wait()
    assert node.loop_devices() == []


def test_a_pulled_away_image_is_a_clear_error(node: ShifterNode) -> None:
    identifier = node.add_image("gone", node.base / "tree")
    node.tag("docker", "gone%3Alatest", "gone")
    (node.images / f"{identifier}.squashfs").unlink()
    done = node.run("--image=docker:gone", "/bin/true")
    assert done.returncode == 125
    assert identifier in done.stderr
