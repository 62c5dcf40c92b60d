/* SPDX-License-Identifier: BSD-3-Clause */
#include "options.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static int take_image(int value, const char *argument, int remote);

/* Long names keep out of the way of other plug-ins: section 3. */
static char short_name[] = "image", long_name[] = "shifter.image";
static char image_argument[] = "[TYPE:]TAG";
static char image_usage[] = "container image of the job; its tasks enter it with `shifter COMMAND`";
static struct spank_option image_option = {short_name, image_argument, image_usage, 1, 0, take_image};

static char image_text[IMAGE_TEXT_LIMIT + 1];
static bool image_given;

/* Words of the contract that ask for what this version does not do. "0" and nothing ask for nothing. */
static const char *const later_words[] = {"extern_setup=", "extern_cgroup=", "memory_cgroup=",
                                          "enable_sshd=",  "enable_ccm=",    "shifter_config="};

void options_configure(int count, char **words)
{
    for (int i = 0; i < count; i++)
        if (strcmp(words[i], "long_options") == 0)
            image_option.name = long_name;
}

void options_report(int count, char **words)
{
    for (int i = 0; i < count; i++) {
        const char *value = NULL;
        for (size_t w = 0; w < sizeof later_words / sizeof later_words[0]; w++)
            if (strncasecmp(words[i], later_words[w], strlen(later_words[w])) == 0)
                value = words[i] + strlen(later_words[w]);
        bool asks_for_nothing = value != NULL && (*value == '\0' || strcmp(value, "0") == 0);
        if (strcmp(words[i], "long_options") == 0 || asks_for_nothing)
            continue;
        slurm_error("shifter: plugstack.conf: %s '%.200s' ignored; see docs/slurm.md for the words of this version",
                    value != NULL ? "unsupported word" : "unknown word", words[i]);
    }
}

void options_register(spank_t spank)
{
    spank_err_t failure = spank_option_register(spank, &image_option);
    if (failure != ESPANK_SUCCESS)
        slurm_error("shifter: Slurm does not take option --%s (%s); does another plug-in have it? The word "
                    "long_options in plugstack.conf makes ours --%s",
                    image_option.name, spank_strerror(failure), long_name);
}

int options_check_image(const char *text, struct error *e)
{
    size_t length = strlen(text);
    if (length == 0)
        return error_set(e, 0, "--%s needs an image, for example --%s=docker:ubuntu:24.04", image_option.name,
                         image_option.name);
    if (length > IMAGE_TEXT_LIMIT)
        return error_set(e, 0, "--%s: the image name has %zu characters, at most %d are possible", image_option.name,
                         length, IMAGE_TEXT_LIMIT);
    if (!isalnum((unsigned char)text[0]))
        return error_set(e, 0, "--%s: '%s' does not begin with a letter or digit", image_option.name, text);
    for (const char *c = text; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("_:.+-@/", *c) == NULL)
            return error_set(e, 0, "--%s: '%s' has a character that no image name has (allowed: A-Z a-z 0-9 _:.+-@/)",
                             image_option.name, text);
    return 0;
}

/* Runs for the value that an enclosing job hands down as well as for the user's own, which comes last and wins. In
 * slurmstepd the value is only known to be there: nobody acts on it. */
static int take_image(int value, const char *argument, int remote)
{
    (void)value;
    struct error e;
    const char *text = argument != NULL ? argument : "";
    if (remote)
        return ESPANK_SUCCESS;
    if (options_check_image(text, &e) < 0) {
        slurm_error("shifter: %s", e.text);
        return ESPANK_BAD_ARG;
    }
    (void)snprintf(image_text, sizeof image_text, "%s", text);
    image_given = true;
    return ESPANK_SUCCESS;
}

const char *options_image(void)
{
    return image_given ? image_text : NULL;
}

bool options_image_was_given(spank_t spank)
{
    char *ignored = NULL;
    return spank_option_getopt(spank, &image_option, &ignored) == ESPANK_SUCCESS;
}

const char *options_image_variable(void)
{
    return image_option.name == long_name ? "SLURM_SPANK__SLURM_SPANK_OPTION_shifter_shifter_image"
                                          : "SLURM_SPANK__SLURM_SPANK_OPTION_shifter_image";
}
