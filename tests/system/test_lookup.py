# SPDX-License-Identifier: BSD-3-Clause
"""What `shifter` does about a tag that the index does not have: a client in the caller's name asks the gateway.

The client here is a script in its place; everything around it is real.
"""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shifternode import ShifterNode, image_id

SHOW = ["/bin/cat", "/etc/os-release"]
SHOWN = "NAME=TestImage\n"
ANSWER = f"echo {image_id('base')}\n"


@pytest.fixture
def client(node: ShifterNode) -> Iterator[Path]:
    """The place of the client; afterwards nothing is there."""
    path = node.base / "bin/shifterimg"
    yield path
    path.unlink(missing_ok=True)


def write(client: Path, script: str) -> None:
    client.write_text(f"#!/bin/sh\n{script}")
    client.chmod(0o755)


def test_the_client_is_asked_with_type_and_tag(node: ShifterNode, client: Path) -> None:
    write(client, 'echo "$# $0 $*" >&2\n' + ANSWER)
    for spec, wanted in (
        ("docker:some/thing:v1", "docker:some/thing:v1"),
        ("some/thing", "docker:some/thing:latest"),
        ("host:5000/x", "docker:host:5000/x:latest"),
        ("custom:-x", "custom:-x:latest"),
        ("a" * 300, f"docker:{'a' * 300}:latest"),  # longer than a name in the index
    ):
        done = node.run(f"--image={spec}", *SHOW)
        assert (done.returncode, done.stdout) == (0, SHOWN), done.stderr
        assert done.stderr == f"2 {client} lookup {wanted}\n"


def test_the_request_reaches_the_container(node: ShifterNode, client: Path) -> None:
    write(client, ANSWER)
    done = node.run("/bin/printenv", "SHIFTER_IMAGEREQUEST", env={"SHIFTER": "some/thing"})
    assert done.stdout == "some/thing\n", done.stderr


def test_the_index_is_asked_first(node: ShifterNode, client: Path) -> None:
    write(client, "echo called >&2\nexit 1\n")
    node.tag("docker", "indexed%3Alatest", "base")
    node.tag("custom", "indexed%3Av1", "base")
    for spec in ("docker:indexed", "indexed", "custom:indexed:v1"):
        done = node.run(f"--image={spec}", *SHOW)
        assert (done.returncode, done.stdout, done.stderr) == (0, SHOWN, "")
    assert node.run("--image=custom:indexed", *SHOW).stderr.startswith("called\n")


def test_without_a_system_there_is_no_index(node: ShifterNode, client: Path) -> None:
    write(client, ANSWER)
    node.tag("docker", "unsystematic%3Alatest", "gone")
    node.configure(system="")
    assert node.run("--image=docker:unsystematic", *SHOW).stdout == SHOWN


def test_sec22_the_client_is_the_caller_with_nothing_of_ours(node: ShifterNode, client: Path) -> None:
    write(client, "env >&2; cat /proc/self/status >&2; ls /proc/self/fd >&2; umask >&2\n" + ANSWER)
    read, write_end = os.pipe()
    try:
        env = {"PATH": "/tmp", "SECRET": "1", "BASH_ENV": "/tmp/evil", "PMI_FD": str(read)}
        done = node.run(
            "--image=docker:x", *SHOW, env=env, pass_fds=[read], preexec_fn=lambda: os.umask(0o027)
        )
    finally:
        os.close(read)
        os.close(write_end)
    assert (done.returncode, done.stdout) == (0, SHOWN), done.stderr
    lines = done.stderr.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    variables = dict(line.split("=", 1) for line in lines if "=" in line)
    assert variables.pop("PATH") == "/usr/bin:/usr/sbin:/bin:/sbin"
    assert variables.pop("LC_ALL") == "C.UTF-8"
    assert set(variables) <= {"PWD", "OLDPWD", "_", "SHLVL"}
    assert status["Uid"].split() == [str(node.alice.uid)] * 4
    assert status["Gid"].split() == [str(node.alice.gid)] * 4
    assert status["Groups"].split() == [str(node.alice.gid)]
    assert status["NoNewPrivs"] == "1"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert lines[-5:] == ["0", "1", "2", "3", "0027"]  # 3 is the directory that ls reads


def test_the_client_has_the_callers_limits(node: ShifterNode, client: Path) -> None:
    """What runs in the caller's name can be steered by him: limits raised for our work would be his for the taking."""
    write(client, "cat /proc/self/limits >&2\n" + ANSWER)

    def low() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 8192))
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, 60))

    done = node.run("--image=docker:x", *SHOW, preexec_fn=low)
    assert done.returncode == 0, done.stderr
    limits = {line[:26].strip(): line[26:].split()[:2] for line in done.stderr.splitlines()}
    assert limits["Max file size"] == ["4096", "8192"]
    assert limits["Max open files"] == ["50", "60"]


def test_the_commands_input_is_left_to_the_command(node: ShifterNode, client: Path) -> None:
    write(client, "cat >&2\n" + ANSWER)
    done = node.run("--image=docker:x", "/bin/cat", input="for the command\n")
    assert (done.stdout, done.stderr) == ("for the command\n", "")


@pytest.mark.parametrize(
    "answer",
    [
        "", "echo", f"echo {image_id('base').upper()}", f"printf {image_id('base')}", f"echo {image_id('base')[:-1]}",
        f"echo {image_id('base')}; echo more", f"echo ' {image_id('base')}'", f"echo ../{image_id('base')}",
        f"printf '{image_id('base')}\\0\\n'", "yes", "head -c 100000 /dev/zero",
    ],
)  # fmt: skip
def test_an_answer_that_is_no_id_is_refused(node: ShifterNode, client: Path, answer: str) -> None:
    write(client, f"{answer}\nexit 0\n")
    done = node.run("--image=docker:x", *SHOW)
    assert (done.returncode, done.stdout) == (125, "")
    assert "docker:x:latest" in done.stderr


def test_a_client_that_never_stops_talking_is_not_listened_to(node: ShifterNode, client: Path) -> None:
    write(client, f"echo {image_id('base')}\nexec yes {client}\n")
    done = node.run("--image=docker:x", *SHOW)
    assert (done.returncode, done.stdout) == (125, "")
    assert f"{client} said more than 65 bytes and was killed" in done.stderr
    assert gone(client)


def test_what_the_client_says_reaches_the_user(node: ShifterNode, client: Path) -> None:
    write(client, "echo 'shifterimg: no such image' >&2\nexit 1\n")
    done = node.run("--image=docker:x", *SHOW)
    assert (done.returncode, done.stdout) == (125, "")
    first, second = done.stderr.splitlines()
    assert first == "shifterimg: no such image"
    assert second.startswith("shifter: image docker:x:latest could not be looked up")
    assert "exited with status 1;" in second
    write(client, "kill -9 $$\n")
    assert "signal 9" in node.run("--image=docker:x", *SHOW).stderr


def test_an_id_that_nobody_has_is_refused_like_any_other(node: ShifterNode, client: Path) -> None:
    write(client, f"echo {'0' * 64}\n")
    assert "not available" in node.run("--image=docker:x", *SHOW).stderr


def running(client: Path) -> list[str]:
    done = subprocess.run(["pgrep", "-f", str(client)], check=False, capture_output=True, text=True)
    return done.stdout.split()


def gone(client: Path) -> bool:
    deadline = time.monotonic() + 20
    while running(client) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not running(client)


@pytest.mark.parametrize("script", ["sleep 600 & wait", f"echo {image_id('base')}; exec >&- ; sleep 600 & wait"])
def test_a_client_that_hangs_is_given_up(node: ShifterNode, client: Path, script: str) -> None:
    node.configure(gatewayTimeout="1")
    write(client, f"trap '' TERM\n{script}\n")
    done = node.run("--image=docker:x", *SHOW)  # waits for the script's child too, which holds standard error open
    assert done.returncode == 125
    assert "gatewayTimeout" in done.stderr
    assert gone(client)


def test_the_client_ends_with_the_launcher(node: ShifterNode, client: Path) -> None:
    write(client, "echo $$ >&2\nexec sleep 600\n")
    process = subprocess.Popen(
        node.command("--image=docker:x", *SHOW), user=node.alice.uid, group=node.alice.gid, extra_groups=[],
        cwd="/", stderr=subprocess.PIPE, text=True,
    )
    with process:
        assert process.stderr is not None
        asked = Path("/proc") / process.stderr.readline().strip()
        process.kill()
    deadline = time.monotonic() + 20
    while asked.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not asked.exists()


def test_the_installation_may_be_named_through_a_link(node: ShifterNode, client: Path) -> None:
    write(client, ANSWER)
    link = node.base / "default"
    link.symlink_to("./etc/../.")
    try:
        node.configure(udiRootPath=str(link))
        assert node.run("--image=docker:x", *SHOW).stdout == SHOWN
    finally:
        link.unlink()


def test_w10_a_client_that_others_could_have_written_is_not_run(node: ShifterNode, client: Path) -> None:
    write(client, ANSWER)
    bin_directory = client.parent

    def refused() -> str:
        done = node.run("--image=docker:x", *SHOW)
        assert (done.returncode, done.stdout) == (125, "")
        return str(done.stderr)

    client.chmod(0o775)
    assert str(client) in refused()
    client.chmod(0o755)
    os.chown(client, node.eve.uid, 0)
    assert f"{client} belongs to uid {node.eve.uid}" in refused()
    os.chown(client, 0, 0)
    bin_directory.chmod(0o1777)
    try:
        assert f"{bin_directory} can be written" in refused()
    finally:
        bin_directory.chmod(0o755)
    assert node.run("--image=docker:x", *SHOW).stdout == SHOWN
    link = Path(f"/tmp/{node.base.name}-link")
    link.symlink_to(node.base)
    try:
        node.configure(udiRootPath=str(link))
        assert "/tmp can be written" in refused()
    finally:
        link.unlink()
    client.unlink()
    node.configure()
    assert "No such file" in refused()
