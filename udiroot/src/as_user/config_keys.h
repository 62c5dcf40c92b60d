/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Every key of udiRoot.conf in one table, which the parser, the documentation's test and the Python tools share.
 */
#ifndef SHIFTER_CONFIG_KEYS_H
#define SHIFTER_CONFIG_KEYS_H

#include "as_user/config.h"

enum config_kind {
    KEY_TEXT,
    KEY_PATH,      /* absolute; cleaned */
    KEY_DIRECTORY, /* the same, and not "/" */
    KEY_PLACE,     /* the same, and what is mounted there may be taken away: config_places.h */
    KEY_FLAG,
    KEY_NUMBER,
    KEY_BYTES,
    KEY_LIST,
    KEY_ASSIGNMENTS, /* a list of NAME=value */
    KEY_NAMES,       /* a list of variable names */
    KEY_VOLUMES,
    KEY_WORD,       /* one of `words`, kept as text */
    KEY_PROPAGATION,
    KEY_UNUSED,     /* kept in accepted_unused */
    KEY_DEPRECATED, /* the same, with a remark */
    KEY_RENAMED     /* a path, with a remark; `words` names the key that took its place */
};

struct config_key {
    const char *name;
    enum config_kind kind;
    size_t offset;      /* of its field in struct config or struct config_module */
    const char *words;  /* KEY_WORD: "a b c" */
};

extern const struct config_key config_keys[], config_module_keys[]; /* end with a NULL name */

const struct config_key *config_key_find(const struct config_key *keys, const char *name);
/* The known key that looks most like `name`, NULL when none does. */
const char *config_key_suggest(const struct config_key *keys, const char *name);
/* Puts `value`, which is not empty, into the field of `base`; `key` must not be of the last three kinds. `replace`: a
 * list starts anew. The message names neither file nor key. */
int config_key_assign(const struct config_key *key, void *base, const char *value, bool replace, struct error *e);

#endif
