/* SPDX-License-Identifier: BSD-3-Clause */
#include "image.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include <sqfs/dir_writer.h>
#include <sqfs/frag_table.h>

#include "../compressor.h"
#include "extents.h"
#include "inode.h"
#include "inode_writer.h"
#include "output.h"
#include "twins.h"

enum { WRITE_STEPS = 8 /* an inode and its name */ };

struct image {
    struct tree *tree;
    struct archive *archives;
    size_t archive_count;
    struct control *control;
    struct output output;
    struct extents extents;
    struct inode_writer writer;
    sqfs_super_t super;
    sqfs_compressor_t *compressor;
    sqfs_meta_writer_t *directory_table;
    sqfs_dir_writer_t *directories;
    uint32_t numbers; /* inode numbers given so far */
    uint64_t entries;
    uint64_t root_reference;
};

static int failed(struct image *i, int code, const char *what, struct error *e)
{
    return error_library(e, code, i->output.errnum, what);
}

/* --- what is in the image, and its numbers ------------------------------------------------------------------------ */

static int use_content(struct image *i, const struct inode *inode, struct error *e)
{
    if (control_step(i->control, 1, e) < 0)
        return -1;
    if (inode->type != INODE_FILE || inode->nlink == 0)
        return 0;
    const struct file_content *f = &inode->content.file;
    if (f->fragment != TREE_NONE)
        i->archives[inode->data_archive].fragment_indices[f->fragment] = 0;
    if (control_step(i->control, f->block_count, e) < 0)
        return -1;
    uint64_t stored = inode_stored_size(i->tree, f);
    return stored == 0 ? 0 : extents_add(&i->extents, inode->data_archive, f->start, stored, e);
}

/* Gives the inodes below a directory their numbers: subdirectories first, then its own children one after the other, so
 * that a listing, which stores small differences of numbers, stays short. */
static int number(struct image *i, uint32_t directory, struct error *e)
{
    struct inode *inodes = i->tree->inodes;
    const struct directory_content *d = &inodes[directory].content.directory;
    for (uint32_t c = 0; c < d->count; c++)
        if (inodes[d->children[c].inode].type == INODE_DIRECTORY && number(i, d->children[c].inode, e) < 0)
            return -1;
    for (uint32_t c = 0; c < d->count; c++) {
        struct inode *child = &inodes[d->children[c].inode];
        if (control_step(i->control, 1, e) < 0)
            return -1;
        i->entries++;
        if ((child->flags & INODE_NUMBERED) != 0)
            continue;
        child->flags |= INODE_NUMBERED;
        child->number = ++i->numbers;
    }
    return 0;
}

static int use_contents(struct image *i, struct error *e)
{
    for (size_t n = 0; n < i->tree->inode_count; n++)
        if (use_content(i, &i->tree->inodes[n], e) < 0)
            return -1;
    for (uint32_t a = 0; a < i->archive_count; a++) {
        const struct archive *archive = &i->archives[a];
        for (uint32_t f = 0; f < archive->super.fragment_entry_count; f++) {
            const sqfs_fragment_t *block = &archive->fragments[f];
            if (archive->fragment_indices[f] != TREE_NONE &&
                extents_add(&i->extents, a, block->start_offset, SQFS_ON_DISK_BLOCK_SIZE(block->size), e) < 0)
                return -1;
        }
    }
    return 0;
}

static int count_all(struct image *i, struct error *e)
{
    struct tree *t = i->tree;
    if (t->root == TREE_NONE) {
        if (tree_add_inode(t, INODE_DIRECTORY, &t->root, e) < 0)
            return -1;
        t->inodes[t->root].mode = 0755;
        t->inodes[t->root].archive = TREE_NONE;
    }
    if (tree_count_names(t, t->root, 0, e) < 0 || twins_share(t, i->archives, i->archive_count, e) < 0 ||
        number(i, t->root, e) < 0)
        return -1;
    t->inodes[t->root].number = ++i->numbers;
    i->entries++;
    return use_contents(i, e);
}

/* --- the tables --------------------------------------------------------------------------------------------------- */

static int write_fragment_table(struct image *i, sqfs_frag_table_t *table, struct error *e)
{
    for (uint32_t a = 0; a < i->archive_count; a++) {
        struct archive *archive = &i->archives[a];
        for (uint32_t f = 0; f < archive->super.fragment_entry_count; f++) {
            const sqfs_fragment_t *block = &archive->fragments[f];
            if (archive->fragment_indices[f] == TREE_NONE)
                continue;
            uint64_t target = extents_target(&i->extents, a, block->start_offset);
            int code = sqfs_frag_table_append(table, target, block->size, &archive->fragment_indices[f]);
            if (code != 0)
                return failed(i, code, "fragment table", e);
        }
    }
    return 0;
}

static int write_directory(struct image *i, uint32_t directory, uint32_t parent, struct error *e);

/* Writes the inodes of a directory's children, the contents of its subdirectories first. */
static int write_children(struct image *i, const struct directory_content *d, uint32_t own_number, struct error *e)
{
    struct inode *inodes = i->tree->inodes;
    for (uint32_t c = 0; c < d->count; c++)
        if (inodes[d->children[c].inode].type == INODE_DIRECTORY &&
            write_directory(i, d->children[c].inode, own_number, e) < 0)
            return -1;
    for (uint32_t c = 0; c < d->count; c++) {
        struct inode *child = &inodes[d->children[c].inode];
        if ((child->flags & INODE_WRITTEN) != 0)
            continue;
        if (control_step(i->control, WRITE_STEPS, e) < 0 || inode_write(&i->writer, child, e) < 0)
            return -1;
    }
    return 0;
}

static int write_listing(struct image *i, const struct directory_content *d, struct error *e)
{
    int code = sqfs_dir_writer_begin(i->directories, 0);
    for (uint32_t c = 0; code == 0 && c < d->count; c++) {
        const struct inode *child = &i->tree->inodes[d->children[c].inode];
        const uint8_t *name = i->tree->names + d->children[c].name;
        char text[TREE_NAME_MAX + 1];
        memcpy(text, name + 1, *name);
        text[*name] = '\0';
        code = sqfs_dir_writer_add_entry(i->directories, text, child->number, child->content.reference,
                                         inode_file_type(child));
    }
    if (code == 0)
        code = sqfs_dir_writer_end(i->directories);
    return code == 0 ? 0 : failed(i, code, "directory table", e);
}

static int write_directory(struct image *i, uint32_t directory, uint32_t parent, struct error *e)
{
    struct inode *inode = &i->tree->inodes[directory];
    if (write_children(i, &inode->content.directory, inode->number, e) < 0 ||
        write_listing(i, &inode->content.directory, e) < 0)
        return -1;
    return inode_write_directory(&i->writer, inode, i->directories, parent, e);
}

static int write_inodes_and_directories(struct image *i, struct error *e)
{
    sqfs_meta_writer_t *inode_table = i->writer.table;
    i->super.inode_table_start = i->output.size;
    if (write_directory(i, i->tree->root, i->numbers + 1, e) < 0)
        return -1;
    i->super.root_inode_ref = i->tree->inodes[i->tree->root].content.reference;
    int code = sqfs_meta_writer_flush(inode_table);
    i->super.directory_table_start = i->output.size;
    if (code == 0)
        code = sqfs_meta_writer_flush(i->directory_table);
    if (code == 0)
        code = sqfs_meta_write_write_to_file(i->directory_table);
    return code == 0 ? 0 : failed(i, code, "inode and directory tables", e);
}

static int write_tables(struct image *i, sqfs_frag_table_t *fragments, struct error *e)
{
    if (control_check(i->control, e) < 0 || write_fragment_table(i, fragments, e) < 0 ||
        write_inodes_and_directories(i, e) < 0)
        return -1;
    sqfs_file_t *file = &i->output.file;
    int code = sqfs_frag_table_write(fragments, file, &i->super, i->compressor);
    if (code == 0)
        code = sqfs_id_table_write(i->writer.ids, file, &i->super, i->compressor);
    if (code == 0)
        code = sqfs_xattr_writer_flush(i->writer.xattrs, file, &i->super, i->compressor);
    return code == 0 ? 0 : failed(i, code, "fragment, id and xattr tables", e);
}

/* Padded with zeros: a loop device shows whole sectors only, and mkfs of squashfs pads to 4 KiB too. */
static int finish(struct image *i, struct error *e)
{
    i->super.inode_count = i->numbers;
    i->super.bytes_used = i->output.size;
    uint64_t padded = (i->output.size + SQFS_DEVBLK_SIZE - 1) / SQFS_DEVBLK_SIZE * SQFS_DEVBLK_SIZE;
    int code = i->output.file.truncate(&i->output.file, padded);
    if (code == 0)
        code = sqfs_super_write(&i->super, &i->output.file);
    return code == 0 ? 0 : failed(i, code, "superblock", e);
}

/* --- the whole ---------------------------------------------------------------------------------------------------- */

static uint32_t option(const struct archive *a, size_t index)
{
    uint32_t value = 0;
    if ((index + 1) * sizeof value <= a->options_size)
        memcpy(&value, a->options + index * sizeof value, sizeof value);
    return le32toh(value);
}

/* The tables are packed as the archives were; the options are laid out as the kernel's squashfs decompressors say. */
static int create_compressor(struct image *i, struct error *e)
{
    const struct archive *a = i->archive_count > 0 ? i->archives : NULL;
    sqfs_compressor_config_t c;
    SQFS_COMPRESSOR id = a != NULL ? (SQFS_COMPRESSOR)a->super.compression_id : SQFS_COMP_ZSTD;
    size_t block_size = a != NULL ? a->super.block_size : SQFS_DEFAULT_BLOCK_SIZE;
    int code = sqfs_compressor_config_init(&c, id, block_size, 0);
    if (a != NULL && a->options_size > 0) {
        if (id == SQFS_COMP_ZSTD || id == SQFS_COMP_GZIP)
            c.level = option(a, 0);
        else if (id == SQFS_COMP_XZ)
            c.opt.xz.dict_size = option(a, 0);
        else
            c.flags = (uint16_t)(option(a, 1) & SQFS_COMP_FLAG_LZ4_ALL);
    }
    if (code == 0)
        code = sqfs_super_init(&i->super, block_size, 0, id);
    if (code == 0)
        code = compressor_create(&c, &i->compressor);
    return code == 0 ? 0 : failed(i, code, "compressor", e);
}

/* The first bytes: room for the superblock, then the compressor's options as the archives have them. */
static int write_head(struct image *i, struct error *e)
{
    uint8_t head[sizeof(sqfs_super_t) + 2 + ARCHIVE_OPTIONS_MAX] = {0};
    size_t size = sizeof(sqfs_super_t);
    const struct archive *a = i->archive_count > 0 ? i->archives : NULL;
    if (a != NULL && a->options_size > 0) {
        uint16_t header = htole16((uint16_t)(0x8000 | a->options_size));
        memcpy(head + size, &header, sizeof header);
        memcpy(head + size + sizeof header, a->options, a->options_size);
        size += sizeof header + a->options_size;
        i->super.flags |= SQFS_FLAG_COMPRESSOR_OPTIONS;
    }
    int code = i->output.file.write_at(&i->output.file, 0, head, size);
    return code == 0 ? 0 : failed(i, code, "write", e);
}

static int write_all(struct image *i, struct error *e)
{
    if (control_check(i->control, e) < 0 || create_compressor(i, e) < 0 || count_all(i, e) < 0 || write_head(i, e) < 0)
        return -1;
    if (extents_plan(&i->extents, i->output.size, i->control, e) < 0 ||
        extents_copy(&i->extents, i->archives, &i->output, i->control, e) < 0)
        return -1;
    sqfs_frag_table_t *fragments = sqfs_frag_table_create(0);
    i->directory_table = sqfs_meta_writer_create(&i->output.file, i->compressor, SQFS_META_WRITER_KEEP_IN_MEMORY);
    if (i->directory_table != NULL)
        i->directories = sqfs_dir_writer_create(i->directory_table, 0);
    int result = -1;
    if (fragments == NULL || i->directories == NULL)
        error_memory(e);
    else if (inode_writer_init(&i->writer, i->tree, i->archives, &i->extents, &i->output, i->compressor, e) == 0)
        result = write_tables(i, fragments, e);
    sqfs_destroy(fragments);
    return result < 0 ? -1 : finish(i, e);
}

int image_write(struct tree *t, struct archive *archives, size_t count, int fd, struct image_summary *summary,
                struct error *e)
{
    struct image i = {.tree = t, .archives = archives, .archive_count = count, .control = t->control};
    output_init(&i.output, fd);
    e->archive = ERROR_NO_ARCHIVE;
    int result = write_all(&i, e);
    *summary = (struct image_summary){
        .entries = i.entries, .inodes = i.numbers, .bytes = i.output.size, .copied = i.extents.total};
    inode_writer_destroy(&i.writer);
    sqfs_destroy(i.directories);
    sqfs_destroy(i.directory_table);
    sqfs_destroy(i.compressor);
    free(i.extents.items);
    return result;
}
