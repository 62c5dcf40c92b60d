# SPDX-License-Identifier: BSD-3-Clause
"""What an administrator can mistype in udiRoot.conf: every program of the runtime says it in one line that names the
key or file, ends with its own status, and leaves the node as it was."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import nodestate
from tests.shifternode import ShifterNode, image_id

pytestmark = pytest.mark.slow
IMAGE = image_id("base")
#: Value of a key that the parser refuses: {base} is the node's directory.
REFUSED = [
    *(("udiMount", value) for value in ("", "relative", "/", "//", "/.", "/a/..", "/a\x1b[31m")),
    *(("imagePath", value) for value in ("", "relative", "/", "{base}/udiMount", "{base}/udiMount/images", "/a\x07")),
    *(("etcPath", value) for value in ("", "relative", "/", "{base}/udiMount/etc")),
    *(("udiRootPath", value) for value in ("", "relative", "{base}/udiMount")),
    *(("rootfsType", value) for value in ("", "ext4", "TMPFS", "tmpfs ramfs", "tmp", "tmpfs,size=1g")),
    *(("maxGroupCount", value) for value in ("-1", "many", "1e3", "99999999999")),
    *(("gatewayTimeout", value) for value in ("-1", "1.5", "soon", "9999999999")),
    *(("allowLocalChroot", value) for value in ("yes", "-1")),
    *(("mountUdiRootWritable", value) for value in ("true", "1.0", "99999999999999999")),
    *(("mountPropagationStyle", value) for value in ("shared", "PRIVATE", "private slave")),
    *(("defaultImageType", value) for value in ("Docker", "oci", "docker custom")),
    *(("defaultModules", value) for value in ("nosuch", "a,,b")),
    *(("system", value) for value in ("a b", "a/b", ".", "..", "a\x01", "\x1b[31m")),
    *(("optUdiImage", value) for value in ("relative", "{base}/udiMount/x")),
    *(("perNodeCachePath", value) for value in ("relative", "/", "{base}/udiMount")),
    *(("perNodeCacheSizeLimit", value) for value in ("big", "-1", "1.5.5g", "nan", "1e5", "18446744073709551616")),
    *(("siteEnv", value) for value in ("novalue", "=x", "A=1 B", "A\x01=1")),
    *(("siteEnvUnset", value) for value in ("A=1",)),
    *(("siteFs", value) for value in (
        "/tmp:/", "/tmp:/etc", "/tmp:/x:bogus", "/tmp:/x:ro:ro", "/tmp:relative", "relative:/x", '"/tmp:/x',
        "/tmp:/../x", "/tmp:/x:slave:private", "/tmp:/x:perNodeCache", "/tmp:/x:ro=1", "/t\x1bmp:/x",
    )),
    *(("sitePreMountHook", value) for value in ("relative", "/a/../b")),
    *(("module_m_conflict", value) for value in ("nosuch",)),
    *(("module_m_enabled", value) for value in ("yes",)),
    *(("module_m_copyPath", value) for value in ("relative", "/")),
    *(("module_m_siteFs", value) for value in ("bad", "/tmp:/")),
    ("module_none_siteEnv", "A=1"), ("module_../x_copyPath", "/tmp"),
]  # fmt: skip
#: Right as far as the parser can tell, and found out where it is used.
UNUSABLE = [
    ("udiMount", "/no/such/place"), ("udiMount", "/etc/passwd"), ("udiMount", "/" + "x" * 300),
    ("imagePath", "/no/such/place"), ("imagePath", "/etc/passwd"), ("imagePath", "/tmp"),
    ("etcPath", "/no/such/place"), ("etcPath", "/etc/passwd"), ("etcPath", "/tmp"), ("etcPath", "/etc"),
    ("etcPath", "/dev"),
    ("optUdiImage", "/no/such/place"), ("optUdiImage", "/etc/passwd"), ("optUdiImage", "/tmp"),
    *((hook, value) for hook in ("sitePreMountHook", "sitePostMountHook")
      for value in ("/no/such/place", "/tmp", "/etc/passwd", "/bin/false", "/", "/dev/null", "/bin/sleep 1")),
    ("siteFs", "/no/such/place:/x"), ("siteFs", "/etc/passwd:/srv"), ("siteFs", "/tmp:/srv/data/file"),
    ("perNodeCachePath", "/no/such/place"), ("perNodeCachePath", "/tmp"), ("perNodeCachePath", "/etc/passwd"),
    ("mkfsXfsPath", "relative"), ("mkfsXfsPath", "/no/such/place"), ("mkfsXfsPath", "/bin/false"),
]  # fmt: skip
PLACES = [
    *("/dev", "/dev/shm", "/proc", "/proc/1/root", "/sys", "/etc", "/tmp", "/var", "/var/lib", "/usr", "/usr/lib"),
    *("/home", "/run", "/root", "/bin", "/boot", "/opt", "/srv", "/mnt", "{base}", "{base}/images", "{base}/etc"),
]


def one_line(program: str, done: subprocess.CompletedProcess[str], status: int, word: str) -> None:
    assert (done.returncode, done.stdout) == (status, ""), (done.stdout, done.stderr)
    assert done.stderr.endswith("\n")
    assert done.stderr[:-1].isprintable(), done.stderr
    assert done.stderr.startswith(f"{program}: ")
    assert word in done.stderr


def configure(node: ShifterNode, key: str, value: str) -> str:
    """Writes udiRoot.conf with this line; returns the value."""
    value = value.format(base=node.base)
    known = key in node.settings or key in ("perNodeCachePath", "mkfsXfsPath")
    caches = {"perNodeCachePath": str(node.base), "mkfsXfsPath": "/usr/sbin/mkfs.xfs"} if "Cache" in key + value else {}
    caches |= {"perNodeCachePath": str(node.base)} if key == "mkfsXfsPath" else {}
    if known:
        node.configure(**{**caches, key: value})
    else:
        node.configure(f"{key}={value}", **caches)
    return value


def prepare(node: ShifterNode, *options: str) -> subprocess.CompletedProcess[str]:
    return node.as_root("setupRoot", "-u", node.alice.name, *options, "id", IMAGE)


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_a_value_that_is_refused(node: ShifterNode, key: str, value: str) -> None:
    configure(node, key, value)
    for options in (("--version",), ("--help",)):
        assert node.run(*options).returncode == 0
    one_line("shifter", node.run(f"--image=id:{IMAGE}", "/bin/true"), 125, key)
    one_line("setupRoot", prepare(node), 1, key)
    one_line("unsetupRoot", node.as_root("unsetupRoot"), 1, key)
    nodestate.check_clean(node, (key, value))


@pytest.mark.parametrize(("key", "value"), UNUSABLE)
def test_a_value_that_cannot_be_used(node: ShifterNode, key: str, value: str) -> None:
    configure(node, key, value)
    cache = "/srv:/cc:perNodeCache=size=300m"
    with_cache = key in ("perNodeCachePath", "mkfsXfsPath")
    options = [f"--volume={cache}"] if with_cache else []
    one_line("shifter", node.run(f"--image=id:{IMAGE}", *options, "/bin/true"), 125, "")
    done = prepare(node, *(["-v", cache] if with_cache else []))
    one_line("setupRoot", done, 1, "")
    assert key in done.stderr or value.rpartition(":")[2] in done.stderr
    assert key in done.stderr or not value.startswith("/no/such")
    nodestate.check_clean(node, (key, value))


@pytest.mark.parametrize("key", ["udiMount", "loopMount"])
@pytest.mark.parametrize("place", PLACES)
def test_a_directory_of_the_system_is_no_place_for_containers(node: ShifterNode, key: str, place: str) -> None:
    """unsetupRoot takes every mount there away, setupRoot shows a container over it: the node would be lost."""
    value = configure(node, key, place)
    one_line("shifter", node.run(f"--image=id:{IMAGE}", "/bin/true"), 125, value)
    one_line("setupRoot", prepare(node), 1, value)
    # In a mount namespace apart: were this to fail, it would take the node with it.
    table = "$(cat /proc/self/mountinfo)"
    script = f'before="{table}"; {node.program("unsetupRoot")}; test "$before" = "{table}"'
    command = ["unshare", "-m", "sh", "-c", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert value in done.stderr
    nodestate.check_clean(node, place)


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "udiMount", "\\\n", "# only a comment", "[section]\nudiMount=/x\n", '{"udiMount": "/x"}\n', "a\0b"],
)
def test_a_file_that_is_no_configuration(node: ShifterNode, text: str) -> None:
    node.conf.write_text(text)
    one_line("shifter", node.run(f"--image=id:{IMAGE}", "/bin/true"), 125, str(node.conf))
    one_line("setupRoot", prepare(node), 1, str(node.conf))
    one_line("unsetupRoot", node.as_root("unsetupRoot"), 1, str(node.conf))
    nodestate.check_clean(node, text)


@pytest.mark.parametrize(("mode", "word"), [(0o600, "chmod a+r"), (0o666, "chmod go-w"), (0o624, "chmod go-w")])
def test_a_configuration_of_the_wrong_mode(node: ShifterNode, mode: int, word: str) -> None:
    node.conf.chmod(mode)
    one_line("shifter", node.run(f"--image=id:{IMAGE}", "/bin/true"), 125, word)
    nodestate.check_clean(node, mode)


def test_nobody_is_told_to_close_tmp(node: ShifterNode) -> None:
    """The mistake is the line of udiRoot.conf, not the mode of the directory."""
    node.configure(imagePath="/tmp")
    one_line("shifter", node.run(f"--image=id:{IMAGE}", "/bin/true"), 125, "name another place")
    assert Path("/tmp").stat().st_mode & 0o1777 == 0o1777
