/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A container as data: a list of typed steps, made with the user's rights from validated input and executed in order by
 * one function as root (rootfs.c). What is not a step here is not done to the node.
 */
#ifndef SHIFTER_PLAN_H
#define SHIFTER_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "as_user/account.h"
#include "as_user/attributes.h"
#include "as_user/caller.h"
#include "as_user/config.h"
#include "as_user/image.h"
#include "as_user/modules.h"
#include "base/error.h"

enum plan_kind {
    PLAN_SCRATCH,   /* tmpfs that holds the upper layer; private to the namespace */
    PLAN_IMAGE,     /* squashfs of the image, the lower layer */
    PLAN_DIRECTORY, /* a directory of the upper layer */
    PLAN_ETC,       /* the site's /etc files into the upper layer */
    PLAN_FILE,      /* a file of ours into the upper layer, text in `content` */
    PLAN_ROOT,      /* overlay of both layers: from here on targets are container paths */
    PLAN_BIND,      /* a directory or file of the host appears at the target, which is made when missing */
    PLAN_VOLUME,    /* the same for a user's map: the source is a path of the container, opened with his rights */
    PLAN_HOOK,      /* a program of the site, run by root between two steps */
    PLAN_CACHE,     /* a new file system of `size` bytes, the user's own */
    PLAN_LOCAL,     /* the entries of a directory that stands in for the image, opened with the user's rights */
    PLAN_READ_ONLY  /* the root becomes read-only */
};

struct plan_step {
    enum plan_kind kind;
    char *source;        /* host path, image id, or NULL */
    char *target;        /* path in the container without a trailing slash */
    char *content;       /* PLAN_FILE */
    uint64_t size;       /* PLAN_CACHE */
    enum volume_origin origin; /* whose rules the target follows */
    unsigned attributes; /* MOUNT_*, added to what the source already has */
    bool recursive;
    bool optional; /* a missing source is no error */
    bool trusted;  /* PLAN_BIND: the source and all directories that lead there must be root's alone */
    bool split;    /* PLAN_BIND: entry by entry, because more will be mounted in between */
    bool of_job;   /* belongs to one job, so no part of what makes two plans equal */
    bool of_user;  /* PLAN_FILE: the user's, for nobody else to read */
    enum mount_propagation propagation;
    const char *reason; /* why it is there, for people */
};

struct plan {
    struct plan_step *steps;
    size_t count;
    bool writable; /* mountUdiRootWritable */
};

struct plan_file { /* of one job */
    const char *path; /* in the container; its directory is there, or an earlier entry */
    char *content;    /* NULL: a directory, or `source` */
    char *source;     /* root's own file on the host, shown there */
    bool of_user;
};

struct plan_subject { /* whom and what the container is for */
    const struct config *config;
    const struct image *image;
    const struct account *account; /* NULL: the plan is only to be described, not to be executed */
    const struct caller *caller;
    const struct modules *modules;
    const struct volumes *volumes; /* the user's maps, from volumes_of_user */
    const char *hosts;             /* text of /var/hostsfile, or NULL */
    const struct plan_file *files; /* more of the job's, up to one without a path; or NULL */
};

/* What the user asks for must be what the site allows; no file access. */
int plan_check(const struct config *config, const struct modules *modules, const struct volumes *volumes,
               struct error *e);
void plan_make(const struct plan_subject *subject, struct plan *out);
/* One line per step and one with the user's maps, the same text for equal containers: what a prepared environment is
 * recognised by. */
char *plan_describe(const struct plan *plan, const struct plan_subject *subject);
/* A record of explain.h for each step: "step", kind, source, target, attributes, reason. */
void plan_explain(const struct plan *plan, int fd);
/* The one line of /var/shifterConfig.json, section 10.1. */
char *plan_state_text(const struct plan_subject *subject);
void plan_free(struct plan *plan);

#endif
