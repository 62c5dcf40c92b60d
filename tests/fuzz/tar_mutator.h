/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Changes tar streams so that they stay tar streams: without it the fuzzer would have to guess checksums.
 */
#ifndef FUZZ_TAR_MUTATOR_H
#define FUZZ_TAR_MUTATOR_H

#include <stddef.h>
#include <stdint.h>

/* Both return the new size, at most `room`. The program that only replays inputs has them too, and never calls them. */
size_t mutate_bytes(uint8_t *data, size_t size, size_t room);
size_t mutate_tar(uint8_t *data, size_t size, size_t room, unsigned seed);

#endif
