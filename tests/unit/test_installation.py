# SPDX-License-Identifier: BSD-3-Clause
"""An installed program finds its directories beside its interpreter, a checkout's uses the defaults."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from udiroot.installation import installed_path


@pytest.mark.parametrize(
    ("text", "prefix", "sysconfdir"),
    [
        ("PREFIX=/srv/shifter\nSYSCONFDIR=/srv/etc\n", "/srv/shifter", "/srv/etc"),
        ("SYSCONFDIR=/a=b\n", "/opt/shifter", "/a=b"),
        ("SYSCONFDIR=\n", "/opt/shifter", "/etc/shifter"),
        (None, "/opt/shifter", "/etc/shifter"),
    ],
)
def test_paths(
    text: str | None, prefix: str, sysconfdir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "shifter-paths").write_text(text)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert (str(installed_path("PREFIX")), str(installed_path("SYSCONFDIR"))) == (prefix, sysconfdir)
