/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Finds files with equal contents by SHA-256, one look-up per file, and keeps the digests, as the merge looks for equal
 * files of other layers. About 30 bytes for each content. Empty files have nothing to share, files with holes are not
 * worth the time.
 */
#ifndef WRITER_TWINS_H
#define WRITER_TWINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>

#include "failure.h"

enum { TWINS_DIGEST = 16 };

#define TWINS_NONE UINT32_MAX

struct twin {
    unsigned char digest[TWINS_DIGEST]; /* half of it: who finds two files with the same has made both of them */
    uint32_t inode;
};

struct twins {
    EVP_MD_CTX *hash;
    EVP_MD *algorithm;
    bool hashing;
    struct twin *known;
    size_t count, capacity;
    uint32_t *table; /* open addressing, index in `known` + 1; a digest is a hash already */
    size_t table_size;
};

int twins_init(struct twins *twins, struct failure *failure);
void twins_destroy(struct twins *twins);

/* One file at a time. Files of different `class` are never equal. twins_skip: this one is not compared. */
int twins_begin(struct twins *twins, uint64_t size, unsigned char class, struct failure *failure);
int twins_update(struct twins *twins, const void *data, size_t size, struct failure *failure);
void twins_skip(struct twins *twins);
/* `digest` is the place in `known` of the content, whose inode is an earlier one or `inode` itself; TWINS_NONE: it was
 * not compared. */
int twins_end(struct twins *twins, uint32_t inode, uint32_t *digest, struct failure *failure);

#endif
