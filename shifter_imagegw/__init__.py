# SPDX-License-Identifier: BSD-3-Clause
"""The image gateway: makes an image of a registry available to a cluster. Runs unprivileged."""
