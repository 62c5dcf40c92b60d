/* SPDX-License-Identifier: BSD-3-Clause
 *
 * libsquashfs' compressors for writer and merger. That for LZ4 (1.2) says of a block that grew that it is compressed:
 * the kernel reads such a table, unsquashfs calls the image damaged. Those of the others store a block as it is then.
 */
#ifndef SHIFTER_SQUASHFS_COMPRESSOR_H
#define SHIFTER_SQUASHFS_COMPRESSOR_H

#include <sqfs/compressor.h>

typedef sqfs_s32 compressor_do_block(sqfs_compressor_t *c, const sqfs_u8 *in, sqfs_u32 size, sqfs_u8 *out, sqfs_u32 room);

static compressor_do_block *compressor_lz4; /* the same for all its objects */

static inline sqfs_s32 compressor_shrink(sqfs_compressor_t *c, const sqfs_u8 *in, sqfs_u32 size, sqfs_u8 *out,
                                         sqfs_u32 room)
{
    sqfs_s32 stored = compressor_lz4(c, in, size, out, room);
    return stored > 0 && (sqfs_u32)stored >= size ? 0 : stored;
}

/* As sqfs_compressor_create, for compressing. Copies of the object, one for each thread, do the same. */
static inline int compressor_create(const sqfs_compressor_config_t *configuration, sqfs_compressor_t **out)
{
    int code = sqfs_compressor_create(configuration, out);
    if (code == 0 && configuration->id == SQFS_COMP_LZ4) {
        __atomic_store_n(&compressor_lz4, (*out)->do_block, __ATOMIC_RELAXED); /* other pulls may do so at the time */
        (*out)->do_block = compressor_shrink;
    }
    return code;
}

#endif
