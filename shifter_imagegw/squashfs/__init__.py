# SPDX-License-Identifier: BSD-3-Clause
"""Squashfs images through libsquashfs: C extensions and what gives them a Python face."""
