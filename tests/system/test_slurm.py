# SPDX-License-Identifier: BSD-3-Clause
"""The life of a job: submit, prolog, steps, epilog, with the real launcher and the real Slurm.

The look-up alone is a script that counts itself: what the gateway answers is not the matter here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts import User
from tests.shifternode import ShifterNode, base_tree, image_id
from tests.slurmcluster import NODES, SlurmCluster, await_true, slurm_cluster

LOOKUP = """#!/bin/sh
echo "$2" >> {base}/lookups/count
cat {base}/lookups/tag
"""


@pytest.fixture(scope="module")
def module_cluster(session_node: ShifterNode) -> Iterator[SlurmCluster]:
    base = session_node.base
    (base / "lookups").mkdir()
    client = base / "bin/shifterimg"
    client.write_text(LOOKUP.format(base=base))
    client.chmod(0o755)
    (base / "sbin").mkdir()
    for name in ("setupRoot", "unsetupRoot"):
        (base / "sbin" / name).symlink_to(base / "bin" / name)
    with slurm_cluster("slurm", base, (session_node.alice, session_node.eve)) as cluster:
        yield cluster
    client.unlink()


@pytest.fixture
def cluster(module_cluster: SlurmCluster, node: ShifterNode) -> Iterator[SlurmCluster]:
    """Idle nodes, an image behind every tag, no look-up counted; `node` checks that nothing stays on the machine."""
    directory = node.base / "lookups"
    for name, text in (("count", ""), ("tag", image_id("base") + "\n")):
        (directory / name).write_text(text)
        (directory / name).chmod(0o666)
    module_cluster.clear_logs()
    yield module_cluster
    module_cluster.await_idle()
    assert_nothing_left(node)


def assert_nothing_left(node: ShifterNode) -> None:
    assert not node.state.exists()
    assert node.loop_devices() == []


def lookups(node: ShifterNode) -> list[str]:
    return (node.base / "lookups/count").read_text().split()


def node_log(cluster: SlurmCluster) -> list[str]:
    """What the plug-in told the nodes' logs."""
    return [line for line in cluster.log(*NODES).splitlines() if "shifter:" in line]


def batch_file(cluster: SlurmCluster, user: User, script: str) -> str:
    path = cluster.home(user) / f"job{len(list(cluster.home(user).iterdir()))}.sh"
    path.write_text(f"#!/bin/bash\n{script}\n")
    return str(path)


def submit(cluster: SlurmCluster, user: User, script: str, *options: str) -> tuple[str, Path]:
    """Submits without waiting; the job's id and where its output goes."""
    output = cluster.home(user) / "out-%j"
    done = cluster.run(
        "sbatch", "--parsable", f"--output={output}", *options, batch_file(cluster, user, script), user=user
    )
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    return job, cluster.home(user) / f"out-{job}"


def await_state(cluster: SlurmCluster, job: str, *states: str) -> None:
    await_true(lambda: cluster.state(job) in states, f"job {job} does not become {states}, it is {cluster.state(job)}")


# What a task in a container that the prolog prepared prints: only such a container has the host list.
def in_container(node: ShifterNode) -> str:
    return (
        f"{node.program('shifter')} /bin/sh -c "
        "'grep NAME /etc/os-release; id -u; if [ -e /var/hostsfile ]; then wc -l < /var/hostsfile; else echo own; fi'"
    )


def test_a_batch_job_runs_in_prepared_containers_on_both_nodes(cluster: SlurmCluster, node: ShifterNode) -> None:
    text = cluster.batch(
        f"#SBATCH --image=docker:base:1\n#SBATCH --nodes=2 --ntasks-per-node=2\n{in_container(node)}\n"
        f"srun {in_container(node)}\nsrun -N1 -n1 {node.program('shifter')} cat /var/hostsfile"
    )
    task = ["NAME=TestImage", str(node.alice.uid), "4"]
    lines = text.split()
    assert lines[:3] == task
    assert sorted(lines[3:15]) == sorted(task * 4)
    assert lines[15:] == [NODES[0], NODES[0], NODES[1], NODES[1]]
    assert lookups(node) == ["docker:base:1"]
    assert node_log(cluster) == []


def test_one_look_up_serves_a_job_with_many_steps(cluster: SlurmCluster, node: ShifterNode) -> None:
    step = f"srun -N1 -n1 {node.program('shifter')} true\n"
    cluster.batch(f"#SBATCH --image=base:1\n#SBATCH --nodes=2\n{step * 5}")
    assert lookups(node) == ["base:1"]


def test_steps_run_what_was_submitted_after_the_tag_has_moved(cluster: SlurmCluster, node: ShifterNode) -> None:
    tree = base_tree(node.base / "other")
    (tree / "etc/os-release").write_text("NAME=OtherImage\n")
    other = node.add_image("other", tree)
    text = cluster.batch(
        f"#SBATCH --image=base:1\necho {other} > {node.base}/lookups/tag\nsrun {in_container(node)}\n"
        f"srun --image=base:2 {in_container(node)}\nsrun --image=base:1 {in_container(node)}"
    )
    uid = str(node.alice.uid)
    prepared, private = ["NAME=TestImage", uid, "1"], ["NAME=OtherImage", uid, "own"]
    assert text.split() == [*prepared, *private, *prepared]
    assert lookups(node) == ["base:1", "base:2"]


def test_srun_and_salloc_without_a_script(cluster: SlurmCluster, node: ShifterNode) -> None:
    shell = ["/bin/sh", "-c"]
    inner = in_container(node).split("-c ", 1)[1].strip("'")
    done = cluster.run("srun", "--nodes=2", "--image=base:1", node.program("shifter"), *shell, inner)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(["NAME=TestImage", str(node.alice.uid), "2"] * 2)
    step = f"srun {in_container(node)};"
    done = cluster.run("salloc", "-Q", "--image=base:1", *shell, step + step)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["NAME=TestImage", str(node.alice.uid), "1"] * 2
    assert lookups(node) == ["base:1", "base:1"]


def test_the_prolog_prepares_the_jobs_modules(cluster: SlurmCluster, node: ShifterNode) -> None:
    """A step with others, and one that `shifter` itself gives others, make containers of their own."""
    node.configure("module_a_siteEnv=FROM=a\nmodule_b_siteEnv=FROM=b", defaultModules="a")
    script = "echo $FROM; if [ -e /var/hostsfile ]; then echo shared; else echo own; fi"
    look = f"{node.program('shifter')} {{}} /bin/sh -c '{script}'"
    plain = look.format("")
    text = cluster.batch(
        f"#SBATCH --image=base:1 --module=b\nsrun {plain}\nsrun --module=a {plain}\nsrun {look.format('--module=a')}"
    )
    assert text.split() == ["b", "shared", "a", "own", "a", "own"]
    assert cluster.batch(f"#SBATCH --image=base:1\nsrun {plain}").split() == ["a", "shared"]
    assert node_log(cluster) == []


def test_the_prolog_prepares_a_directory_in_place_of_an_image(cluster: SlurmCluster, node: ShifterNode) -> None:
    tree = base_tree(node.base / "directory")
    node.configure(allowLocalChroot="1")
    text = cluster.batch(f"#SBATCH --image=local:{tree}\nsrun {in_container(node)}")
    assert text.split() == ["NAME=TestImage", str(node.alice.uid), "1"]
    assert lookups(node) == []
    assert node_log(cluster) == []


def test_jobs_of_two_users_share_a_node(cluster: SlurmCluster, node: ShifterNode) -> None:
    script = f"#SBATCH --image=base:1\n{in_container(node)}; {node.program('shifter')} sleep 1000"
    jobs = [
        submit(cluster, user, script, f"--nodelist={NODES[0]}") for user in (node.alice, node.eve, node.alice)
    ]
    for job, _ in jobs:
        await_state(cluster, job, "RUNNING")
    await_true(lambda: all(len(output.read_text().split()) == 3 for _, output in jobs), "a job has not written")
    uids = [str(user.uid) for user in (node.alice, node.eve, node.alice)]
    assert [output.read_text().split() for _, output in jobs] == [["NAME=TestImage", uid, "1"] for uid in uids]
    # The two jobs of alice want the same, so they hold one container; one image, one loop device.
    assert len(list(node.state.glob("*/*/plan"))) == 2
    holders = {path.name for path in node.state.glob("*/*/holders/*")}
    assert holders == {f"{job}@{NODES[0]}" for job, _ in jobs}
    assert len(node.loop_devices()) == 1
    cluster.run("scancel", jobs[0][0])
    await_true(lambda: len(list(node.state.glob("*/*/holders/*"))) == 2, "the first job's hold stays")
    assert len(list(node.state.glob("*/*/plan"))) == 2
    cluster.run("scancel", jobs[2][0])
    cluster.run("scancel", jobs[1][0], user=node.eve)
    cluster.await_idle()
    assert_nothing_left(node)


def test_an_image_that_is_gone_when_the_job_starts(cluster: SlurmCluster, node: ShifterNode) -> None:
    """sec-34: a failure in a prolog ends in a message for the user, not in a drained node."""
    doomed = node.add_image("doomed", node.base / "tree")
    script = f"#SBATCH --image=id:{doomed}\nsrun {node.program('shifter')} true"
    job, output = submit(cluster, node.alice, script, "--hold")
    for path in node.images.glob(f"{doomed}*"):
        path.unlink()
    assert cluster.run("scontrol", "release", job).returncode == 0
    await_state(cluster, job, "FAILED")
    cluster.await_idle()
    assert "shifter: " in output.read_text()
    assert doomed in output.read_text()
    (line,) = node_log(cluster)
    assert f"{job}@" in line
    assert "setupRoot: " in line
    assert doomed in line


def test_an_image_that_the_user_may_not_have(cluster: SlurmCluster, node: ShifterNode) -> None:
    secret = node.add_image("secret", node.base / "tree", f"USERACL: {node.eve.uid}\n")
    script = f"#SBATCH --image=id:{secret}\nsrun {in_container(node)}"
    assert cluster.batch(script, user=node.eve).split()[0] == "NAME=TestImage"
    job, output = submit(cluster, node.alice, script)
    await_state(cluster, job, "FAILED")
    cluster.await_idle()
    assert "shifter: " in output.read_text()
    assert "TestImage" not in output.read_text()
    (line,) = node_log(cluster)
    assert "setupRoot: " in line


def test_a_cancelled_job_leaves_nothing(cluster: SlurmCluster, node: ShifterNode) -> None:
    job, _ = submit(cluster, node.alice, f"#SBATCH --image=base:1 --nodes=2\nsrun {node.program('shifter')} sleep 1000")
    await_state(cluster, job, "RUNNING")
    # The job runs from its first node's prolog on; the other's may be later.
    await_true(lambda: len({path.name for path in node.state.glob("*/*/holders/*")}) == 2, "a node is not prepared")
    cluster.run("scancel", job)
    cluster.await_idle()
    assert_nothing_left(node)


def test_jobs_without_image_are_untouched(cluster: SlurmCluster, node: ShifterNode) -> None:
    assert cluster.batch("env; srun env", "--nodes=2").count("SHIFTER") == 0
    assert lookups(node) == []
    assert "shifter:" not in cluster.log()
    done = cluster.run("srun", node.program("shifter"), "true")
    assert done.returncode == 125
    assert "no image named" in done.stderr


def test_a_node_without_the_plug_in_builds_the_container_itself(cluster: SlurmCluster, node: ShifterNode) -> None:
    """sec-33: the image is the user's everywhere or the step fails; it never runs on the host silently."""
    home = cluster.home(node.alice)
    (home / "plugstack.conf").write_text(f"optional {cluster.plugin}\n")
    (home / "slurm.conf").write_text(cluster.conf.read_text().replace(f"{cluster.base}/plugstack", f"{home}/plugstack"))
    (cluster.base / "plugstack.conf").write_text("")
    inner = in_container(node).split("-c ", 1)[1].strip("'")
    try:
        done = cluster.run(
            "srun", "--image=base:1", node.program("shifter"), "/bin/sh", "-c", inner,
            env={"SLURM_CONF": str(home / "slurm.conf")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["NAME=TestImage", str(node.alice.uid), "own"]
        cluster.await_idle()
    finally:
        cluster.use_plugin()


@pytest.mark.parametrize("damage", ["udiMount=\nnonsense\n", None], ids=["broken", "missing"])
def test_a_broken_configuration_stops_only_jobs_with_an_image(
    cluster: SlurmCluster, node: ShifterNode, damage: str | None
) -> None:
    """W-11."""
    node.conf.unlink()
    if damage is not None:
        node.conf.write_text(damage)
    try:
        assert cluster.batch("srun echo fine", "--nodes=2").split() == ["fine"] * 2
        for command in (["salloc", "-Q", "true"], ["srun", "true"], ["srun", "--help"]):
            assert cluster.run(*command).returncode == 0
        job, output = submit(cluster, node.alice, f"#SBATCH --image=base:1\nsrun {node.program('shifter')} true")
        await_state(cluster, job, "FAILED")
        cluster.await_idle()
        assert "udiRoot.conf" in output.read_text()
        # The prolog's failure and the epilog's.
        assert ["udiRoot.conf" in line for line in node_log(cluster)] == [True, True]
    finally:
        node.configure()


def test_a_host_list_longer_than_an_argument(cluster: SlurmCluster, node: ShifterNode) -> None:
    """W-4. Of ten thousand nodes this machine is one: setupRoot is called as the prolog calls it."""
    hosts = " ".join(f"nid{number:06}/128" for number in range(10000))
    assert len(hosts) > 1 << 17
    user = ["-u", node.alice.name, "-U", str(node.alice.uid), "-G", str(node.alice.gid)]
    for _ in range(2):  # again: the same environment, not a second one
        done = node.as_root("setupRoot", *user, "-J", "1@x", "-N", "@-", "id", image_id("base"), input=hosts)
        assert done.returncode == 0, done.stderr
    assert len(list(node.state.glob("*/*/plan"))) == 1
    counted = node.script("wc -l < /var/hostsfile", env={"SLURM_JOB_ID": "1", "SLURMD_NODENAME": "x"})
    assert int(counted) == 1280000
    assert json.loads(node.script("cat /var/shifterConfig.json"))
    done = node.as_root("setupRoot", *user, "-N", "@-", "id", image_id("base"), input="n1/2 n2")
    assert done.returncode == 1
    assert "'n2' is not HOST/COUNT" in done.stderr
    assert node.as_root("unsetupRoot").returncode == 0


def test_the_volumes_of_a_job_are_in_its_prepared_container(cluster: SlurmCluster, node: ShifterNode) -> None:
    """/var/hostsfile is in the prepared container only."""
    show = f"{node.program('shifter')} /bin/sh -c 'cat /data/file; ls /var/hostsfile 2>/dev/null; true'"
    text = cluster.batch(
        f"#SBATCH --image=base:1 --volume=/srv/data:/data:ro\n{show}\nsrun {show}\n"
        f"srun --volume=/srv:/data {show.replace('/data/file', '/data/data/file')}"
    )
    prepared = "from the image\n/var/hostsfile\n"
    assert text == prepared * 2 + "from the image\n"
    assert node_log(cluster) == []


def test_volumes_that_the_node_cannot_mount_stop_neither_node_nor_job(cluster: SlurmCluster, node: ShifterNode) -> None:
    text = cluster.batch(
        f"#SBATCH --image=base:1 --volume=/missing:/data\n{node.program('shifter')} true 2>&1; echo status $?"
    )
    assert "cannot open volume source /missing" in text
    assert text.endswith("status 125\n")
    assert "cannot open volume source /missing" in "".join(node_log(cluster))


def test_a_script_that_runs_in_the_container_as_a_whole(cluster: SlurmCluster, node: ShifterNode) -> None:
    """`#!/usr/bin/shifter /bin/bash` of the historic documentation, where containers show slurmd's spool directory."""
    node.configure(siteFs=f"{cluster.base}/spool:{cluster.base}/spool:ro")
    script = cluster.home(node.alice) / "whole.sh"
    output = cluster.home(node.alice) / "whole.out"
    script.write_text(
        f"#!{node.program('shifter')} /bin/sh\n#SBATCH --image=docker:base:1\n#SBATCH --volume=/srv/data:/input\n"
        "#SBATCH --volume=/srv:/output\ngrep NAME /etc/os-release\ncat /input/file /output/data/file\n"
        "ls /var/hostsfile\necho $1\n"
    )
    done = cluster.run("sbatch", "--parsable", f"--output={output}", str(script), "argument")
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    await_true(lambda: cluster.state(job) not in {"PENDING", "RUNNING", "COMPLETING"}, f"job {job} does not end")
    text = output.read_text()
    assert text == "NAME=TestImage\nfrom the image\nfrom the image\n/var/hostsfile\nargument\n"
    assert cluster.state(job) == "COMPLETED"


def test_a_job_means_its_own_container_also_without_its_variables(cluster: SlurmCluster, node: ShifterNode) -> None:
    """Scripts that clear their environment, and steps with --export=NIL, have the job's number and no more."""
    inner = f"env -i SLURM_JOB_ID=$SLURM_JOB_ID SLURMD_NODENAME=$SLURMD_NODENAME {in_container(node)}"
    text = cluster.batch(f"#SBATCH --image=docker:base:1\n{inner}\nsrun --export=NIL {in_container(node)}")
    assert text.split() == ["NAME=TestImage", str(node.alice.uid), "1"] * 2
