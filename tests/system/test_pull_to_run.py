# SPDX-License-Identifier: BSD-3-Clause
"""The whole road on one machine: registry, gateway, worker, image store, launcher, all as a site runs them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.mongoserver import mongo_server
from tests.registryserver import Pushed, RegistryServer, registry_server, tar_of
from tests.shifternode import base_tree
from tests.site import SYSTEM, Site


@pytest.fixture(scope="module")
def image(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Pushed:
    """A runnable image of three layers, the last of which removes a file of the first."""
    tree = base_tree(tmp_path_factory.mktemp("image") / "tree")
    layer = subprocess.run(["tar", "-C", str(tree), "-cf", "-", "."], check=True, capture_output=True).stdout
    data = random.Random(1).randbytes(24 << 20)
    return registry.push_image(
        "demo/app",
        "1.0",
        [layer, tar_of({"srv/data/big": data}), tar_of({"srv/data/.wh.file": b"", "app.txt": b"the application\n"})],
        config={"Env": ["APP=demo"], "Entrypoint": ["/bin/cat"], "Cmd": ["/app.txt"], "WorkingDir": "/srv/data"},
    )


def reference(centre: Site) -> str:
    return f"docker:{centre.name}/demo/app:1.0"


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_user_pulls_and_runs(centre: Site, image: Pushed) -> None:
    centre.start()
    pulled = centre.shifterimg("pull", reference(centre))
    assert pulled.returncode == 0, pulled.stderr + centre.log.read_text()
    last = pulled.stdout.splitlines()[-1]
    assert re.fullmatch(rf"\S+ Pulling Image: {re.escape(reference(centre))}, status: READY", last), pulled.stdout
    assert centre.shifterimg("lookup", reference(centre)).stdout == f"{image.id}\n"
    listed = centre.shifterimg("images").stdout
    assert listed.startswith(f"{SYSTEM:<10} {'docker':<10} {'READY':<8} {image.id[:10]}   ")
    assert f"{centre.name}/demo/app:1.0" in listed
    run = centre.shifter(f"--image={reference(centre)}", "/bin/cat", "/etc/os-release")
    assert (run.returncode, run.stdout) == (0, "NAME=TestImage\n"), run.stderr
    assert centre.shifter(f"--image={reference(centre)}", "--entrypoint").stdout == "the application\n"
    shown = centre.shifter(f"--image=id:{image.id}", "/bin/sh", "-c", "id -u; echo $APP $SHIFTER_RUNTIME; ls /srv/data")
    assert shown.stdout == f"{centre.alice.uid}\ndemo 1\nbig\n", shown.stderr
    assert centre.debris() == []
    assert centre.stop() == 0


def test_one_exec_and_no_fork_when_the_tag_index_answers(centre: Site, image: Pushed, tmp_path: Path) -> None:
    centre.start()
    assert centre.shifterimg("pull", reference(centre)).returncode == 0
    centre.stop()  # the index answers without it
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-o", str(trace), "-u", centre.alice.name, str(centre.product.shifter)]
    subprocess.run([*command, f"--image={reference(centre)}", "/bin/true"], check=True, cwd="/")
    text = trace.read_text(errors="replace")
    assert len(re.findall(r"\bexecve(?:at)?\(", text)) == 2, text  # the launcher's own and the command's
    assert re.findall(r"\b(?:fork|vfork|clone|clone3)\(", text) == []


def test_a_tag_without_an_index_entry_is_asked_of_the_gateway(centre: Site, image: Pushed) -> None:
    centre.start()
    assert centre.shifterimg("pull", reference(centre)).returncode == 0
    for entry in (centre.images / "tags").rglob("*"):
        if entry.is_file():
            entry.unlink()
    run = centre.shifter(f"--image={reference(centre)}", "/bin/cat", "/app.txt")
    assert (run.returncode, run.stdout) == (0, "the application\n"), run.stderr


def test_both_stores_and_a_second_conversion_give_the_same_bytes(
    centre: Site, image: Pushed, tmp_path: Path
) -> None:
    found = set()
    with mongo_server(tmp_path) as uri:
        for settings in ({}, {}, {"MongoDBURI": uri}):
            centre.clear()
            centre.configure(**settings)
            centre.start()
            pulled = centre.shifterimg("pull", reference(centre))
            assert pulled.returncode == 0, pulled.stderr + centre.log.read_text()
            centre.stop()
            found.add(
                (checksum(centre.images / f"{image.id}.squashfs"), (centre.images / f"{image.id}.meta").read_bytes())
            )
    assert len(found) == 1


def test_the_worker_killed_at_ten_moments_leaves_a_whole_image_or_a_reason(centre: Site, image: Pushed) -> None:
    """Each round pulls from nothing; whoever is left finishes the pull after the lease has expired."""
    centre.start()
    assert centre.shifterimg("pull", reference(centre)).returncode == 0
    expected = checksum(centre.images / f"{image.id}.squashfs")
    centre.stop()
    moments = random.Random(7)
    for _ in range(10):
        centre.clear()
        centre.start(workers=2)
        client = subprocess.Popen(
            [str(centre.product.shifterimg), "--json", "pull", reference(centre)],
            user=centre.alice.uid, group=centre.alice.gid, extra_groups=[], cwd="/", env={"PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(moments.uniform(0.05, 0.9))
        for pid in centre.worker_pids()[: moments.choice((1, 2))]:
            os.kill(pid, signal.SIGKILL)
        output, errors = client.communicate(timeout=120)
        answer = json.loads(output)
        assert answer["status"] in ("READY", "FAILURE"), errors
        if answer["status"] == "READY":
            assert checksum(centre.images / f"{image.id}.squashfs") == expected
        else:
            assert answer["status_message"]
            assert not (centre.images / f"{image.id}.squashfs").exists()
        assert centre.stop() == 0
        # What a killed worker left is swept by the next one that starts; layers only when they are ten minutes old.
        for left in centre.debris():
            if Path(left).is_relative_to(centre.base / "gateway/cache"):
                os.utime(left, (0, 0))
        centre.start()
        deadline = time.monotonic() + 30
        while centre.debris() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert centre.debris() == []
        assert centre.stop() == 0
    loops = subprocess.run(["losetup", "-nl", "-O", "BACK-FILE"], check=True, capture_output=True, text=True).stdout
    assert str(centre.base) not in loops


def test_a_private_image_is_its_pullers_alone(centre: Site, tmp_path: Path) -> None:
    with registry_server(tmp_path, users={"bob": "pass:word"}) as private:
        pushed = private.push_image("secret/app", "1", [tar_of({"bin/": b"", "secret": b"s\n"})])
        location = {"remotetype": "dockerv2", "url": private.url}
        centre.configure(Locations={private.host: location}, DefaultImageLocation=private.host)
        centre.start()
        name = f"docker:{private.host}/secret/app:1"
        refused = centre.shifterimg("pull", name)
        assert refused.returncode == 1
        assert "login" in refused.stderr
        store_login(centre, private.host, "bob:pass:word")
        pulled = centre.shifterimg("pull", name)
        assert pulled.returncode == 0, pulled.stderr
        assert f"PRIVATE: 1\nUSERACL: {centre.alice.uid}\n" in (centre.images / f"{pushed.id}.meta").read_text()
        assert centre.shifterimg("lookup", name).stdout == f"{pushed.id}\n"
        assert centre.shifterimg("lookup", name, user=centre.eve).returncode == 1
        denied = centre.shifter(f"--image=id:{pushed.id}", "/bin/true", user=centre.eve)
        absent = centre.shifter(f"--image=id:{'0' * 64}", "/bin/true", user=centre.eve)
        assert denied.returncode == absent.returncode == 125
        assert denied.stderr.replace(pushed.id, "0" * 64) == absent.stderr
        assert "pass:word" not in centre.log.read_text()


def store_login(centre: Site, location: str, login: str) -> None:
    """What ``shifterimg login`` leaves in the user's home; the command itself wants a terminal."""
    identity = {"user": centre.alice.uid, "group": centre.alice.gid, "extra_groups": ()}
    munge = subprocess.run(["munge"], input=login, check=True, capture_output=True, text=True, **identity)  # type: ignore[call-overload]
    directory = centre.home(centre.alice) / ".udiRoot"
    directory.mkdir(mode=0o700)
    (directory / ".cred").write_text(f"{SYSTEM}:{location}={munge.stdout.strip()}\n")
    (directory / ".cred").chmod(0o600)
    for path in (directory, directory / ".cred"):
        os.chown(path, centre.alice.uid, centre.alice.gid)
