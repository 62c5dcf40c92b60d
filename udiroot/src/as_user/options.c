/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/options.h"

#include <getopt.h>
#include <string.h>

#include "as_user/environ.h"

enum { OPTION_ENTRYPOINT = 256, OPTION_ENV_FILE, OPTION_VERSION, OPTION_CHECK_CONFIG, OPTION_KEEPENV, OPTION_EXPLAIN };

static const struct option long_options[] = {
    {"image", required_argument, NULL, 'i'},
    {"volume", required_argument, NULL, 'V'},
    {"module", required_argument, NULL, 'm'},
    {"entrypoint", optional_argument, NULL, OPTION_ENTRYPOINT},
    {"entry", optional_argument, NULL, OPTION_ENTRYPOINT},
    {"workdir", optional_argument, NULL, 'w'},
    {"env", required_argument, NULL, 'e'},
    {"env-file", required_argument, NULL, OPTION_ENV_FILE},
    {"clearenv", no_argument, NULL, 'E'},
    {"keepenv", required_argument, NULL, OPTION_KEEPENV},
    {"explain", optional_argument, NULL, OPTION_EXPLAIN},
    {"verbose", no_argument, NULL, 'v'},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"check-config", no_argument, NULL, OPTION_CHECK_CONFIG},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

const char options_help[] =
    "Usage: shifter [options] [--] [command [arguments...]]\n"
    "\n"
    "Runs the command in a container made from an image that was pulled before (shifterimg pull). The command\n"
    "takes the place of shifter; it runs as you, on this node. Without a command your shell ($SHELL) is started\n"
    "if the container has it, else /bin/sh. Options end at the first word that is none.\n"
    "\n"
    "Image\n"
    "  -i, --image=[TYPE:]NAME   the image: docker:ubuntu:24.04, custom:NAME, id:<64 hex digits>, local:/DIRECTORY\n"
    "                            where the site allows that; TYPE may be left out where the site has a default.\n"
    "                            Where neither this option nor a variable names one: what this node is prepared with\n"
    "                            for you, and in a job for that job\n"
    "\n"
    "Command\n"
    "      --entrypoint          run the image's entrypoint, the command line being its arguments\n"
    "      --entrypoint=PROGRAM  run PROGRAM, the command line being its arguments (also --entry)\n"
    "  -w, --workdir             start in the image's working directory\n"
    "  -wPATH, --workdir=PATH    start in PATH; without this option: in the present directory if the container has\n"
    "                            it, else in /\n"
    "\n"
    "Environment (later ones win: yours, the image's, --env-file, --env, the site's)\n"
    "  -e, --env=NAME=VALUE      set a variable; may be repeated\n"
    "      --env-file=FILE       set variables from FILE: one NAME=VALUE a line, '#' starts a comment\n"
    "  -E, --clearenv            do not pass on the present environment\n"
    "      --keepenv=NAME[,...]  pass these variables on even so; also LD_* and TMPDIR, which are not otherwise\n"
    "\n"
    "What is mounted\n"
    "  -V, --volume=FROM:TO[:FLAG...]\n"
    "                            show the directory FROM of the container at TO too; may be repeated, or maps joined\n"
    "                            with ';'. FLAG: ro, perNodeCache=size=SIZE. A backslash takes ':', ';' and the\n"
    "                            like into a name\n"
    "  -m, --module=NAME[,...]   site modules to use in place of the default ones; 'none' for none\n"
    "\n"
    "Other\n"
    "  -v, --verbose             say what is decided, and remarks about the site's configuration\n"
    "      --explain[=json]      run nothing: print the image, what would be mounted and why, and the environment\n"
    "                            with where each variable comes from\n"
    "      --check-config        say what is wrong with the site's configuration on this node; exit status 1 if there\n"
    "                            are errors\n"
    "      --version             print the version\n"
    "  -h, --help                print this text\n"
    "\n"
    "Variables, used where no option says it\n"
    "  SHIFTER                   as --image\n"
    "  SHIFTER_IMAGETYPE with SHIFTER_IMAGE, or SHIFTER_IMAGEREQUEST, or SHIFTER_IMAGE alone\n"
    "                            the image; then the same names after SLURM_SPANK_, which Slurm sets in a job\n"
    "  SHIFTER_VOLUME            as --volume\n"
    "  SHIFTER_MODULE            as --module\n"
    "\n"
    "Exit status\n"
    "  125  shifter failed before the command started; standard error says why\n"
    "  126  the command is in the container but cannot be executed\n"
    "  127  the command is not in the container\n"
    "  else the command's own\n";

/* What getopt_long complains about, in our words. `word` is the argument it was looking at. */
static int complain(int answer, const char *word, struct error *e)
{
    bool is_long = strncmp(word, "--", 2) == 0;
    char letter[] = {'-', (char)optopt, '\0'};
    int length = is_long ? (int)strcspn(word, "=") : 2;
    const char *name = is_long ? word : letter;
    if (length > 200)
        length = 200;
    if (answer == ':')
        return error_set(e, 0, "option %.*s needs a value (shifter --help)", length, name);
    /* optopt tells an option that exists and was given a value it does not take: getopt_long(3) */
    if (is_long && optopt != 0)
        return error_set(e, 0, "option %.*s takes no value (shifter --help)", length, name);
    return error_set(e, 0, "unknown%s option %.*s (shifter --help)", is_long ? " or ambiguous" : "", length, name);
}

static int add_variable(const char *name_value, struct options *out, struct error *e)
{
    struct error cause;
    if (environ_check(name_value, &cause) < 0)
        return error_set(e, 0, "option --env: %s (shifter --help)", cause.text);
    environ_set(&out->environ, name_value);
    return 0;
}

static int add_kept(const char *list, struct options *out, struct error *e)
{
    CLEANUP_FREE char *copy = text_copy(list);
    for (char *next = copy, *name; (name = strsep(&next, ",")) != NULL;) {
        if (*name == '\0' || strchr(name, '=') != NULL)
            return error_set(e, 0, "option --keepenv: '%.200s' is no list NAME[,NAME...] (shifter --help)", list);
        strings_add(&out->kept, name);
    }
    return 0;
}

/* A value that was given and is empty is a variable of a script that was not set. */
static int take_value(const char *option, const char *value, const char **where, struct error *e)
{
    if (value != NULL && *value == '\0')
        return error_set(e, 0, "option %s has an empty value (shifter --help)", option);
    *where = value;
    return 0;
}

static int add_volumes(const char *maps, struct options *out, struct error *e)
{
    if (take_value("--volume", maps, &maps, e) < 0)
        return -1;
    strings_add(&out->volumes, maps);
    return 0;
}

static int apply(int option, struct options *out, struct error *e)
{
    switch (option) {
    case 'i': return take_value("--image", optarg, &out->image, e);
    case 'V': return add_volumes(optarg, out, e);
    case 'm': return take_value("--module", optarg, &out->modules, e);
    case OPTION_ENTRYPOINT:
        out->entrypoint = true;
        return take_value("--entrypoint", optarg, &out->entrypoint_program, e);
    case 'w': out->workdir = true; return take_value("--workdir", optarg, &out->workdir_path, e);
    case 'e': return add_variable(optarg, out, e);
    case OPTION_ENV_FILE: return take_value("--env-file", optarg, &out->env_file, e);
    case OPTION_KEEPENV: return add_kept(optarg, out, e);
    case 'E': out->clear_environ = true; return 0;
    case OPTION_EXPLAIN:
        out->explain = optarg != NULL ? optarg : "text";
        if (strcmp(out->explain, "text") == 0 || strcmp(out->explain, "json") == 0)
            return 0;
        return error_set(e, 0, "option --explain: '%.200s' is neither text nor json (shifter --help)", optarg);
    case 'v': out->verbose = true; return 0;
    case 'n': return 0; /* of the contract, without effect */
    case OPTION_VERSION: out->action = ACTION_VERSION; return 0;
    case OPTION_CHECK_CONFIG: out->action = ACTION_CHECK_CONFIG; return 0;
    default: out->action = ACTION_HELP; return 0;
    }
}

int options_parse(int argc, char **argv, struct options *out, struct error *e)
{
    *out = (struct options){.action = ACTION_RUN, .command = argv};
    if (argc < 1)
        return 0;
    optind = 0; /* glibc: forget an earlier command line */
    opterr = 0;
    int result = 0;
    while (result == 0 && out->action == ACTION_RUN) {
        const char *word = argv[optind > 0 ? optind : 1]; /* stays the same within a cluster of short options */
        optopt = 0;
        int option = getopt_long(argc, argv, "+:i:V:m:w::e:Evhn", long_options, NULL);
        if (option == -1)
            break;
        result = option == '?' || option == ':' ? complain(option, word, e) : apply(option, out, e);
    }
    out->command = argv + optind;
    if (result < 0)
        options_free(out);
    return result;
}

void options_free(struct options *options)
{
    strings_free(&options->volumes);
    strings_free(&options->environ);
    strings_free(&options->kept);
}
