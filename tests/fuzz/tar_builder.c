/* SPDX-License-Identifier: BSD-3-Clause */
#include "tar_builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

enum { BLOCK = 512, NAME = 0, MODE = 100, OWNER = 108, GROUP = 116, SIZE = 124, MTIME = 136, CHECKSUM = 148, TYPE = 156,
       TARGET = 157, MAGIC = 257, NAME_SIZE = 100 };

/* Zeroed blocks at the end; void when the next are taken. */
static uint8_t *take_blocks(struct tar *tar, size_t size)
{
    size_t padded = (size + BLOCK - 1) / BLOCK * BLOCK;
    if (tar->size + padded > tar->capacity) {
        tar->capacity = 2 * (tar->size + padded);
        tar->data = realloc(tar->data, tar->capacity);
        if (tar->data == NULL)
            bug("no memory");
    }
    uint8_t *blocks = tar->data + tar->size;
    memset(blocks, 0, padded);
    tar->size += padded;
    return blocks;
}

static void put_number(uint8_t *header, size_t at, unsigned digits, unsigned value)
{
    char text[16];
    (void)snprintf(text, sizeof text, "%0*o", (int)digits, value);
    memcpy(header + at, text, digits);
}

static uint8_t *put_header(struct tar *tar, char type, const char *path, unsigned mode, size_t size, uint32_t mtime)
{
    uint8_t *header = take_blocks(tar, BLOCK);
    if (strlen(path) > NAME_SIZE)
        bug("too long for a header: %s", path);
    memcpy(header + NAME, path, strlen(path));
    put_number(header, MODE, 7, mode);
    put_number(header, OWNER, 7, mode & 077);
    put_number(header, GROUP, 7, 0);
    put_number(header, SIZE, 11, (unsigned)size);
    put_number(header, MTIME, 11, mtime);
    header[TYPE] = (uint8_t)type;
    memcpy(header + MAGIC, "ustar\00000", 8);
    return header;
}

static void put_checksum(uint8_t *header)
{
    unsigned sum = 0;
    memset(header + CHECKSUM, ' ', 8);
    for (size_t i = 0; i < BLOCK; i++)
        sum += header[i];
    put_number(header, CHECKSUM, 6, sum);
    header[CHECKSUM + 6] = 0;
}

static void put_xattr(struct tar *tar, unsigned attributes)
{
    static const char *const records[] = {"24 SCHILY.xattr.user.a=\n", "25 SCHILY.xattr.user.a=1\n",
                                          "25 SCHILY.xattr.user.b=1\n"};
    const char *text = records[attributes % 3];
    put_checksum(put_header(tar, 'x', "x", 0644, strlen(text), 0));
    memcpy(take_blocks(tar, strlen(text)), text, strlen(text));
}

void tar_file(struct tar *tar, const char *path, unsigned attributes, uint32_t number, const uint8_t *content,
              size_t size)
{
    if ((attributes & 8) != 0)
        put_xattr(tar, attributes);
    put_checksum(put_header(tar, '0', path, 0600 | (attributes & 7), size, number));
    if (size > 0)
        memcpy(take_blocks(tar, size), content, size);
}

void tar_link(struct tar *tar, char type, const char *path, const char *target)
{
    uint8_t *header = put_header(tar, type, path, 0777, 0, TAR_NO_CONTENT);
    if (strlen(target) > NAME_SIZE)
        bug("too long for a header: %s", target);
    memcpy(header + TARGET, target, strlen(target));
    put_checksum(header);
}

void tar_special(struct tar *tar, char type, const char *path, unsigned attributes)
{
    if ((attributes & 8) != 0)
        put_xattr(tar, attributes);
    put_checksum(put_header(tar, type, path, 0700 | (attributes & 7), 0, attributes));
}

void tar_end(struct tar *tar)
{
    (void)take_blocks(tar, 2 * BLOCK);
}
