/* SPDX-License-Identifier: BSD-3-Clause
 *
 * SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012): names come from strangers, so hash tables
 * are keyed with random bytes. Nothing that is written depends on a hash.
 */
#ifndef WRITER_SIPHASH_H
#define WRITER_SIPHASH_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct siphash_key {
    uint64_t first, second;
};

static inline uint64_t siphash_rotate(uint64_t x, unsigned bits)
{
    return (x << bits) | (x >> (64 - bits));
}

static inline void siphash_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = siphash_rotate(v[1], 13) ^ v[0];
    v[3] = siphash_rotate(v[3], 16) ^ v[2];
    v[0] = siphash_rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = siphash_rotate(v[1], 17) ^ v[2];
    v[3] = siphash_rotate(v[3], 21) ^ v[0];
    v[2] = siphash_rotate(v[2], 32);
}

/* Hash of `size` bytes; `tweak` separates equal names in different directories. */
static inline uint64_t siphash(struct siphash_key key, uint64_t tweak, const void *data, size_t size)
{
    uint64_t v[4] = {key.first ^ UINT64_C(0x736f6d6570736575), key.second ^ UINT64_C(0x646f72616e646f6d),
                     key.first ^ UINT64_C(0x6c7967656e657261), key.second ^ UINT64_C(0x7465646279746573)};
    const unsigned char *bytes = data;
    uint64_t word = tweak;
    for (size_t left = size;; left -= 8, bytes += 8) {
        v[3] ^= word;
        siphash_round(v);
        v[0] ^= word;
        word = 0;
        if (left < 8) {
            if (left != 0)
                memcpy(&word, bytes, left);
            word = le64toh(word) | (uint64_t)size << 56;
            break;
        }
        memcpy(&word, bytes, 8);
        word = le64toh(word);
    }
    v[3] ^= word;
    siphash_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    siphash_round(v);
    siphash_round(v);
    siphash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
