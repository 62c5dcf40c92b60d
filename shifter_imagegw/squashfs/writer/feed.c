/* SPDX-License-Identifier: BSD-3-Clause */
#include "feed.h"

void feed_init(struct feed *feed)
{
    *feed = (struct feed){.given = 0};
    (void)pthread_mutex_init(&feed->lock, NULL);
    (void)pthread_cond_init(&feed->changed, NULL);
}

void feed_destroy(struct feed *feed)
{
    (void)pthread_cond_destroy(&feed->changed);
    (void)pthread_mutex_destroy(&feed->lock);
}

bool feed_give(struct feed *feed, const void *data, size_t size)
{
    (void)pthread_mutex_lock(&feed->lock);
    while (feed->given - feed->released == FEED_PIECES && !feed->deserted)
        (void)pthread_cond_wait(&feed->changed, &feed->lock);
    bool wanted = !feed->deserted;
    if (wanted) {
        feed->ring[feed->given % FEED_PIECES].data = data;
        feed->ring[feed->given % FEED_PIECES].size = size;
        feed->given++;
        (void)pthread_cond_broadcast(&feed->changed);
    }
    (void)pthread_mutex_unlock(&feed->lock);
    return wanted;
}

uint64_t feed_released(struct feed *feed)
{
    (void)pthread_mutex_lock(&feed->lock);
    uint64_t released = feed->deserted ? feed->given : feed->released;
    (void)pthread_mutex_unlock(&feed->lock);
    return released;
}

static void raise_flag(struct feed *feed, bool *flag)
{
    (void)pthread_mutex_lock(&feed->lock);
    *flag = true;
    (void)pthread_cond_broadcast(&feed->changed);
    (void)pthread_mutex_unlock(&feed->lock);
}

void feed_end(struct feed *feed)
{
    raise_flag(feed, &feed->ended);
}

void feed_abort(struct feed *feed)
{
    raise_flag(feed, &feed->aborted);
}

void feed_desert(struct feed *feed)
{
    raise_flag(feed, &feed->deserted);
}

int feed_take(struct feed *feed, const uint8_t **data, size_t *size)
{
    (void)pthread_mutex_lock(&feed->lock);
    if (feed->released < feed->taken) {
        feed->released = feed->taken;
        (void)pthread_cond_broadcast(&feed->changed);
    }
    while (feed->taken == feed->given && !feed->ended && !feed->aborted)
        (void)pthread_cond_wait(&feed->changed, &feed->lock);
    int result = feed->aborted ? -1 : feed->taken < feed->given ? 1 : 0;
    if (result == 1) {
        *data = feed->ring[feed->taken % FEED_PIECES].data;
        *size = feed->ring[feed->taken % FEED_PIECES].size;
        feed->taken++;
    }
    (void)pthread_mutex_unlock(&feed->lock);
    return result;
}
