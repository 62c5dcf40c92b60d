# SPDX-License-Identifier: BSD-3-Clause
"""Measurements against real tools, as ratios taken side by side in one run; nothing here asserts on time."""
