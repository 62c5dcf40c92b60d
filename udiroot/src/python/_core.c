/* SPDX-License-Identifier: BSD-3-Clause
 *
 * udiroot._core: the launcher's own parsers for Python, so that tests exercise what runs setuid and the client reads
 * the one configuration in the one way. Text is UTF-8 with surrogateescape in both directions: no byte is lost.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "as_user/options.h"
#include "python/_core.h"

static PyObject *error_type; /* udiroot._core.Error */

PyObject *core_fail(const struct error *e)
{
    PyObject *message = core_text(e->text);
    if (message != NULL) {
        PyErr_SetObject(error_type, message);
        Py_DECREF(message);
    }
    return NULL;
}

PyObject *core_text(const char *text)
{
    if (text == NULL)
        Py_RETURN_NONE;
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "surrogateescape");
}

PyObject *core_list(const struct strings *strings)
{
    PyObject *list = PyList_New((Py_ssize_t)strings->count);
    for (size_t i = 0; list != NULL && i < strings->count; i++) {
        PyObject *item = core_text(strings->items[i]);
        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

int core_set(PyObject *dict, const char *key, PyObject *value)
{
    PyObject *name = value == NULL ? NULL : core_text(key);
    int result = name == NULL ? -1 : PyDict_SetItem(dict, name, value);
    Py_XDECREF(name);
    Py_XDECREF(value);
    return result;
}

int core_convert_text(PyObject *object, void *where)
{
    char **text = where;
    if (object == Py_None)
        return 1;
    PyObject *bytes = PyUnicode_Check(object) ? PyUnicode_AsEncodedString(object, "utf-8", "surrogateescape") : NULL;
    if (bytes == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "a str is needed");
        return 0;
    }
    if (strlen(PyBytes_AS_STRING(bytes)) == (size_t)PyBytes_GET_SIZE(bytes))
        *text = text_copy(PyBytes_AS_STRING(bytes));
    else
        PyErr_SetString(error_type, "the text has a NUL byte");
    Py_DECREF(bytes);
    return *text != NULL;
}

int core_convert_list(PyObject *object, void *where)
{
    struct strings *list = where;
    PyObject *items = PySequence_Fast(object, "a sequence of str is needed");
    int good = items != NULL;
    for (Py_ssize_t i = 0; good && i < PySequence_Fast_GET_SIZE(items); i++) {
        char *text = NULL;
        good = core_convert_text(PySequence_Fast_GET_ITEM(items, i), &text) && text != NULL;
        if (good)
            strings_take(list, text);
    }
    Py_XDECREF(items);
    if (!good && !PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "None is no str");
    return good;
}

static PyMethodDef none[] = {{NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "udiroot._core", "The launcher's parsers.", -1, none, NULL, NULL, NULL, NULL,
};

static int fill(PyObject *module)
{
    PyMethodDef *const tables[] = {core_text_methods, core_config_methods, core_image_methods};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        if (PyModule_AddFunctions(module, tables[i]) < 0)
            return -1;
    error_type = PyErr_NewException("udiroot._core.Error", NULL, NULL);
    if (error_type == NULL || PyModule_AddStringConstant(module, "options_help", options_help) < 0)
        return -1;
    Py_INCREF(error_type); /* one for us, one for the module */
    return PyModule_AddObject(module, "Error", error_type);
}

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && fill(module) < 0)
        Py_CLEAR(module);
    return module;
}
