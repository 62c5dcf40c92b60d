# SPDX-License-Identifier: BSD-3-Clause
"""What the documentation promises exists, and what exists is documented."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

from shifter_imagegw.config.reader import camel_case
from shifter_imagegw.layers.eviction import CacheLimits
from shifter_imagegw.layers.recipe import Limits, Recipe
from udiroot import _core

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_every_file_of_code_names_its_licence() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    code = [p for p in listed if re.search(r"\.(py|pyi|c|h|go|mk)$|(^|/)Makefile$|^extra/[\w-]+$|^tests/run$", p)]
    assert [p for p in code if "SPDX-License-Identifier: BSD-3-Clause" not in (ROOT / p).read_text()[:400]] == []


@pytest.mark.parametrize("kind", [Recipe, Limits, CacheLimits])
def test_every_key_of_a_settings_object_is_documented(kind: type[Recipe | Limits | CacheLimits]) -> None:
    page = (ROOT / "docs/gateway-configuration.md").read_text()
    keys = [camel_case(field.name) for field in dataclasses.fields(kind)]
    assert [key for key in keys if f"| `{key}` |" not in page] == []


def test_every_option_and_variable_of_shifter_is_documented() -> None:
    page = (ROOT / "docs/runtime.md").read_text()
    named = set(re.findall(r"--[a-z][a-z-]+|\bSHIFTER_\w+", _core.options_help))
    assert len(named) > 15
    assert {word for word in named if not re.search(rf"{word}(?![\w-])", page)} == set()
