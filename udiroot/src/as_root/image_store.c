/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/image_store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "as_root/trust.h"

enum { INDEX_ENTRY = IMAGE_ID_LENGTH + 1 };

int image_store_open(const struct config *config, struct error *e)
{
    return trust_open_directory(config->image_path, config->image_owner_uid, config->image_owner,
                                "the image store (imagePath)", e);
}

/* Opens the last component of `relative`, a path below the store, in the directory it lies in; -1 with the error, or 1
 * when it is not there. */
static int open_entry(int directory, const struct config *config, const char *relative, int flags, int *out,
                      struct stat *st, struct error *e)
{
    CLEANUP_FREE char *path = text_format("%s/%s", config->image_path, relative);
    const char *slash = strrchr(relative, '/'), *name = slash != NULL ? slash + 1 : relative;
    CLEANUP_CLOSE int fd = openat(directory, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 1 : error_set(e, errno, "cannot open %s", path);
    if (fstat(fd, st) < 0)
        return error_set(e, errno, "cannot examine %s", path);
    if (!((flags & O_DIRECTORY) != 0 ? S_ISDIR(st->st_mode) : S_ISREG(st->st_mode)))
        return error_set(e, 0, "%s is not a %s", path, (flags & O_DIRECTORY) != 0 ? "directory" : "regular file");
    if (trust_check(st, config->image_owner_uid, config->image_owner, path, e) < 0)
        return -1;
    *out = fd;
    fd = -1; /* the caller's */
    return 0;
}

/* An entry is replaced by rename, so what is opened is whole: an id and a line end, or damaged. */
static int read_index_entry(int fd, const char *reference, char id[IMAGE_ID_LENGTH + 1], struct error *e)
{
    char text[INDEX_ENTRY + 1] = "";
    ssize_t length = read(fd, text, sizeof text);
    if (length < 0)
        return error_set(e, errno, "cannot read the tag index entry of %.200s", reference);
    if (length == INDEX_ENTRY && text[IMAGE_ID_LENGTH] == '\n') {
        text[IMAGE_ID_LENGTH] = '\0';
        if (image_is_id(text)) {
            memcpy(id, text, IMAGE_ID_LENGTH + 1);
            return 0;
        }
    }
    return error_set(e, 0, "the tag index entry of %.200s is damaged; pull the image again", reference);
}

int image_index_lookup(int store_fd, const struct config *config, const struct image_spec *spec,
                       char id[IMAGE_ID_LENGTH + 1], struct error *e)
{
    CLEANUP_FREE char *name = image_tag_encode(spec->tag);
    if (config->system == NULL || name == NULL)
        return 1;
    const char *const way[] = {"tags", config->system, image_type_names[spec->type], name};
    CLEANUP_FREE char *relative = text_copy("");
    CLEANUP_CLOSE int at = -1;
    for (size_t i = 0; i < sizeof way / sizeof way[0]; i++) {
        bool last = i + 1 == sizeof way / sizeof way[0];
        char *longer = text_format("%s%s%s", relative, i > 0 ? "/" : "", way[i]);
        free(relative);
        relative = longer;
        int next;
        struct stat st;
        int result = open_entry(at < 0 ? store_fd : at, config, relative, last ? O_RDONLY : O_PATH | O_DIRECTORY, &next,
                                &st, e);
        if (result != 0)
            return result;
        if (at >= 0)
            (void)close(at);
        at = next;
    }
    return read_index_entry(at, spec->tag, id, e);
}

int image_open(int store_fd, const struct config *config, const char *id, struct image *out, struct error *e)
{
    *out = (struct image){.file_fd = -1, .meta_fd = -1};
    if (!image_is_id(id))
        return error_set(e, 0, "'%.200s' is no image id: 64 lower-case hex digits", id);
    out->id = text_copy(id);
    CLEANUP_FREE char *meta = text_format("%s.meta", id);
    CLEANUP_FREE char *file = text_format("%s.squashfs", id);
    int result = open_entry(store_fd, config, meta, O_RDONLY, &out->meta_fd, &out->status, e);
    if (result == 0)
        result = open_entry(store_fd, config, file, O_RDONLY, &out->file_fd, &out->status, e);
    return result == 1 ? image_unavailable(id, e) : result;
}
