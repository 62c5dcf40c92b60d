/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What shifter_imagegw/layers/recipe.py decided, as the C sees it.
 */
#ifndef WRITER_RECIPE_H
#define WRITER_RECIPE_H

#include <stdbool.h>
#include <stdint.h>

#include <sqfs/super.h>

struct recipe {
    SQFS_COMPRESSOR compressor;
    unsigned level;
    uint32_t block_size; /* bytes, a power of two */
    unsigned threads;    /* that compress */
    bool keep_owners, keep_user_xattrs, keep_setid;
    bool boot_set; /* store it uncompressed */
};

struct limits {
    uint64_t max_bytes, max_ratio, max_entries;
    uint64_t max_text; /* bytes of all names, link targets and attributes: they stay in memory */
    uint32_t max_path, max_name, max_depth, max_target, max_links, max_xattrs;
};

/* What recipe.py may not exceed: buffers of these sizes are on the stack. */
enum { PATH_CEILING = 4096, NAME_CEILING = 255, DEPTH_CEILING = 1024, TARGET_CEILING = 4095 };

#endif
