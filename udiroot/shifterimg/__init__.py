# SPDX-License-Identifier: BSD-3-Clause
"""shifterimg, the client of login nodes: needs udiRoot.conf, munge and a gateway (gateway contract, section 15)."""
