/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The files of the container's /etc that the site, not the image, decides (spec: runtime contract, 9.5 steps 6 to
 * 12, 9.7, 9.8). They are written into the overlay's upper directory before the overlay exists, so no name of the image
 * is followed.
 */
#ifndef SHIFTER_ETCFILES_H
#define SHIFTER_ETCFILES_H

#include "as_root/privilege.h"
#include "as_user/account.h"
#include "as_user/config.h"
#include "base/error.h"

/* `etc`: descriptor of the upper layer's etc directory, writable and empty. */
int etcfiles_write(const struct config *config, int etc, const struct account *user, const struct caller *caller,
                   struct error *e);

/* One file, root 0644; replaced when it exists. A directory in `name` is one that root has made below `directory`. */
int upper_write(int directory, const char *name, const char *text, size_t length, struct error *e);

/* /etc/group of section 9.8 from the site's: every line kept without members, except that the user is named in those of
 * his groups, as many as `maximum` allows (0: all). */
char *etcfiles_filter_group(const char *text, const char *user, const struct caller *caller, unsigned maximum);

#endif
