# SPDX-License-Identifier: BSD-3-Clause
"""enable_sshd=1: jobs on two nodes of a real Slurm, each node with a network of its own, and the real launcher."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shifternode import ShifterNode, image_id
from tests.slurmcluster import NODES, SlurmCluster, await_true, slurm_cluster
from tests.sshclosure import ssh_closure
from tests.virtualnodes import hosts_file, virtual_nodes

IMAGE = f"#SBATCH --image=id:{image_id('base')} --nodes=2"


@pytest.fixture(scope="module")
def module_cluster(session_node: ShifterNode) -> Iterator[tuple[SlurmCluster, Path]]:
    base, users = session_node.base, (session_node.alice, session_node.eve)
    (base / "sbin").mkdir(exist_ok=True)
    for name in ("setupRoot", "unsetupRoot"):
        (base / "sbin" / name).unlink(missing_ok=True)
        (base / "sbin" / name).symlink_to(base / "bin" / name)
    with ssh_closure() as closure, virtual_nodes(*NODES) as network:
        (base / "etc/files/hosts").write_text(hosts_file(network))
        with slurm_cluster("sshd", base, users, network=network) as cluster:
            yield cluster, closure
        (base / "etc/files/hosts").unlink()


@pytest.fixture
def cluster(module_cluster: tuple[SlurmCluster, Path], node: ShifterNode) -> Iterator[SlurmCluster]:
    """Idle nodes that give jobs an sshd; `node` checks that nothing stays on the machine."""
    cluster, closure = module_cluster
    node.configure(optUdiImage=str(closure), siteFs=f"{cluster.base}/home:{cluster.base}/home")
    cluster.use_plugin("enable_sshd=1")
    cluster.clear_logs()
    yield cluster
    cluster.await_idle()
    await_true(lambda: not sshd_processes(cluster), "an sshd outlives its job")
    assert not node.state.exists()


def sshd_processes(cluster: SlurmCluster) -> list[str]:
    users = f"{cluster.alice.uid},{cluster.eve.uid}"
    # By their beginnings: the job script's path has the word in it, too.
    command = ["pgrep", "-u", users, "-f", "^(sshd: |/opt/udiImage/sbin/sshd )"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.split()


def script(node: ShifterNode, text: str) -> str:
    return f"{IMAGE}\nPATH={node.base}/bin:$PATH\n{text}"


def plugin_log(cluster: SlurmCluster) -> list[str]:
    return [line for line in cluster.log(*NODES).splitlines() if "shifter:" in line]


def test_a_job_goes_from_its_container_into_the_one_of_its_other_node(cluster: SlurmCluster, node: ShifterNode) -> None:
    look = "readlink /proc/self/ns/net; cat /srv/data/file; id -u"
    text = cluster.batch(script(node, f"readlink /proc/self/ns/net\nshifter ssh -oBatchMode=yes sn2 '{look}' 2>&1"))
    own, away, *rest = [line for line in text.splitlines() if "home directory" not in line]
    networks = {each.name: Path(f"/run/netns/{each.namespace}").stat().st_ino for each in cluster.network}
    assert (own, away) == (f"net:[{networks['sn1']}]", f"net:[{networks['sn2']}]")
    assert rest == ["from the image", str(cluster.alice.uid)]
    assert plugin_log(cluster) == []


def test_every_job_has_keys_of_its_own_and_array_tasks_too(cluster: SlurmCluster, node: ShifterNode) -> None:
    keys = [cluster.batch(script(node, "shifter cat /var/shifterSsh/id_ed25519")) for _job in range(2)]
    output = cluster.home(cluster.alice) / "array-%a"
    path = cluster.home(cluster.alice) / "array.sh"
    path.write_text(f"#!/bin/bash\n{script(node, 'shifter cat /var/shifterSsh/id_ed25519')}\n")
    done = cluster.run("sbatch", "--wait", "--array=1-2%1", "--exclusive", f"--output={output}", str(path))
    assert done.returncode == 0, done.stderr
    keys += [Path(str(output).replace("%a", str(index))).read_text() for index in (1, 2)]
    assert all(key.startswith("-----BEGIN OPENSSH PRIVATE KEY-----") for key in keys)
    assert len(set(keys)) == 4


def test_the_secret_is_in_no_environment_of_the_job(cluster: SlurmCluster, node: ShifterNode) -> None:
    text = cluster.batch(script(node, "env; echo ---; srun --nodes=1 --ntasks=1 env; echo ---; shifter env"))
    assert text.count("SHIFTER_IMAGE=") == 4  # batch script, step, and twice in the container
    assert "SECRET" not in text.upper()


def test_steps_do_not_change_the_keys(cluster: SlurmCluster, node: ShifterNode) -> None:
    show = "shifter cat /var/shifterSsh/id_ed25519"
    text = cluster.batch(script(node, f"{show}; srun {show}; {show}"))
    assert len(set(text.split("-----BEGIN OPENSSH PRIVATE KEY-----")[1:])) == 1
    assert text.count("BEGIN") == 4


def test_without_the_word_there_is_no_sshd(cluster: SlurmCluster, node: ShifterNode) -> None:
    for word in ("enable_sshd=0", "enable_sshd=", "long_options"):
        cluster.use_plugin(*([] if word == "long_options" else [word]))
        text = cluster.batch(script(node, "shifter ls /var/shifterSsh 2>&1; shifter cat /var/hostsfile"))
        assert "No such file or directory" in text
        assert "sn2" in text
    assert plugin_log(cluster) == []


def test_a_job_from_a_submit_host_without_the_word_runs_without_sshd(cluster: SlurmCluster, node: ShifterNode) -> None:
    cluster.use_plugin()
    waiting = cluster.home(cluster.alice) / "waits.sh"
    waiting.write_text(f"#!/bin/bash\n{script(node, 'shifter ls /var/shifterSsh')}\n")
    done = cluster.run("sbatch", "--parsable", "--hold", "--output=/dev/null", str(waiting))
    assert done.returncode == 0, done.stderr
    cluster.use_plugin("enable_sshd=1")
    job = done.stdout.strip()
    assert cluster.run("scontrol", "release", job).returncode == 0
    await_true(lambda: cluster.state(job) == "FAILED", "the job does not end")  # ls found nothing
    cluster.await_idle()
    assert {line.split("shifter: ")[1] for line in plugin_log(cluster)} == {
        "the job brings no secret for an sshd; is enable_sshd=1 missing where it was submitted?"
    }


def test_two_jobs_on_one_node_the_second_has_no_sshd_and_still_its_container(
    cluster: SlurmCluster, node: ShifterNode
) -> None:
    first = cluster.home(cluster.alice) / "first.sh"
    first.write_text(f"#!/bin/bash\n{script(node, 'sleep 300')}\n")
    done = cluster.run("sbatch", "--parsable", "--ntasks-per-node=1", "--output=/dev/null", str(first))
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    await_true(lambda: cluster.state(job) == "RUNNING" and len(sshd_processes(cluster)) == 2, "the job does not start")
    path = cluster.home(cluster.eve) / "second.sh"
    output = cluster.home(cluster.eve) / "second.out"
    look = "shifter cat /srv/data/file; shifter ls /var/shifterSsh 2>&1; true"
    path.write_text(f"#!/bin/bash\n{script(node, look)}\n")
    done = cluster.run("sbatch", "--wait", f"--output={output}", str(path), user=cluster.eve)
    assert done.returncode == 0, done.stderr
    assert output.read_text().startswith("from the image\n")
    assert "No such file" in output.read_text()
    assert all("Address already in use" in line for line in plugin_log(cluster))
    assert len(plugin_log(cluster)) == len(NODES)
    assert cluster.run("scancel", job).returncode == 0
