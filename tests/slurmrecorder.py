# SPDX-License-Identifier: BSD-3-Clause
"""A Slurm whose plug-in starts programs that write down how they were called and then do what a test wants."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.accounts import MARK, make_user
from tests.slurmcluster import SlurmCluster, slurm_cluster

IDS = {letter: letter * 64 for letter in "abc"}
RECORDER = """#!/bin/sh
record={records}/{name}.$$
printf '%s\\n' "$@" > $record.arguments
env > $record.environment
cat > $record.input
ls -l /proc/self/fd | awk '$9 != "" {{ print $9 }}' > $record.descriptors
id -u > $record.uid
. {behaviour}/{name}
"""
# Two images that can be found; what a tag means is a file that a test can change.
LOOKUP = """
tag=$(echo "${{2#docker:}}" | tr : -)
[ -e {behaviour}/tags/$tag ] || {{ echo "shifterimg: there is no image $2 on this system" >&2; exit 1; }}
cat {behaviour}/tags/$tag
"""


UDIROOT = """udiMount={base}/udiMount
imagePath={base}/images
udiRootPath={base}
rootfsType=tmpfs
populateEtcDynamically=1
perNodeCachePath={base}
perNodeCacheSizeLimit=1000m
mkfsXfsPath=/usr/sbin/mkfs.xfs
module_one_siteEnv=ONE=1
module_two_siteEnv=TWO=2
module_rival_conflict=two
module_old_enabled=0
"""


@dataclass
class Call:
    """One start of a recorded program."""

    arguments: list[str]
    environment: list[str]
    input: str
    descriptors: list[str]
    uid: str


@dataclass
class Recorded:
    cluster: SlurmCluster
    base: Path

    def behave(self, name: str, script: str) -> None:
        (self.base / "behaviour" / name).write_text(script)

    def tag(self, name: str, identifier: str) -> None:
        (self.base / "behaviour/tags" / name.replace(":", "-")).write_text(f"{identifier}\n")

    def calls(self, name: str) -> list[Call]:
        """In no order: two nodes work at once."""
        found = []
        for path in sorted((self.base / "records").glob(f"{name}.*.arguments")):
            text = {kind: path.with_suffix(f".{kind}").read_text() for kind in
                    ("arguments", "environment", "input", "descriptors", "uid")}  # fmt: skip
            found.append(Call(
                text["arguments"].splitlines(), sorted(text["environment"].splitlines()), text["input"],
                text["descriptors"].split(), text["uid"].strip(),
            ))  # fmt: skip
        return found

    def reset(self) -> None:
        for path in (self.base / "records").iterdir():
            path.unlink()
        self.behave("shifterimg", LOOKUP.format(behaviour=self.base / "behaviour"))
        self.behave("setupRoot", "exit 0\n")
        self.behave("unsetupRoot", "exit 0\n")
        self.tag("a:1", IDS["a"])
        self.tag("b:1", IDS["b"])
        self.cluster.use_plugin()
        self.cluster.clear_logs()


@contextmanager
def recorded_slurm() -> Iterator[Recorded]:
    """The cluster, with deadlines of six seconds; removed at the end."""
    base = Path("/var/lib") / f"shifter-recorded-{MARK}"
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(mode=0o755)
    for directory in ("bin", "sbin", "etc", "behaviour", "behaviour/tags", "records"):
        (base / directory).mkdir()
    (base / "etc/udiRoot.conf").write_text(UDIROOT.format(base=base))
    (base / "records").chmod(0o1777)
    for place in ("bin/shifterimg", "sbin/setupRoot", "sbin/unsetupRoot"):
        program = base / place
        program.write_text(
            RECORDER.format(records=base / "records", behaviour=base / "behaviour", name=program.name)
        )
        program.chmod(0o755)
    users = (make_user(f"sl{MARK}a"), make_user(f"sl{MARK}e"))
    try:
        with slurm_cluster("plugin", base, users, "-DSETUP_SECONDS=6 -DLOOKUP_SECONDS=6") as cluster:
            yield Recorded(cluster, base)
    finally:
        for user in users:
            subprocess.run(["userdel", user.name], check=False)
        shutil.rmtree(base)
