/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The parsers of the runtime as the fuzz targets see them, and what holds of everything they return. What does not ends
 * the process.
 */
#ifndef FUZZ_EXPECT_H
#define FUZZ_EXPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../bug.h"
#include "as_user/volumes.h"
#include "base/error.h"
#include "base/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes up to the first NUL, in a block that ends right behind theirs. */
char *text_of(const uint8_t *data, size_t size);
/* The texts between NULs, the last one too; as many as `most`, so that the last one may hold NULs, which end it. */
struct strings texts_of(const uint8_t *data, size_t size, size_t most);

/* An error as a function that fails finds it: whatever it does not fill is seen. */
struct error error_untouched(void);
/* A function that failed filled it: one line for a terminal. */
void expect_message(const struct error *e);
void expect_printable(const char *text);
/* "After an error `out` holds nothing." */
void expect_nothing(const void *out, size_t size, const char *what);

void expect_equal(const char *found, const char *expected, const char *what); /* both may be NULL */
void expect_equal_lists(const struct strings *found, const struct strings *expected, const char *what);

/* Absolute, without "//", "/." , "/.." and a slash at the end. */
void expect_clean_path(const char *path, const char *what);
bool volume_equal(const struct volume *a, const struct volume *b);
/* What volumes_parse may return for this origin. */
void expect_volumes(const struct volumes *volumes, enum volume_origin origin);

#endif
