/* SPDX-License-Identifier: BSD-3-Clause */
#include "tails.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"

/* For the structure, its place in the heap, the header of malloc, and what these leave unused; the same everywhere, as it
 * decides about the order of tails. */
enum { BOOKKEEPING = 64 };

struct tail *tail_new(const struct place *place, uint32_t inode, uint32_t size)
{
    struct tail *tail = malloc(sizeof *tail + place->directory_size + place->name_size + size);
    if (tail == NULL)
        return NULL;
    *tail = (struct tail){.inode = inode,
                          .size = size,
                          .directory_size = (uint16_t)place->directory_size,
                          .name_size = (uint16_t)place->name_size};
    /* With NUL, which no name has, for slashes, a directory is followed by what is in it before any other. */
    for (size_t i = 0; i < place->directory_size; i++)
        tail->bytes[i] = (uint8_t)(place->directory[i] == '/' ? '\0' : place->directory[i]);
    memcpy(tail->bytes + place->directory_size, place->name, place->name_size);
    return tail;
}

static size_t weight(const struct tail *tail)
{
    return (size_t)BOOKKEEPING + tail->directory_size + tail->name_size + tail->size;
}

static int compare_bytes(const uint8_t *left, size_t left_size, const uint8_t *right, size_t right_size)
{
    int order = memcmp(left, right, left_size < right_size ? left_size : right_size);
    return order != 0 ? order : (left_size > right_size) - (left_size < right_size);
}

/* Never equal: a name that comes twice in a layer is that of two inodes, the older one first. */
static bool is_before(const struct tail *left, const struct tail *right)
{
    if (left->run != right->run)
        return left->run < right->run;
    int order = compare_bytes(left->bytes, left->directory_size, right->bytes, right->directory_size);
    if (order == 0)
        order = compare_bytes(left->bytes + left->directory_size, left->name_size,
                              right->bytes + right->directory_size, right->name_size);
    return order != 0 ? order < 0 : left->inode < right->inode;
}

void tails_destroy(struct tails *tails)
{
    for (struct tail *tail; (tail = tails->first) != NULL; free(tail))
        tails->first = tail->next;
    for (size_t i = 0; i < tails->count; i++)
        free(tails->heap[i]);
    free(tails->heap);
    free(tails->last);
}

/* Puts the tail at the free place `at`, or above it. */
static void sift_up(struct tails *tails, size_t at, struct tail *tail)
{
    for (; at > 0 && is_before(tail, tails->heap[(at - 1) / 2]); at = (at - 1) / 2)
        tails->heap[at] = tails->heap[(at - 1) / 2];
    tails->heap[at] = tail;
}

bool tails_put(struct tails *tails, struct tail *tail)
{
    tail->run = tails->last == NULL ? 0 : tails->last->run;
    if (tails->last != NULL && is_before(tail, tails->last))
        tail->run++;
    if (tails->first == NULL || is_before(tails->newest, tail)) {
        *(tails->first == NULL ? &tails->first : &tails->newest->next) = tail;
        tails->newest = tail;
    } else {
        if (!ARRAY_RESERVE(tails->heap, tails->capacity, tails->count + 1))
            return false;
        sift_up(tails, tails->count++, tail);
    }
    tails->used += weight(tail);
    return true;
}

static struct tail *take_from_heap(struct tails *tails)
{
    struct tail *taken = tails->heap[0];
    /* The free place goes to the bottom; what fills it, the last of the heap, belongs near there. */
    struct tail *moved = tails->heap[--tails->count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < tails->count; at = child) {
        if (child + 1 < tails->count && is_before(tails->heap[child + 1], tails->heap[child]))
            child++;
        tails->heap[at] = tails->heap[child];
    }
    if (tails->count > 0)
        sift_up(tails, at, moved);
    return taken;
}

struct tail *tails_take(struct tails *tails, bool all)
{
    if (!all && tails->used <= TAILS_WINDOW)
        return NULL;
    struct tail *taken = tails->first;
    if (tails->count > 0 && (taken == NULL || is_before(tails->heap[0], taken)))
        taken = take_from_heap(tails);
    else if (taken != NULL)
        tails->first = taken->next;
    else
        return NULL;
    free(tails->last);
    tails->last = taken;
    tails->used -= weight(taken);
    return taken;
}
