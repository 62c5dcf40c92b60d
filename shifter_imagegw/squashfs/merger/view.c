/* SPDX-License-Identifier: BSD-3-Clause */
#include "view.h"

#include <stdlib.h>

#include "reader.h"

static void count_names(struct tree *t, uint32_t directory)
{
    struct inode *own = &t->inodes[directory];
    own->nlink = 2;
    for (uint32_t c = 0; c < own->content.directory.count; c++) {
        uint32_t index = own->content.directory.children[c].inode;
        if (t->inodes[index].type == INODE_DIRECTORY) {
            own->nlink++;
            count_names(t, index);
        } else {
            t->inodes[index].nlink++;
        }
    }
}

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

struct view *view_read(int fd, const struct control *control, struct error *e)
{
    struct view *v = calloc(1, sizeof *v);
    if (v == NULL) {
        (void)error_memory(e);
        return NULL;
    }
    tree_init(&v->tree);
    v->cache = calloc(1, sizeof *v->cache);
    int result = v->cache != NULL ? archive_open(&v->archive, fd, 0, v->cache, e) : error_memory(e);
    if (result == 0)
        result = reader_read(&v->archive, &v->tree, READ_IMAGE, control, &v->root, e);
    if (result == 0)
        result = check_xattrs(v, e);
    if (result == 0)
        result = archive_check_export(&v->archive, e);
    if (result < 0) {
        view_close(v);
        return NULL;
    }
    count_names(&v->tree, v->root);
    return v;
}
