/* SPDX-License-Identifier: BSD-3-Clause */
#include "layer.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "entries.h"
#include "output.h"
#include "stream.h"
#include "tables.h"

/* Libarchive makes 48 bytes of memory of the 4 that a piece of a sparse file can take in its map, and bounds neither.
 * Room for the maps of real files: a hundred thousand pieces with offsets of ten digits. */
enum { MAX_HEADER_BYTES = 4 << 20 };

struct layer {
    const struct recipe *recipe;
    const struct limits *limits;
    struct stream *stream;
    struct output *output;
    struct archive *archive;
    struct tree tree;
    struct blocks blocks;
    struct xattrs xattrs;
    sqfs_super_t super;
    struct entries entries;
    bool in_headers;          /* libarchive reads what describes an entry, and keeps it all in memory */
    uint64_t headers_start;   /* where in the uncompressed stream that began */
    uint64_t handed_out;      /* bytes of it that libarchive has got */
    struct failure *failure;
};

static la_ssize_t read_stream(struct archive *archive, void *context, const void **buffer)
{
    (void)archive;
    struct layer *layer = context;
    const uint8_t *data;
    size_t size;
    if (stream_next(layer->stream, &data, &size, layer->failure) < 0)
        return ARCHIVE_FATAL;
    if (layer->in_headers && layer->handed_out - layer->headers_start > MAX_HEADER_BYTES) {
        (void)fail_limit(layer->failure, "more than %d bytes of headers for one entry", MAX_HEADER_BYTES);
        return ARCHIVE_FATAL;
    }
    layer->handed_out += size;
    *buffer = data;
    return (la_ssize_t)size;
}

static int tar_failed(struct layer *layer)
{
    if (layer->failure->kind != FAILURE_NONE) /* the stream under the tar */
        return -1;
    const char *reason = archive_error_string(layer->archive);
    return fail_layer(layer->failure, "%s", reason == NULL ? "not a tar archive" : reason);
}

static int open_tar(struct layer *layer)
{
    layer->archive = archive_read_new();
    if (layer->archive == NULL || archive_read_support_format_tar(layer->archive) != ARCHIVE_OK ||
        archive_read_support_format_empty(layer->archive) != ARCHIVE_OK)
        return fail_memory(layer->failure);
    if (archive_read_open(layer->archive, layer, NULL, read_stream, NULL) != ARCHIVE_OK)
        return tar_failed(layer);
    return 0;
}

/* In the C locale, which this thread has, libarchive cannot convert the UTF-8 of pax headers, says so, and hands out
 * the bytes as they are, which is what we want: in a UTF-8 locale it would normalise them. Other warnings are about
 * headers that say something it ignores; a reader that ignores nothing would see another layer. */
static bool is_harmless(const char *warning)
{
    return warning != NULL && strstr(warning, "can't be converted from UTF-8") != NULL;
}

/* 1: there is an entry, 0: the archive is at its end. */
static int next_entry(struct layer *layer, struct archive_entry **entry)
{
    layer->headers_start = (uint64_t)archive_filter_bytes(layer->archive, 0);
    layer->in_headers = true;
    int code = archive_read_next_header(layer->archive, entry);
    layer->in_headers = false;
    if (code == ARCHIVE_EOF)
        return 0;
    if (code == ARCHIVE_OK || (code == ARCHIVE_WARN && is_harmless(archive_error_string(layer->archive))))
        return 1;
    if (code == ARCHIVE_WARN)
        failure_name(layer->failure, archive_entry_pathname(*entry));
    return tar_failed(layer);
}

/* The digest is that of the whole stream, also of what lies behind the end of the archive. */
static int drain(struct layer *layer)
{
    const uint8_t *data;
    size_t size;
    do {
        if (stream_next(layer->stream, &data, &size, layer->failure) < 0)
            return -1;
    } while (size > 0);
    return 0;
}

static int read_entries(struct layer *layer)
{
    struct archive_entry *entry;
    int got;
    while ((got = next_entry(layer, &entry)) == 1) {
        if (entries_apply(&layer->entries, layer->archive, entry, layer->failure) < 0) {
            if (layer->failure->kind == FAILURE_LAYER || layer->failure->kind == FAILURE_LIMIT)
                failure_name(layer->failure, archive_entry_pathname(entry));
            return -1;
        }
        /* Data of what is left out: it is no header of the next entry. */
        if (archive_read_data_skip(layer->archive) != ARCHIVE_OK)
            return tar_failed(layer);
    }
    return got < 0 ? -1 : drain(layer);
}

static int start_archive(struct layer *layer, int fd)
{
    struct failure *failure = layer->failure;
    layer->output = output_new(fd, failure);
    if (layer->output == NULL || blocks_init(&layer->blocks, &layer->tree, layer->output, layer->recipe, failure) < 0)
        return -1;
    int result = sqfs_super_init(&layer->super, layer->recipe->block_size, 0, layer->recipe->compressor);
    if (result == 0) {
        sqfs_compressor_t *compressor = layer->blocks.compressor;
        result = compressor->write_options(compressor, output_file(layer->output));
        if (result > 0)
            layer->super.flags |= SQFS_FLAG_COMPRESSOR_OPTIONS;
    }
    return result >= 0 ? 0 : output_fail(layer->output, result, "the superblock", failure);
}

static int convert(struct layer *layer, struct feed *feed, int fd, struct summary *summary)
{
    struct failure *failure = layer->failure;
    sqfs_id_table_t *ids = layer->entries.ids = sqfs_id_table_create(0);
    uint16_t root;
    if (ids == NULL || sqfs_id_table_id_to_index(ids, 0, &root) != 0) /* 0 first: implied directories are root's */
        return fail_memory(failure);
    if (tree_init(&layer->tree, layer->limits, failure) < 0 || start_archive(layer, fd) < 0)
        return -1;
    xattrs_init(&layer->xattrs, layer->limits, layer->tree.key);
    layer->stream = stream_new(feed, layer->limits->max_bytes, layer->limits->max_ratio, failure);
    if (layer->stream == NULL || open_tar(layer) < 0 || read_entries(layer) < 0)
        return -1;
    if (blocks_finish(&layer->blocks, failure) < 0 ||
        tables_write(&layer->tree, &layer->blocks, &layer->xattrs, ids, layer->output, &layer->super,
                     summary->checksum, failure) < 0)
        return -1;
    summary->entries = layer->entries.count;
    summary->bytes_in = stream_bytes_in(layer->stream);
    summary->bytes_tar = stream_bytes_out(layer->stream);
    summary->bytes_out = layer->super.bytes_used;
    summary->inodes = layer->super.inode_count;
    return stream_digest(layer->stream, summary->diff_id, failure);
}

static void release(struct layer *layer)
{
    if (layer->archive != NULL)
        (void)archive_read_free(layer->archive);
    stream_free(layer->stream);
    blocks_destroy(&layer->blocks);
    sqfs_destroy(layer->entries.ids);
    xattrs_destroy(&layer->xattrs);
    tree_destroy(&layer->tree);
    output_free(layer->output);
    free(layer);
}

int layer_convert(struct feed *feed, int fd, const struct recipe *recipe, const struct limits *limits,
                  struct summary *summary, struct failure *failure)
{
    struct layer *layer = calloc(1, sizeof *layer);
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (layer == NULL || c_locale == (locale_t)0) {
        free(layer);
        if (c_locale != (locale_t)0)
            freelocale(c_locale);
        return fail_memory(failure);
    }
    locale_t before = uselocale(c_locale);
    layer->recipe = recipe;
    layer->limits = limits;
    layer->failure = failure;
    layer->entries = (struct entries){.recipe = recipe, .limits = limits, .tree = &layer->tree,
                                      .blocks = &layer->blocks, .xattrs = &layer->xattrs};
    int result = convert(layer, feed, fd, summary);
    release(layer);
    (void)uselocale(before);
    freelocale(c_locale);
    return result;
}
