/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The floor of a start in a prepared container: what every setuid program pays that executes another one, and nothing
 * else. Installed setuid root for the time of the bench: change_ids PROGRAM [ARGUMENT...]. It gives its rights up first.
 */
#define _GNU_SOURCE
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 2 || setresgid(getgid(), getgid(), getgid()) < 0 || setresuid(getuid(), getuid(), getuid()) < 0)
        return 125;
    (void)execv(argv[1], argv + 1);
    return 127;
}
