/* SPDX-License-Identifier: BSD-3-Clause */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "as_user/image.h"
#include "python/_core.h"

static PyObject *spec_object(struct image_spec *spec)
{
    PyObject *result =
        Py_BuildValue("(sNN)", image_type_names[spec->type], core_text(spec->tag), core_text(spec->request));
    image_spec_free(spec);
    return result;
}

static PyObject *py_parse_image_spec(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    CLEANUP_FREE char *text = NULL;
    CLEANUP_FREE char *type = NULL;
    struct image_spec spec;
    struct error e;
    if (!PyArg_ParseTuple(arguments, "O&O&", core_convert_text, &text, core_convert_text, &type))
        return NULL;
    int failed = image_spec_parse(text != NULL ? text : "", type, &spec, &e);
    return failed ? core_fail(&e) : spec_object(&spec);
}

static PyObject *py_select_image_spec(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    CLEANUP_FREE char *option = NULL;
    CLEANUP_FREE char *type = NULL;
    struct strings env = {0};
    struct image_spec spec;
    struct error e;
    PyObject *result = NULL;
    if (PyArg_ParseTuple(arguments, "O&O&O&", core_convert_text, &option, core_convert_list, &env, core_convert_text,
                         &type)) {
        if (image_spec_select(option, &env, type, &spec, &e) < 0)
            result = core_fail(&e);
        else
            result = spec.type == IMAGE_NONE ? core_text(NULL) : spec_object(&spec);
    }
    strings_free(&env);
    return result;
}

static PyObject *py_encode_tag(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    CLEANUP_FREE char *tag = NULL;
    if (!PyArg_ParseTuple(arguments, "O&", core_convert_text, &tag))
        return NULL;
    CLEANUP_FREE char *name = image_tag_encode(tag != NULL ? tag : "");
    return core_text(name);
}

static PyObject *ids_object(const unsigned *ids, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *id = PyLong_FromUnsignedLong(ids[i]);
        if (id == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, id);
    }
    return list;
}

static PyObject *meta_object(const struct image_meta *m)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL || core_set(dict, "format", core_text(m->format)) < 0 ||
        core_set(dict, "env", core_list(&m->environ)) < 0 || core_set(dict, "entry", core_list(&m->entry)) < 0 ||
        core_set(dict, "cmd", core_list(&m->cmd)) < 0 || core_set(dict, "workdir", core_text(m->workdir)) < 0 ||
        core_set(dict, "restricted", PyBool_FromLong(m->restricted)) < 0 ||
        core_set(dict, "user_acl", ids_object(m->user_acl, m->user_acl_count)) < 0 ||
        core_set(dict, "group_acl", ids_object(m->group_acl, m->group_acl_count)) < 0)
        Py_CLEAR(dict);
    return dict;
}

static PyObject *py_parse_meta(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *text, *name = "image";
    Py_ssize_t length;
    struct image_meta meta;
    struct error e;
    if (!PyArg_ParseTuple(arguments, "y#|s", &text, &length, &name))
        return NULL;
    if (image_meta_parse(text, (size_t)length, name, &meta, &e) < 0)
        return core_fail(&e);
    PyObject *result = meta_object(&meta);
    image_meta_free(&meta);
    return result;
}

/* Group ids from a sequence; the count, or -1 with an exception. */
static Py_ssize_t take_groups(PyObject *object, gid_t **groups)
{
    PyObject *items = PySequence_Fast(object, "a sequence of group ids is needed");
    if (items == NULL)
        return -1;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(items);
    *groups = text_alloc((size_t)count * sizeof **groups);
    for (Py_ssize_t i = 0; i < count && !PyErr_Occurred(); i++)
        (*groups)[i] = (gid_t)PyLong_AsUnsignedLong(PySequence_Fast_GET_ITEM(items, i));
    Py_DECREF(items);
    return PyErr_Occurred() ? -1 : count;
}

static PyObject *py_check_acl(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *text;
    Py_ssize_t length;
    unsigned uid, gid;
    PyObject *sequence;
    CLEANUP_FREE gid_t *groups = NULL;
    struct image_meta meta;
    struct error e;
    if (!PyArg_ParseTuple(arguments, "y#IIO", &text, &length, &uid, &gid, &sequence))
        return NULL;
    Py_ssize_t count = take_groups(sequence, &groups);
    if (count < 0)
        return NULL;
    if (image_meta_parse(text, (size_t)length, "image", &meta, &e) < 0)
        return core_fail(&e);
    int denied = image_check_acl(&meta, uid, gid, groups, (size_t)count, &e);
    image_meta_free(&meta);
    if (denied)
        return core_fail(&e);
    Py_RETURN_NONE;
}

PyMethodDef core_image_methods[] = {
    {"parse_image_spec", py_parse_image_spec, METH_VARARGS, NULL},
    {"select_image_spec", py_select_image_spec, METH_VARARGS, NULL},
    {"encode_tag", py_encode_tag, METH_VARARGS, NULL},
    {"parse_meta", py_parse_meta, METH_VARARGS, NULL},
    {"check_acl", py_check_acl, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
