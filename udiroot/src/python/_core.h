/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the files of udiroot._core share. A function that returns NULL or -1 has set a Python exception.
 */
#ifndef SHIFTER_CORE_H
#define SHIFTER_CORE_H

#include <Python.h>

#include "base/error.h"
#include "base/text.h"

PyObject *core_fail(const struct error *e); /* raises Error, returns NULL */
PyObject *core_text(const char *text);      /* None for NULL */
PyObject *core_list(const struct strings *strings);
/* Puts a value, which may be NULL after a failure, into the dictionary and lets go of it. */
int core_set(PyObject *dict, const char *key, PyObject *value);

/* For "O&": a str into a char *, which the caller frees; None leaves it as it is. */
int core_convert_text(PyObject *object, void *where);
/* For "O&": a sequence of str into a struct strings, which the caller frees. */
int core_convert_list(PyObject *object, void *where);

extern PyMethodDef core_text_methods[], core_config_methods[], core_image_methods[];

#endif
