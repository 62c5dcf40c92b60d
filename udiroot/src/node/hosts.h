/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The nodes of a job as setupRoot -N has them, and as programs in the container read them.
 */
#ifndef SHIFTER_HOSTS_H
#define SHIFTER_HOSTS_H

#include "base/error.h"

/* "h1/2 h2/1" becomes the text of /var/hostsfile in `out`: h1, h1, h2, a line each (spec: runtime contract, section
 * 10.3). -1, `out` untouched: an item is not HOST/COUNT, or the file would be too long. */
int hosts_expand(const char *text, char **out, struct error *e);

#endif
