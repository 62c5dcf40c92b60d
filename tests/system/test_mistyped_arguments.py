# SPDX-License-Identifier: BSD-3-Clause
"""What users and prologs can say wrong on the command line and in the environment: one line that names what it is
about, a status that is no command's, nothing left."""

from __future__ import annotations

import subprocess

import pytest

from tests import nodestate
from tests.shifternode import ShifterNode, image_id

pytestmark = pytest.mark.slow
ID = image_id("base")
IMAGE = f"--image=id:{ID}"
ESCAPE = "\x1b[31m"
DATA = "/srv/data"
#: Options, and a word of the message.
OPTIONS = [
    ("--image=", "--image"), ("--image=id:", "'id:'"), ("--image=id:../../etc/passwd", "../../etc/passwd"),
    ("--image=docker:" + "a" * 5000, "longer than"), ("--image=docker:/a", "'/a'"), ("--image=docker:a/", "'a/'"),
    (f"--image={ESCAPE}", "0x1b"), ("--image=local:relative", "absolute"), ("--image=local:/", "allowLocalChroot"),
    ("--image=local:" + "/x" * 3000, "longer than"), ("--image=custom:a/b", "'a/b'"), ("--image=\xff", "0xc3"),
    (f"--image=id:{'A' * 64}", "lower case"), (f"--image=id:{'0' * 64}", "0" * 64),
    ("--bogus", "--bogus"), ("-x", "-x"), ("--" + "x" * 100_000, "unknown"), (f"--{ESCAPE}", "unknown"),
    (f"-{ESCAPE}", "unknown"), ("--help=x", "--help"), ("--clearenv=1", "--clearenv"), ("--workdir=", "--workdir"),
    ("--workdir", "working directory"), ("--entrypoint", "entrypoint"), ("--entrypoint=", "--entrypoint"),
    ("--env=", "--env"), ("--env=X", "'X'"), ("--env==x", "'=x'"), (f"--env={ESCAPE}=1", "control character"),
    ("--env-file=", "--env-file"), ("--env-file=/no/such", "/no/such"), ("--env-file=/etc/shadow", "/etc/shadow"),
    ("--env-file=/", "Is a directory"), ("--env-file=/dev/zero", "longer than"), (f"--env-file={ESCAPE}", "--env-file"),
    ("--env-file=/proc/self/mem", "/proc/self/mem"), ("--volume=", "--volume"),
    ("--module=", "--module"), ("--module=nosuch", "nosuch"),
    ("--module=,", "--module"), (f"--module={ESCAPE}", "--module"), ("--module=" + "x" * 100_000, "--module"),
    ("--keepenv=", "--keepenv"), ("--keepenv=A=1", "A=1"), ("--explain=xml", "xml"),
    (f"--explain={ESCAPE}", "--explain"),
]  # fmt: skip
#: Values of --volume, of SHIFTER_VOLUME and of setupRoot -v.
VOLUMES = [
    *(":", "/", "/a", f"{DATA}:", ":/x", f"{DATA}:/x:", f"{DATA}:/x:ro:", "/no/such:/x", f"{DATA}:/proc/x"),
    *(f"{DATA}:/dev/shm/x", f"{DATA}:/sys", f"{DATA}:/tmp", f"{DATA}:/", "/:/x", f"{DATA}:/x:perNodeCache"),
    *(f"{DATA}:/x:perNodeCache=size=1g", f"{DATA}:/x:perNodeCache=size=99999999999999999999", f"{DATA}:/x\n/y:/z"),
    *(f"{DATA}:" + "/x" * 3000, "/" + "a" * 70_000 + ":/x", f"{DATA}:/etc/os-release", f"{DATA}/file:{DATA}"),
    *(f"{DATA}:{DATA}/file", "/dev/null:/x", "/proc/self/fd/0:/x", f"{DATA}:{DATA}/file/x", f"{DATA}:/tmp/no-such/x"),
    *(f"{DATA}:/" + "y" * 300, ";".join(f"{DATA}:/v{i}" for i in range(1001)), f"{DATA}:/x:rec", f"{DATA}:/x:slave"),
    *(f'"{DATA}:/x', f"{DATA}:/x\\", "/../srv:/x", f"{DATA}:/{ESCAPE}"),
]  # fmt: skip
#: Variables, and a word of the message.
VARIABLES = [
    ({"SHIFTER": ESCAPE}, "SHIFTER"), ({"SHIFTER_IMAGETYPE": "bogus", "SHIFTER_IMAGE": "x"}, "SHIFTER_IMAGETYPE"),
    ({"SHIFTER_IMAGETYPE": ESCAPE, "SHIFTER_IMAGE": "x"}, "SHIFTER_IMAGETYPE"),
    ({"SHIFTER_IMAGEREQUEST": "id:x"}, "SHIFTER_IMAGEREQUEST"), ({"SHIFTER_IMAGETYPE": "id"}, "no image"),
    ({"SLURM_SPANK_SHIFTER_IMAGE": "a b"}, "SLURM_SPANK_SHIFTER_IMAGE"),
    ({"SHIFTER": f"id:{ID}", "SHIFTER_VOLUME": ESCAPE}, "volume map"),
    ({"SHIFTER": f"id:{ID}", "SHIFTER_MODULE": "nosuch"}, "SHIFTER_MODULE"),
]  # fmt: skip
#: Arguments of setupRoot, USER being a user of the node and ID the image's; and a word of the message.
ARGUMENTS = [
    ("", "TYPE"), ("-u", "-u"), ("-x", "-x"), ("-U", "-U"), ("-u USER", "TYPE"), ("-u USER id", "IDENTIFIER"),
    ("-u USER id ID more", "two words"), ("id ID", "-u USER"), ("-u @EMPTY id ID", "-u USER"),
    ("-u no.such id ID", "no.such"),
    ("-u root id ID", "uid 0"), ("-u USER -G 0 id ID", "gid 0"), ("-u USER -U 0 id ID", "uid 0"),
    ("-u USER -U x id ID", "'x'"),
    ("-u USER -U -1 id ID", "'-1'"), ("-u USER -G 99999999999 id ID", "99999999999"),
    ("-u USER -U 4294967295 id ID", "-U"),
    ("-u USER bogus x", "bogus"), ("-u USER id x", "'x'"), (f"-u USER id {'0' * 64}", "0" * 64),
    ("-u USER local x", "local:x"),
    ("-u USER local /", "allowLocalChroot"), ("-u USER id @ESCAPE", "?[31m"), ("-u @ESCAPE id ID", "?[31m"),
    ("-u USER -J @EMPTY id ID", "holder"), ("-u USER -J ../x id ID", "../x"),
    (f"-u USER -J {'x' * 1000} id ID", "holder"),
    ("-u USER -N x id ID", "'x'"), ("-u USER -N h/0 id ID", "'h/0'"), ("-u USER -N h/-1 id ID", "'h/-1'"),
    ("-u USER -N @ESCAPE/1 id ID", "HOST/COUNT"), ("-u USER -s key id ID", "-s"), ("-u USER -s @- id ID", ""),
    ("-u USER -m nosuch id ID", "nosuch"), ("-u USER -V id y", "'y'"),
]  # fmt: skip


def one_line(node: ShifterNode, program: str, done: subprocess.CompletedProcess[str], status: int, word: str) -> None:
    assert (done.returncode, done.stdout) == (status, ""), (done.stdout, done.stderr)
    assert done.stderr.startswith(f"{program}: ")
    assert done.stderr[:-1].isprintable(), done.stderr
    assert done.stderr.endswith("\n")
    assert word in done.stderr
    nodestate.check_clean(node, word)


@pytest.mark.parametrize(("option", "word"), OPTIONS, ids=[option[:30] for option, _word in OPTIONS])
def test_an_option(node: ShifterNode, option: str, word: str) -> None:
    image = [] if option.startswith("--image") else [IMAGE]
    one_line(node, "shifter", node.run(*image, option, "/bin/true"), 125, word)


@pytest.mark.parametrize("option", ["--image", "--volume", "--env", "--env-file", "--module", "--keepenv", "-i", "-V"])
def test_an_option_without_its_value(node: ShifterNode, option: str) -> None:
    one_line(node, "shifter", node.run(option), 125, option)


@pytest.mark.parametrize("volume", VOLUMES, ids=[volume[:30] for volume in VOLUMES])
def test_a_volume(node: ShifterNode, volume: str) -> None:
    one_line(node, "shifter", node.run(IMAGE, f"--volume={volume}", "/bin/true"), 125, "")
    environment = {"PATH": "/bin", "SHIFTER_VOLUME": volume}
    one_line(node, "shifter", node.run(IMAGE, "/bin/true", env=environment), 125, "")
    done = node.as_root("setupRoot", "-u", node.alice.name, "-v", volume, "id", ID)
    one_line(node, "setupRoot", done, 1, "")


@pytest.mark.parametrize(("variables", "word"), VARIABLES)
def test_a_variable(node: ShifterNode, variables: dict[str, str], word: str) -> None:
    one_line(node, "shifter", node.run("/bin/true", env={"PATH": "/bin", **variables}), 125, word)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("novalue", ":1: 'novalue'"), ("A=1\n=x", ":2: '=x'"), ("A=1\0B=2", "NUL"), (ESCAPE, ":1:"),
        ("A=" + "x" * (7 << 20), "longer"),
    ],
    ids=["no value", "no name", "NUL", "escape", "long"],
)  # fmt: skip
def test_a_file_of_variables(node: ShifterNode, text: str, word: str) -> None:
    file = node.base / "variables"
    file.write_text(text)
    file.chmod(0o644)
    one_line(node, "shifter", node.run(IMAGE, f"--env-file={file}", "/bin/true"), 125, word)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        *(("", 127), ("-", 127), ("/no/such", 127), (ESCAPE, 127), ("/bin/true/x", 127)),
        *(("/etc/os-release", 126), ("/etc", 126)),
    ],
)
def test_a_command(node: ShifterNode, command: str, status: int) -> None:
    said = command.replace(ESCAPE, "?[31m")
    one_line(node, "shifter", node.run(IMAGE, command), status, f"cannot execute '{said}' in the container")


@pytest.mark.parametrize(
    "directory", ["/no/such", "relative", "/etc/passwd", "/proc/self/fd/0", "/" + "x" * 5000, ESCAPE]
)
def test_a_working_directory(node: ShifterNode, directory: str) -> None:
    """The contract has the command run even so, in the container's root."""
    one_line(node, "shifter", node.run(IMAGE, f"--workdir={directory}", "/bin/true"), 0, "working directory")


@pytest.mark.parametrize(("arguments", "word"), ARGUMENTS, ids=[arguments[:30] for arguments, _word in ARGUMENTS])
def test_an_argument_of_setup_root(node: ShifterNode, arguments: str, word: str) -> None:
    words = {"USER": node.alice.name, "ID": ID, "@EMPTY": "", "@ESCAPE": ESCAPE, "@ESCAPE/1": f"{ESCAPE}/1"}
    done = node.as_root("setupRoot", *(words.get(text, text) for text in arguments.split()))
    one_line(node, "setupRoot", done, 1, word)


@pytest.mark.parametrize("holder", ["", "../x", ".", "-x", ESCAPE, "x" * 1000])
def test_a_holder_of_unsetup_root(node: ShifterNode, holder: str) -> None:
    one_line(node, "unsetupRoot", node.as_root("unsetupRoot", "-J", holder), 1, "holder")


def test_programs_of_root_in_the_hands_of_a_user(node: ShifterNode) -> None:
    arguments = ["-u", node.alice.name, "id", ID]
    one_line(node, "setupRoot", node.as_user([node.program("setupRoot"), *arguments]), 1, "root")
    one_line(node, "unsetupRoot", node.as_user([node.program("unsetupRoot")]), 1, "root")


def test_the_cause_stands_behind_a_name_of_any_length(node: ShifterNode) -> None:
    """It is what the user needs; the name is his own."""
    done = node.run(IMAGE, f"--volume={DATA}:" + "/x" * 2500, "/bin/true")
    one_line(node, "shifter", done, 125, "...: File name too long")
