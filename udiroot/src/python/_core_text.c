/* SPDX-License-Identifier: BSD-3-Clause */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "as_user/environ.h"
#include "as_user/options.h"
#include "python/_core.h"

static PyObject *py_path_is_below(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    CLEANUP_FREE char *path = NULL;
    CLEANUP_FREE char *base = NULL;
    if (!PyArg_ParseTuple(arguments, "O&O&", core_convert_text, &path, core_convert_text, &base))
        return NULL;
    return PyBool_FromLong(path_is_below(path != NULL ? path : "", base != NULL ? base : ""));
}

static PyObject *py_path_clean(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    CLEANUP_FREE char *path = NULL;
    if (!PyArg_ParseTuple(arguments, "O&", core_convert_text, &path))
        return NULL;
    CLEANUP_FREE char *clean = path_clean(path != NULL ? path : "");
    return core_text(clean);
}

static PyObject *py_parse_size(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    CLEANUP_FREE char *text = NULL;
    uint64_t size;
    if (!PyArg_ParseTuple(arguments, "O&", core_convert_text, &text))
        return NULL;
    if (text != NULL && text_parse_size(text, &size) == 0)
        return PyLong_FromUnsignedLongLong(size);
    struct error e;
    (void)error_set(&e, 0, "'%.200s' is not a size, such as 500m or 1.5g", text != NULL ? text : "");
    return core_fail(&e);
}

/* The four operations on one variable share a shape: (env, text) -> new env. */
static PyObject *change_environ(PyObject *arguments, void (*change)(struct strings *, const char *))
{
    struct strings env = {0};
    CLEANUP_FREE char *text = NULL;
    PyObject *result = NULL;
    if (PyArg_ParseTuple(arguments, "O&O&", core_convert_list, &env, core_convert_text, &text)) {
        change(&env, text != NULL ? text : "");
        result = core_list(&env);
    }
    strings_free(&env);
    return result;
}

static PyObject *py_environ_set(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    return change_environ(arguments, environ_set);
}

static PyObject *py_environ_append(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    return change_environ(arguments, environ_append);
}

static PyObject *py_environ_prepend(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    return change_environ(arguments, environ_prepend);
}

static PyObject *py_environ_unset(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    return change_environ(arguments, environ_unset);
}

static PyObject *py_environ_get(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    struct strings env = {0};
    CLEANUP_FREE char *name = NULL;
    PyObject *result = NULL;
    if (PyArg_ParseTuple(arguments, "O&O&", core_convert_list, &env, core_convert_text, &name))
        result = core_text(environ_get(&env, name != NULL ? name : ""));
    strings_free(&env);
    return result;
}

static PyObject *py_environ_check(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    CLEANUP_FREE char *text = NULL;
    struct error e;
    if (!PyArg_ParseTuple(arguments, "O&", core_convert_text, &text))
        return NULL;
    if (environ_check(text != NULL ? text : "", &e) < 0)
        return core_fail(&e);
    Py_RETURN_NONE;
}

static PyObject *py_environ_apply_site(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    struct strings env = {0};
    struct site_environ site = {0};
    PyObject *result = NULL;
    if (PyArg_ParseTuple(arguments, "O&O&O&O&O&", core_convert_list, &env, core_convert_list, &site.set,
                         core_convert_list, &site.append, core_convert_list, &site.prepend, core_convert_list,
                         &site.unset)) {
        environ_apply_site(&env, &site, "", NULL);
        result = core_list(&env);
    }
    struct strings *lists[] = {&env, &site.set, &site.append, &site.prepend, &site.unset};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        strings_free(lists[i]);
    return result;
}

static PyObject *py_environ_read_file(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    int fd;
    CLEANUP_FREE char *name = NULL;
    struct strings variables = {0};
    struct error e;
    if (!PyArg_ParseTuple(arguments, "iO&", &fd, core_convert_text, &name))
        return NULL;
    int failed = environ_read_file(fd, name != NULL ? name : "", &variables, &e);
    PyObject *result = failed ? core_fail(&e) : core_list(&variables);
    strings_free(&variables);
    return result;
}

static PyObject *options_object(const struct options *o)
{
    static const char *const actions[] = {
        [ACTION_RUN] = "run", [ACTION_HELP] = "help", [ACTION_VERSION] = "version",
        [ACTION_CHECK_CONFIG] = "check-config"};
    struct strings command = {.items = o->command};
    while (o->command[command.count] != NULL)
        command.count++;
    return Py_BuildValue(
        "{sssNsNsNsNsNsNsNsNsNsNsNsNsNsN}", "action", actions[o->action], "image", core_text(o->image), "volumes",
        core_list(&o->volumes), "modules", core_text(o->modules), "entrypoint", PyBool_FromLong(o->entrypoint),
        "entrypoint_program", core_text(o->entrypoint_program), "workdir", PyBool_FromLong(o->workdir), "workdir_path",
        core_text(o->workdir_path), "environ", core_list(&o->environ), "env_file", core_text(o->env_file),
        "clear_environ", PyBool_FromLong(o->clear_environ), "kept", core_list(&o->kept), "explain",
        core_text(o->explain), "verbose",
        PyBool_FromLong(o->verbose), "command", core_list(&command));
}

static PyObject *py_parse_options(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    struct strings argv = {0};
    struct options options;
    struct error e;
    char *empty[] = {NULL};
    PyObject *result = NULL;
    if (PyArg_ParseTuple(arguments, "O&", core_convert_list, &argv)) {
        if (options_parse((int)argv.count, argv.count > 0 ? argv.items : empty, &options, &e) < 0) {
            result = core_fail(&e);
        } else {
            result = options_object(&options);
            options_free(&options);
        }
    }
    strings_free(&argv);
    return result;
}

PyMethodDef core_text_methods[] = {
    {"path_is_below", py_path_is_below, METH_VARARGS, NULL},
    {"path_clean", py_path_clean, METH_VARARGS, NULL},
    {"parse_size", py_parse_size, METH_VARARGS, NULL},
    {"environ_set", py_environ_set, METH_VARARGS, NULL},
    {"environ_append", py_environ_append, METH_VARARGS, NULL},
    {"environ_prepend", py_environ_prepend, METH_VARARGS, NULL},
    {"environ_unset", py_environ_unset, METH_VARARGS, NULL},
    {"environ_get", py_environ_get, METH_VARARGS, NULL},
    {"environ_check", py_environ_check, METH_VARARGS, NULL},
    {"environ_apply_site", py_environ_apply_site, METH_VARARGS, NULL},
    {"environ_read_file", py_environ_read_file, METH_VARARGS, NULL},
    {"parse_options", py_parse_options, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
