# SPDX-License-Identifier: BSD-3-Clause
"""From the stream of a layer to its archive, from archives to the image."""
