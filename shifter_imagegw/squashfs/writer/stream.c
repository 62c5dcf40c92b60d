/* SPDX-License-Identifier: BSD-3-Clause */
#include "stream.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <isa-l/igzip_lib.h>
#include <openssl/evp.h>
#include <zstd.h>

enum { BUFFER_BYTES = 256 * 1024, MAGIC_BYTES = 6 };
static const uint64_t ratio_free_bytes = UINT64_C(64) << 20; /* tar pads: small layers compress without limit */

enum form { FORM_UNKNOWN, FORM_PLAIN, FORM_GZIP, FORM_ZSTD };

struct stream {
    struct feed *feed;
    uint64_t max_bytes, max_ratio, bytes_in, bytes_out;
    enum form form;
    const uint8_t *input; /* what is not yet decompressed of the current piece */
    size_t input_size;
    uint8_t magic[MAGIC_BYTES]; /* the first bytes, gathered from pieces that may be shorter than a magic number */
    size_t magic_size;
    const uint8_t *later; /* the rest of the piece that the last of them came from */
    size_t later_size;
    EVP_MD_CTX *hash;
    struct inflate_state *gzip;
    bool gzip_padding; /* zeros behind the last member have begun */
    ZSTD_DStream *zstd;
    size_t zstd_hint; /* what ZSTD_decompressStream returned: 0 at the end of a frame */
    uint8_t *buffer;
};

struct stream *stream_new(struct feed *feed, uint64_t max_bytes, uint64_t max_ratio, struct failure *failure)
{
    struct stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) {
        (void)fail_memory(failure);
        return NULL;
    }
    stream->feed = feed;
    stream->max_bytes = max_bytes;
    stream->max_ratio = max_ratio;
    stream->hash = EVP_MD_CTX_new();
    if (stream->hash == NULL || EVP_DigestInit_ex(stream->hash, EVP_sha256(), NULL) != 1) {
        (void)fail_conversion(failure, 0, "libcrypto gives no SHA-256");
        stream_free(stream);
        return NULL;
    }
    return stream;
}

void stream_free(struct stream *stream)
{
    if (stream == NULL)
        return;
    EVP_MD_CTX_free(stream->hash);
    free(stream->gzip);
    (void)ZSTD_freeDStream(stream->zstd);
    free(stream->buffer);
    free(stream);
}

/* Makes `input` non-empty. 1 on success, 0 at the end of the layer. */
static int refill(struct stream *stream, struct failure *failure)
{
    if (stream->input_size == 0 && stream->later_size > 0) {
        stream->input = stream->later;
        stream->input_size = stream->later_size;
        stream->later_size = 0;
    }
    while (stream->input_size == 0) {
        int got = feed_take(stream->feed, &stream->input, &stream->input_size);
        if (got < 0)
            return fail_aborted(failure);
        if (got == 0)
            return 0;
        stream->bytes_in += stream->input_size;
    }
    return 1;
}

static bool starts(const struct stream *stream, const char *magic, size_t size)
{
    return stream->magic_size >= size && memcmp(stream->magic, magic, size) == 0;
}

/* Numbers: RFC 1952 section 2.3.1; RFC 8878 sections 3.1.1 and 3.1.2 (0x184D2A50 to 0x184D2A5F: skippable frames). */
static int recognize(struct stream *stream, struct failure *failure)
{
    while (stream->magic_size < MAGIC_BYTES) {
        int got = refill(stream, failure);
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        stream->magic[stream->magic_size++] = *stream->input++;
        stream->input_size--;
    }
    if (starts(stream, "\x1f\x8b", 2))
        stream->form = FORM_GZIP;
    else if (starts(stream, "\x28\xb5\x2f\xfd", 4) ||
             (stream->magic_size >= 4 && (stream->magic[0] & 0xf0) == 0x50 &&
              memcmp(stream->magic + 1, "\x2a\x4d\x18", 3) == 0))
        stream->form = FORM_ZSTD;
    else if (starts(stream, "BZh", 3))
        return fail_layer(failure, "compressed with bzip2; layers are gzip, zstd or plain tar");
    else if (starts(stream, "\xfd" "7zXZ", 5))
        return fail_layer(failure, "compressed with xz; layers are gzip, zstd or plain tar");
    else
        stream->form = FORM_PLAIN;
    stream->later = stream->input;
    stream->later_size = stream->input_size;
    stream->input = stream->magic;
    stream->input_size = stream->magic_size;
    return 0;
}

static int start_decoder(struct stream *stream, struct failure *failure)
{
    if (stream->form == FORM_PLAIN)
        return 0;
    stream->buffer = malloc(BUFFER_BYTES);
    if (stream->buffer == NULL)
        return fail_memory(failure);
    if (stream->form == FORM_ZSTD) {
        /* The library's default window limit (128 MiB, what `zstd -d` accepts) bounds the memory. */
        stream->zstd = ZSTD_createDStream();
        if (stream->zstd == NULL || ZSTD_isError(stream->zstd_hint = ZSTD_initDStream(stream->zstd)))
            return fail_memory(failure);
        return 0;
    }
    stream->gzip = malloc(sizeof *stream->gzip);
    if (stream->gzip == NULL)
        return fail_memory(failure);
    isal_inflate_init(stream->gzip);
    stream->gzip->crc_flag = ISAL_GZIP;
    return 0;
}

/* Between members: another one, zeros to the end (tapes and some tools pad), or nothing that belongs to gzip. */
static int next_gzip_member(struct stream *stream, struct failure *failure)
{
    if (*stream->input == 0)
        stream->gzip_padding = true;
    if (stream->gzip_padding) {
        while (stream->input_size > 0 && *stream->input == 0) {
            stream->input++;
            stream->input_size--;
        }
        return stream->input_size == 0 ? 0 : fail_layer(failure, "garbage after the end of the gzip stream");
    }
    if (*stream->input != 0x1f)
        return fail_layer(failure, "garbage after the end of the gzip stream");
    isal_inflate_reset(stream->gzip);
    stream->gzip->crc_flag = ISAL_GZIP;
    return 0;
}

static const char *gzip_problem(int code)
{
    switch (code) {
    case ISAL_INCORRECT_CHECKSUM: return "the checksum of the gzip stream is wrong";
    case ISAL_INVALID_WRAPPER:
    case ISAL_UNSUPPORTED_METHOD: return "not a valid gzip header";
    default: return "the gzip stream is damaged";
    }
}

static int read_gzip(struct stream *stream, size_t *size, struct failure *failure)
{
    struct inflate_state *state = stream->gzip;
    for (;;) {
        int got = refill(stream, failure);
        if (got < 0)
            return -1;
        bool finished = state->block_state == ISAL_BLOCK_FINISH;
        if (got > 0 && finished) {
            if (next_gzip_member(stream, failure) < 0)
                return -1;
            continue;
        }
        if (got == 0 && finished) {
            *size = 0;
            return 0;
        }
        uint32_t offered = stream->input_size > UINT32_MAX ? UINT32_MAX : (uint32_t)stream->input_size;
        state->next_in = (uint8_t *)(uintptr_t)stream->input;
        state->avail_in = offered;
        state->next_out = stream->buffer;
        state->avail_out = BUFFER_BYTES;
        int code = isal_inflate(state);
        if (code != ISAL_DECOMP_OK)
            return fail_layer(failure, "%s", gzip_problem(code));
        stream->input += offered - state->avail_in;
        stream->input_size -= offered - state->avail_in;
        *size = BUFFER_BYTES - state->avail_out;
        if (*size > 0)
            return 0;
        if (got == 0 && state->block_state != ISAL_BLOCK_FINISH)
            return fail_layer(failure, "the gzip stream ends too early");
    }
}

static int read_zstd(struct stream *stream, size_t *size, struct failure *failure)
{
    for (;;) {
        int got = refill(stream, failure);
        if (got < 0)
            return -1;
        if (got == 0 && stream->zstd_hint == 0) {
            *size = 0;
            return 0;
        }
        ZSTD_inBuffer in = {stream->input, stream->input_size, 0};
        ZSTD_outBuffer out = {stream->buffer, BUFFER_BYTES, 0};
        size_t hint = ZSTD_decompressStream(stream->zstd, &out, &in);
        if (ZSTD_isError(hint))
            return fail_layer(failure, "the zstd stream is damaged: %s", ZSTD_getErrorName(hint));
        stream->zstd_hint = hint;
        stream->input += in.pos;
        stream->input_size -= in.pos;
        *size = out.pos;
        if (out.pos > 0)
            return 0;
        if (got == 0 && hint != 0)
            return fail_layer(failure, "the zstd stream ends too early");
    }
}

static int read_plain(struct stream *stream, const uint8_t **data, size_t *size, struct failure *failure)
{
    int got = refill(stream, failure);
    if (got < 0)
        return -1;
    *data = stream->input;
    *size = got == 0 ? 0 : stream->input_size;
    stream->input_size = 0;
    return 0;
}

static int check_limits(const struct stream *stream, struct failure *failure)
{
    if (stream->bytes_out > stream->max_bytes)
        return fail_limit(failure, "more than %llu bytes when uncompressed", (unsigned long long)stream->max_bytes);
    if (stream->bytes_out > ratio_free_bytes && stream->bytes_out / stream->max_ratio > stream->bytes_in)
        return fail_limit(failure, "%llu bytes expand to more than %llu, over %llu times as much",
                          (unsigned long long)stream->bytes_in, (unsigned long long)stream->bytes_out,
                          (unsigned long long)stream->max_ratio);
    return 0;
}

int stream_next(struct stream *stream, const uint8_t **data, size_t *size, struct failure *failure)
{
    if (stream->form == FORM_UNKNOWN && (recognize(stream, failure) < 0 || start_decoder(stream, failure) < 0))
        return -1;
    *data = stream->buffer;
    int result = stream->form == FORM_GZIP   ? read_gzip(stream, size, failure)
                 : stream->form == FORM_ZSTD ? read_zstd(stream, size, failure)
                                             : read_plain(stream, data, size, failure);
    if (result < 0)
        return -1;
    stream->bytes_out += *size;
    if (*size > 0 && EVP_DigestUpdate(stream->hash, *data, *size) != 1)
        return fail_conversion(failure, 0, "libcrypto cannot hash");
    return check_limits(stream, failure);
}

uint64_t stream_bytes_in(const struct stream *stream)
{
    return stream->bytes_in;
}

uint64_t stream_bytes_out(const struct stream *stream)
{
    return stream->bytes_out;
}

int stream_digest(struct stream *stream, unsigned char sha256[32], struct failure *failure)
{
    unsigned size = 0;
    if (EVP_DigestFinal_ex(stream->hash, sha256, &size) != 1 || size != 32)
        return fail_conversion(failure, 0, "libcrypto cannot hash");
    return 0;
}
