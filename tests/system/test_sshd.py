# SPDX-License-Identifier: BSD-3-Clause
"""The sshd of prepared containers, between two nodes: who gets in, and where to.

test_sshd_lifetime.py and test_sshd_site.py have the rest, test_slurm_sshd.py the same in jobs.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from tests.shifternode import image_id
from tests.sshpair import DIRECTORY, PORT, SECRET, Pair, key, processes_of

# A shell that needs no library: it runs one program by its path, or says what it was given.
TINY = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    char *words[64], *next = argc > 2 && strcmp(argv[1], "-c") == 0 ? argv[2] : argv[1];
    int count = 0;
    for (char *word; count < 63 && (word = strsep(&next, " ")) != NULL; words[count++] = word)
        continue;
    words[count] = NULL;
    if (words[0] != NULL && words[0][0] == '/')
        return execv(words[0], words);
    printf("tiny %u %s %s\n", (unsigned)getuid(), words[0], getenv("SHIFTER_IMAGE"));
    return 0;
}
"""


# ----------------------------------------------------------------------------------------------------------------------
# From one container into the other


def test_a_directory_in_place_of_an_image_has_one_too(pair: Pair) -> None:
    """What earlier versions made of `--ccm`: a container of the node itself, here of a directory, with an sshd."""
    node = pair.node
    node.configure(optUdiImage=str(pair.closure), allowLocalChroot="1")
    tree = str(node.base / "tree")
    for virtual in pair.nodes:
        command = pair.setup(node.alice.name, node.alice, f"7@{virtual.name}")[:-2]
        done = virtual.run(*command, "local", tree, input=pair.told())
        assert (done.returncode, done.stderr) == (0, "")
    there = pair.nodes[0].run(
        "env", "-i", "PATH=/usr/bin:/bin", "SLURM_JOB_ID=7", f"SLURMD_NODENAME={pair.nodes[0].name}",
        *node.command("ssh", "-oBatchMode=yes", pair.nodes[1].name, "printenv SHIFTER_IMAGE; cat /etc/os-release"),
        user=node.alice, input="",
    )  # fmt: skip
    assert (there.returncode, there.stdout) == (0, f"{tree}\nNAME=TestImage\n"), there.stderr
    pair.release(0)
    pair.release(1)



def test_ssh_goes_from_a_container_into_the_one_of_the_other_node_without_a_question(pair: Pair) -> None:
    pair.prepare()
    look = "cat /srv/data/file /var/hostsfile; id -u; readlink /proc/self/ns/net; cat /proc/self/status"
    done = pair.ssh(0, look)
    assert done.returncode == 0, done.stderr
    home = pwd.getpwuid(pair.node.alice.uid).pw_dir
    assert done.stderr == f"Could not chdir to home directory {home}: No such file or directory\n"
    lines = done.stdout.splitlines()
    assert lines[:4] == ["from the image", "n1", "n2", str(pair.node.alice.uid)]
    namespaces = [Path(f"/run/netns/{each.namespace}").stat().st_ino for each in pair.nodes]
    assert lines[4] == f"net:[{namespaces[1]}]"
    status = dict(line.split(":\t", 1) for line in lines[5:] if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    back = pair.ssh(1, "readlink /proc/self/ns/net; ssh -oBatchMode=yes n2 readlink /proc/self/ns/net")
    assert back.stdout == f"net:[{namespaces[0]}]\nnet:[{namespaces[1]}]\n"
    assert pair.ssh(0, "exit 3").returncode == 3


def test_a_session_is_in_the_container_that_shifter_enters_and_has_its_variables(pair: Pair) -> None:
    pair.node.add_image("variables", pair.node.base / "tree", 'ENV: FROM_IMAGE=a b "c" \\d#e\nENV: PATH=/bin:/srv\n')
    pair.node.configure(optUdiImage=str(pair.closure), siteEnv="BY_SITE=s", siteEnvAppend="PATH=/opt/udiImage/bin")
    pair.prepare(image="variables")
    found = dict(line.split("=", 1) for line in pair.ssh(0, "env", image="variables").stdout.splitlines())
    assert found["FROM_IMAGE"] == 'a b "c" \\d#e'
    assert found["PATH"] == "/bin:/srv:/opt/udiImage/bin"
    assert found["BY_SITE"] == "s"
    assert found["SHIFTER_IMAGE"] == image_id("variables")
    ours = pair.shifter(1, "readlink", "/proc/self/ns/mnt", image="variables").stdout
    assert ours.startswith("mnt:")
    assert pair.ssh(0, "readlink /proc/self/ns/mnt", image="variables").stdout == ours


def test_files_go_through_sftp_and_scp(pair: Pair) -> None:
    pair.prepare()
    copied = Path(f"/tmp/shifter-sshd-{os.getpid()}")
    try:
        done = pair.shifter(0, "/opt/udiImage/bin/scp", "-oBatchMode=yes", "n2:/srv/data/file", str(copied))
        assert done.returncode == 0, done.stderr
        assert copied.read_text() == "from the image\n"
    finally:
        copied.unlink(missing_ok=True)


def test_an_image_without_library_and_shell_of_the_account_is_entered_too(pair: Pair, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    compiler = ["gcc", "-static", "-O2", "-x", "c", "-o", str(tree / "bin/sh"), "-"]
    subprocess.run(compiler, input=TINY, text=True, check=True)
    pair.node.add_image("tiny", tree)
    passwd = pair.node.base / "etc/files/passwd"
    kept = passwd.read_text()
    name = pwd.getpwuid(pair.node.alice.uid).pw_name
    passwd.write_text("".join(
        line.rpartition(":")[0] + ":/usr/bin/fish\n" if line.startswith(f"{name}:") else line
        for line in kept.splitlines(keepends=True)
    ))  # fmt: skip
    try:
        pair.prepare(image="tiny")
        done = pair.ssh(0, "hello", image="tiny")
        assert done.stdout == f"tiny {pair.node.alice.uid} hello {image_id('tiny')}\n", done.stderr
        assert pair.shifter(0, "/bin/sh", "-c", "ours", image="tiny").stdout.startswith("tiny")
    finally:
        passwd.write_text(kept)


# ----------------------------------------------------------------------------------------------------------------------
# Who may log in, and whom ssh believes


def public_half(private: str, place: Path) -> str:
    """As OpenSSH's own tool reads it."""
    place.touch(0o600)
    place.write_text(private)
    return subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", str(place)], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_keys_are_equal_on_the_nodes_of_a_job_and_different_in_every_job(pair: Pair, tmp_path: Path) -> None:
    pair.prepare()
    host, user = (key(pair, 0, name) for name in ("host_key", "id_ed25519"))
    assert (host, user) == (key(pair, 1, "host_key"), key(pair, 1, "id_ed25519"))
    publics = [public_half(text, tmp_path / f"key{index}") for index, text in enumerate((host, user))]
    assert key(pair, 0, "authorized_keys").split() == publics[1].split()
    assert pair.shifter(0, "cat", "/etc/ssh/ssh_known_hosts").stdout == f"[*]:{PORT} {publics[0]}\n"
    found = {host, user}
    for where in (0, 1):
        pair.release(where)
    for job, secret in (("8", SECRET), ("7", "6b" * 32)):
        assert pair.set_up(0, job=job, secret=secret).returncode == 0
        found |= {key(pair, 0, "host_key", job), key(pair, 0, "id_ed25519", job)}
        pair.release(0, job)
    assert len(found) == 6


def test_nobody_but_the_user_can_read_the_keys_and_nobody_can_change_what_sshd_relies_on(pair: Pair) -> None:
    pair.prepare()
    script = f"stat -c '%a %u %n' {DIRECTORY} {DIRECTORY}/*; touch {DIRECTORY}/x {DIRECTORY}/authorized_keys"
    done = pair.shifter(0, "/bin/sh", "-c", script)
    alice = pair.node.alice.uid
    modes = {line.rpartition("/")[2]: line.rsplit(" ", 1)[0] for line in done.stdout.splitlines()}
    assert modes == {
        "shifterSsh": "755 0", "sshd_config": "644 0", "authorized_keys": "644 0", "passwd": "644 0",
        "host_key": f"600 {alice}", "id_ed25519": f"600 {alice}",
    }  # fmt: skip
    assert "/x': Read-only file system\n" in done.stderr
    assert "/authorized_keys': Permission denied\n" in done.stderr
    for name in ("host_key", "id_ed25519"):
        shown = f"{pair.node.udi_mount}{DIRECTORY}/{name}"
        seen = pair.node.as_user(["cat", shown], user=pair.node.eve)
        assert seen.returncode != 0
        assert seen.stdout == ""
    for process in processes_of(pair.node.alice, "sshd -D"):
        peek = pair.node.as_user(["cat", f"/proc/{process}/root{DIRECTORY}/id_ed25519"], user=pair.node.eve)
        assert peek.returncode != 0


def test_no_other_user_no_other_key_and_no_password_gets_in(pair: Pair, tmp_path: Path) -> None:
    pair.prepare()
    node, eve = pair.nodes[0], pair.node.eve
    own = tmp_path / "own"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(own)], check=True)
    stolen = tmp_path / "stolen"
    stolen.touch(0o600)
    stolen.write_text(key(pair, 0, "id_ed25519"))
    options = ["-F", "none", "-oBatchMode=yes", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"]

    def log_in(identity: Path, name: str) -> subprocess.CompletedProcess[str]:
        return node.run(
            "/usr/bin/ssh", *options, "-p", str(PORT), "-oIdentitiesOnly=yes", "-i", str(identity),
            f"{name}@{pair.nodes[1].address}", "true",
        )  # fmt: skip

    names = [pwd.getpwuid(user.uid).pw_name for user in (pair.node.alice, eve)]
    assert log_in(stolen, names[0]).returncode == 0  # the way in exists
    for identity, name in ((own, names[0]), (stolen, names[1]), (stolen, "root"), (own, names[1])):
        done = log_in(identity, name)
        assert done.returncode == 255
        # The only method on offer: neither password nor keyboard-interactive.
        assert "Permission denied (publickey)." in done.stderr
    # A container of eve's with the same image has no key at all.
    assert pair.shifter(0, "ls", DIRECTORY, user=eve, job="9").returncode != 0


def test_ssh_believes_only_nodes_of_the_job(pair: Pair) -> None:
    """Somebody else's sshd on that port of the other node, as on a node that two jobs share."""
    assert pair.set_up(0).returncode == 0
    assert pair.set_up(1, job="8", secret="6b" * 32, user=pair.node.eve).returncode == 0
    done = pair.ssh(0, "true")
    assert done.returncode == 255
    assert "IDENTIFICATION HAS CHANGED" in done.stderr
