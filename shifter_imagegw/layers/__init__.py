# SPDX-License-Identifier: BSD-3-Clause
"""From layers to an image: tar stream to layer archive, layer archives to one tree."""
