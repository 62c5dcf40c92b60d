# SPDX-License-Identifier: BSD-3-Clause
"""The runtime of compute and login nodes: the setuid launcher's C core and the shifterimg client."""
