/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Extended attributes: a table of sets, each a run of name/value pairs; a value may be stored elsewhere.
 */
#include "archive.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "tree.h"

static const char OPAQUE[] = "trusted.overlay.opaque";
static const char IMPLIED[] = "user.shifter.implied";

static int starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

int xattr_is_private(const char *name)
{
    return starts_with(name, "trusted.overlay.") || starts_with(name, "user.shifter.");
}

int archive_load_xattrs(struct archive *a, struct error *e)
{
    uint64_t start = a->super.xattr_id_table_start;
    if (start == UINT64_MAX)
        return 0;
    sqfs_xattr_id_table_t header;
    if (a->super.bytes_used - start < sizeof header)
        return error_damaged(e, "xattr table lies outside the file");
    if (archive_read_at(a, start, &header, sizeof header, e) < 0)
        return -1;
    a->xattr_start = le64toh(header.xattr_table_start);
    a->xattr_end = start;
    uint32_t count = le32toh(header.xattr_ids);
    if (a->xattr_start < a->data_start || a->xattr_start > start)
        return error_damaged(e, "xattrs lie outside the file");
    if (count == 0)
        return 0;
    void *table;
    if (archive_load_table(a, start + sizeof header, count, sizeof(sqfs_xattr_id_t), &table, e) < 0)
        return -1;
    sqfs_xattr_id_t *found = table;
    a->xattr_sets = calloc(count, sizeof *a->xattr_sets);
    for (uint32_t i = 0; a->xattr_sets != NULL && i < count; i++) {
        a->xattr_sets[i].where.xattr = le64toh(found[i].xattr);
        a->xattr_sets[i].where.count = le32toh(found[i].count);
        a->xattr_sets[i].written = TREE_NONE;
    }
    free(table);
    if (a->xattr_sets == NULL)
        return error_memory(e);
    a->xattr_count = count;
    return 0;
}

/* Reads a value at the cursor: its size, then its bytes, into the cache's buffer. */
static int read_value(struct archive *a, struct metadata_cursor *c, size_t *size, struct error *e)
{
    uint32_t stored;
    if (metadata_read(a, c, &stored, sizeof stored, e) < 0)
        return -1;
    *size = le32toh(stored);
    if (*size > ARCHIVE_XATTR_VALUE_MAX)
        return error_damaged(e, "xattr value has %zu bytes", *size);
    return metadata_read(a, c, a->cache->value, *size, e);
}

static int read_pair(struct archive *a, struct metadata_cursor *c, char *name, struct xattr *found, struct error *e)
{
    uint16_t header[2]; /* type, size */
    if (metadata_read(a, c, header, sizeof header, e) < 0)
        return -1;
    uint16_t type = le16toh(header[0]);
    size_t length = le16toh(header[1]);
    const char *prefix = sqfs_get_xattr_prefix((SQFS_XATTR_TYPE)(type & SQFS_XATTR_PREFIX_MASK));
    if (prefix == NULL || length == 0 || strlen(prefix) + length > ARCHIVE_XATTR_NAME_MAX)
        return error_damaged(e, "xattr has type %u and a name of %zu bytes", type, length);
    memcpy(name, prefix, strlen(prefix));
    if (metadata_read(a, c, name + strlen(prefix), length, e) < 0)
        return -1;
    name[strlen(prefix) + length] = '\0';
    if (strlen(name) != strlen(prefix) + length)
        return error_damaged(e, "xattr name holds a NUL byte");
    *found = (struct xattr){.name = name, .value = a->cache->value};
    if (read_value(a, c, &found->size, e) < 0)
        return -1;
    if ((type & SQFS_XATTR_FLAG_OOL) == 0)
        return 0;
    uint64_t elsewhere;
    if (found->size != sizeof elsewhere)
        return error_damaged(e, "xattr reference has %zu bytes", found->size);
    memcpy(&elsewhere, a->cache->value, sizeof elsewhere);
    struct metadata_cursor there;
    if (metadata_seek(&there, a->xattr_start, a->xattr_end, le64toh(elsewhere), e) < 0)
        return -1;
    return read_value(a, &there, &found->size, e);
}

/* Sets may overlap and pairs refer to one value of 64 KiB: a file of 8 KiB can say a terabyte. */
static int spend(struct archive *a, const struct xattr *read, struct error *e)
{
    uint32_t effort = 1 + (uint32_t)read->size / 256;
    if (a->xattr_effort_left < effort)
        return error_damaged(e, "too many xattrs");
    a->xattr_effort_left -= effort;
    return control_step(a->control, 1 + read->size / 64, e);
}

int archive_visit_xattrs(struct archive *a, uint32_t index, int (*visit)(void *, const struct xattr *, struct error *),
                         void *context, struct error *e)
{
    if (index >= a->xattr_count)
        return error_damaged(e, "xattr set %u of %u", index, a->xattr_count);
    const sqfs_xattr_id_t *where = &a->xattr_sets[index].where;
    struct metadata_cursor c;
    if (metadata_seek(&c, a->xattr_start, a->xattr_end, where->xattr, e) < 0)
        return -1;
    for (uint32_t i = 0; i < where->count; i++) {
        char name[ARCHIVE_XATTR_NAME_MAX + 1];
        struct xattr found;
        if (read_pair(a, &c, name, &found, e) < 0 || spend(a, &found, e) < 0 || visit(context, &found, e) < 0)
            return -1;
    }
    return 0;
}

static int mark(void *context, const struct xattr *x, struct error *e)
{
    uint8_t *marks = context;
    (void)e;
    if (strcmp(x->name, OPAQUE) == 0)
        *marks |= x->size == 1 && x->value[0] == 'y' ? XATTR_OPAQUE : 0;
    else if (strcmp(x->name, IMPLIED) == 0)
        *marks |= x->size == 1 && x->value[0] == '1' ? XATTR_IMPLIED : 0;
    else if (strcmp(x->name, XATTR_NAME_LINK) == 0)
        *marks |= XATTR_LINK;
    else if (!xattr_is_private(x->name))
        *marks |= XATTR_PUBLIC;
    return 0;
}

int archive_xattr_marks(struct archive *a, uint32_t index, uint8_t *marks, struct error *e)
{
    if (index < a->xattr_count && a->xattr_sets[index].marks != 0) {
        *marks = a->xattr_sets[index].marks;
        return 0;
    }
    uint8_t found = XATTR_READ;
    if (archive_visit_xattrs(a, index, mark, &found, e) < 0)
        return -1;
    a->xattr_sets[index].marks = *marks = found;
    return 0;
}
