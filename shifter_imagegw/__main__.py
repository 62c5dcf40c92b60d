# SPDX-License-Identifier: BSD-3-Clause
"""``python -m shifter_imagegw``: how ``serve --with-workers`` starts its children."""

from shifter_imagegw.cli import main

main()
