/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Puts a layer over the merged tree (OCI image specification, layer.md, "Applying Changesets").
 */
#ifndef SHIFTER_MERGER_OVERLAY_H
#define SHIFTER_MERGER_OVERLAY_H

#include "tree.h"

/* Merges the layer whose root directory is `upper` into tree->root; what it holds now belongs to the merged tree. */
int overlay_apply(struct tree *t, uint32_t upper, struct error *e);

#endif
