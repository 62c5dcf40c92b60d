# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of several modules here: pytest finds them by name."""

from __future__ import annotations

from tests.sshpair import closure, network, pair

__all__ = ["closure", "network", "pair"]
