# SPDX-License-Identifier: BSD-3-Clause
"""`make install` and `make uninstall` keep to the operating interface."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from tests.installation import ROOT, Installation

PROGRAMS = [
    *("bin/shifter", "bin/shifterimg", "sbin/setupRoot", "sbin/unsetupRoot", "sbin/shifter-imagegw", "sbin/udiroot"),
]


def test_exactly_the_promised_files_are_installed(product: Installation) -> None:
    outside_venv = {
        str(path.relative_to(product.prefix))
        for path in product.prefix.rglob("*")
        if not path.is_dir() and "lib/shifter/venv" not in str(path)
    }
    assert outside_venv == {*PROGRAMS, "lib/shifter/shifter_slurm.so"}
    assert {"udiRoot.conf.example", "imagemanager.json.example"} <= {p.name for p in product.sysconfdir.iterdir()}


def test_only_shifter_is_setuid_and_root_owns_everything(product: Installation) -> None:
    for path in product.prefix.rglob("*"):
        status = path.lstat()
        assert status.st_uid == 0, path
        special = status.st_mode & (stat.S_ISUID | stat.S_ISGID)
        assert special == (stat.S_ISUID if path == product.shifter else 0), path
        if not path.is_symlink():
            assert not status.st_mode & 0o022, path


def test_every_user_can_run_the_clients(product: Installation) -> None:
    for program in ("bin/shifterimg", "sbin/shifter-imagegw", "sbin/udiroot"):
        answer = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", product.prefix / program, "--version"],
            capture_output=True,
            text=True,
            cwd="/",
        )
        assert (answer.returncode, answer.stderr) == (0, ""), program


def test_a_staged_installation_is_complete_and_uninstall_undoes_it(tmp_path: Path) -> None:
    command = ["make", "--no-print-directory", f"DESTDIR={tmp_path}", "PREFIX=/opt/x", "SYSCONFDIR=/etc/x"]
    (tmp_path / "etc/x").mkdir(parents=True)
    (tmp_path / "etc/x/udiRoot.conf").write_text("# the site's own\n")
    subprocess.run([*command, "install"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert all(os.access(tmp_path / "opt/x" / program, os.X_OK) for program in PROGRAMS)
    assert (tmp_path / "opt/x/bin/shifterimg").read_text().startswith("#!/opt/x/lib/shifter/venv/bin/python3 -I\n")
    assert str(tmp_path) not in (tmp_path / "opt/x/lib/shifter/venv/bin/gunicorn").read_text()
    subprocess.run([*command, "uninstall"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if not p.is_dir()] == ["etc/x/udiRoot.conf"]
