# SPDX-License-Identifier: BSD-3-Clause
"""What modules and the site put into containers: directories of theirs, and programs that run before the command."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.shifternode import ShifterNode, image_id

IMAGE = f"--image=id:{image_id('base')}"
EVERY_KERNEL = True


# optUdiImage and copyPath: directories of the site's, shown and not copied


def make_trees(node: ShifterNode) -> tuple[Path, Path, Path]:
    """optUdiImage and the copyPath of two modules."""
    own, one, two = (node.base / name for name in ("udiImage", "tree-one", "tree-two"))
    for tree, files in (
        (own, ("bin/tool", "etc/file", "modules/kept/file", "top")), (one, ("lib/one",)), (two, ("lib/two",)),
    ):  # fmt: skip
        shutil.rmtree(tree, ignore_errors=True)
        for name in files:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(f"{name}\n")
    (own / "lib64").symlink_to("bin")
    return own, one, two


def test_the_sites_tree_is_shown_read_only(node: ShifterNode) -> None:
    own, _one, _two = make_trees(node)
    node.configure(optUdiImage=str(own))
    assert node.script("ls -A /opt/udiImage; cat /opt/udiImage/bin/tool /opt/udiImage/lib64/tool") == (
        "bin\netc\nlib64\nmodules\ntop\nbin/tool\nbin/tool\n"
    )
    mounts = [line.split() for line in node.script("cat /proc/self/mountinfo").splitlines()]
    options = [set(fields[5].split(",")) for fields in mounts if fields[4].startswith("/opt")]
    assert [{"ro", "nosuid", "nodev"} - found for found in options] == [set()]
    (own / "later").write_text("later\n")
    assert node.script("cat /opt/udiImage/later") == "later\n"


@pytest.mark.parametrize("hooks", [False, True])
def test_trees_of_modules_appear_within_the_sites(node: ShifterNode, hooks: bool) -> None:
    own, one, two = make_trees(node)
    seen = node.base / "seen"
    seen.unlink(missing_ok=True)
    hook = node.add_program("hook", f"#!/bin/sh\nls opt/udiImage/modules opt/udiImage/modules/one > {seen}\n")
    node.configure(
        f"module_one_copyPath={one}\nmodule_two_copyPath={two}" + (f"\nmodule_one_roothook={hook}" if hooks else ""),
        optUdiImage=str(own),
    )
    look = "cd /opt/udiImage; ls -A . modules modules/*; cat bin/tool top lib64/tool modules/*/lib/*"
    done = node.run(IMAGE, "--module=two,one", "/bin/sh", "-c", look)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        *(".:", "bin", "etc", "lib64", "modules", "top", "modules:", "kept", "one", "two"),
        *("modules/kept:", "file", "modules/one:", "lib", "modules/two:", "lib"),
        *("bin/tool", "top", "bin/tool", "lib/one", "lib/two"),
    ]
    assert node.run(IMAGE, "--module=one", "/bin/ls", "/opt/udiImage/modules").stdout == "kept\none\n"
    assert seen.exists() == hooks
    assert not hooks or seen.read_text().split()[1:3] == ["kept", "one"]
    assert not (own / "modules/one").exists()


def test_a_modules_tree_needs_no_tree_of_the_site(node: ShifterNode) -> None:
    _own, one, _two = make_trees(node)
    node.configure(f"module_one_copyPath={one}", defaultModules="one")
    assert node.script("ls /opt/udiImage; cat /opt/udiImage/modules/one/lib/one") == "modules\nlib/one\n"
    assert "Read-only" in node.run(IMAGE, "/bin/touch", "/opt/udiImage/modules/one/x").stderr
    node.configure(f"module_one_copyPath={one}", defaultModules="one", mountUdiRootWritable="1")
    assert "Read-only" in node.run(IMAGE, "/bin/touch", "/opt/udiImage/modules/one/x").stderr


def test_w10_a_tree_that_others_could_have_written_is_not_shown(node: ShifterNode) -> None:
    own, one, _two = make_trees(node)
    for tree, extra, settings in (
        (own, "", {"optUdiImage": str(own)}), (one, f"module_one_copyPath={one}", {"defaultModules": "one"}),
    ):  # fmt: skip
        node.configure(extra, **settings)
        tree.chmod(0o775)
        assert f"{tree} can be written by others" in node.refused(IMAGE, "/bin/true")
        tree.chmod(0o755)
        os.chown(tree, node.eve.uid, 0)
        assert f"{tree} belongs to uid {node.eve.uid}" in node.refused(IMAGE, "/bin/true")
        shutil.rmtree(tree)
        assert f"cannot open {tree}" in node.refused(IMAGE, "/bin/true")
        tree.write_text("a file\n")
        assert "Not a directory" in node.refused(IMAGE, "/bin/true")
        tree.unlink()


def test_entries_are_checked_one_by_one_where_modules_lie_within(node: ShifterNode) -> None:
    own, one, _two = make_trees(node)
    node.configure(f"module_one_copyPath={one}", defaultModules="one", optUdiImage=str(own))
    (own / "foreign").symlink_to("/tmp")
    assert "/tmp can be written by others" in node.refused(IMAGE, "/bin/true")
    (own / "foreign").unlink()
    (own / "bin").chmod(0o777)
    assert f"{own}/./bin can be written by others".replace("/./", "/") in node.refused(IMAGE, "/bin/true")


# userhook


def configure_userhook(node: ShifterNode, script: str, extra: str = "") -> None:
    tree = node.base / "tree-hook"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    (tree / "hook").write_text(script)
    (tree / "hook").chmod(0o755)
    node.configure(
        f"module_u_copyPath={tree}\nmodule_u_userhook=/opt/udiImage/modules/u/hook\n{extra}", defaultModules="u"
    )


def test_a_userhook_runs_as_the_user_in_the_container_before_each_command(node: ShifterNode) -> None:
    script = "#!/bin/sh\nid -u; cat /etc/os-release; pwd; cat; env; grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status"
    configure_userhook(node, f"{script}\nls /proc/self/fd | wc -l; echo to-stderr >&2\n")
    for prepared in (False, True):
        if prepared:
            assert node.as_root("setupRoot", "-u", node.alice.name, "id", image_id("base")).returncode == 0
        done = node.run(
            IMAGE, "--workdir=/srv", "-e", "SECRET=x", "/bin/sh", "-c", "echo command; cat; exit 3",
            env={"PATH": "/bin", "LD_PRELOAD": "/evil", "BASH_ENV": "/evil", "SECRET": "y"}, input="for the command",
        )  # fmt: skip
        assert done.returncode == 3, done.stderr
        assert done.stderr == "to-stderr\n"
        hook, command = done.stdout.split("command\n")
        assert command == "for the command"
        lines = hook.splitlines()
        assert lines[:3] == [str(node.alice.uid), "NAME=TestImage", "/srv"]
        assert set(lines[3:6]) == {"PATH=/usr/bin:/usr/sbin:/bin:/sbin", "LC_ALL=C.UTF-8", "PWD=/srv"}
        assert lines[6:] == ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "4"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\nexit 3\n", "exited with status 3"), ("exit 4\n", "exited with status 4"),
        ("#!/bin/sh\nkill -9 $$\n", "killed by signal 9"), ("#!/bin/missing\n", "is it in the container?"),
    ],
)
def test_a_userhook_that_fails_stops_the_start(node: ShifterNode, script: str, words: str) -> None:
    configure_userhook(node, script)
    said = node.refused(IMAGE, "/bin/true")
    assert words in said
    assert "userhook /opt/udiImage/modules/u/hook of module u" in said


def test_userhooks_run_in_order_and_with_ignored_child_signals(node: ShifterNode) -> None:
    configure_userhook(node, "#!/bin/sh\necho first\n", "module_v_userhook=/bin/id\n")
    done = node.run(
        IMAGE, "--module=u,v,u", "/bin/ls", "/srv", preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        restore_signals=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "first"), done.stderr
    assert done.stdout.splitlines()[1].startswith(f"uid={node.alice.uid}(")
    assert done.stdout.splitlines()[2:] == ["data"]
