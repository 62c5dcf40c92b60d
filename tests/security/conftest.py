# SPDX-License-Identifier: BSD-3-Clause
"""Attacks on the launcher are tried twice: on this kernel, and on one that has none of the newer system calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import oldkernel
from tests.shifternode import ShifterNode


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module asks for it with EVERY_KERNEL; a test may name kernels of its own."""
    own = any("node" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "node" in metafunc.fixturenames and getattr(metafunc.module, "EVERY_KERNEL", False) and not own:
        metafunc.parametrize("node", [(), oldkernel.EVERYTHING], ids=["kernel", "old-kernel"], indirect=True)


@pytest.fixture
def node(request: pytest.FixtureRequest, node: ShifterNode) -> Iterator[ShifterNode]:
    node.hidden = getattr(request, "param", ())
    yield node
    node.hidden = ()
