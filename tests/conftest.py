# SPDX-License-Identifier: BSD-3-Clause
"""Suite-wide rules: in CI a skipped test is a failed run, because what is skipped is not shown to work."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests import oldkernel
from tests.installation import Installation, installation
from tests.munged import munge
from tests.registryserver import RegistryServer, registry_server
from tests.shifternode import node, session_node
from tests.site import Site, site

__all__ = ["munge", "node", "session_node"]  # fixtures: pytest finds them by name here

# A slow machine is no failure.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# A shell's background job inherits these ignored (bash(1), SIGNALS); what the tests start must not.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What a module with EVERY_KERNEL shows on this kernel, it shows on one without the newer system calls too; a test
    may name kernels of its own."""
    own = any("node" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "node" in metafunc.fixturenames and getattr(metafunc.module, "EVERY_KERNEL", False) and not own:
        metafunc.parametrize("node", [(), oldkernel.EVERYTHING], ids=["kernel", "old-kernel"], indirect=True)


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


_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(f"{report.nodeid}: {report.longreprtext}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _skipped and os.environ.get("CI") and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skipped:
        terminalreporter.section(f"{len(_skipped)} SKIPPED: not shown to work here", red=True, bold=True)
        for line in _skipped:
            terminalreporter.write_line(line)
