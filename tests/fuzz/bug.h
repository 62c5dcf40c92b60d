/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef FUZZ_BUG_H
#define FUZZ_BUG_H

/* Says what is wrong and aborts, which a fuzzer takes for a crash. */
_Noreturn void bug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
