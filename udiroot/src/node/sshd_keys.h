/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ed25519 keys of a job, computed from one secret that all its nodes know, so that nodes need not talk to each other
 * (docs/adr/0016-sshd.md). Forms: RFC 8709 (public key), OpenSSH's PROTOCOL.key (private key).
 */
#ifndef SHIFTER_SSHD_KEYS_H
#define SHIFTER_SSHD_KEYS_H

#include "base/error.h"

enum { SSHD_SECRET_LENGTH = 64 }; /* hex digits, lower case */

struct sshd_key {
    char *public_line;  /* "ssh-ed25519 AAAA..." without a comment or line end */
    char *private_text; /* the file that ssh-keygen would write, without passphrase */
};

/* The same for equal arguments; another `job` or `role` gives a key that tells nothing about this one. */
int sshd_key_derive(const char *secret, const char *job, const char *role, struct sshd_key *out, struct error *e);
void sshd_key_free(struct sshd_key *key);

#endif
