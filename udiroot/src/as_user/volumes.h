/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Volume maps, `from:to[:flag]...` joined with `;` (spec: runtime contract, section 8). Parsing only: no file access.
 *
 * A backslash takes the next character into a name; so do double quotes around a whole map, except for ':' and '\\'.
 * Blanks around a map are insignificant; in the site's maps a blank also ends a map, as a semicolon does.
 */
#ifndef SHIFTER_VOLUMES_H
#define SHIFTER_VOLUMES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"

enum volume_flags {
    VOLUME_RO = 1 << 0,
    VOLUME_REC = 1 << 1,
    VOLUME_SLAVE = 1 << 2,
    VOLUME_PRIVATE = 1 << 3,
    VOLUME_PER_NODE_CACHE = 1 << 4
};

struct volume {
    char *from;             /* absolute, cleaned of "//", "/./" and trailing slashes; never contains a ".." component */
    char *to;               /* same */
    unsigned flags;         /* enum volume_flags */
    uint64_t cache_size;    /* bytes, with VOLUME_PER_NODE_CACHE */
    uint64_t cache_block;   /* bytes; has no effect but is part of the signature */
};

struct volumes {
    struct volume *items;
    size_t count;
};

enum volume_origin { VOLUME_OF_SITE, VOLUME_OF_USER };

/* Appends the maps of `text` to `out`. A bad map is an error that names it, and then none is appended; characters are
 * never dropped. */
int volumes_parse(const char *text, enum volume_origin origin, struct volumes *out, struct error *e);
enum { VOLUMES_TEXT_LIMIT = 65536 }; /* bytes of the signature of a user's maps */
/* All maps of a user, put in the order of their signature, so that equal signatures are mounted in the same order.
 * `out` is empty before. */
int volumes_of_user(const struct strings *texts, struct volumes *out, struct error *e);
/* May this origin mount at `to`, a cleaned path? Applied to the text, and again to what it resolves to. */
int volumes_check_target(const char *to, enum volume_origin origin, struct error *e);
/* The canonical text of section 8.4, which volumes_parse reads back: sorted, unless one map covers or feeds another and
 * sorting would swap them; then in the order given. The caller frees it. */
char *volumes_signature(const struct volumes *v);
void volumes_free(struct volumes *v);

#endif
