/* SPDX-License-Identifier: BSD-3-Clause */
#include "merge.h"

#include <stdlib.h>
#include <string.h>

#include "overlay.h"
#include "reader.h"

/* All archives' blocks end up in one file, which has one compressor and one block size. */
static int check_alike(const struct archive *first, const struct archive *other, struct error *e)
{
    if (other->super.compression_id != first->super.compression_id || other->options_size != first->options_size ||
        memcmp(other->options, first->options, first->options_size) != 0)
        return error_damaged(e, "is compressed otherwise than the first archive");
    if (other->super.block_size != first->super.block_size)
        return error_damaged(e, "has a block size of %u, the first archive has %u", other->super.block_size,
                             first->super.block_size);
    return 0;
}

static int add_layer(struct tree *t, struct archive *archives, size_t index, int fd, struct metadata_cache *cache,
                     struct error *e)
{
    struct archive *a = &archives[index];
    uint32_t root;
    e->archive = (int)index;
    if (control_check(t->control, e) < 0 || archive_open(a, fd, (uint32_t)index, cache, t->control, e) < 0 ||
        check_alike(archives, a, e) < 0 || reader_read(a, t, READ_LAYER, &root, e) < 0)
        return -1;
    return overlay_apply(t, root, e);
}

int merge(const int *fds, size_t count, int destination, struct control *control,
          struct image_summary *summary, struct error *e)
{
    struct tree tree;
    tree_init(&tree, control);
    struct metadata_cache *cache = calloc(1, sizeof *cache);
    struct archive *archives = calloc(count + 1, sizeof *archives);
    int result = cache != NULL && archives != NULL ? 0 : error_memory(e);
    size_t opened = 0;
    while (result == 0 && opened < count) {
        result = add_layer(&tree, archives, opened, fds[opened], cache, e);
        opened++;
    }
    if (result == 0)
        result = image_write(&tree, archives, count, destination, summary, e);
    for (size_t i = 0; i < opened; i++)
        archive_close(&archives[i]);
    free(archives);
    free(cache);
    tree_destroy(&tree);
    return result;
}
