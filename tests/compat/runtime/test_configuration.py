# SPDX-License-Identifier: BSD-3-Clause
"""What the reference's own tests check of configuration and images (runtime contract, section 20, "Configuration and
utilities" and "Image data"), asked of the installed programs. Each test is named after its line there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.accounts import User
from tests.shifternode import ShifterNode, image_id

IMAGE = f"--image=id:{image_id('base')}"


def environment(node: ShifterNode, *options: str, **variables: str) -> dict[str, str]:
    done = node.run(*(options or (IMAGE,)), "/bin/env", env={"PATH": "/bin", **variables})
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def refused(node: ShifterNode, *options: str, **more: User) -> str:
    done = node.run(*options, "/bin/true", **more)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1), (options, done.stderr)
    return str(done.stderr)


# Configuration and utilities


@pytest.mark.parametrize("before", ["", " ", " \t  "])
@pytest.mark.parametrize("after", ["", "\t", "  \t \t"])
def test_trim(node: ShifterNode, before: str, after: str) -> None:
    """No-op on dense text; leading blanks and tabs; trailing ones; both; several on both ends."""
    node.configure(f"{before}siteEnv{after}={before}TRIMMED=dense{after}")
    assert environment(node)["TRIMMED"] == "dense"


def test_config_reader(node: ShifterNode) -> None:
    """Three keys; an unknown key; a continued value joins with single blanks; an empty key fails.

    An unknown key no longer stops everything: it is a remark of --verbose and an error of the checker
    (docs/udiroot-configuration.md)."""
    node.configure("siteEnv=ONE=1\nsiteEnvAppend=TWO=2\nsiteEnvPrepend=THREE=3\nnobodyKnows=x")
    shown = environment(node)
    assert [shown[name] for name in ("ONE", "TWO", "THREE")] == ["1", "2", "3"]
    assert "unknown key 'nobodyKnows'" in node.run("--verbose", IMAGE, "/bin/true").stderr
    node.configure("sitePreMountHook=/no \\  \n\t such \\\n   hook")
    assert "/no such hook" in refused(node, IMAGE)
    node.configure("  = value")
    assert str(node.conf) in refused(node, IMAGE)


def test_config_reader_missing_file(node: ShifterNode) -> None:
    """A missing file is an error of every program, and nothing is touched."""
    node.conf.unlink()
    assert str(node.conf) in refused(node, IMAGE)
    for name in ("setupRoot", "unsetupRoot"):
        done = node.as_root(name, "-u", node.alice.name, "id", image_id("base"))
        assert (done.returncode, done.stdout) == (1, "")
        assert str(node.conf) in done.stderr
    assert not node.state.exists()


def test_growing_string_array(node: ShifterNode) -> None:
    """Appended up to and past any capacity; a zero-length string; invalid arguments rejected."""
    names = [f"V{number}" for number in range(1500)]
    shown = environment(node, IMAGE, *(f"--env={name}={name.lower()}" for name in names), "--env=EMPTY=")
    assert {name: shown[name] for name in names} == {name: name.lower() for name in names}
    assert shown["EMPTY"] == ""
    for bad in ("--env=", "--env=NAME", "--env==value"):
        assert "--env" in refused(node, bad, IMAGE)


def test_growing_string_buffer(node: ShifterNode) -> None:
    """A first write, an extension within the capacity, growth by 2 KiB: the line of the state file."""
    for count in (0, 1, 40, 200):
        maps = [f"/srv/data:/mount/number/{number:04}" for number in range(count)]
        text = node.run(IMAGE, *(f"-V{one}" for one in maps), "/bin/cat", "/var/shifterConfig.json").stdout
        assert json.loads(text)["volMap"] == ";".join(maps)


@pytest.mark.parametrize("length", [1, 127, 128, 129, 70_000])
def test_formatted_string_allocation(node: ShifterNode, length: int) -> None:
    """Short, and more than 128 bytes."""
    node.configure(siteEnvAppend="LIST=end", siteEnvPrepend="LIST=start")
    assert environment(node, LIST="x" * length)["LIST"] == f"start:{'x' * length}:end"


def test_path_filter(node: ShifterNode) -> None:
    """Benign text; shell metacharacters; a slash. Names are taken as they are, none is edited: docs/runtime.md."""
    names = ["/benign-1.2_x+y", "/$(touch here)", "/`x`&|<>*?!'#~=,@", "/a/b/c"]
    script = " && ".join(["cat file"] * len(names))
    maps = ["-V/srv/data:" + name.replace(" ", "\\ ") for name in names]
    for name, one in zip(names, maps):
        assert node.run(IMAGE, one, f"--workdir={name}", "/bin/cat", "file").stdout == "from the image\n", name
    assert node.run(IMAGE, *maps, "--workdir=/a/b/c", "/bin/sh", "-c", script).returncode == 0
    for bad in ("\n", "\x7f", "\x1b"):
        assert "volume map" in refused(node, f"-V/srv/data:/a{bad}b", IMAGE)


@pytest.mark.parametrize(
    ("text", "clean"),
    [("//srv///data:///x//y", "/srv/data:/x/y"), ("/srv/data/:/x/", "/srv/data:/x"), ("/srv/./data:/x", None)],
)
def test_clean_path(node: ShifterNode, text: str, clean: str | None) -> None:
    """Repeated slashes, a trailing slash; empty, "/" and relative are refused as sides of a map."""
    state = node.run(IMAGE, f"-V{text}", "/bin/cat", "/var/shifterConfig.json").stdout
    assert json.loads(state)["volMap"] in ([clean] if clean else ["/srv/data:/x", "/srv/./data:/x"])
    for bad in (":/x", "/:/x", "/srv:", "/srv:/", "srv:/x", "/srv:x", ""):
        assert bad == "" or "volume map" in refused(node, f"-V{bad}", IMAGE)


def test_path_compare(node: ShifterNode) -> None:
    """Equality does not see slashes, relative is not absolute: which prepared container is the one asked for."""
    done = node.as_root("setupRoot", "-u", node.alice.name, "-v", "/srv//data/:/x", "id", image_id("base"))
    assert done.returncode == 0, done.stderr
    namespace = ["/bin/readlink", "/proc/self/ns/mnt"]
    prepared = {node.run(IMAGE, f"-V{text}", *namespace).stdout for text in ("/srv/data:/x", "//srv/data/:/x//")}
    assert len(prepared) == 1
    assert node.run(IMAGE, "-V/srv/data:/y", *namespace).stdout not in prepared
    assert "below /etc" in refused(node, "-V/tmp://etc//x", IMAGE)
    assert "absolute" in refused(node, "-V/tmp:etc", IMAGE)


def test_list_decode(node: ShifterNode) -> None:
    """`[u'how', u'now']`; a missing quote and a missing bracket give an error."""
    node.add_image("list", node.base / "tree", "ENTRY: [u'/bin/printenv', u'how']\nENV: how=now\n")
    image = f"--image=id:{image_id('list')}"
    assert node.run(image, "--entrypoint").stdout == "now\n"
    for damaged in ("[u'how, u'now']", "[u'how', u'now'"):
        (node.images / f"{image_id('list')}.meta").write_text(f"FORMAT: squashfs\nENTRY: {damaged}\n")
        assert image_id("list") in refused(node, image, "--entrypoint")


def test_argument_counting_merging_duplication(node: ShifterNode) -> None:
    node.add_image("counted", node.base / "tree", "ENTRY: ['/bin/sh', '-c', 'echo $#', 'x']\nCMD: ['one', '']\n")
    image = f"--image=id:{image_id('counted')}"
    assert node.run(image, "--entrypoint").stdout == "2\n"
    assert node.run(image, "--entrypoint", "a", "", "b c").stdout == "3\n"
    assert node.run(image, "--entrypoint", *["word"] * 12_000).stdout == "12000\n"


def test_full_test_configuration(node: ShifterNode) -> None:
    """All scalar keys; two modules with every sub-key that exclude each other; a default module is active."""
    trees = {name: node.base / f"full-{name}" for name in ("opt", "one", "two", "site", "cache")}
    for name, path in trees.items():
        path.mkdir(exist_ok=True)
        (path / f"file-{name}").touch()
    hook = node.add_program("full-hook", "#!/bin/sh\ntouch hooked\n")
    scalars = {
        "mountUdiRootWritable": "0", "maxGroupCount": "5", "allowLocalChroot": "0", "optUdiImage": str(trees["opt"]),
        "sitePreMountHook": str(hook), "sitePostMountHook": str(hook), "siteFs": f"{trees['site']}:/full/site",
        "siteEnv": "FULL=site SET=1", "siteEnvAppend": "PATH=/opt/udiImage/bin", "siteEnvPrepend": "PATH=/first",
        "siteEnvUnset": "GONE", "mountPropagationStyle": "slave", "perNodeCachePath": str(trees["cache"]),
        "perNodeCacheSizeLimit": "500m", "perNodeCacheAllowedFsType": "xfs", "gatewayTimeout": "3",
        "mkfsXfsPath": "/sbin/mkfs.xfs", "batchType": "slurm", "defaultModules": "one", "nodeContextPrefix": "x",
    }  # fmt: skip
    modules = []
    for name, other in (("one", "two"), ("two", "one")):
        keys = {
            "siteEnv": f"MODULE={name} SET=module", "siteEnvAppend": f"LIST={name}-end",
            "siteEnvPrepend": f"LIST={name}", "siteEnvUnset": "AWAY", "siteFs": f"{trees[name]}:/full/{name}",
            "copyPath": str(trees[name]), "roothook": str(hook), "userhook": "/bin/true", "conflict": other,
            "enabled": "1",
        }  # fmt: skip
        modules += [f"module_{name}_{key}={value}" for key, value in keys.items()]
    node.configure("\n".join(modules), **scalars)
    script = "ls /full/*; ls /opt/udiImage /opt/udiImage/modules/*; ls /hooked; cat /var/shifterConfig.json; env"
    for name, options in (("one", []), ("two", ["--module=two"])):
        done = node.run(IMAGE, *options, "/bin/sh", "-c", script, env={"PATH": "/bin", "GONE": "1", "AWAY": "1"})
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        for expected in (f"file-{name}", "file-site", "file-opt", "/hooked", f"MODULE={name}", "SET=1", "FULL=site"):
            assert expected in lines, expected
        assert f"LIST={name}:{name}-end" in lines
        assert "PATH=/first:/bin:/opt/udiImage/bin" in lines
        assert f'"modules":"{name},"' in done.stdout
        assert not [line for line in lines if line.startswith(("GONE", "AWAY"))]
    assert "conflict" in refused(node, "--module=one,two", IMAGE)


def test_configuration_dump(node: ShifterNode) -> None:
    """Prints something and ends well."""
    done = node.as_root("setupRoot", "-V", "-u", node.alice.name, "id", image_id("base"))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"udiMount {node.udi_mount}\n" in done.stdout
    assert image_id("base") in done.stdout


# Image data


def test_metadata_assign(node: ShifterNode) -> None:
    """ENV is accepted, other keys of either gateway do no harm."""
    node.add_image("assigned", node.base / "tree", "ENV: A=B\nUSER: root\nVOLUME: /data\nSOMETHING: new\n")
    done = node.run(f"--image=id:{image_id('assigned')}", "/bin/printenv", "A")
    assert (done.returncode, done.stdout, done.stderr) == (0, "B\n", "")


def test_image_filter(node: ShifterNode) -> None:
    """Shell text; legal text is kept; empty; a slash only for docker. Nothing is stripped: an error names it."""
    node.tag("docker", "Legal-1.2_x+y%2Fz%3A3", "base")
    assert node.run("--image=docker:Legal-1.2_x+y/z:3", "/bin/cat", "/etc/os-release").stdout == "NAME=TestImage\n"
    for text in ("x;ls", "x$(ls)", "x`ls`", "x|y", "x y", "x'y", "x\\y", "x\ny"):
        assert "cannot be in the name" in refused(node, f"--image=docker:{text}")
    assert "no name" in refused(node, "--image=docker:")
    assert "'/' cannot be in a custom name" in refused(node, "--image=custom:a/b")


@pytest.mark.parametrize(
    ("line", "admitted"),
    [
        ("", True), ("{me}", True), ("4242,{me}", True), ("4242,{me},4243", True), ("4242,4243,", False),
        ("{me},", True), (",{me}", True), ("4242,,{me}", True), (" 4242 ,  {me} ", True), ("x1,{me},-5", True),
        ("bob", False), (",,", True),
    ],
)  # fmt: skip
def test_acl_list(node: ShifterNode, line: str, admitted: bool) -> None:
    """Empty, one, two, three ids; a comma behind, before and twice; blanks; a bad item is skipped."""
    identifier = image_id("listed")
    if not (node.images / f"{identifier}.squashfs").exists():
        node.add_image("listed", node.base / "tree")
    meta = node.images / f"{identifier}.meta"
    for key, number in (("USERACL", node.alice.uid), ("GROUPACL", node.alice.gid)):
        meta.write_text(f"FORMAT: squashfs\n{key}: {line.format(me=number)}\n")
        done = node.run(f"--image=id:{identifier}", "/bin/true")
        assert done.returncode == (0 if admitted else 125), (key, done.stderr)


def test_descriptor(node: ShifterNode) -> None:
    """An explicit type, an implicit one, no default, an illegal default, illegal characters."""
    node.tag("docker", "named%3Alatest", "base")
    node.tag("custom", "named%3Alatest", "base")
    for text in ("docker:named", "named", "named:latest", "custom:named"):
        assert node.run(f"--image={text}", "/bin/true").returncode == 0, text
    node.configure(defaultImageType="custom")
    assert node.run("--image=named", "/bin/true").returncode == 0
    node.configure(defaultImageType="")
    assert "no type" in refused(node, "--image=named")
    node.configure(defaultImageType="vm")
    assert "defaultImageType" in refused(node, "--image=named")
    node.configure()
    assert "cannot be in the name" in refused(node, "--image=named*")


def test_the_metadata_of_the_old_gateway(node: ShifterNode, tmp_path: Path) -> None:
    """Section 6.2 as a whole: every key in the order in which that gateway wrote them."""
    node.add_image(
        "historic", node.base / "tree",
        "ENTRY: [u'/bin/sh', u'-c']\nCMD: [u'pwd; echo $A $B']\nWORKDIR: /srv/data\n"
        f"USERACL: {node.alice.uid}\nGROUPACL: 4242\nENV: A=1\nENV: B=2 3\nUSER: nobody\n",
    )  # fmt: skip
    image = f"--image=id:{image_id('historic')}"
    assert node.run(image, "--entrypoint", "--workdir").stdout == "/srv/data\n1 2 3\n"
    assert "not available" in refused(node, image, user=node.eve)
