/* SPDX-License-Identifier: BSD-3-Clause */
#include "entries.h"

#include <string.h>
#include <sys/stat.h>

#include "bootset.h"

static const char whiteout_prefix[] = ".wh.";       /* image-spec 1.1, layer.md, "Whiteouts" */
static const char opaque_marker[] = ".wh..wh..opq"; /* the same, "Opaque Whiteout" */
static const char aufs_prefix[] = ".wh..wh.";       /* aufs(5) keeps its own files under such names */

enum { PERMISSIONS = 0777, SETID = S_ISUID | S_ISGID };

static int copy_owner(struct entries *entries, la_int64_t id, uint16_t *index, struct failure *failure)
{
    if (!entries->recipe->keep_owners)
        id = 0;
    if (id < 0 || id >= UINT32_MAX)
        return fail_layer(failure, "its owner or group has the impossible number %lld", (long long)id);
    if (sqfs_id_table_id_to_index(entries->ids, (sqfs_u32)id, index) != 0)
        return fail_limit(failure, "more than 65536 different owners and groups");
    return 0;
}

/* Only `user.` survives, and only where the recipe says so; `user.shifter.` is how archives talk to the merge. */
static int copy_xattrs(struct entries *entries, struct archive_entry *entry, struct inode *inode,
                       struct failure *failure)
{
    inode->xattrs = TREE_NONE;
    if (!entries->recipe->keep_user_xattrs || !(S_ISREG(inode->mode) || S_ISDIR(inode->mode)))
        return 0;
    xattrs_begin(entries->xattrs);
    const char *name;
    const void *value;
    size_t size;
    (void)archive_entry_xattr_reset(entry);
    while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
        if (strncmp(name, "user.", 5) != 0 || strncmp(name, "user.shifter.", 13) == 0)
            continue;
        if (xattrs_add(entries->xattrs, SQFS_XATTR_USER, name + 5, value, size, failure) < 0)
            return -1;
    }
    return xattrs_end(entries->xattrs, &inode->xattrs, failure);
}

static int copy_attributes(struct entries *entries, struct archive_entry *entry, uint32_t index,
                           struct failure *failure)
{
    struct inode *inode = &entries->tree->inodes[index];
    mode_t kept = PERMISSIONS | S_ISVTX | (entries->recipe->keep_setid ? SETID : 0);
    inode->mode = (uint16_t)((inode->mode & S_IFMT) | (archive_entry_perm(entry) & kept));
    time_t modified = archive_entry_mtime(entry);
    inode->modified = modified < 0 ? 0 : modified > UINT32_MAX ? UINT32_MAX : (uint32_t)modified;
    if (copy_owner(entries, archive_entry_uid(entry), &inode->owner, failure) < 0 ||
        copy_owner(entries, archive_entry_gid(entry), &inode->group, failure) < 0)
        return -1;
    return copy_xattrs(entries, entry, inode, failure);
}

/* Puts a finished inode that is no directory under the name at the end of the walk. */
static int place(struct entries *entries, uint32_t inode, struct failure *failure)
{
    struct walk *walk = &entries->walk;
    struct tree *tree = entries->tree;
    if (tree->inodes[inode].links >= entries->limits->max_links)
        return fail_limit(failure, "more than %u hard links to one file", entries->limits->max_links);
    uint32_t node = tree_find(tree, walk->directory, walk->name, walk->name_size);
    if (node == TREE_NONE) {
        if (tree_add_node(tree, walk->directory, walk->name, walk->name_size, inode, &node, failure) < 0)
            return -1;
    } else {
        struct inode *replaced = tree_inode(tree, node);
        if (!S_ISDIR(replaced->mode))
            replaced->links--;
        tree->nodes[node].inode = inode;
    }
    tree->inodes[inode].links++;
    return 0;
}

/* A name without an object, whatever this layer had there before. */
static int place_whiteout(struct entries *entries, struct failure *failure)
{
    uint32_t inode;
    if (tree_add_inode(entries->tree, S_IFCHR, &inode, failure) < 0)
        return -1;
    entries->tree->inodes[inode].flags = INODE_WHITEOUT;
    return place(entries, inode, failure);
}

static int apply_directory(struct entries *entries, struct archive_entry *entry, struct failure *failure)
{
    struct walk *walk = &entries->walk;
    struct tree *tree = entries->tree;
    uint32_t inode = 0, node = TREE_NONE;
    if (walk->name_size > 0) {
        node = tree_find(tree, walk->directory, walk->name, walk->name_size);
        if (node != TREE_NONE && S_ISDIR(tree_inode(tree, node)->mode)) {
            inode = tree->nodes[node].inode;
        } else {
            if (tree_add_inode(tree, S_IFDIR, &inode, failure) < 0)
                return -1;
            if (node != TREE_NONE) { /* it replaces something that hid older layers, and so do they stay hidden */
                tree->inodes[inode].flags = INODE_OPAQUE;
                tree->nodes[node].inode = inode;
            } else if (tree_add_node(tree, walk->directory, walk->name, walk->name_size, inode, &node, failure) < 0) {
                return -1;
            }
        }
    }
    tree->inodes[inode].flags &= (uint16_t)~(INODE_IMPLIED | INODE_WHITED);
    return copy_attributes(entries, entry, inode, failure);
}

static int apply_whiteout(struct entries *entries, struct failure *failure)
{
    struct walk *walk = &entries->walk;
    struct tree *tree = entries->tree;
    walk->name += sizeof whiteout_prefix - 1;
    walk->name_size -= sizeof whiteout_prefix - 1;
    if (walk->name_size == 0 || strcmp(walk->name, ".") == 0 || strcmp(walk->name, "..") == 0)
        return fail_layer(failure, "a whiteout of nothing, or of the directory it is in");
    uint32_t node = tree_find(tree, walk->directory, walk->name, walk->name_size);
    if (node == TREE_NONE)
        return place_whiteout(entries, failure);
    struct inode *inode = tree_inode(tree, node); /* of this layer: whiteouts are about older ones */
    if (S_ISDIR(inode->mode) && (inode->flags & INODE_IMPLIED) != 0)
        inode->flags = (uint16_t)((inode->flags & ~INODE_IMPLIED) | INODE_WHITED);
    if (S_ISDIR(inode->mode))
        inode->flags |= INODE_OPAQUE;
    return 0;
}

/* Data comes in pieces with their offsets; what lies between them is a hole. */
static int copy_data(struct entries *entries, struct archive *archive, struct failure *failure)
{
    struct blocks *blocks = entries->blocks;
    const uint64_t size = blocks_missing(blocks);
    for (;;) {
        const void *data;
        size_t piece;
        la_int64_t offset;
        int code = archive_read_data_block(archive, &data, &piece, &offset);
        if (code == ARCHIVE_EOF)
            return blocks_append_zeros(blocks, blocks_missing(blocks), failure);
        if (code != ARCHIVE_OK)
            return failure->kind != FAILURE_NONE ? -1 : fail_layer(failure, "%s", archive_error_string(archive));
        uint64_t done = size - blocks_missing(blocks);
        if (offset < 0 || (uint64_t)offset < done || (uint64_t)offset > size)
            return fail_layer(failure, "its data is not in order");
        if (blocks_append_zeros(blocks, (uint64_t)offset - done, failure) < 0 ||
            blocks_append(blocks, data, piece, failure) < 0)
            return -1;
    }
}

static int begin_file(struct entries *entries, uint32_t inode, uint64_t size, struct failure *failure)
{
    const struct walk *walk = &entries->walk;
    struct place place = {.name = walk->name, .name_size = walk->name_size};
    place.directory = walk_directory(walk, &place.directory_size);
    bool plain =
        entries->recipe->boot_set && bootset_has(place.directory, place.directory_size, walk->name, size);
    return blocks_begin(entries->blocks, inode, size, &place, plain ? STORE_PLAIN : STORE_COMPRESSED, failure);
}

static int apply_file(struct entries *entries, struct archive *archive, struct archive_entry *entry,
                      struct failure *failure)
{
    la_int64_t size = archive_entry_size(entry);
    if (size < 0)
        return fail_layer(failure, "its size is negative");
    if ((uint64_t)size > entries->limits->max_bytes - entries->bytes)
        return fail_limit(failure, "its files have more than %llu bytes",
                          (unsigned long long)entries->limits->max_bytes);
    entries->bytes += (uint64_t)size;
    uint32_t inode;
    if (tree_add_inode(entries->tree, S_IFREG, &inode, failure) < 0 ||
        copy_attributes(entries, entry, inode, failure) < 0 ||
        begin_file(entries, inode, (uint64_t)size, failure) < 0 || copy_data(entries, archive, failure) < 0 ||
        blocks_end(entries->blocks, inode, failure) < 0)
        return -1;
    return place(entries, inode, failure);
}

static int apply_symlink(struct entries *entries, struct archive_entry *entry, struct failure *failure)
{
    const char *target = archive_entry_symlink(entry);
    size_t size = target == NULL ? 0 : strlen(target);
    if (size == 0)
        return fail_layer(failure, "a symbolic link to nothing");
    if (size > entries->limits->max_target)
        return fail_limit(failure, "a link target of more than %u bytes", entries->limits->max_target);
    uint32_t inode, text;
    if (tree_add_inode(entries->tree, S_IFLNK, &inode, failure) < 0 ||
        copy_attributes(entries, entry, inode, failure) < 0 ||
        tree_add_text(entries->tree, target, size, &text, failure) < 0)
        return -1;
    struct inode *made = &entries->tree->inodes[inode];
    made->mode = S_IFLNK | PERMISSIONS; /* the permissions of a link mean nothing, and the kernel shows these */
    made->symlink.target = text;
    made->symlink.length = (uint32_t)size;
    return place(entries, inode, failure);
}

/* An empty file that names the path in the older layers which it is a link to; the merge finds it. */
static int link_to_older_layer(struct entries *entries, const char *target, uint32_t *inode, struct failure *failure)
{
    if (tree_add_inode(entries->tree, S_IFREG, inode, failure) < 0)
        return -1;
    xattrs_begin(entries->xattrs);
    if (xattrs_add(entries->xattrs, SQFS_XATTR_USER, "shifter.hardlink", target, strlen(target), failure) < 0)
        return -1;
    struct inode *made = &entries->tree->inodes[*inode];
    made->file.fragment = made->file.offset = made->file.digest = UINT32_MAX;
    return xattrs_end(entries->xattrs, &made->xattrs, failure);
}

static int apply_hardlink(struct entries *entries, const char *path, const char *target, struct failure *failure)
{
    struct walk *walk = &entries->walk;
    struct tree *tree = entries->tree;
    char found[PATH_CEILING + 1], own[PATH_CEILING + 1];
    if (walk_begin(walk, tree, target, failure) < 0 || walk_to_parent(walk, WALK_LOOK, failure) < 0 ||
        walk_text(walk, found, failure) < 0)
        return -1;
    uint32_t node = TREE_NONE, inode;
    if (walk->directory != TREE_NONE && walk->name_size > 0)
        node = tree_find(tree, walk->directory, walk->name, walk->name_size);
    if (walk->name_size == 0 || (node != TREE_NONE && S_ISDIR(tree_inode(tree, node)->mode)))
        return fail_layer(failure, "a hard link to the directory %s", target);
    if (node != TREE_NONE && (tree_inode(tree, node)->flags & INODE_WHITEOUT) == 0)
        inode = tree->nodes[node].inode;
    else if (link_to_older_layer(entries, found, &inode, failure) < 0)
        return -1;
    if (walk_begin(walk, tree, path, failure) < 0 || walk_to_parent(walk, WALK_CREATE, failure) < 0 ||
        walk_text(walk, own, failure) < 0)
        return -1;
    if (strcmp(found, own) == 0)
        return fail_layer(failure, "a hard link to itself");
    return place(entries, inode, failure);
}

static int apply_fifo(struct entries *entries, struct archive_entry *entry, struct failure *failure)
{
    uint32_t inode;
    if (tree_add_inode(entries->tree, S_IFIFO, &inode, failure) < 0 ||
        copy_attributes(entries, entry, inode, failure) < 0)
        return -1;
    return place(entries, inode, failure);
}

static int apply_object(struct entries *entries, struct archive *archive, struct archive_entry *entry,
                        struct failure *failure)
{
    switch (archive_entry_filetype(entry)) {
    case AE_IFDIR: return apply_directory(entries, entry, failure);
    case AE_IFREG: return apply_file(entries, archive, entry, failure);
    case AE_IFLNK: return apply_symlink(entries, entry, failure);
    case AE_IFIFO: return apply_fifo(entries, entry, failure);
    default: return place_whiteout(entries, failure); /* no devices; but what older layers have there is replaced */
    }
}

int entries_apply(struct entries *entries, struct archive *archive, struct archive_entry *entry,
                  struct failure *failure)
{
    struct walk *walk = &entries->walk;
    const char *path = archive_entry_pathname(entry);
    if (++entries->count > entries->limits->max_entries)
        return fail_limit(failure, "more than %llu entries", (unsigned long long)entries->limits->max_entries);
    if (path == NULL || *path == '\0')
        return fail_layer(failure, "an entry without a name");
    if (walk_begin(walk, entries->tree, path, failure) < 0)
        return -1;
    bool opaque = strcmp(walk->name, opaque_marker) == 0;
    if (!opaque && walk_any_starts(walk, aufs_prefix))
        return 0;
    const char *target = archive_entry_hardlink(entry);
    if (walk->name_size == 0 && (target != NULL || archive_entry_filetype(entry) != AE_IFDIR))
        return fail_layer(failure, "the root directory cannot be anything else");
    if (target != NULL && !walk_last_starts(walk, whiteout_prefix))
        return apply_hardlink(entries, path, target, failure);
    if (walk_to_parent(walk, WALK_CREATE, failure) < 0)
        return -1;
    if (opaque) {
        entries->tree->inodes[walk->directory].flags |= INODE_OPAQUE;
        return 0;
    }
    if (walk_last_starts(walk, whiteout_prefix))
        return apply_whiteout(entries, failure);
    return apply_object(entries, archive, entry, failure);
}
