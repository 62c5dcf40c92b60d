/* SPDX-License-Identifier: BSD-3-Clause */
#include "view.h"

#include <stdlib.h>

#include "reader.h"

static int check_xattrs(struct view *v, struct error *e)
{
    uint8_t marks;
    for (uint32_t i = 0; i < v->archive.xattr_count; i++)
        if (archive_xattr_marks(&v->archive, i, &marks, e) < 0)
            return -1;
    return 0;
}

void view_close(struct view *v)
{
    archive_close(&v->archive);
    tree_destroy(&v->tree);
    free(v->cache);
    free(v);
}

static int read_all(struct view *v, int fd, struct control *control, struct error *e)
{
    if (archive_open(&v->archive, fd, 0, v->cache, control, e) < 0 ||
        reader_read(&v->archive, &v->tree, READ_IMAGE, &v->root, e) < 0 || check_xattrs(v, e) < 0 ||
        archive_check_export(&v->archive, e) < 0)
        return -1;
    return tree_count_names(&v->tree, v->root, 0, e);
}

struct view *view_read(int fd, struct control *control, struct error *e)
{
    struct view *v = calloc(1, sizeof *v);
    if (v == NULL) {
        (void)error_memory(e);
        return NULL;
    }
    tree_init(&v->tree, control);
    v->cache = calloc(1, sizeof *v->cache);
    int result = v->cache != NULL ? read_all(v, fd, control, e) : error_memory(e);
    if (result == 0)
        return v;
    view_close(v);
    return NULL;
}
