# SPDX-License-Identifier: BSD-3-Clause
"""What `udiroot check` says about a file; tests/system/test_check_config.py has the installed programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot import _core
from udiroot.check import Problem, check
from udiroot.check.kernel import kernel_problems
from udiroot.check.paths import state_problems
from udiroot.check.sense import TOOLS, UNUSED

ROOT = Path(__file__).parents[2]
# Directories of root that every machine has; `line` of a test's own text starts behind.
GOOD = "udiMount=/no-such-udi-mount\nimagePath=/usr/share\nudiRootPath=/usr\nrootfsType=tmpfs\netcPath=/usr/share\n"
GOOD_LINES = GOOD.count("\n")


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "udiRoot.conf"


def findings(conf: Path, text: str) -> list[Problem]:
    conf.write_text(text)
    conf.chmod(0o644)
    return check(conf, installed=False)


def about(conf: Path, text: str, key: str) -> list[tuple[str, int | None, str]]:
    """(severity, line within `text`, message) of what is said about the key."""
    return [
        (p.severity, p.line - GOOD_LINES if p.line else None, p.message)
        for p in findings(conf, GOOD + text)
        if p.key == key
    ]


# all at once


def test_every_problem_is_said_with_its_line_in_order(conf: Path) -> None:
    text = (
        "udiMount=relative\nsiteenv=A=1\n\nsystem=a b\nmaxGroupCount=many\nsiteFs=/usr:/x;\n   /lost:/y\n"
        "rootfsType=ext4\nmodule_m_conflict=x y\ndefaultModules=z\nkmodBasePath=/x\n=nothing\n"
    )
    found = [p for p in findings(conf, text) if p.key != "kernel"]
    assert [(p.line, p.severity, p.key) for p in found if p.line] == [
        (1, "error", "udiMount"), (2, "error", ""), (4, "error", "system"), (5, "error", "maxGroupCount"),
        (7, "error", ""), (8, "error", "rootfsType"), (9, "error", "module_m_conflict"),
        (9, "error", "module_m_conflict"), (10, "error", "defaultModules"),
        (11, "warning", "kmodBasePath"), (12, "error", ""),
    ]  # fmt: skip
    assert "did you mean 'siteEnv'?" in found[1].message
    # Required keys that are there with a bad value are not missing as well.
    assert {p.key for p in found if "is not set; add" in p.message} == {"imagePath", "udiRootPath", "etcPath"}


def test_the_parser_stops_where_the_checker_goes_on(conf: Path) -> None:
    text = f"{GOOD}maxGroupCount=x\ngatewayTimeout=y\n"
    with pytest.raises(_core.Error, match="maxGroupCount"):
        _core.parse_config(text.encode(), "x")
    values, errors = _core.examine_config(text.encode(), "x")
    assert [error.split(": ")[1] for error in errors] == ["maxGroupCount", "gatewayTimeout"]
    assert values["rootfsType"] == "tmpfs"


def test_what_is_printed_fits_a_terminal(conf: Path) -> None:
    for problem in findings(conf, f"{GOOD}\x1b[31m=1\nsiteFs=/no\x1b[2J:/x\nimageGateway=\x07\u202e\n"):
        assert problem.text(str(conf)).isprintable()
    assert Problem("error", 3, "a", "b").text("f") == "f:3: error: a: b"
    assert Problem("note", None, "", "b").text("f") == "f: note: b"


@given(st.text(alphabet="udiMountsFE=:;\\#\n \t/\"'module_a,v0", max_size=200))
def test_no_text_crashes_the_checker(text: str) -> None:
    path = Path(f"/tmp/shifter-check-{os.getpid()}.conf")
    try:
        findings(path, GOOD + text)
    finally:
        path.unlink()


def test_a_file_that_is_none(conf: Path, tmp_path: Path) -> None:
    for path in (conf, tmp_path):
        (problem,) = (p for p in check(path, installed=True) if p.key != "kernel")
        assert problem.severity == "error"
    conf.write_bytes(b"system=a\0b\n")
    assert any("NUL" in p.message for p in check(conf, installed=False))


@pytest.mark.parametrize(("mode", "word"), [(0o664, "chmod go-w"), (0o640, "chmod a+r"), (0o646, "chmod go-w")])
def test_the_mode_of_the_file(conf: Path, mode: int, word: str) -> None:
    conf.write_text(GOOD)
    conf.chmod(mode)
    assert any(word in p.message and p.line is None for p in check(conf, installed=True))


# single keys


@pytest.mark.parametrize(
    ("text", "key", "severity", "line", "word"),
    [
        ("udiMount=/no/such/directory\n", "udiMount", "error", 1, "cannot be made"),
        ("udiMount=/usr/share/doc\n", "udiMount", "error", 1, "not empty"),
        ("udiMount=/usr/share\n", "udiMount", "error", 1, "directory of the system"),
        ("udiMount=/etc/passwd\n", "udiMount", "error", 1, "is a file, not a directory"),
        ("imagePath=/tmp\n", "imagePath", "error", 1, "can be written by others"),
        ("imagePath=/no-such-store\n", "imagePath", "error", 1, "does not exist"),
        ("imagePath=/proc/self/cwd\n", "imagePath", "error", 1, "symbolic link"),
        ("udiRootPath=/no-such-prefix\n", "udiRootPath", "error", 1, "does not exist"),
        ("udiRootPath=/usr\n", "udiRootPath", "warning", 1, "make install"),
        ("etcPath=/etc\n", "etcPath", "error", 1, "is not a file"),
        ("etcPath=/usr/share\n", "etcPath", "error", 1, "has no file passwd"),
        ("sitePreMountHook=/usr/bin/no-such\n", "sitePreMountHook", "error", 1, "does not exist"),
        ("sitePostMountHook=/etc/passwd\n", "sitePostMountHook", "error", 1, "chmod u+x"),
        ("sitePostMountHook=/usr\n", "sitePostMountHook", "error", 1, "not a file"),
        ("module_a_roothook=/etc/passwd\n", "module_a_roothook", "error", 1, "chmod u+x"),
        ("module_a_copyPath=/tmp\n", "module_a_copyPath", "error", 1, "by others"),
        ("optUdiImage=/no-such\n", "optUdiImage", "error", 1, "does not exist"),
        ("\nudiImagePath=/no-such\n", "udiImagePath", "error", 2, "does not exist"),
        ("perNodeCachePath=/tmp\n", "perNodeCachePath", "error", 1, "by others"),
        ("perNodeCacheSizeLimit=1g\n", "perNodeCacheSizeLimit", "warning", 1, "without perNodeCachePath"),
        ("perNodeCachePath=/usr/share\n", "perNodeCacheSizeLimit", "warning", None, "take all room"),
        ("perNodeCacheAllowedFsType=ext4\n", "perNodeCacheAllowedFsType", "warning", 1, "only xfs"),
        ("siteFs=/x:/y:perNodeCache=size=1g\n", "perNodeCachePath", "error", None, "not set"),
        ("siteFs=/usr:/a\nsiteFs=/no-such:/b\n", "siteFs", "error", 2, "/no-such does not exist"),
        ("siteFs=/usr:/a/b;/etc:/a\n", "siteFs", "warning", 1, "hides the earlier map at /a/b"),
        ("siteFs=/usr:/a\nsiteFs=/etc:/a\n", "siteFs", "warning", 2, "two maps"),
        ("siteFs=/usr:/tmp/x\n", "siteFs", "warning", 1, "hidden by /tmp"),
        ("optUdiImage=/usr/share\nsiteFs=/usr:/opt/udiImage/x\n", "siteFs", "warning", 2, "hidden by /opt/udiImage"),
        ("siteFs=/usr:/a;\\\n  /etc:/b;\\\n# no\n  /lost:/c\n", "siteFs", "error", 4, "/lost does not exist"),
        ("siteFs=/no-such-udi-mount/x:/y\n", "siteFs", "warning", 1, "udiMount"),
        ("siteFs=/usr:/a\nmodule_m_siteFs=/etc:/a\n", "module_m_siteFs", "warning", 2, "two maps"),
        ("siteFs=/dev/null:/a\n", "siteFs", "error", 1, "special file"),
        ("usersToImport=root\n", "usersToImport", "warning", 1, "populateEtcDynamically=1"),
        ("populateEtcDynamically=1\nusersToImport=root no.such.user\n", "usersToImport", "error", 2, "no.such.user"),
        ("populateEtcDynamically=1\nallowLibcPwdCalls=0\n", "allowLibcPwdCalls", "warning", 2, "is 0"),
        ("rootfsType=ramfs\nmountUdiRootWritable=1\n", "mountUdiRootWritable", "error", 2, "ramfs"),
        ("defaultImageType=local\n", "defaultImageType", "error", 1, "allowLocalChroot"),
        ("loopMount=/usr\n", "loopMount", "error", 1, "directory of the system"),
        ("imagePath=/no-such-udi-mount/images\n", "imagePath", "error", 1, "is in udiMount"),
        ("loopMount=/no-such-udi-mount\n", "udiMount", "error", -4, "loopMount"),
        ("loopMount=/no-such-udi-mount-2\n", "loopMount", "note", 1, "earlier versions"),
        ("imageGateway=http://a:5000 gw:5000\n", "imageGateway", "error", 1, "'gw:5000'"),
        ("imageGateway=http://a:port\n", "imageGateway", "error", 1, "no URL"),
        ("", "imageGateway", "warning", None, "not set"),
        ("", "system", "warning", None, "not set"),
        ("system=a\nsystem=b\n", "system", "warning", 1, "line 7"),
        ("module_a_siteEnv=A=1\nmodule_a_siteEnv=B=1\n", "module_a_siteEnv", "warning", 1, "sets it again"),
        ("siteEnv=A=1 A=2\n", "siteEnv", "warning", 1, "sets A twice"),
        ("siteEnvAppend=PATH=/x\nsiteEnvUnset=PATH\n", "siteEnvAppend", "warning", 1, "siteEnvUnset"),
        ("module_a_conflict=a\n", "module_a_conflict", "error", 1, "itself"),
        ("cpPath=/no/cp\n", "cpPath", "note", 1, "/no/cp is no program"),
        ("batchType=slurm\n", "batchType", "note", 1, "informs"),
        ("optionalSshdAsRoot=1\n", "optionalSshdAsRoot", "warning", 1, "no effect"),
        ("imageOwner=no.such.user\n", "imageOwner", "warning", 1, "no account"),
        ("system=\n", "system", "warning", 1, "has no value"),
    ],
)  # fmt: skip
def test_a_single_problem(conf: Path, text: str, key: str, severity: str, line: int | None, word: str) -> None:
    found = about(conf, text, key)
    assert {(s, n) for s, n, message in found if word in message} == {(severity, line)}, found


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("siteFs=/usr:/a;/etc:/a/b\n", "siteFs"),
        ("siteEnv=A=1 B=2\nsiteEnv=C=3\n", "siteEnv"),
        ("imageGateway=https://user@[::1]:5000/x http://b\n", "imageGateway"),
        ("sitePreMountHook=/usr/bin/env\n", "sitePreMountHook"),
        ("perNodeCachePath=/usr/share\nperNodeCacheAllowedFsType=xfs\n", "perNodeCacheAllowedFsType"),
        ("perNodeCachePath=/usr/share\nperNodeCacheSizeLimit=1g\n", "perNodeCacheSizeLimit"),
        ("imagePath=/usr/share\nimageOwner=0\n", "imageOwner"),
        ("populateEtcDynamically=1\nusersToImport=root\n", "usersToImport"),
        ("module_a_copyPath=/usr/share\n", "module_a_copyPath"),
        ("allowLocalChroot=1\ndefaultImageType=local\n", "defaultImageType"),
    ],
)
def test_what_is_right_is_not_mentioned(conf: Path, text: str, key: str) -> None:
    assert about(conf, text, key) == []


@pytest.mark.parametrize("key", TOOLS)
def test_tools_of_earlier_versions_are_notes(conf: Path, key: str) -> None:
    ((severity, _, message),) = about(conf, f"{key}=/bin/true\n", key)
    assert severity == "note"
    assert "no program" not in message


def test_the_documentation_names_the_same_keys_as_without_effect() -> None:
    page = (ROOT / "docs/udiroot-configuration.md").read_text()
    rows = [row for row in page.splitlines() if row.startswith("| `") and "no effect yet" in row]
    named = {key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert {key for key, why in UNUSED.items() if "yet" in why} == named
    for key in (*TOOLS, *UNUSED):
        assert f"`{key}`" in page


# the kernel


def kernel(tmp_path: Path, present: str, release: str = "6.1.0") -> list[tuple[str, str]]:
    (tmp_path / "filesystems").write_text("".join(f"nodev\t{name}\n" for name in present.split()))
    (tmp_path / "loop-control").touch()
    return [(p.severity, p.message) for p in kernel_problems("xfs" in present, release, tmp_path, tmp_path)]


def test_the_kernel(tmp_path: Path) -> None:
    assert kernel(tmp_path, "tmpfs squashfs overlay") == kernel(tmp_path, "tmpfs squashfs overlay xfs") == []
    (tmp_path / "filesystems").write_text("nodev tmpfs\n")
    assert any("perNodeCache" in p.message for p in kernel_problems(True, "6.1.0-none", tmp_path, tmp_path))
    ((severity, message),) = kernel(tmp_path, "tmpfs overlay", "6.1.0-none")
    assert (severity, "squashfs" in message) == ("error", True)
    assert [s for s, m in kernel(tmp_path, "tmpfs squashfs overlay", "3.10.0-1160.el7") if "too old" in m] == ["error"]
    (tmp_path / "loop-control").unlink()
    assert any("loop" in p.message for p in kernel_problems(False, "6.1.0-none", tmp_path, tmp_path))


def test_this_kernel_is_said_to_be_what_it_is() -> None:
    assert [p for p in kernel_problems() if p.severity == "error"] == []


# the program


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from udiroot.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_exit_statuses_and_json(conf: Path) -> None:
    findings(conf, GOOD + "sitefs=/a\n")
    done = program("check", str(conf))
    assert (done.returncode, done.stderr) == (1, "")
    assert f"{conf}:6: error: unknown key 'sitefs'; did you mean 'siteFs'?\n" in done.stdout
    assert re.search(rf"{conf}: \d+ errors, \d+ warnings, \d+ notes\n\Z", done.stdout)
    answer = json.loads(program("check", "--json", str(conf)).stdout)
    assert answer["file"] == str(conf)
    assert answer["errors"] == sum(problem["severity"] == "error" for problem in answer["problems"])
    assert {"severity", "line", "key", "message"} == set(answer["problems"][0])
    for arguments in ([], ["nonsense"], ["check", "--nonsense"], ["check", "a", "b"]):
        assert program(*arguments).returncode == 2
    assert program("--version").stdout.startswith("udiroot ")


def test_bytes_that_are_no_text_are_printed(conf: Path) -> None:
    conf.write_bytes(GOOD.encode() + b"siteFs=/no\xff:/x\n")
    done = program("check", str(conf))
    assert done.returncode == 1
    with suppress(UnicodeDecodeError):
        assert "Traceback" not in done.stderr


# what is only noticed in a container


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory for optUdiImage or copyPath with an sshd, a hook and libraries."""
    top = tmp_path / "tree"
    for name in ("sbin/sshd", "bin/ssh", "etc/sshd_config", "etc/ssh_config", "hook", "lib64/libmpi.so"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    (top / "elsewhere").symlink_to("/not/here")
    return top


def said(conf: Path, text: str, key: str) -> list[tuple[str, str]]:
    """Severity and message, but for what is said of every directory that pytest makes: others can write above it."""
    found = about(conf, text, key)
    return [(severity, message) for severity, _, message in found if "written by others" not in message]


@pytest.mark.parametrize("name", ["sbin/sshd", "bin/ssh", "etc/sshd_config", "etc/ssh_config"])
def test_an_sshd_that_lacks_something(conf: Path, tree: Path, name: str) -> None:
    assert said(conf, f"optUdiImage={tree}\n", "optUdiImage") == []
    (tree / name).unlink()
    ((severity, message),) = said(conf, f"optUdiImage={tree}\n", "optUdiImage")
    assert severity == "warning"
    assert f"no {name}: " in message
    assert "extra/build-udiimage" in message


def test_a_tree_without_sshd_is_worth_a_note(conf: Path, tree: Path) -> None:
    for name in ("sbin/sshd", "bin/ssh", "etc/sshd_config", "etc/ssh_config"):
        (tree / name).unlink()
    ((severity, message),) = said(conf, f"optUdiImage={tree}\n", "optUdiImage")
    assert (severity, "enable_sshd=1" in message) == ("note", True)


@pytest.mark.parametrize("key", ["optUdiImage", "module_mpi_copyPath"])
def test_what_users_cannot_read_in_containers(conf: Path, tree: Path, key: str) -> None:
    for path, mode in ((tree / "lib64", 0o750), (tree / "hook", 0o711), (tree, 0o700)):
        path.chmod(mode)
        ((severity, message),) = said(conf, f"{key}={tree}\n", key)
        assert severity == "warning"
        assert message.startswith(f"{path} cannot be read by users")
        path.chmod(0o755)


@pytest.mark.parametrize(
    ("hook", "severity", "words"),
    [
        ("/opt/udiImage/modules/mpi/hook", None, ""),
        ("/opt/udiImage/modules/mpi/hok", "error", "hok does not exist"),
        ("/opt/udiImage/modules/mpi/lib64", "error", "is a directory"),
        ("/opt/udiImage/modules/mpi/elsewhere", None, ""),  # a link: the container's business
        ("/opt/udiImage/modules/mpi/elsewhere/hook", None, ""),
        ("/opt/udiImage/modules/other/hook", None, ""),
        ("/site/hook", None, ""),
        ("/site/hok", "error", "hok does not exist"),
        ("/usr/bin/of-the-image", None, ""),
    ],
)
def test_userhooks_are_looked_for_where_the_site_shows_them(
    conf: Path, tree: Path, hook: str, severity: str | None, words: str
) -> None:
    text = f"module_mpi_copyPath={tree}\nmodule_mpi_siteFs={tree}:/site\nmodule_mpi_userhook={hook}\n"
    found = said(conf, text, "module_mpi_userhook")
    assert [problem[0] for problem in found] == ([severity] if severity else [])
    assert all(words in message for _, message in found)
    (tree / "hook").chmod(0o700)
    if hook.endswith("/hook") and not found and "elsewhere" not in hook and "other" not in hook:
        assert "chmod a+rx" in said(conf, text, "module_mpi_userhook")[0][1]


def test_variables_name_directories_that_are_there(conf: Path, tree: Path) -> None:
    text = (
        f"siteFs={tree}:/site\nsiteEnvAppend=PATH=/site/bin:/site/bn:/usr/bin HOME=/site/elsewhere/x\n"
        f"module_mpi_copyPath={tree}\n"
        "module_mpi_siteEnvPrepend=LD_LIBRARY_PATH=/opt/udiImage/modules/mpi/lib64:/opt/udiImage/modules/mpi/lib\n"
    )
    ((severity, message),) = said(conf, text, "siteEnvAppend")
    assert severity == "warning"
    assert f"PATH names /site/bn, which containers have from {tree}/bn," in message
    ((_, message),) = said(conf, text, "module_mpi_siteEnvPrepend")
    assert f"{tree}/lib, and that does not exist" in message


@pytest.mark.parametrize(
    ("first", "bad"), [("#!/bin/sh -e", False), ("#! /no/bash", True), ("#!", False), ("x", False)]
)
def test_hooks_for_an_interpreter_that_is_not_here(first: str, bad: bool) -> None:
    path = Path("/var/lib") / f"shifter-test-hook-{os.getpid()}"
    path.write_text(f"{first}\nexit 0\n")
    path.chmod(0o755)
    conf = path.with_suffix(".conf")
    try:
        found = [p.message for p in findings(conf, f"{GOOD}sitePreMountHook={path}\n") if p.key == "sitePreMountHook"]
    finally:
        path.unlink()
        conf.unlink()
    assert [("/no/bash, which is not on this node" in message) for message in found] == ([True] if bad else [])


def test_a_place_for_prepared_containers_that_setuproot_would_refuse(tmp_path: Path) -> None:
    place = tmp_path / "run"
    assert list(state_problems(place)) == []  # setupRoot makes it
    place.mkdir(mode=0o700)
    assert [problem.severity for problem in state_problems(place)] == (["error"] if os.getuid() else [])
    place.chmod(0o755)
    (problem,) = state_problems(place)
    assert (problem.severity, str(place) in problem.message) == ("error", True)
    place.rmdir()
    place.symlink_to("/usr")
    assert len(list(state_problems(place))) == 1
