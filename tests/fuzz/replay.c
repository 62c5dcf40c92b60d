/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Runs a target over the files it is given, for compilers without libFuzzer.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return -1;
    long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    rewind(file);
    uint8_t *data = size < 0 ? NULL : malloc((size_t)size + (size == 0));
    int result = data != NULL && fread(data, 1, (size_t)size, file) == (size_t)size ? 0 : -1;
    (void)fclose(file);
    if (result == 0)
        (void)LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    return result;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        (void)fprintf(stderr, "%s\n", argv[i]); /* the last one is the one to look at */
        if (run(argv[i]) < 0) {
            perror(argv[i]);
            return 1;
        }
    }
    return 0;
}
