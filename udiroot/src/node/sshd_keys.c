/* SPDX-License-Identifier: BSD-3-Clause */
#include "node/sshd_keys.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "base/text.h"

enum { SEED = 32, PUBLIC = 32, BLOB_SIZE = 512, LINE = 70 };

static const char type[] = "ssh-ed25519";

struct blob { /* fields of RFC 4251, section 5; all of ours have a known size, far below BLOB_SIZE */
    unsigned char bytes[BLOB_SIZE];
    size_t length;
};

static void put_bytes(struct blob *b, const void *bytes, size_t length)
{
    memcpy(b->bytes + b->length, bytes, length);
    b->length += length;
}

static void put_number(struct blob *b, size_t value)
{
    const unsigned char big_endian[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16),
                                         (unsigned char)(value >> 8), (unsigned char)value};
    put_bytes(b, big_endian, sizeof big_endian);
}

static void put_string(struct blob *b, const void *bytes, size_t length)
{
    put_number(b, length);
    put_bytes(b, bytes, length);
}

static char *base64(const struct blob *b)
{
    char *out = text_alloc(b->length * 4 / 3 + 8);
    (void)EVP_EncodeBlock((unsigned char *)out, b->bytes, (int)b->length);
    return out;
}

static char *private_file(const unsigned char seed[SEED], const unsigned char public[PUBLIC], const struct blob *line)
{
    struct blob inner = {.length = 0}, outer = {.length = 0};
    for (int i = 0; i < 2; i++) /* two equal numbers tell a right passphrase: there is none */
        put_bytes(&inner, public, 4);
    put_string(&inner, type, strlen(type));
    put_string(&inner, public, PUBLIC);
    put_number(&inner, SEED + PUBLIC);
    put_bytes(&inner, seed, SEED);
    put_bytes(&inner, public, PUBLIC);
    put_string(&inner, "", 0);
    for (unsigned char pad = 1; inner.length % 8 != 0; pad++)
        put_bytes(&inner, &pad, 1);
    put_bytes(&outer, "openssh-key-v1", sizeof "openssh-key-v1");
    put_string(&outer, "none", 4); /* cipher */
    put_string(&outer, "none", 4); /* key derivation */
    put_string(&outer, "", 0);
    put_number(&outer, 1);
    put_string(&outer, line->bytes, line->length);
    put_string(&outer, inner.bytes, inner.length);
    CLEANUP_FREE char *text = base64(&outer);
    size_t length = strlen(text), used = 0;
    CLEANUP_FREE char *folded = text_alloc(length + length / LINE + 2);
    for (size_t i = 0; i < length; i++) {
        folded[used++] = text[i];
        if (i % LINE == LINE - 1 || i == length - 1)
            folded[used++] = '\n';
    }
    OPENSSL_cleanse(&inner, sizeof inner);
    OPENSSL_cleanse(&outer, sizeof outer);
    return text_format("-----BEGIN OPENSSH PRIVATE KEY-----\n%s-----END OPENSSH PRIVATE KEY-----\n", folded);
}

int sshd_key_derive(const char *secret, const char *job, const char *role, struct sshd_key *out, struct error *e)
{
    unsigned char seed[EVP_MAX_MD_SIZE], public[PUBLIC];
    size_t public_length = sizeof public;
    CLEANUP_FREE char *label = text_format("shifter sshd %s of %s", role, job);
    *out = (struct sshd_key){0};
    if (strlen(secret) != SSHD_SECRET_LENGTH || strspn(secret, "0123456789abcdef") != SSHD_SECRET_LENGTH)
        return error_set(e, 0, "the secret of the job's sshd is not %d hex digits", SSHD_SECRET_LENGTH);
    EVP_PKEY *key = NULL;
    if (HMAC(EVP_sha256(), secret, SSHD_SECRET_LENGTH, (const unsigned char *)label, strlen(label), seed, NULL) != NULL)
        key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, SEED);
    bool made = key != NULL && EVP_PKEY_get_raw_public_key(key, public, &public_length) == 1 && public_length == PUBLIC;
    EVP_PKEY_free(key);
    if (made) {
        struct blob line = {.length = 0};
        put_string(&line, type, strlen(type));
        put_string(&line, public, PUBLIC);
        CLEANUP_FREE char *text = base64(&line);
        out->public_line = text_format("%s %s", type, text);
        out->private_text = private_file(seed, public, &line);
    }
    OPENSSL_cleanse(seed, sizeof seed);
    return made ? 0
                : error_set(e, 0, "libcrypto of this node makes no ed25519 keys (is it in a FIPS mode without them?)");
}

void sshd_key_free(struct sshd_key *key)
{
    free(key->public_line);
    free(key->private_text);
    *key = (struct sshd_key){0};
}
