/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Layers that are sound, one over the other: every image is sound too, and each of its files holds what it held in the
 * layer that it comes from.
 *
 * Input: a byte of how the archives are made, then entries; see read_entry. Each is a few bytes, so that whiteouts,
 * symbolic links and hard links meet each other often.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "tar_builder.h"

enum { MAX_LAYERS = 6, IMAGE = MAX_LAYERS, AGAIN = IMAGE + 1, MAX_DEPTH = 3 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct limits limits = {.max_bytes = 1 << 24, .max_ratio = 1000, .max_entries = 1000, .max_text = 1 << 20,
                                     .max_path = 4096, .max_name = 255, .max_depth = 256, .max_target = 4095,
                                     .max_links = 65535, .max_xattrs = 64 << 10};

/* Few, so that they meet; some that are members of the boot set, some that sort around a slash. */
static const char *const names[] = {"a", "b", "c", "a.b", "bin", "sh", "lib", "libc.so.6", "\xc3\xa4\xff", "..", ".", "a"};

struct input {
    const uint8_t *data;
    size_t size;
};

static unsigned take(struct input *input)
{
    if (input->size == 0)
        return 0;
    input->size--;
    return *input->data++;
}

/* One to three names in one byte or two: how many, the first, and the others. */
static void take_path(struct input *input, const char *first, char *path)
{
    unsigned shape = take(input), more = shape >> 6 != 0 ? take(input) : 0;
    unsigned depth = 1 + (shape >> 6) % MAX_DEPTH;
    *path = '\0';
    for (unsigned i = 0; i < depth; i++) {
        unsigned index = i == 0 ? shape & 15 : i == 1 ? more & 15 : more >> 4;
        if (i > 0)
            strcat(path, "/");
        if (i + 1 == depth)
            strcat(path, first);
        strcat(path, names[index % (sizeof names / sizeof *names)]);
    }
}

/* --- file contents ------------------------------------------------------------------------------------------------ */

/* What a file of this number holds, which is also its mtime: equal numbers are equal files in all layers. There are few
 * numbers, so that layers often have files that are equal, or of equal size and not equal. */
static size_t content_of(uint32_t number, uint8_t *content)
{
    static const uint32_t sizes[] = {60, 200, 4096, 4097, 8192, 12300, 1, 0};
    size_t size = sizes[number % 8];
    unsigned variant = number / 8;
    uint32_t state = variant + 1;
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525 + 1013904223;
        content[i] = variant < 2 ? (uint8_t)(state >> 24) : (uint8_t)variant;
    }
    if (variant == 3) /* a hole */
        memset(content, 0, size);
    else if (variant > 3) /* they differ only in their ends */
        memset(content, 0, size - size / 64);
    return size;
}

enum { NUMBERS = 48, MAX_CONTENT = 16384 };

static void check_content(const struct content *found, void *context)
{
    static uint8_t expected[MAX_CONTENT];
    (void)context;
    if (found->mtime == TAR_NO_CONTENT)
        return;
    if (found->mtime > NUMBERS || content_of(found->mtime, expected) != found->size ||
        memcmp(found->bytes, expected, found->size) != 0)
        bug("a file of the image holds not what it held in its layer (number %u, %zu bytes)", found->mtime,
            found->size);
}

/* --- layers ------------------------------------------------------------------------------------------------------- */

enum operation { FILE_, FILE_2, FILE_3, DIRECTORY, DIRECTORY_2, SYMLINK, SYMLINK_2, HARDLINK, HARDLINK_2, WHITEOUT,
                 WHITEOUT_2, OPAQUE, FIFO, NEXT_LAYER, NEXT_LAYER_2, DEVICE };

/* An operation (low bits) with attributes (high bits), a path, and what the operation needs. False: the layer ends. */
static bool read_entry(struct input *input, struct tar *tar)
{
    static uint8_t content[MAX_CONTENT];
    char path[1024], target[1024] = "/";
    unsigned operation = take(input), attributes = operation >> 4;
    operation &= 15;
    if (operation == NEXT_LAYER || operation == NEXT_LAYER_2)
        return false;
    take_path(input, operation == WHITEOUT || operation == WHITEOUT_2 ? ".wh." : "", path);
    switch (operation) {
    case FILE_:
    case FILE_2:
    case FILE_3: {
        uint32_t number = 1 + take(input) % NUMBERS; /* 0 is TAR_NO_CONTENT */
        tar_file(tar, path, attributes, number, content, content_of(number, content));
        break;
    }
    case SYMLINK:
    case SYMLINK_2:
        take_path(input, "", target + 1);
        tar_link(tar, '2', path, (attributes & 1) != 0 ? target : target + 1);
        break;
    case HARDLINK:
    case HARDLINK_2:
        take_path(input, "", target + 1);
        tar_link(tar, '1', path, target + 1);
        break;
    case OPAQUE:
        strcat(path, "/.wh..wh..opq");
        tar_file(tar, path, 0, 0, content, 0);
        break;
    case WHITEOUT:
    case WHITEOUT_2: tar_file(tar, path, 0, 0, content, 0); break;
    case FIFO: tar_special(tar, '6', path, attributes); break;
    case DEVICE: tar_special(tar, '3', path, attributes); break;
    default: tar_special(tar, '5', path, attributes);
    }
    return true;
}

/* Archives made before: most of an input's layers are those of the input that it was changed from. */
struct made {
    uint64_t key;
    bool accepted;
    size_t size;
    uint8_t *archive;
};

static uint64_t key_of(const struct tar *tar, unsigned how)
{
    uint64_t key = UINT64_C(0xcbf29ce484222325) ^ how; /* FNV-1a */
    for (size_t i = 0; i < tar->size; i++)
        key = (key ^ tar->data[i]) * UINT64_C(0x100000001b3);
    return key;
}

static void remember(struct made *made, uint64_t key, bool accepted, int fd)
{
    off_t size = lseek(fd, 0, SEEK_END);
    free(made->archive);
    *made = (struct made){.key = key, .accepted = accepted, .size = (size_t)size, .archive = malloc((size_t)size + 1)};
    if (made->archive == NULL || pread(fd, made->archive, made->size, 0) != size)
        bug("an archive cannot be read");
}

static bool build_layer(struct input *input, const struct recipe *recipe, unsigned how, unsigned number)
{
    static struct made all[1 << 12];
    struct tar tar = {.data = NULL};
    while (input->size > 0 && read_entry(input, &tar))
        continue;
    tar_end(&tar);
    uint64_t key = key_of(&tar, how);
    struct made *made = &all[key % (sizeof all / sizeof *all)];
    if (made->key == key) {
        (void)scratch_holding(number, made->archive, made->size);
    } else {
        int fd = scratch_file(number);
        bool accepted = convert_layer(tar.data, tar.size, 0, recipe, &limits, fd);
        remember(made, key, accepted, fd);
    }
    free(tar.data);
    return made->accepted;
}

/* The merge is a function of the archives: what differs was never written or never read. */
static void expect_same(int image, int again)
{
    static uint8_t one[1 << 16], other[1 << 16];
    for (off_t at = 0;; at += (off_t)sizeof one) {
        ssize_t size = pread(image, one, sizeof one, at);
        if (size != pread(again, other, sizeof other, at) || (size > 0 && memcmp(one, other, (size_t)size) != 0))
            bug("two merges of the same archives give different images");
        if (size <= 0)
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};
    unsigned how = take(&input);
    struct recipe recipe = {.compressor = (how & 1) != 0 ? SQFS_COMP_GZIP : SQFS_COMP_ZSTD, .level = 1,
                            .block_size = (how & 2) != 0 ? 8192 : 4096, .threads = 1, .keep_owners = (how & 4) != 0,
                            .keep_user_xattrs = true, .boot_set = (how & 8) != 0};
    int fds[MAX_LAYERS];
    size_t count = 0;
    while (input.size > 0 && count < MAX_LAYERS) {
        bool accepted = build_layer(&input, &recipe, how & 15, (unsigned)count);
        fds[count] = scratch_existing((unsigned)count);
        count += accepted; /* a layer that is refused is as good as none */
    }
    int image = scratch_file(IMAGE);
    bool merged = merge_layers(fds, count, true, image);
    if (!merged)
        return 0;
    expect_sound(image, "the image");
    read_contents(image, "the image", check_content, NULL);
    int again = scratch_file(AGAIN);
    if (!merge_layers(fds, count, true, again))
        bug("a merge that went well is refused when done again");
    expect_same(image, again);
    return 0;
}
