/* SPDX-License-Identifier: BSD-3-Clause */
#include "options.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "as_user/volumes.h"
#include "base/text.h"

static int take(int value, const char *argument, int remote);
static int check_modules(const char *text, struct error *e);
static int check_volumes(const char *text, struct error *e);

/* Long names keep out of the way of other plug-ins: section 3. */
static struct {
    struct spank_option option;
    char *long_name;
    int (*check)(const char *text, struct error *e);
    char *text; /* NULL: not given */
    bool inherited; /* `text` is the enclosing job's */
} table[OPTIONS] = {
    [OPTION_IMAGE] = {.option = {(char[]){"image"}, (char[]){"[TYPE:]TAG"},
                                 (char[]){"container image of the job; its tasks enter it with `shifter COMMAND`"}, 1,
                                 OPTION_IMAGE, take},
                      .long_name = (char[]){"shifter.image"},
                      .check = options_check_image},
    [OPTION_MODULE] = {.option = {(char[]){"module"}, (char[]){"NAME[,...]"},
                                  (char[]){"site modules of the job's containers, in place of the default ones"}, 1,
                                  OPTION_MODULE, take},
                       .long_name = (char[]){"shifter.module"},
                       .check = check_modules},
    [OPTION_VOLUME] = {.option = {(char[]){"volume"}, (char[]){"FROM:TO[:FLAG...][;...]"},
                                  (char[]){"directories and files of the job's containers to show at other places"}, 1,
                                  OPTION_VOLUME, take},
                       .long_name = (char[]){"shifter.volume"},
                       .check = check_volumes},
};

/* Words of earlier versions, and what a site should know that has one of them. "0" and nothing ask for nothing. */
static const struct {
    const char *word, *advice;
} old_words[] = {
    {"shifter_config=", "the programs and this plug-in read " SYSCONFDIR "/udiRoot.conf, which is compiled in"},
    {"memory_cgroup=",
     "not needed: what a login through the container's sshd leaves is ended with the job without a cgroup"},
    {"extern_cgroup=", "not supported: Slurm does not account what is started through the container's sshd"},
    {"extern_setup=",
     "not supported: sitePostMountHook, or the roothook of a module, changes containers before anybody is in"},
    {"enable_ccm=", "not supported: there is no --ccm; --image=local:/ with `shifter` in the script does the same "
                    "where udiRoot.conf has allowLocalChroot=1"},
    {"enable_sshd=", "write enable_sshd=1, or 0"},
};
static const char sshd_word[] = "enable_sshd=1"; /* the one value besides these that is served */
static bool sshd_is_enabled;

void options_configure(int count, char **words)
{
    sshd_is_enabled = false;
    for (int i = 0; i < count; i++)
        sshd_is_enabled = sshd_is_enabled || strcasecmp(words[i], sshd_word) == 0;
    for (int i = 0; i < count; i++)
        for (size_t o = 0; o < OPTIONS && strcmp(words[i], "long_options") == 0; o++)
            table[o].option.name = table[o].long_name;
}

static bool asks_for_nothing(const char *word, const char *value)
{
    return strcasecmp(word, sshd_word) == 0 || *value == '\0' || strcmp(value, "0") == 0 ||
           strcmp(word, "shifter_config=" SYSCONFDIR "/udiRoot.conf") == 0;
}

void options_report(int count, char **words)
{
    for (int i = 0; i < count; i++) {
        const char *advice = strcmp(words[i], "long_options") == 0 ? "" : NULL;
        for (size_t o = 0; o < sizeof old_words / sizeof old_words[0]; o++) {
            size_t length = strlen(old_words[o].word);
            if (strncasecmp(words[i], old_words[o].word, length) == 0)
                advice = asks_for_nothing(words[i], words[i] + length) ? "" : old_words[o].advice;
        }
        if (advice == NULL)
            slurm_error("shifter: plugstack.conf: unknown word '%.200s' ignored; see docs/slurm.md for those there are",
                        words[i]);
        else if (*advice != '\0')
            slurm_error("shifter: plugstack.conf: '%.200s' has no effect: %s", words[i], advice);
    }
}

bool options_sshd_is_enabled(void)
{
    return sshd_is_enabled;
}

void options_register(spank_t spank)
{
    for (size_t o = 0; o < OPTIONS; o++) {
        spank_err_t failure = spank_option_register(spank, &table[o].option);
        if (failure != ESPANK_SUCCESS)
            slurm_error("shifter: Slurm does not take option --%s (%s); does another plug-in have it? The word "
                        "long_options in plugstack.conf makes ours --%s",
                        table[o].option.name, spank_strerror(failure), table[o].long_name);
    }
}

int options_check_image(const char *text, struct error *e)
{
    const char *name = table[OPTION_IMAGE].option.name;
    size_t length = strlen(text);
    if (length == 0)
        return error_set(e, 0, "--%s needs an image, for example --%s=docker:ubuntu:24.04", name, name);
    if (length > OPTION_TEXT_LIMIT)
        return error_set(e, 0, "--%s: the image name has %zu characters, at most %d are possible", name, length,
                         OPTION_TEXT_LIMIT);
    if (!isalnum((unsigned char)text[0]))
        return error_set(e, 0, "--%s: '%s' does not begin with a letter or digit", name, text);
    for (const char *c = text; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("_:.+-@/", *c) == NULL)
            return error_set(e, 0, "--%s: '%s' has a character that no image name has (allowed: A-Z a-z 0-9 _:.+-@/)",
                             name, text);
    return 0;
}

bool options_may_be_path(const char *text)
{
    const char *c = text;
    while (isalnum((unsigned char)*c) || (*c != '\0' && strchr("_:.+-@/", *c) != NULL))
        c++;
    return text[0] == '/' && *c == '\0' && c - text <= OPTION_TEXT_LIMIT;
}

bool options_may_be_modules(const char *text)
{
    size_t length = strlen(text);
    bool good = length > 0 && length <= OPTION_TEXT_LIMIT;
    for (const char *c = text; *c != '\0'; c++)
        good = good && (unsigned char)*c >= ' ' && *c != 0x7f;
    return good;
}

static int check_modules(const char *text, struct error *e)
{
    return options_may_be_modules(text)
               ? 0
               : error_set(e, 0, "--%s needs the names of modules, 'none' for none, and at most %d characters",
                           table[OPTION_MODULE].option.name, OPTION_TEXT_LIMIT);
}

bool options_may_be_volumes(const char *text)
{
    return strlen(text) <= VOLUMES_TEXT_LIMIT;
}

static int check_volumes(const char *text, struct error *e)
{
    struct strings texts = {0};
    struct volumes volumes = {0};
    struct error cause;
    const char *name = table[OPTION_VOLUME].option.name;
    if (!options_may_be_volumes(text))
        return error_set(e, 0, "--%s: more than %d characters", name, VOLUMES_TEXT_LIMIT);
    strings_add(&texts, text);
    int result = volumes_of_user(&texts, &volumes, &cause);
    if (result < 0)
        (void)error_set(e, 0, "--%s: %s", name, cause.text);
    else if (volumes.count == 0)
        result = error_set(e, 0, "--%s needs a map, for example --%s=/scratch/me:/data", name, name);
    volumes_free(&volumes);
    strings_free(&texts);
    return result;
}

/* Slurm hands down what was typed last; all of it is in the variable of the job. */
static const char *inherited_text(int value, const char *text)
{
    const char *typed = getenv(options_variable(value)), *all = getenv("SLURM_SPANK_SHIFTER_VOLUME");
    if (table[value].text != NULL || typed == NULL || strcmp(typed, text) != 0)
        return NULL;
    return value == OPTION_VOLUME && all != NULL ? all : text;
}

/* Runs for the value that an enclosing job hands down as well as for the user's own, which come later and win; several
 * --volume of the user's add up (W-8). In slurmstepd the value is only known to be there: nobody acts on it. */
static int take(int value, const char *argument, int remote)
{
    struct error e;
    const char *text = argument != NULL ? argument : "";
    if (remote)
        return ESPANK_SUCCESS;
    const char *inherited = inherited_text(value, text);
    bool adds = value == OPTION_VOLUME && table[value].text != NULL && !table[value].inherited && *text != '\0';
    CLEANUP_FREE char *whole = adds ? text_format("%s;%s", table[value].text, text)
                                    : text_copy(inherited != NULL ? inherited : text);
    if (table[value].check(whole, &e) < 0) {
        slurm_error("shifter: %s", e.text);
        return ESPANK_BAD_ARG;
    }
    free(table[value].text);
    table[value].text = text_copy(whole);
    table[value].inherited = inherited != NULL;
    return ESPANK_SUCCESS;
}

const char *options_text(enum options_name name)
{
    return table[name].text;
}

const char *options_name(enum options_name name)
{
    return table[name].option.name;
}

bool options_image_was_given(spank_t spank)
{
    char *ignored = NULL;
    return spank_option_getopt(spank, &table[OPTION_IMAGE].option, &ignored) == ESPANK_SUCCESS;
}

const char *options_variable(enum options_name name)
{
    static char variable[64];
    (void)snprintf(variable, sizeof variable, "SLURM_SPANK__SLURM_SPANK_OPTION_shifter_%s", table[name].option.name);
    for (char *dot = variable; (dot = strchr(dot, '.')) != NULL;)
        *dot = '_';
    return variable;
}
