/* SPDX-License-Identifier: BSD-3-Clause */
#include "node/sshd_files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "as_root/kernel.h"
#include "as_root/trust.h"
#include "as_user/environ.h"
#include "base/text.h"
#include "node/sshd_keys.h"

enum { DEFAULT_PORT = 1204 };

/* A file of the site's in optUdiImage. */
static char *read_own(const char *path, struct error *e)
{
    CLEANUP_CLOSE int trusted = trust_open(path, 0, "root", true, "optUdiImage", e);
    if (trusted < 0)
        return NULL;
    FILE *file = fopen(kernel_fd_path(trusted).text, "re");
    char *text = NULL;
    size_t size = 0;
    if (file == NULL || getdelim(&text, &size, '\0', file) < 0) {
        if (file == NULL || ferror(file)) {
            (void)error_set(e, errno, "cannot read %s", path);
            free(text);
            text = NULL;
        } else { /* it is empty */
            free(text);
            text = text_copy("");
        }
    }
    if (file != NULL)
        (void)fclose(file);
    return text;
}

/* The first "Port" line, as sshd_config(5) writes it; 0 without one, -1 for what a user's sshd cannot have. */
static int find_port(const char *config)
{
    for (const char *line = config; line != NULL && *line != '\0';) {
        line += strspn(line, " \t\n");
        if (strncasecmp(line, "Port", 4) == 0 && strchr(" \t=", line[4]) != NULL && line[4] != '\0') {
            unsigned long port = strtoul(line + 4 + strspn(line + 4, " \t=\""), NULL, 10);
            return port >= 1024 && port <= 65535 ? (int)port : -1;
        }
        line = strchr(line, '\n');
    }
    return 0;
}

/* sshd_config(5): words in double quotes, in which \ stands before " and \. A line end cannot be written. */
static char *quote_variable(const char *variable)
{
    char *out = text_alloc(2 * strlen(variable) + 4), *to = out;
    *to++ = ' ';
    *to++ = '"';
    for (; *variable != '\0'; variable++) {
        if (*variable == '"' || *variable == '\\')
            *to++ = '\\';
        *to++ = *variable;
    }
    *to = '"';
    return out;
}

/* SetEnv of sshd_config: what `shifter` would give a command, but for the caller's own. */
static char *session_environ(const struct plan_subject *s)
{
    struct strings env = {0};
    CLEANUP_FREE char *image = text_format("SHIFTER_IMAGE=%s", s->image->id);
    /* Where the image says nothing. */
    environ_set(&env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    environ_set(&env, image);
    for (size_t i = 0; i < s->image->meta.environ.count; i++)
        environ_set(&env, s->image->meta.environ.items[i]);
    for (size_t i = 0; i < s->modules->count; i++)
        environ_apply_site(&env, &s->modules->items[i]->environ, "", NULL);
    environ_apply_site(&env, &s->config->site_environ, "", NULL);
    char *line = text_copy("SetEnv");
    for (size_t i = 0; i < env.count; i++) {
        if (strpbrk(env.items[i], "\n\r") != NULL)
            continue;
        CLEANUP_FREE char *word = quote_variable(env.items[i]), *shorter = line;
        line = text_format("%s%s", shorter, word);
    }
    strings_free(&env);
    return line;
}

static int check_name(const char *name, struct error *e)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    if (strspn(name, plain) == strlen(name))
        return 0;
    return error_set(e, 0, "-s: an account named '%s' cannot have an sshd: AllowUsers would read it as a pattern",
                     name);
}

/* sshd_config(5), ssh_config(5): of two values for one word the first counts. */
static char *server_config(const struct plan_subject *s, const char *site)
{
    CLEANUP_FREE char *variables = session_environ(s);
    CLEANUP_FREE char *port = find_port(site) == 0 ? text_format("Port %d\n", DEFAULT_PORT) : text_copy("");
    return text_format("# Made by setupRoot for one job; the site's part comes last.\n"
                       "HostKey " SSHD_DIRECTORY "/host_key\n"
                       "AuthorizedKeysFile " SSHD_DIRECTORY "/authorized_keys\n"
                       "AllowUsers %s\n"
                       "AuthenticationMethods publickey\n"
                       "PermitRootLogin no\n"
                       "PermitUserEnvironment no\n"
                       "StrictModes yes\n"
                       "UsePAM no\n"
                       "PidFile none\n"
                       "LogLevel INFO\n"
                       "MaxAuthTries 30\n" /* an agent's keys are tried first, and each counts */
                       "%s%s\n%s",
                       s->account->name, port, variables, site);
}

static char *client_config(const char *site, int port)
{
    return text_format("%s\n"
                       "# Made by setupRoot for one job: the sshd of its containers.\n"
                       "Host *\n"
                       "    IgnoreUnknown UpdateHostKeys\n"
                       "    Port %d\n"
                       "    IdentityFile " SSHD_DIRECTORY "/id_ed25519\n"
                       "    CheckHostIP no\n"
                       "    UpdateHostKeys no\n",
                       site, port);
}

static void add(struct sshd_files *out, size_t *count, const char *path, char *content, bool of_user)
{
    out->files[(*count)++] = (struct plan_file){.path = path, .content = content, .of_user = of_user};
}

static int fill(const struct plan_subject *s, const struct sshd_key *host, const struct sshd_key *user,
                struct sshd_files *out, struct error *e)
{
    CLEANUP_FREE char *server_path = text_format("%s/etc/sshd_config", s->config->opt_udi_image);
    CLEANUP_FREE char *client_path = text_format("%s/etc/ssh_config", s->config->opt_udi_image);
    CLEANUP_FREE char *server = read_own(server_path, e);
    CLEANUP_FREE char *client = server == NULL ? NULL : read_own(client_path, e);
    if (client == NULL)
        return -1;
    int port = find_port(server);
    if (port < 0)
        return error_set(e, 0, "%s: Port must be from 1024 to 65535, because the sshd is the user's", server_path);
    if (port == 0)
        port = DEFAULT_PORT;
    size_t n = 0;
    add(out, &n, "/etc/ssh", NULL, false);
    add(out, &n, "/etc/ssh/ssh_config", client_config(client, port), false);
    add(out, &n, "/etc/ssh/ssh_known_hosts", text_format("[*]:%d %s\n", port, host->public_line), false);
    add(out, &n, SSHD_DIRECTORY, NULL, false);
    add(out, &n, SSHD_CONFIG, server_config(s, server), false);
    add(out, &n, SSHD_DIRECTORY "/authorized_keys", text_format("%s\n", user->public_line), false);
    add(out, &n, SSHD_DIRECTORY "/host_key", text_copy(host->private_text), true);
    add(out, &n, SSHD_DIRECTORY "/id_ed25519", text_copy(user->private_text), true);
    add(out, &n, SSHD_PASSWD,
        text_format("%s:x:%u:%u::%s:/bin/sh\nroot:x:0:0:root:/root:/bin/sh\n", s->account->name,
                    (unsigned)s->caller->uid, (unsigned)s->caller->gid, s->account->home),
        false);
    out->files[n] = (struct plan_file){
        .path = "/usr/bin/ssh", .source = text_format("%s/bin/ssh", s->config->opt_udi_image)};
    return 0;
}

int sshd_files_make(const struct plan_subject *s, const char *secret, const char *holder, struct sshd_files *out,
                    struct error *e)
{
    *out = (struct sshd_files){0};
    if (s->config->opt_udi_image == NULL)
        return error_set(e, 0,
                         "-s: there is no sshd: optUdiImage is not set; build its directory with extra/build-udiimage");
    if (check_name(s->account->name, e) < 0)
        return -1;
    CLEANUP_FREE char *job = text_copy_n(holder, strcspn(holder, "@"));
    struct sshd_key host, user = {0};
    int result = sshd_key_derive(secret, job, "host", &host, e);
    if (result == 0)
        result = sshd_key_derive(secret, job, "user", &user, e);
    if (result == 0)
        result = fill(s, &host, &user, out, e);
    if (result == 0)
        out->identity = text_format("sshd %s %s", holder, user.public_line);
    sshd_key_free(&host);
    sshd_key_free(&user);
    return result;
}
