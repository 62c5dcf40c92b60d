# SPDX-License-Identifier: BSD-3-Clause
"""Binding of libsquashfs: layer archives are written and merged here, and images looked at."""
