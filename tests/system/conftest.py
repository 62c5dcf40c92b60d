# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.installation import Installation, installation
from tests.registryserver import RegistryServer, registry_server
from tests.site import Site, site


@pytest.fixture(scope="session")
def product() -> Iterator[Installation]:
    """The product as a site installs it, once per session."""
    with installation() as installed:
        yield installed


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry that everybody may read."""
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="module")
def module_site(product: Installation, registry: RegistryServer) -> Iterator[Site]:
    with site(product, registry) as centre:
        yield centre


@pytest.fixture
def centre(module_site: Site) -> Iterator[Site]:
    """A centre without images, its gateway configured as by default and stopped."""
    module_site.clear()
    module_site.configure()
    yield module_site
    module_site.stop()
