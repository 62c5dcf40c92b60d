/* SPDX-License-Identifier: BSD-3-Clause
 *
 * shifter_imagegw.squashfs._merger: the merger for Python. The interpreter's lock is released while files are read and
 * written; the caller's check is called with it.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "inode_writer.h"
#include "overlay.h"
#include "reader.h"

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

/* All archives' blocks end up in one file, which has one compressor and one block size. */
static int check_alike(const struct archive *first, const struct archive *other, struct error *e)
{
    if (other->super.compression_id != first->super.compression_id || other->options_size != first->options_size ||
        memcmp(other->options, first->options, first->options_size) != 0)
        return error_damaged(e, "is compressed otherwise than the first archive");
    if (other->super.block_size != first->super.block_size)
        return error_damaged(e, "has a block size of %u, the first archive has %u", other->super.block_size,
                             first->super.block_size);
    return 0;
}

static int add_layer(struct tree *t, struct archive *archives, size_t index, int fd, struct metadata_cache *cache,
                     struct error *e)
{
    struct archive *a = &archives[index];
    uint32_t root;
    e->archive = (int)index;
    if (control_check(t->control, e) < 0 || archive_open(a, fd, (uint32_t)index, cache, t->control, e) < 0 ||
        check_alike(archives, a, e) < 0 || reader_read(a, t, READ_LAYER, &root, e) < 0)
        return -1;
    return overlay_apply(t, root, e);
}

static int merge(const int *fds, size_t count, int destination, struct control *control,
                 struct image_summary *summary, struct error *e)
{
    struct tree tree;
    tree_init(&tree, control);
    struct metadata_cache *cache = calloc(1, sizeof *cache);
    struct archive *archives = calloc(count + 1, sizeof *archives);
    int result = cache != NULL && archives != NULL ? 0 : error_memory(e);
    size_t opened = 0;
    while (result == 0 && opened < count) {
        result = add_layer(&tree, archives, opened, fds[opened], cache, e);
        opened++;
    }
    if (result == 0)
        result = image_write(&tree, archives, count, destination, summary, e);
    for (size_t i = 0; i < opened; i++)
        archive_close(&archives[i]);
    free(archives);
    free(cache);
    tree_destroy(&tree);
    return result;
}

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

struct view {
    struct archive archive;
    struct tree tree;
    struct metadata_cache *cache;
    uint32_t root;
    struct caller caller;
    struct control control;
};

static int check_xattrs(struct view *v, struct error *e)
{
    uint8_t marks;
    for (uint32_t i = 0; i < v->archive.xattr_count; i++)
        if (archive_xattr_marks(&v->archive, i, &marks, e) < 0)
            return -1;
    return 0;
}

static void view_close(struct view *v)
{
    archive_close(&v->archive);
    tree_destroy(&v->tree);
    free(v->cache);
    free(v);
}

static int view_read(struct view *v, int fd, struct error *e)
{
    if (archive_open(&v->archive, fd, 0, v->cache, &v->control, e) < 0 ||
        reader_read(&v->archive, &v->tree, READ_IMAGE, &v->root, e) < 0 || check_xattrs(v, e) < 0 ||
        archive_check_export(&v->archive, e) < 0)
        return -1;
    return tree_count_names(&v->tree, v->root, 0, e);
}

/* Reads everything but file contents; NULL with an exception set on failure. */
static struct view *view_open(int fd, PyObject *check)
{
    struct view *v = calloc(1, sizeof *v);
    if (v == NULL)
        return (struct view *)PyErr_NoMemory();
    v->control = (struct control){.check = call_check, .context = &v->caller};
    tree_init(&v->tree, &v->control);
    struct error e = {0};
    v->caller = (struct caller){.check = check, .thread = PyEval_SaveThread()};
    v->cache = calloc(1, sizeof *v->cache);
    int result = v->cache != NULL ? view_read(v, fd, &e) : error_memory(&e);
    PyEval_RestoreThread(v->caller.thread);
    v->caller.thread = NULL;
    if (result == 0)
        return v;
    view_close(v);
    return (struct view *)raise_error(&e);
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
    struct view *v = fd >= 0 ? view_open(fd, NULL) : NULL;
    if (v == NULL)
        return NULL;
    struct path path = {0};
    PyObject *entries = PyList_New(0);
    if (entries != NULL && collect(v, &path, v->root, entries) < 0)
        Py_CLEAR(entries);
    free(path.bytes);
    view_close(v);
    return entries;
}

static PyObject *py_examine(PyObject *module, PyObject *arguments)
{
    (void)module;
    int fd;
    PyObject *check;
    if (!PyArg_ParseTuple(arguments, "iO:examine", &fd, &check))
        return NULL;
    struct view *v = view_open(fd, check);
    if (v == NULL)
        return NULL;
    const sqfs_super_t *s = &v->archive.super;
    PyObject *found = Py_BuildValue("(sIKII)", sqfs_compressor_name_from_id((SQFS_COMPRESSOR)s->compression_id),
                                    s->block_size, (unsigned long long)s->bytes_used, s->inode_count,
                                    (unsigned int)(v->archive.xattr_count > 0));
    view_close(v);
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
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || add_exception(module, "FileError", PyExc_OSError, &file_error) < 0 ||
        add_exception(module, "ArchiveError", PyExc_ValueError, &archive_error) < 0 ||
        add_exception(module, "EntryError", PyExc_ValueError, &entry_error) < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
