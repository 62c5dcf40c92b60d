/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The hand-over of compressed pieces from the caller's thread to the conversion thread: a short ring, no copies.
 *
 * The giver keeps a piece valid until `feed_released` says so. It waits while the ring is full (back-pressure).
 */
#ifndef WRITER_FEED_H
#define WRITER_FEED_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FEED_PIECES = 8 };

struct feed {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct {
        const uint8_t *data;
        size_t size;
    } ring[FEED_PIECES];
    uint64_t given, taken, released; /* pieces so far; released <= taken <= given <= released + FEED_PIECES */
    bool ended, aborted, deserted;
};

void feed_init(struct feed *feed);
void feed_destroy(struct feed *feed);

/* The giver's side. feed_give returns false when the taker has gone: the conversion is over, successfully or not. */
bool feed_give(struct feed *feed, const void *data, size_t size);
uint64_t feed_released(struct feed *feed); /* so many pieces are no longer looked at */
void feed_end(struct feed *feed);
void feed_abort(struct feed *feed);

/* The taker's side. 1: the next piece, and the one before is released; 0: no more; -1: aborted. */
int feed_take(struct feed *feed, const uint8_t **data, size_t *size);
void feed_desert(struct feed *feed);

#endif
