/* SPDX-License-Identifier: BSD-3-Clause */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "as_root/trust.h"
#include "as_user/config_keys.h"
#include "as_user/lines.h"
#include "python/_core.h"

static PyObject *flag_names(unsigned flags)
{
    static const struct {
        unsigned flag;
        const char *name;
    } names[] = {{VOLUME_RO, "ro"},
                 {VOLUME_REC, "rec"},
                 {VOLUME_PER_NODE_CACHE, "perNodeCache"},
                 {VOLUME_SLAVE, "slave"},
                 {VOLUME_PRIVATE, "private"}};
    struct strings set = {0};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if ((flags & names[i].flag) != 0)
            strings_add(&set, names[i].name);
    PyObject *list = core_list(&set);
    strings_free(&set);
    return list;
}

static PyObject *volume_object(const struct volume *v)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL || core_set(dict, "from", core_text(v->from)) < 0 || core_set(dict, "to", core_text(v->to)) < 0 ||
        core_set(dict, "flags", flag_names(v->flags)) < 0 ||
        core_set(dict, "cache_size", PyLong_FromUnsignedLongLong(v->cache_size)) < 0)
        Py_CLEAR(dict);
    return dict;
}

static PyObject *volumes_object(const struct volumes *volumes)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < volumes->count; i++) {
        PyObject *item = volume_object(&volumes->items[i]);
        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static int parse_maps(PyObject *arguments, struct volumes *volumes)
{
    CLEANUP_FREE char *text = NULL;
    const char *origin;
    struct error e;
    if (!PyArg_ParseTuple(arguments, "O&s", core_convert_text, &text, &origin))
        return -1;
    bool of_site = strcmp(origin, "site") == 0;
    if (!of_site && strcmp(origin, "user") != 0) {
        PyErr_SetString(PyExc_ValueError, "origin is 'site' or 'user'");
        return -1;
    }
    if (volumes_parse(text != NULL ? text : "", of_site ? VOLUME_OF_SITE : VOLUME_OF_USER, volumes, &e) == 0)
        return 0;
    (void)core_fail(&e);
    return -1;
}

static PyObject *py_parse_volumes(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    struct volumes volumes = {0};
    PyObject *result = parse_maps(arguments, &volumes) < 0 ? NULL : volumes_object(&volumes);
    volumes_free(&volumes);
    return result;
}

static PyObject *py_volumes_signature(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    struct volumes volumes = {0};
    PyObject *result = NULL;
    if (parse_maps(arguments, &volumes) == 0) {
        CLEANUP_FREE char *signature = volumes_signature(&volumes);
        result = core_text(signature);
    }
    volumes_free(&volumes);
    return result;
}

/* The field of `base` that belongs to the key; NULL without an exception when the key has none. */
static PyObject *field_object(const struct config_key *key, const void *base)
{
    const void *field = (const char *)base + key->offset;
    switch (key->kind) {
    case KEY_TEXT:
    case KEY_PATH:
    case KEY_DIRECTORY:
    case KEY_PLACE:
    case KEY_WORD: return core_text(*(char *const *)field);
    case KEY_FLAG: return PyBool_FromLong(*(const bool *)field);
    case KEY_NUMBER: return PyLong_FromUnsignedLong(*(const unsigned *)field);
    case KEY_BYTES: return PyLong_FromUnsignedLongLong(*(const uint64_t *)field);
    case KEY_LIST:
    case KEY_ASSIGNMENTS:
    case KEY_NAMES: return core_list(field);
    case KEY_VOLUMES: return volumes_object(field);
    case KEY_PROPAGATION:
        return core_text(*(const enum mount_propagation *)field == PROPAGATE_SLAVE ? "slave" : "private");
    case KEY_UNUSED:
    case KEY_DEPRECATED:
    case KEY_RENAMED: break;
    }
    return NULL;
}

static int set_fields(PyObject *dict, const struct config_key *keys, const void *base)
{
    for (; keys->name != NULL; keys++) {
        PyObject *value = field_object(keys, base);
        if (value == NULL && !PyErr_Occurred())
            continue;
        if (core_set(dict, keys->name, value) < 0)
            return -1;
    }
    return 0;
}

static PyObject *modules_object(const struct config *config)
{
    PyObject *modules = PyDict_New();
    for (size_t i = 0; modules != NULL && i < config->module_count; i++) {
        PyObject *module = PyDict_New();
        if (module != NULL && set_fields(module, config_module_keys, &config->modules[i]) < 0)
            Py_CLEAR(module);
        if (core_set(modules, config->modules[i].name, module) < 0)
            Py_CLEAR(modules);
    }
    return modules;
}

static PyObject *config_object(struct config *config)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL || set_fields(dict, config_keys, config) < 0 ||
        core_set(dict, "modules", modules_object(config)) < 0 ||
        core_set(dict, "remarks", core_list(&config->remarks)) < 0)
        Py_CLEAR(dict);
    config_free(config);
    return dict;
}

static PyObject *py_load_config(PyObject *Py_UNUSED(module), PyObject *arguments, PyObject *named)
{
    static char *names[] = {"path", "trust_any_owner", NULL};
    PyObject *path;
    int trust = 0;
    struct config config;
    struct error e;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "O&|p", names, PyUnicode_FSConverter, &path, &trust))
        return NULL;
    int failed = config_load(PyBytes_AS_STRING(path), trust != 0, &config, &e);
    Py_DECREF(path);
    return failed ? core_fail(&e) : config_object(&config);
}

static PyObject *py_parse_config(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *text, *name;
    Py_ssize_t length;
    struct config config;
    struct error e;
    if (!PyArg_ParseTuple(arguments, "y#s", &text, &length, &name))
        return NULL;
    return config_parse(text, (size_t)length, name, &config, &e) < 0 ? core_fail(&e) : config_object(&config);
}

static PyObject *py_examine_config(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *text, *name;
    Py_ssize_t length;
    struct config config;
    struct strings errors = {0};
    struct error e;
    if (!PyArg_ParseTuple(arguments, "y#s", &text, &length, &name))
        return NULL;
    if (config_examine(text, (size_t)length, name, &config, &errors, &e) < 0)
        return core_fail(&e);
    PyObject *result = Py_BuildValue("NN", config_object(&config), core_list(&errors));
    strings_free(&errors);
    return result;
}

static PyObject *py_config_lines(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *text;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(arguments, "y#", &text, &length))
        return NULL;
    struct lines lines;
    struct line line;
    enum line_kind kind;
    PyObject *list = PyList_New(0);
    lines_begin(&lines, text, (size_t)length, '=', NULL);
    while (list != NULL && (kind = lines_next(&lines, &line)) != LINE_END) {
        if (kind != LINE_PAIR)
            continue;
        PyObject *item = Py_BuildValue("INN", line.number, core_text(line.key), core_text(line.value));
        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    lines_end(&lines);
    return list;
}

static PyObject *py_check_trust(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    CLEANUP_FREE char *path = NULL, *owner_name = NULL;
    unsigned owner;
    int follow;
    struct error e;
    if (!PyArg_ParseTuple(arguments, "O&IO&p", core_convert_text, &path, &owner, core_convert_text, &owner_name,
                          &follow))
        return NULL;
    int fd = trust_open(path != NULL ? path : "", (uid_t)owner, owner_name != NULL ? owner_name : "", follow != 0,
                        "", &e);
    if (fd < 0)
        return core_fail(&e);
    (void)close(fd);
    Py_RETURN_NONE;
}

static PyObject *py_config_keys(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    struct strings names = {0};
    for (const struct config_key *key = config_keys; key->name != NULL; key++)
        strings_add(&names, key->name);
    for (const struct config_key *key = config_module_keys; key->name != NULL; key++)
        strings_take(&names, text_format("module_<name>_%s", key->name));
    PyObject *list = core_list(&names);
    strings_free(&names);
    return list;
}

PyMethodDef core_config_methods[] = {
    {"load_config", (PyCFunction)(void (*)(void))py_load_config, METH_VARARGS | METH_KEYWORDS, NULL},
    {"parse_config", py_parse_config, METH_VARARGS, NULL},
    {"examine_config", py_examine_config, METH_VARARGS, NULL},
    {"config_lines", py_config_lines, METH_VARARGS, NULL},
    {"check_trust", py_check_trust, METH_VARARGS, NULL},
    {"config_keys", py_config_keys, METH_NOARGS, NULL},
    {"parse_volumes", py_parse_volumes, METH_VARARGS, NULL},
    {"volumes_signature", py_volumes_signature, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
