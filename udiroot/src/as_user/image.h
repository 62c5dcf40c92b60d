/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Which image, and may this user use it: image specification, metadata, ACL (spec: runtime contract, sections 5 and
 * 6). as_root/image_store.h finds and opens its files.
 */
#ifndef SHIFTER_IMAGE_H
#define SHIFTER_IMAGE_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "as_user/config.h"
#include "base/error.h"
#include "base/text.h"

enum { IMAGE_ID_LENGTH = 64 };

enum image_type { IMAGE_NONE, IMAGE_DOCKER, IMAGE_CUSTOM, IMAGE_ID, IMAGE_LOCAL };
extern const char *const image_type_names[]; /* by enum image_type; IMAGE_NONE has "" */

struct image_spec {
    enum image_type type;
    char *tag;     /* normalised: ":latest" added for docker and custom where no tag or digest is given */
    char *request; /* as typed, exported as SHIFTER_IMAGEREQUEST; NULL when the environment gave only a resolved id */
};

/* Parses `[type:]tag`; an illegal character is an error, never dropped. `default_type` may be NULL. */
int image_spec_parse(const char *text, const char *default_type, struct image_spec *out, struct error *e);
/* Selection and precedence of section 5.2 from --image (may be NULL), then SHIFTER, then the SHIFTER_* family, then the
 * SLURM_SPANK_SHIFTER_* family, each family as a unit. Returns 0 with type IMAGE_NONE when nothing names an image. */
int image_spec_select(const char *option, const struct strings *env, const char *default_type, struct image_spec *out,
                      struct error *e);
void image_spec_free(struct image_spec *spec);

/* The file name of a tag in the tag index; NULL when it would be longer than a file name can be. */
char *image_tag_encode(const char *tag);

struct image_meta { /* <id>.meta, section 6.2 */
    char *name;                /* of the image in messages: its id */
    char *format;              /* "squashfs", ... as written */
    struct strings environ;    /* ENV lines, the value may be empty */
    struct strings entry, cmd; /* empty when absent */
    char *workdir;             /* NULL when absent */
    bool restricted;           /* PRIVATE, or an id in USERACL or GROUPACL: only who is listed may use it */
    uid_t *user_acl;
    size_t user_acl_count;
    gid_t *group_acl;
    size_t group_acl_count;
};

/* `name`: the image's. After an error `out` holds nothing. */
int image_meta_parse(const char *text, size_t length, const char *name, struct image_meta *out, struct error *e);
void image_meta_free(struct image_meta *meta);
/* ENTRY and CMD: `['a', 'b']` or `[u'a']` without escapes, or JSON strings, in one list; anything else is one word. */
int image_list_parse(const char *text, struct strings *out, struct error *e);

/* An image ready to be mounted: both files opened once, O_NOFOLLOW beneath the store descriptor, regular, owner root or
 * imageOwner, not writable by group or others. They stay open as long as the process is ours. */
struct image {
    char *id;             /* of a local: image its path, see image_local.h */
    int file_fd, meta_fd; /* O_RDONLY on <id>.squashfs and <id>.meta; -1: a local: image */
    struct stat status;   /* of the first */
    struct image_meta meta;
};
bool image_is_id(const char *text);
/* Fills image->meta from the open file. What an image's author wrote is in there: parse it with the user's rights. */
int image_read_meta(struct image *image, struct error *e);
/* Section 6.3 with the caller's real ids and process groups. Denied and absent read the same to the user. */
int image_check_acl(const struct image_meta *meta, uid_t uid, gid_t gid, const gid_t *groups, size_t group_count,
                    struct error *e);
int image_unavailable(const char *name, struct error *e); /* the one message of both; returns -1 */

/* local:/path as an image. Is it allowed here? No file access: a user's file system may keep waiting who opens a
 * directory of it, so setupRoot leaves that to the process that builds. */
int image_local_describe(const struct config *config, const char *path, struct image *out, struct error *e);

#endif
