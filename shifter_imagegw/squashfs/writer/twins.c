/* SPDX-License-Identifier: BSD-3-Clause */
#include "twins.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"

static int no_hash(struct failure *failure)
{
    return fail_conversion(failure, 0, "libcrypto cannot hash");
}

int twins_init(struct twins *twins, struct failure *failure)
{
    *twins = (struct twins){.hash = EVP_MD_CTX_new(), .algorithm = EVP_MD_fetch(NULL, "SHA256", NULL)};
    return twins->hash != NULL && twins->algorithm != NULL ? 0 : no_hash(failure);
}

void twins_destroy(struct twins *twins)
{
    EVP_MD_CTX_free(twins->hash);
    EVP_MD_free(twins->algorithm);
    free(twins->known);
    free(twins->table);
}

int twins_begin(struct twins *twins, uint64_t size, unsigned char class, struct failure *failure)
{
    twins->hashing = size > 0;
    if (!twins->hashing)
        return 0;
    bool begun = EVP_DigestInit_ex(twins->hash, twins->algorithm, NULL) == 1 &&
                 EVP_DigestUpdate(twins->hash, &class, sizeof class) == 1;
    return begun ? 0 : no_hash(failure);
}

int twins_update(struct twins *twins, const void *data, size_t size, struct failure *failure)
{
    return !twins->hashing || EVP_DigestUpdate(twins->hash, data, size) == 1 ? 0 : no_hash(failure);
}

void twins_skip(struct twins *twins)
{
    twins->hashing = false;
}

static size_t slot_of(const struct twins *twins, const unsigned char *digest)
{
    size_t slot;
    memcpy(&slot, digest, sizeof slot);
    for (slot &= twins->table_size - 1; twins->table[slot] != 0; slot = (slot + 1) & (twins->table_size - 1))
        if (memcmp(twins->known[twins->table[slot] - 1].digest, digest, TWINS_DIGEST) == 0)
            break;
    return slot;
}

static bool grow_table(struct twins *twins)
{
    size_t size = twins->table_size == 0 ? 256 : twins->table_size * 2;
    uint32_t *bigger = calloc(size, sizeof *bigger);
    if (bigger == NULL)
        return false;
    free(twins->table);
    twins->table = bigger;
    twins->table_size = size;
    for (uint32_t i = 0; i < twins->count; i++)
        twins->table[slot_of(twins, twins->known[i].digest)] = i + 1;
    return true;
}

int twins_end(struct twins *twins, uint32_t inode, uint32_t *digest, struct failure *failure)
{
    *digest = TWINS_NONE;
    if (!twins->hashing)
        return 0;
    twins->hashing = false;
    unsigned char sha256[EVP_MAX_MD_SIZE];
    if (EVP_DigestFinal_ex(twins->hash, sha256, NULL) != 1)
        return no_hash(failure);
    if (twins->count >= twins->table_size / 4 * 3 && !grow_table(twins))
        return fail_memory(failure);
    size_t slot = slot_of(twins, sha256);
    if (twins->table[slot] != 0) {
        *digest = twins->table[slot] - 1;
        return 0;
    }
    if (!ARRAY_RESERVE(twins->known, twins->capacity, twins->count + 1))
        return fail_memory(failure);
    *digest = (uint32_t)twins->count++;
    struct twin *added = &twins->known[*digest];
    memcpy(added->digest, sha256, TWINS_DIGEST);
    added->inode = inode;
    twins->table[slot] = (uint32_t)twins->count;
    return 0;
}
