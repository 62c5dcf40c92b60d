/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The contents of all files, through libsquashfs' readers: neither the writer nor the merger uses them.
 */
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <sqfs/compressor.h>
#include <sqfs/data_reader.h>
#include <sqfs/dir_reader.h>
#include <sqfs/id_table.h>
#include <sqfs/inode.h>
#include <sqfs/io.h>

/* What is longer is only read in its first bytes: holes cost nothing but the reader's time. */
enum { MAX_READ = 1 << 20 };

static void expect(int code, const char *what, const char *step)
{
    if (code != 0)
        bug("%s: %s: libsquashfs error %d", what, step, code);
}

static void read_file(sqfs_data_reader_t *reader, const sqfs_inode_generic_t *inode, const char *what,
                      content_check *check, void *context)
{
    sqfs_u64 size;
    expect(sqfs_inode_get_file_size(inode, &size), what, "file size");
    sqfs_u32 part = size < MAX_READ ? (sqfs_u32)size : MAX_READ;
    uint8_t *content = malloc(part > 0 ? part : 1);
    if (content == NULL)
        bug("no memory");
    sqfs_s32 got = part > 0 ? sqfs_data_reader_read(reader, inode, 0, content, part) : 0;
    if (got != (sqfs_s32)part)
        bug("%s: a file of %llu bytes reads as %d", what, (unsigned long long)size, got);
    const struct content found = {content, part, inode->base.mod_time, inode->base.inode_number};
    if (check != NULL && part == size)
        check(&found, context);
    free(content);
}

static void read_tree(sqfs_data_reader_t *reader, const sqfs_tree_node_t *node, const char *what,
                      content_check *check, void *context)
{
    for (; node != NULL; node = node->next) {
        if (S_ISREG(node->inode->base.mode))
            read_file(reader, node->inode, what, check, context);
        read_tree(reader, node->children, what, check, context);
    }
}

void read_contents(int fd, const char *what, content_check *check, void *context)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    sqfs_file_t *file = sqfs_open_file(path, SQFS_FILE_OPEN_READ_ONLY);
    sqfs_super_t super;
    sqfs_compressor_config_t config;
    sqfs_compressor_t *compressor = NULL;
    if (file == NULL)
        bug("%s cannot be opened", what);
    expect(sqfs_super_read(&super, file), what, "superblock");
    (void)sqfs_compressor_config_init(&config, (SQFS_COMPRESSOR)super.compression_id, super.block_size,
                                      SQFS_COMP_FLAG_UNCOMPRESS);
    expect(sqfs_compressor_create(&config, &compressor), what, "compressor");
    sqfs_id_table_t *ids = sqfs_id_table_create(0);
    sqfs_dir_reader_t *directories = sqfs_dir_reader_create(&super, compressor, file, 0);
    sqfs_data_reader_t *data = sqfs_data_reader_create(file, super.block_size, compressor, 0);
    if (ids == NULL || directories == NULL || data == NULL)
        bug("no memory");
    sqfs_tree_node_t *root = NULL;
    expect(sqfs_id_table_read(ids, file, &super, compressor), what, "ids");
    expect(sqfs_data_reader_load_fragment_table(data, &super), what, "fragments");
    expect(sqfs_dir_reader_get_full_hierarchy(directories, ids, NULL, 0, &root), what, "directories");
    read_tree(data, root, what, check, context);
    sqfs_dir_tree_destroy(root);
    sqfs_destroy(data);
    sqfs_destroy(directories);
    sqfs_destroy(ids);
    sqfs_destroy(compressor);
    sqfs_destroy(file);
}
