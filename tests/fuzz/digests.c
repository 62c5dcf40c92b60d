/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The digests behind an archive, by which the merge finds equal files (shifter_imagegw/layers/trailer.py).
 */
#include "engine.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <sqfs/super.h>

enum { TRAILER = 96, DIGEST = 16, CLASSES = 2 };

struct table {
    uint8_t *digests;
    size_t count;
};

static void read_table(int archive, struct table *table)
{
    struct stat status;
    uint8_t trailer[TRAILER];
    uint64_t sizes[2]; /* of the file system and of the table */
    if (fstat(archive, &status) < 0 || pread(archive, trailer, TRAILER, status.st_size - TRAILER) != TRAILER)
        bug("the archive has no trailer");
    memcpy(sizes, trailer + 16, sizeof sizes);
    table->count = (size_t)sizes[1] / DIGEST;
    table->digests = malloc((size_t)sizes[1] + 1);
    if (table->digests == NULL || pread(archive, table->digests, (size_t)sizes[1], (off_t)sizes[0]) != (ssize_t)sizes[1])
        bug("the archive has no digests");
}

/* The digest covers a byte that says how the file is stored, and the content. */
static void check_digest(const struct content *content, void *context)
{
    static const uint8_t unknown[DIGEST];
    const struct table *table = context;
    if (content->inode == 0 || content->inode > table->count)
        bug("inode %u of %zu", content->inode, table->count);
    const uint8_t *digest = table->digests + (content->inode - 1) * (size_t)DIGEST;
    bool right = memcmp(digest, unknown, DIGEST) == 0;
    for (uint8_t class = 0; !right && class < CLASSES; class++) {
        uint8_t sha256[EVP_MAX_MD_SIZE];
        EVP_MD_CTX *hash = EVP_MD_CTX_new();
        (void)EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
        (void)EVP_DigestUpdate(hash, &class, sizeof class);
        (void)EVP_DigestUpdate(hash, content->bytes, content->size);
        (void)EVP_DigestFinal_ex(hash, sha256, NULL);
        EVP_MD_CTX_free(hash);
        right = memcmp(digest, sha256, DIGEST) == 0 && content->size > 0;
    }
    if (!right)
        bug("the digest of inode %u is not that of its %zu bytes", content->inode, content->size);
}

void expect_digests(int archive)
{
    struct table table;
    read_table(archive, &table);
    read_contents(archive, "the archive", check_digest, &table);
    free(table.digests);
}
