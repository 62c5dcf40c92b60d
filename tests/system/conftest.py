# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.installation import Installation, installation


@pytest.fixture(scope="session")
def product() -> Iterator[Installation]:
    """The product as a site installs it, once per session."""
    with installation() as installed:
        yield installed
