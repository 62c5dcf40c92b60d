# SPDX-License-Identifier: BSD-3-Clause
"""udiRoot.conf as the launcher reads it (runtime contract, section 3), through udiroot._core."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot import _core

ROOT = Path(__file__).parents[2]
MINIMAL = "udiMount=/var/udiMount\nimagePath=/images\nudiRootPath=/usr\nrootfsType=tmpfs\netcPath=/etc/shifter/files\n"

# The complete example of the contract, section 3.7.
CONTRACT = """\
udiMount=/var/udiMount
loopMount=/var/udiLoopMount
imagePath=/images
udiRootPath=/usr
etcPath=/etc/shifter/shifter_etc_files
modprobePath=/sbin/modprobe
insmodPath=/sbin/insmod
cpPath=/bin/cp
mvPath=/bin/mv
chmodPath=/bin/chmod
ddPath=/bin/dd
rootfsType=tmpfs
maxGroupCount=31
siteFs=/home:/home;\\
       /global/scratch:/scratch:rec
siteEnv=SHIFTER_RUNTIME=1
siteEnvAppend=PATH=/opt/udiImage/bin
imageGateway=http://gw:5000
system=mycluster
defaultImageType=docker
# end
"""


def parse(text: str) -> dict[str, Any]:
    return _core.parse_config((MINIMAL + text).encode(), "udiRoot.conf")


def remarks(text: str) -> list[str]:
    """Remarks, with line numbers counted from the first line of `text`."""
    offset = MINIMAL.count("\n")
    found = parse(text)["remarks"]
    return [re.sub(r":(\d+):", lambda m: f":{int(m[1]) - offset}:", remark, count=1) for remark in found]


def refused(text: str) -> str:
    with pytest.raises(_core.Error) as caught:
        parse(text)
    return str(caught.value)


def maps(config: dict[str, Any]) -> list[tuple[str, str]]:
    return [(volume["from"], volume["to"]) for volume in config["siteFs"]]


# whole files


def test_the_contracts_example() -> None:
    config = _core.parse_config(CONTRACT.encode(), "udiRoot.conf")
    assert config["remarks"] == []
    assert config["udiMount"] == "/var/udiMount"
    assert config["maxGroupCount"] == 31
    assert config["imageGateway"] == ["http://gw:5000"]
    assert config["siteEnvAppend"] == ["PATH=/opt/udiImage/bin"]
    assert [(v["from"], v["to"], v["flags"]) for v in config["siteFs"]] == [
        ("/home", "/home", []), ("/global/scratch", "/scratch", ["rec"]),
    ]


def test_every_key_of_the_old_documentation_is_accepted() -> None:
    config = parse(
        "allowLocalChroot=1\nautoLoadKernelModule=0\nkmodBasePath=/lib/modules\nkmodCacheFile=/x\noptionalSshdAsRoot=0\n"
        "nodeContextPrefix=/dsl\nmkfsXfsPath=NotFound\nmountUdiRootWritable=1\ngatewayTimeout=30\nbatchType=slurm\n"
        "sitePreMountHook=/etc/opt/nersc/udiRoot/premount.sh\nsitePostMountHook=/etc/opt/nersc/udiRoot/postmount.sh\n"
        "optUdiImage=/opt/shifter/udiRoot/default/deps/udiImage\nsiteResources=/opt/shifter/site-resources\n"
        "siteEnvPrepend=PATH=/opt/udiImage/bin\nsiteEnvUnset=LOADEDMODULES _LMFILES_\nusersToImport=sshd munge\n"
        "perNodeCachePath=/tmp\nperNodeCacheSizeLimit=500g\nperNodeCacheAllowedFsType=xfs ext4\n"
        "mountPropagationStyle=slave\nallowLibcPwdCalls=1\npopulateEtcDynamically=1\n"
        "module_mpich_siteEnvPrepend = LD_LIBRARY_PATH=/opt/udiImage/modules/mpich/lib64\n"
        "module_mpich_copyPath = /shared/shifter/modules/mpich\n"
        "module_mpich_userhook = /opt/udiImage/modules/mpich/bin/init.sh\n"
        "module_cvmfs_siteFs = /cvmfs_nfs:/cvmfs\nmodule_cvmfs_siteEnv = SHIFTER_MODULE_CVMFS=1\n"
        "defaultModules=mpich\nimageGateway=http://a:5000 http://b:5000\n"
    )
    assert [remark.split(": ", 1)[1] for remark in config["remarks"]] == [
        f"{key} has no effect any more; remove it"
        for key in ("autoLoadKernelModule", "kmodBasePath", "kmodCacheFile", "optionalSshdAsRoot")
    ]
    assert config["siteEnvUnset"] == ["LOADEDMODULES", "_LMFILES_"]
    assert config["perNodeCacheSizeLimit"] == 500 << 30
    assert config["mountPropagationStyle"] == "slave"
    assert config["siteResources"] == "/opt/shifter/site-resources"
    assert config["gatewayTimeout"] == 30
    assert list(config["modules"]) == ["mpich", "cvmfs"]
    assert config["modules"]["mpich"]["copyPath"] == "/shared/shifter/modules/mpich"


def test_the_old_documentations_broken_site_fs_loads_with_a_remark() -> None:
    """Its third line lacks the backslash; the fourth was ignored silently."""
    text = (
        "siteFs=/home:/home;\\\n       /global/project:/global/project;\\\n       /global/common:/global/common;\n"
        "       /var/opt/cray/alps:/var/opt/cray/alps\n"
    )
    assert [target for _, target in maps(parse(text))] == ["/home", "/global/project", "/global/common"]
    (remark,) = remarks(text)
    assert remark.startswith("udiRoot.conf:4: ")
    assert "backslash" in remark


def test_the_example_file_parses_also_with_everything_switched_on() -> None:
    text = (ROOT / "udiRoot.conf.example").read_text()
    plain = _core.parse_config(text.encode(), "example")
    assert plain["remarks"] == []
    everything = re.sub(r"(?m)^#(?=[A-Za-z_]+=| {6,}/)", "", text)
    assert everything.count("\n#") < text.count("\n#") - 30
    full = _core.parse_config(everything.encode(), "example")
    (remark,) = full["remarks"]
    assert remark.startswith("example: imageOwner: there is no account 'shiftergw' here")
    for key, value in full.items():
        assert plain[key] == value or f"\n#{key}=" in text or key in ("modules", "remarks"), key


def test_every_key_is_in_the_reference_and_nothing_else() -> None:
    page = (ROOT / "docs/udiroot-configuration.md").read_text()
    keys = set(_core.config_keys())
    assert {key for key in keys if f"`{key}`" not in page} == set()
    named = {key for row in re.findall(r"(?m)^\| (`[^|]*`) \|", page) for key in re.findall(r"`([^`]+)`", row)}
    flags = {"ro", "rec", "slave", "private"}
    assert {key for key in named - flags if not key.startswith("perNodeCache=")} - keys == set()


def test_every_key_is_in_the_example_and_nothing_else() -> None:
    page = (ROOT / "udiRoot.conf.example").read_text()
    keys = set(_core.config_keys())
    named = {re.sub("_(mpich|openmpi|gpu)_", "_<name>_", key) for key in re.findall(r"(?m)^#?([a-z]\w+)=", page)}
    assert named - keys == set()
    (old,) = re.findall(r"(?ms)^# Accepted and without effect: (.*?)\.$", page)
    mentioned = {*re.findall(r"\w+", old), *re.findall(r"earlier called (\w+)", page)}
    assert keys - named == mentioned


# grammar


@pytest.mark.parametrize("blanks", ["", " ", "\t", " \t "])
def test_keys_and_values_are_trimmed(blanks: str) -> None:
    assert parse(f"{blanks}system{blanks}={blanks}a=b{blanks}\r\n")["system"] == "a=b"


def test_the_first_delimiter_splits() -> None:
    assert parse("siteEnv=A=B=C\n")["siteEnv"] == ["A=B=C"]


def test_a_continued_value_joins_with_single_blanks() -> None:
    assert parse("siteEnv=A=1 \\  \n\t B=2\\\n   C=3\n")["siteEnv"] == ["A=1", "B=2", "C=3"]
    assert parse("batchType=a \\\n   b\n")["batchType"] == "a b"
    assert parse("batchType=\\\nb\n")["batchType"] == "b"


def test_a_blank_line_ends_a_continuation() -> None:
    config = parse("siteEnv=A=1\\\n\nsystem=x\n")
    assert (config["siteEnv"], config["system"]) == (["A=1"], "x")


def test_comments_also_between_the_lines_of_a_value() -> None:
    assert parse("siteEnv=A=1\\\n# no=B\n#\n  C=2\n")["siteEnv"] == ["A=1", "C=2"]
    assert parse("siteEnv=A=1\\\n  # no=B\\\n  C=2\n")["siteEnv"] == ["A=1", "C=2"]


def test_an_indented_comment_with_a_delimiter_is_a_remark() -> None:
    assert remarks("  # system=x\n") == ["udiRoot.conf:1: a comment is best started in the first column"]


@pytest.mark.parametrize("end", ["", "\n", "\\", "\\\n", "\\\n# end\n"])
def test_w31_the_last_line_counts_once(end: str) -> None:
    """Old readers lost an unterminated value, and read a last line with a delimiter a second time."""
    config = parse(f"siteEnv=A=1\\\n  B=2{end}")
    assert config["siteEnv"] == ["A=1", "B=2"]
    assert ["in the middle" in remark for remark in config["remarks"]] == ([True] if end in ("\\", "\\\n") else [])


def test_a_line_without_a_delimiter_is_ignored_with_a_remark() -> None:
    assert remarks("\n\nnonsense\n")[0].startswith("udiRoot.conf:3: ")


def test_a_line_without_a_key_is_an_error() -> None:
    assert "udiRoot.conf:6: there is no key" in refused("=x\n")


def test_nul_is_refused() -> None:
    assert "NUL" in refused("system=a\0b\n")


def test_scalars_the_last_counts_and_lists_add_up() -> None:
    config = parse(
        "system=a\nsystem=b\nsiteEnv=A=1\nsiteEnv=B=2\nsiteFs=/a\nsiteFs=/b\nimageGateway=x\nimageGateway=y\n"
    )
    assert config["system"] == "b"
    assert config["siteEnv"] == ["A=1", "B=2"]
    assert maps(config) == [("/a", "/a"), ("/b", "/b")]
    assert config["imageGateway"] == ["x", "y"]


def test_lists_are_split_at_any_blanks() -> None:
    assert parse("usersToImport=a  b\tc\\\n   d\n")["usersToImport"] == ["a", "b", "c", "d"]


# unknown and old keys


def test_an_unknown_key_is_a_remark_with_a_suggestion() -> None:
    assert remarks("system=x\nsiteenv=A=1\n") == ["udiRoot.conf:2: unknown key 'siteenv'; did you mean 'siteEnv'?"]
    assert remarks("useOverlayFsMode=1\n") == ["udiRoot.conf:1: unknown key 'useOverlayFsMode'"]
    assert remarks("\x1b[31m=1\n") == ["udiRoot.conf:1: unknown key '?[31m'"]


def test_w32_an_unknown_module_key_is_a_remark_and_names_may_have_underscores() -> None:
    text = "module_my_mod_siteEnv=A=1\nmodule_my_mod_copypath=/x\nmodule_=1\nmodule_x=1\n"
    assert parse(text)["modules"]["my_mod"]["siteEnv"] == ["A=1"]
    found = remarks(text)
    assert found[0] == (
        "udiRoot.conf:2: unknown key 'module_my_mod_copypath'; did you mean 'module_my_mod_copyPath'?"
    )
    assert len(found) == 3


def test_a_key_without_a_value_is_a_remark_and_not_set() -> None:
    config = parse("sitePreMountHook=\nsystem=a\nsystem=\nmodule_a_copyPath=\n")
    assert config["sitePreMountHook"] is None
    assert config["system"] == "a"
    assert len(config["remarks"]) == 3


def test_the_old_name_of_opt_udi_image() -> None:
    config = parse("udiImagePath=/x\n")
    assert config["optUdiImage"] == "/x"
    assert "optUdiImage" in config["remarks"][0]


# values


@pytest.mark.parametrize(
    "line",
    [
        "udiMount=var", "udiMount=/a/../b", "udiMount=/", "udiMount=//./", "loopMount=/", "imagePath=images",
        "etcPath=.", "rootfsType=ext4", "rootfsType=tmpfs ramfs", "mountUdiRootWritable=yes", "maxGroupCount=-1",
        "maxGroupCount=x", "maxGroupCount=4294967296", "gatewayTimeout=1.5", "mountPropagationStyle=shared",
        "perNodeCacheSizeLimit=big", "perNodeCacheSizeLimit=-1", "defaultImageType=podman", "siteEnv=FOO",
        "siteEnv==x", "siteEnvAppend=PATH", "siteEnvUnset=A=1", "siteFs=home:/home", "siteFs=/a:/b:wild",
        "siteFs=/a:/etc/passwd", "siteFs=/a:/", "sitePreMountHook=premount.sh", "udiRootPath=usr",
        "siteResources=x", "module_a_copyPath=x", "module_a_siteFs=/a:/b:ro:ro", "module_a_enabled=no",
        "module_a/b_enabled=1", "module_.._enabled=1", 'module_a"_enabled=1', "module_a\\b_enabled=1",
    ],
)  # fmt: skip
def test_bad_values_are_errors_with_key_and_line(line: str) -> None:
    message = refused(f"\n{line}\n")
    assert message.startswith(f"udiRoot.conf:7: {line.partition('=')[0]}: "), message
    assert "\n" not in message


def test_paths_are_cleaned() -> None:
    config = parse("udiMount=//var/./udiMount//\netcPath=/etc/shifter/files/\nudiRootPath=/\n")
    assert config["udiMount"] == "/var/udiMount"
    assert config["etcPath"] == "/etc/shifter/files"
    assert config["udiRootPath"] == "/"


@pytest.mark.parametrize("key", ["udiMount", "imagePath", "udiRootPath", "rootfsType", "etcPath"])
def test_required_keys_are_named(key: str) -> None:
    text = "".join(line for line in MINIMAL.splitlines(keepends=True) if not line.startswith(key))
    with pytest.raises(_core.Error, match=f"{key} is not set"):
        _core.parse_config(text.encode(), "x")


def test_etc_path_is_not_needed_with_dynamic_files_nor_any_tool() -> None:
    text = MINIMAL.replace("etcPath=/etc/shifter/files", "populateEtcDynamically=1")
    assert _core.parse_config(text.encode(), "x")["etcPath"] is None


@pytest.mark.parametrize("name", ["a/b", "..", ".x", "a b"])
def test_a_system_that_is_no_name_is_refused(name: str) -> None:
    assert "system" in refused(f"system={name}\n")


def test_maps_may_be_separated_by_blanks_as_the_old_documentation_has_it() -> None:
    assert maps(parse("siteFs=/home:/home /scratch:/scratch\t/x\n")) == [
        ("/home", "/home"), ("/scratch", "/scratch"), ("/x", "/x"),
    ]


# modules


def test_modules_with_every_key() -> None:
    config = parse(
        "module_a_siteEnv=A=1\nmodule_a_siteEnvAppend=B=2\nmodule_a_siteEnvPrepend=C=3\nmodule_a_siteEnvUnset=D\n"
        "module_a_siteFs=/x:/x\nmodule_a_siteFs=/y:/y:ro\nmodule_a_copyPath=/c\nmodule_a_roothook=/r\n"
        "module_a_userhook=/u\nmodule_a_conflict=b\nmodule_b_conflict=a c\nmodule_c_enabled=0\n"
        "module_a_siteEnv=E=5\ndefaultModules= a , a\n"
    )
    a = config["modules"]["a"]
    assert a["siteEnv"] == ["E=5"]
    assert [volume["to"] for volume in a["siteFs"]] == ["/x", "/y"]
    assert (a["copyPath"], a["roothook"], a["userhook"], a["conflict"]) == ("/c", "/r", "/u", ["b"])
    assert [module["enabled"] for module in config["modules"].values()] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("module_a_conflict=b\n", ":6: module_a_conflict: there is no module 'b'"),
        ("module_a_enabled=1\ndefaultModules=a,x\n", ":7: defaultModules: there is no module 'x'"),
        ("defaultModules=a\nmodule_a_enabled=0\n", ":6: defaultModules: module 'a' is not enabled"),
        ("module_a_conflict=b\nmodule_b_enabled=1\ndefaultModules=b,a\n", "modules 'b' and 'a' conflict"),
        ("module_a_conflict=b\nmodule_b_enabled=1\ndefaultModules=a,b\n", "modules 'a' and 'b' conflict"),
    ],
)
def test_modules_that_do_not_fit_together(text: str, expected: str) -> None:
    assert expected in refused(text)


def test_no_default_modules() -> None:
    for value in ("None", ",", ""):
        parse(f"defaultModules={value}\n")


# the file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "udiRoot.conf"
    path.write_text(MINIMAL)
    path.chmod(0o644)
    return path


def test_load(file: Path) -> None:
    assert _core.load_config(file, trust_any_owner=True)["udiRootPath"] == "/usr"
    link = file.with_name("link")
    link.symlink_to(file)
    assert _core.load_config(str(link), True)["udiRootPath"] == "/usr"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(_core.Error, match=f"mode {mode:04o}"):
        _core.load_config(file, trust_any_owner=True)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "missing"):
        with pytest.raises(_core.Error, match=str(path)):
            _core.load_config(path, trust_any_owner=True)


def test_an_endless_file_is_refused(file: Path) -> None:
    with file.open("a") as handle:
        handle.truncate(2 << 20)
    with pytest.raises(_core.Error, match="longer than"):
        _core.load_config(file, trust_any_owner=True)


def test_the_image_owner_may_be_a_number_and_an_unknown_one_owns_nothing() -> None:
    assert parse("imageOwner=4711\n")["remarks"] == []
    assert "imageOwner" in parse("imageOwner=no-such-account\n")["remarks"][0]


@given(st.text(alphabet="udiMountsFE=:;\\#\n \t/\"'module_a,v0", max_size=200))
def test_no_text_crashes_the_parser(text: str) -> None:
    with suppress(_core.Error):
        parse(text)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parser(text: bytes) -> None:
    with suppress(_core.Error):
        _core.parse_config(MINIMAL.encode() + text, "x")
