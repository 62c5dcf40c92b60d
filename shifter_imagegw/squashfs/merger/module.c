/* SPDX-License-Identifier: BSD-3-Clause
 *
 * shifter_imagegw.squashfs._merger: the merger for Python. The interpreter's lock is released while files are read and
 * written; the caller's check is called with it.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "inode_writer.h"
#include "merge.h"
#include "view.h"

static PyObject *file_error;    /* an OSError; in the place of the file name the index of the archive, if it is one */
static PyObject *archive_error; /* (archive, reason) */
static PyObject *entry_error;   /* (archive, entry, reason) */

/* --- errors and the way back into Python -------------------------------------------------------------------------- */

static PyObject *raise_error(const struct error *e)
{
    PyObject *arguments = NULL;
    PyObject *type = file_error;
    switch (e->kind) {
    case ERROR_CANCELLED: return NULL; /* the check's own exception */
    case ERROR_MEMORY: return PyErr_NoMemory();
    case ERROR_SYSTEM: {
        PyObject *reason = PyUnicode_FromFormat("%s: %s", e->text, strerror(e->errnum));
        arguments = e->archive == ERROR_NO_ARCHIVE ? Py_BuildValue("(iN)", e->errnum, reason)
                                                   : Py_BuildValue("(iNi)", e->errnum, reason, e->archive);
        break;
    }
    case ERROR_ENTRY:
        type = entry_error;
        arguments = Py_BuildValue("(iy#s)", e->archive, e->entry, (Py_ssize_t)e->entry_length, e->text);
        break;
    default:
        type = archive_error;
        arguments = Py_BuildValue("(is)", e->archive, e->text);
    }
    if (arguments != NULL) {
        PyErr_SetObject(type, arguments);
        Py_DECREF(arguments);
    }
    return NULL;
}

struct caller {
    PyObject *check;       /* callable without arguments, or NULL */
    PyThreadState *thread; /* NULL while the interpreter's lock is held */
};

static int call_check(void *context)
{
    struct caller *caller = context;
    int locked = caller->thread == NULL;
    if (!locked)
        PyEval_RestoreThread(caller->thread);
    PyObject *answer = caller->check != NULL ? PyObject_CallNoArgs(caller->check) : NULL;
    int stop = (caller->check != NULL && answer == NULL) || PyErr_CheckSignals() < 0;
    Py_XDECREF(answer);
    if (!locked)
        caller->thread = PyEval_SaveThread();
    return stop;
}

/* --- merge -------------------------------------------------------------------------------------------------------- */

static int *descriptors(PyObject *sequence, Py_ssize_t *count)
{
    PyObject *fast = PySequence_Fast(sequence, "archives must be a sequence of descriptors");
    if (fast == NULL)
        return NULL;
    *count = PySequence_Fast_GET_SIZE(fast);
    int *fds = PyMem_Calloc((size_t)*count + 1, sizeof *fds);
    if (fds == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; fds != NULL && i < *count; i++) {
        fds[i] = PyObject_AsFileDescriptor(PySequence_Fast_GET_ITEM(fast, i));
        if (fds[i] < 0) {
            PyMem_Free(fds);
            fds = NULL;
        }
    }
    Py_DECREF(fast);
    return fds;
}

static PyObject *py_merge(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyObject *sequence;
    struct caller caller = {0};
    int destination;
    if (!PyArg_ParseTuple(arguments, "OiO:merge", &sequence, &destination, &caller.check))
        return NULL;
    Py_ssize_t count;
    int *fds = descriptors(sequence, &count);
    if (fds == NULL)
        return NULL;
    struct control control = {.check = call_check, .context = &caller};
    struct image_summary summary;
    struct error e = {0};
    caller.thread = PyEval_SaveThread();
    int result = merge(fds, (size_t)count, destination, &control, &summary, &e);
    PyEval_RestoreThread(caller.thread);
    PyMem_Free(fds);
    if (result < 0)
        return raise_error(&e);
    return Py_BuildValue("(KKKK)", (unsigned long long)summary.entries, (unsigned long long)summary.inodes,
                         (unsigned long long)summary.bytes, (unsigned long long)summary.copied);
}

/* --- looking at an image ------------------------------------------------------------------------------------------ */

/* What is looked at, and who may stop it: the view calls back as long as it is used. */
struct look {
    struct view *view;
    struct caller caller;
    struct control control;
};

/* As view_read; -1 with an exception set on failure. */
static int look_open(struct look *l, int fd, PyObject *check)
{
    struct error e = {0};
    l->caller = (struct caller){.check = check, .thread = PyEval_SaveThread()};
    l->control = (struct control){.check = call_check, .context = &l->caller};
    l->view = view_read(fd, &l->control, &e);
    PyEval_RestoreThread(l->caller.thread);
    l->caller.thread = NULL;
    if (l->view != NULL)
        return 0;
    (void)raise_error(&e);
    return -1;
}

static int collect_xattr(void *context, const struct xattr *x, struct error *e)
{
    (void)e;
    PyObject *value = PyBytes_FromStringAndSize((const char *)x->value, (Py_ssize_t)x->size);
    PyObject *name = PyBytes_FromString(x->name);
    int result = value != NULL && name != NULL ? PyDict_SetItem(context, name, value) : -1;
    Py_XDECREF(name);
    Py_XDECREF(value);
    if (result < 0)
        e->kind = ERROR_CANCELLED; /* the exception is set */
    return result;
}

static PyObject *xattrs_of(struct view *v, const struct inode *inode)
{
    PyObject *found = PyDict_New();
    struct error e = {0};
    if (found == NULL || inode->xattrs == TREE_NONE ||
        archive_visit_xattrs(&v->archive, inode->xattrs, collect_xattr, found, &e) == 0)
        return found;
    Py_DECREF(found);
    return raise_error(&e);
}

/* (path, mode with type, uid, gid, mtime, size, nlink, inode number, device, link target or None, xattrs) */
static PyObject *tuple_of(struct view *v, const struct path *path, const struct inode *inode)
{
    PyObject *xattrs = xattrs_of(v, inode);
    if (xattrs == NULL)
        return NULL;
    const char *target = NULL;
    Py_ssize_t length = 0;
    unsigned long long size = 0;
    unsigned int device = 0;
    if (inode->type == INODE_SYMLINK) {
        target = (const char *)v->tree.names + inode->content.symlink.target;
        length = (Py_ssize_t)inode->content.symlink.length;
        size = inode->content.symlink.length;
    } else if (inode->type == INODE_FILE) {
        size = inode->content.file.size;
    } else if (inode->type == INODE_BLOCK_DEVICE || inode->type == INODE_CHARACTER_DEVICE) {
        device = inode->content.device;
    }
    return Py_BuildValue("(y#IIIIKIIIy#N)", path->length > 0 ? (const char *)path->bytes : "", (Py_ssize_t)path->length,
                         (unsigned int)inode_file_type(inode), v->archive.ids[inode->uid_index],
                         v->archive.ids[inode->gid_index], inode->mtime, size, inode->nlink, inode->number, device,
                         target, length, xattrs);
}

static int collect(struct view *v, struct path *path, uint32_t index, PyObject *entries)
{
    const struct inode *inode = &v->tree.inodes[index];
    PyObject *tuple = tuple_of(v, path, inode);
    int result = tuple != NULL ? PyList_Append(entries, tuple) : -1;
    Py_XDECREF(tuple);
    if (result < 0 || inode->type != INODE_DIRECTORY)
        return result;
    for (uint32_t c = 0; c < inode->content.directory.count; c++) {
        struct entry child = inode->content.directory.children[c];
        const uint8_t *name = v->tree.names + child.name;
        struct error e = {0};
        size_t mark;
        if (path_push(path, name + 1, *name, &mark, &e) < 0) {
            (void)raise_error(&e);
            return -1;
        }
        if (collect(v, path, child.inode, entries) < 0)
            return -1;
        path_pop(path, mark);
    }
    return 0;
}

static PyObject *py_entries(PyObject *module, PyObject *argument)
{
    (void)module;
    int fd = PyObject_AsFileDescriptor(argument);
    struct look l;
    if (fd < 0 || look_open(&l, fd, NULL) < 0)
        return NULL;
    struct path path = {0};
    PyObject *entries = PyList_New(0);
    if (entries != NULL && collect(l.view, &path, l.view->root, entries) < 0)
        Py_CLEAR(entries);
    free(path.bytes);
    view_close(l.view);
    return entries;
}

static PyObject *py_examine(PyObject *module, PyObject *arguments)
{
    (void)module;
    int fd;
    PyObject *check;
    if (!PyArg_ParseTuple(arguments, "iO:examine", &fd, &check))
        return NULL;
    struct look l;
    if (look_open(&l, fd, check) < 0)
        return NULL;
    const sqfs_super_t *s = &l.view->archive.super;
    PyObject *found = Py_BuildValue("(sIKII)", sqfs_compressor_name_from_id((SQFS_COMPRESSOR)s->compression_id),
                                    s->block_size, (unsigned long long)s->bytes_used, s->inode_count,
                                    (unsigned int)(l.view->archive.xattr_count > 0));
    view_close(l.view);
    return found;
}

/* --- the module --------------------------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"merge", py_merge, METH_VARARGS,
     "merge(archives, destination, check)\n\nMerge layer archives (descriptors, oldest first) into the empty file "
     "`destination`; returns (entries, inodes, bytes, copied)."},
    {"entries", py_entries, METH_O, "entries(fd)\n\nAll entries of a squashfs, depth first, as tuples."},
    {"examine", py_examine, METH_VARARGS,
     "examine(fd, check)\n\nCheck all metadata of a squashfs; returns (compressor, block size, bytes used, inodes, "
     "has xattrs)."},
    {NULL, NULL, 0, NULL},
};

enum { LARGE_ARRAY = (1 << 20) + (1 << 16) }; /* a squashfs block, at most 1 MiB, is none */

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_merger", "Layer archives to image; see docs/conversion.md.", -1, methods, NULL, NULL, NULL,
    NULL,
};

static int add_exception(PyObject *module, const char *name, PyObject *base, PyObject **exception)
{
    char full[64];
    (void)snprintf(full, sizeof full, "shifter_imagegw.squashfs._merger.%s", name);
    *exception = PyErr_NewException(full, base, NULL);
    if (*exception == NULL)
        return -1;
    Py_INCREF(*exception); /* the module takes one, we keep one */
    return PyModule_AddObject(module, name, *exception);
}

PyMODINIT_FUNC PyInit__merger(void)
{
#ifdef M_MMAP_THRESHOLD
    /* glibc raises it as it goes. Then large arrays lie in the heap, are copied to grow and leave holes: a merge of a
     * million names takes a third more memory, and the process keeps it. */
    (void)mallopt(M_MMAP_THRESHOLD, LARGE_ARRAY);
#endif
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || add_exception(module, "FileError", PyExc_OSError, &file_error) < 0 ||
        add_exception(module, "ArchiveError", PyExc_ValueError, &archive_error) < 0 ||
        add_exception(module, "EntryError", PyExc_ValueError, &entry_error) < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
