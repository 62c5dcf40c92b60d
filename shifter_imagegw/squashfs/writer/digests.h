/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The table behind the file system by which the merge finds equal files of different layers: TWINS_DIGEST bytes for
 * every inode, in the order of their numbers; zeros where there is no file, or none that was compared.
 */
#ifndef WRITER_DIGESTS_H
#define WRITER_DIGESTS_H

#include "output.h"
#include "tree.h"
#include "twins.h"

/* The tree is numbered. */
int digests_write(const struct tree *tree, const struct twins *twins, struct output *output, struct failure *failure);

#endif
