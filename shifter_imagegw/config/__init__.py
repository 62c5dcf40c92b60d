# SPDX-License-Identifier: BSD-3-Clause
"""``imagemanager.json`` (gateway contract, section 12; docs/gateway-configuration.md)."""

from shifter_imagegw.config.checks import Problem, problems
from shifter_imagegw.config.load import load_configuration, parse_configuration
from shifter_imagegw.config.model import Configuration, Platform, SshAccess

__all__ = [
    "Configuration",
    "Platform",
    "Problem",
    "SshAccess",
    "load_configuration",
    "parse_configuration",
    "problems",
]
