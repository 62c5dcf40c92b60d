/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A file that somebody says is an image: examined, and then merged as if it were a layer.
 */
#include "archive_mutator.h"
#include "engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)examine_image(scratch_holding(0, data, size));
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return mutate_archive(data, size, max_size, seed);
}
