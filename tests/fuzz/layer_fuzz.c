/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Bytes to a layer archive: whatever a registry sends is refused, or becomes an archive that the merge takes.
 *
 * Input: recipe, policy and limits, how it is cut into pieces (a byte each), then the layer: plain, or as it is packed.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>
#include <zstd.h>

#include "engine.h"
#include "tar_mutator.h"

enum { HEADER = 3, ARCHIVE = 0, IMAGE = 1 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

static const struct limits loose = {.max_bytes = 8 << 20, .max_ratio = 1000, .max_entries = 1000, .max_text = 1 << 20,
                                    .max_path = 4096, .max_name = 255, .max_depth = 1024, .max_target = 4095,
                                    .max_links = 65535, .max_xattrs = 64 << 10};
static const struct limits tight = {.max_bytes = 1 << 16, .max_ratio = 2, .max_entries = 12, .max_text = 512,
                                    .max_path = 48, .max_name = 24, .max_depth = 4, .max_target = 24,
                                    .max_links = 2, .max_xattrs = 64};

static struct recipe recipe_of(uint8_t choice, uint8_t policy)
{
    static const SQFS_COMPRESSOR compressors[] = {SQFS_COMP_ZSTD, SQFS_COMP_GZIP, SQFS_COMP_ZSTD, SQFS_COMP_LZ4};
    static const uint32_t block_sizes[] = {4096, 4096, 8192, 131072};
    struct recipe recipe = {.compressor = compressors[choice & 3],
                            .level = 1,
                            .block_size = block_sizes[choice >> 2 & 3],
                            .threads = 1,
                            .keep_owners = (policy & 1) != 0,
                            .keep_user_xattrs = (policy & 2) != 0,
                            .keep_setid = (policy & 4) != 0,
                            .boot_set = (policy & 8) != 0};
    if (recipe.compressor == SQFS_COMP_LZ4)
        recipe.level = 0;
    if (choice >> 4 == 15) { /* slow to set up, so seldom */
        recipe.compressor = SQFS_COMP_XZ;
        recipe.level = 0;
    }
    return recipe;
}

static uint8_t *pack_gzip(const uint8_t *data, size_t size, size_t *packed_size)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)size};
    if (deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        bug("no gzip");
    size_t room = deflateBound(&z, size);
    uint8_t *packed = malloc(room);
    if (packed == NULL)
        bug("no memory");
    z.next_out = packed;
    z.avail_out = (uInt)room;
    if (deflate(&z, Z_FINISH) != Z_STREAM_END)
        bug("gzip does not end");
    *packed_size = z.total_out;
    (void)deflateEnd(&z);
    return packed;
}

static uint8_t *pack_zstd(const uint8_t *data, size_t size, size_t *packed_size)
{
    size_t room = ZSTD_compressBound(size);
    uint8_t *packed = malloc(room);
    if (packed == NULL)
        bug("no memory");
    *packed_size = ZSTD_compress(packed, room, data, size, 1);
    if (ZSTD_isError(*packed_size))
        bug("no zstd");
    return packed;
}

/* What the writer accepted is sound, can be read, and can be merged if its hard links lead anywhere. */
static void check(int archive)
{
    expect_sound(archive, "the archive");
    expect_digests(archive);
    int image = scratch_file(IMAGE);
    if (merge_layers(&archive, 1, true, image)) {
        expect_sound(image, "the image");
        read_contents(image, "the image", NULL, NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEADER)
        return 0;
    struct recipe recipe = recipe_of(data[0], data[1]);
    const struct limits *limits = (data[1] & 16) != 0 ? &tight : &loose;
    unsigned packing = data[1] >> 5 & 3, pieces = data[2];
    data += HEADER;
    size -= HEADER;
    uint8_t *packed = packing == 1 ? pack_gzip(data, size, &size) : packing == 2 ? pack_zstd(data, size, &size) : NULL;
    int archive = scratch_file(ARCHIVE);
    if (convert_layer(packed != NULL ? packed : data, size, pieces, &recipe, limits, archive))
        check(archive);
    free(packed);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    if (size < HEADER || seed % 16 == 0)
        return mutate_bytes(data, size, max_size);
    return HEADER + mutate_tar(data + HEADER, size - HEADER, max_size - HEADER, seed);
}
