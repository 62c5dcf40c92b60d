/* SPDX-License-Identifier: BSD-3-Clause
 *
 * An image as it is: everything but file contents, read and checked.
 */
#ifndef SHIFTER_MERGER_VIEW_H
#define SHIFTER_MERGER_VIEW_H

#include "archive.h"
#include "tree.h"

struct view {
    struct archive archive;
    struct tree tree;
    struct metadata_cache *cache;
    uint32_t root; /* index of its inode */
};

/* Also counts the names of each inode, and looks at every xattr. NULL on failure; `fd` stays the caller's, and so
 * does `control`, as long as the view is used. */
struct view *view_read(int fd, struct control *control, struct error *e);
void view_close(struct view *v);

#endif
