/* SPDX-License-Identifier: BSD-3-Clause */
#include "twins.h"

#include <stdlib.h>
#include <string.h>

#include "sort.h"

enum { WINDOW = 256 /* digests read at once */, READ_STEPS = 32 };
enum { SIZE_BITS_MIN = 10, SIZE_BITS_MAX = 22 /* 16 MiB of memory */ };

static const uint32_t MANY = UINT32_MAX;

struct candidate {
    uint64_t digest[ARCHIVE_DIGEST_SIZE / sizeof(uint64_t)];
    uint32_t inode; /* index in inodes: those of older archives have the lower ones */
};

struct twins {
    struct tree *tree;
    struct archive *archives;
    uint32_t *sizes; /* by hash of a size: one more than the archive that has files of it, 0: none has, or MANY have */
    unsigned size_bits;
    struct candidate *items;
    size_t count, capacity;
    const struct archive *window_archive; /* whose digests are in the window, or NULL */
    uint32_t window_start;                /* inode number of the first of them, less one */
    uint8_t window[WINDOW][ARCHIVE_DIGEST_SIZE];
};

/* The archive of a file that may have a twin, NULL for all other inodes. */
static const struct archive *archive_of(const struct twins *w, const struct inode *inode)
{
    if (inode->type != INODE_FILE || inode->nlink == 0 || inode->content.file.size == 0)
        return NULL;
    const struct archive *a = &w->archives[inode->archive];
    return a->digests_start != 0 ? a : NULL;
}

/* Sizes that share a slot only make more files candidates. */
static uint32_t *slot(const struct twins *w, const struct inode *inode)
{
    return &w->sizes[inode->content.file.size * UINT64_C(0x9e3779b97f4a7c15) >> (64 - w->size_bits)];
}

/* Notes which archives have files of which size: most files of an image can have no twin, and their digests are not
 * read. */
static int note_sizes(struct twins *w, struct error *e)
{
    const struct tree *t = w->tree;
    for (w->size_bits = SIZE_BITS_MIN; w->size_bits < SIZE_BITS_MAX && t->inode_count >> w->size_bits > 0;)
        w->size_bits++;
    w->sizes = calloc((size_t)1 << w->size_bits, sizeof *w->sizes);
    if (w->sizes == NULL)
        return error_memory(e);
    for (size_t i = 0; i < t->inode_count; i++) {
        const struct archive *a = archive_of(w, &t->inodes[i]);
        if (control_step(t->control, 1, e) < 0)
            return -1;
        if (a == NULL)
            continue;
        uint32_t *archive = slot(w, &t->inodes[i]);
        if (*archive == 0)
            *archive = a->index + 1;
        else if (*archive != a->index + 1)
            *archive = MANY;
    }
    return 0;
}

/* The digest of inode `number`, whose neighbours are mostly asked for next. */
static const uint8_t *digest_of(struct twins *w, const struct archive *a, uint32_t number, struct error *e)
{
    uint32_t start = (number - 1) / WINDOW * WINDOW;
    if (w->window_archive != a || w->window_start != start) {
        uint32_t left = a->super.inode_count - start;
        size_t size = (left < WINDOW ? left : WINDOW) * sizeof w->window[0];
        w->window_archive = NULL;
        if (control_step(w->tree->control, READ_STEPS, e) < 0)
            return NULL;
        if (archive_read_at(a, a->digests_start + (uint64_t)start * sizeof w->window[0], w->window, size, e) < 0) {
            e->archive = (int)a->index;
            return NULL;
        }
        w->window_archive = a;
        w->window_start = start;
    }
    return w->window[number - 1 - start];
}

static int add_candidate(struct twins *w, uint32_t index, const struct archive *a, struct error *e)
{
    static const uint8_t unknown[ARCHIVE_DIGEST_SIZE];
    const uint8_t *digest = digest_of(w, a, w->tree->inodes[index].number, e);
    if (digest == NULL)
        return -1;
    if (memcmp(digest, unknown, sizeof unknown) == 0)
        return 0;
    struct candidate *items = tree_reserve(w->items, &w->capacity, w->count + 1, sizeof *items, e);
    if (items == NULL)
        return -1;
    w->items = items;
    memcpy(items[w->count].digest, digest, sizeof items->digest);
    items[w->count++].inode = index;
    return 0;
}

static int collect(struct twins *w, struct error *e)
{
    const struct tree *t = w->tree;
    for (size_t i = 0; i < t->inode_count; i++) {
        const struct inode *inode = &t->inodes[i];
        const struct archive *a = archive_of(w, inode);
        if (control_step(t->control, 1, e) < 0)
            return -1;
        if (a != NULL && *slot(w, inode) == MANY && add_candidate(w, (uint32_t)i, a, e) < 0)
            return -1;
    }
    return 0;
}

static int same_digest(const struct candidate *left, const struct candidate *right)
{
    return left->digest[0] == right->digest[0] && left->digest[1] == right->digest[1];
}

/* Equal digests together, the oldest file of them first. */
static int compare(const void *left, const void *right, void *context)
{
    const struct candidate *l = left, *r = right;
    (void)context;
    for (size_t i = 0; i < sizeof l->digest / sizeof *l->digest; i++)
        if (l->digest[i] != r->digest[i])
            return l->digest[i] < r->digest[i] ? -1 : 1;
    return l->inode < r->inode ? -1 : l->inode > r->inode;
}

/* Calls `visit` for every file that has the content of an older one. */
static int visit_twins(const struct twins *w, void (*visit)(const struct twins *, struct inode *, const struct inode *),
                       struct error *e)
{
    struct inode *inodes = w->tree->inodes;
    size_t first = 0;
    for (size_t i = 1; i < w->count; i++) {
        if (control_step(w->tree->control, 1, e) < 0)
            return -1;
        if (!same_digest(&w->items[first], &w->items[i])) {
            first = i;
            continue;
        }
        /* Only a table that lies says the same of two sizes; the image must be sound even so. */
        const struct inode *older = &inodes[w->items[first].inode];
        if (inodes[w->items[i].inode].content.file.size == older->content.file.size)
            visit(w, &inodes[w->items[i].inode], older);
    }
    return 0;
}

static void mark_twin(const struct twins *w, struct inode *twin, const struct inode *older)
{
    (void)w;
    (void)older;
    twin->flags |= INODE_TWIN;
}

/* Owner, mode, time and xattrs stay each file's own. A file of a fragment block alone that is there anyway stays where its
 * neighbours are: that costs nothing, is read together with them, and makes shorter tables. */
static void share(const struct twins *w, struct inode *twin, const struct inode *older)
{
    const struct file_content *f = &twin->content.file;
    if (f->block_count == 0 && f->fragment != TREE_NONE &&
        w->archives[twin->data_archive].fragment_indices[f->fragment] != TREE_NONE)
        return;
    twin->content.file = older->content.file;
    twin->data_archive = older->data_archive;
}

/* Marks the fragment blocks that are needed whatever is shared. */
static int use_fragments(const struct twins *w, struct error *e)
{
    const struct tree *t = w->tree;
    for (size_t i = 0; i < t->inode_count; i++) {
        const struct inode *inode = &t->inodes[i];
        if (control_step(t->control, 1, e) < 0)
            return -1;
        if (inode->type == INODE_FILE && inode->nlink > 0 && (inode->flags & INODE_TWIN) == 0 &&
            inode->content.file.fragment != TREE_NONE)
            w->archives[inode->archive].fragment_indices[inode->content.file.fragment] = 0;
    }
    return 0;
}

int twins_share(struct tree *t, struct archive *archives, size_t count, struct error *e)
{
    struct twins w = {.tree = t, .archives = archives};
    size_t with_digests = 0;
    for (size_t i = 0; i < count; i++)
        with_digests += archives[i].digests_start != 0;
    if (with_digests < 2)
        return 0;
    int result = note_sizes(&w, e);
    if (result == 0)
        result = collect(&w, e);
    free(w.sizes);
    if (result == 0)
        result = sort_items(w.items, w.count, sizeof *w.items, compare, NULL, t->control, e);
    if (result == 0)
        result = visit_twins(&w, mark_twin, e);
    if (result == 0)
        result = use_fragments(&w, e);
    if (result == 0)
        result = visit_twins(&w, share, e);
    free(w.items);
    return result;
}
