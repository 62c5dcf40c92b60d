/* SPDX-License-Identifier: BSD-3-Clause
 *
 * shifter_imagegw.squashfs._writer: the Python face of layer.h. The conversion runs in a thread of its own that never
 * touches Python; the caller's thread hands over buffers without the GIL.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structseq.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <sqfs/compressor.h>

#include "failure.h"
#include "feed.h"
#include "layer.h"

struct conversion {
    struct feed feed;
    struct recipe recipe;
    struct limits limits;
    struct summary summary;
    struct failure failure;
    int fd;
    pthread_t thread;
};

struct layer_writer {
    PyObject_HEAD
    struct conversion *conversion; /* NULL once it is over */
    pid_t owner;                   /* a forked child has the object, but not the thread */
    int busy;                      /* a method runs without the GIL */
    Py_buffer views[FEED_PIECES];  /* of the pieces that the conversion may still look at */
    uint64_t viewed, unviewed;     /* pieces that got a view, pieces whose view is released */
};

static PyObject *failure_type, *summary_type;

static PyObject *new_reference(PyObject *object) /* Py_NewRef of Python 3.10 */
{
    Py_XINCREF(object);
    return object;
}

static PyStructSequence_Field summary_fields[] = {
    {"diff_id", "SHA-256 of the uncompressed stream, hexadecimal"},
    {"checksum", "SHA-256 of what was written behind the superblock and then of the superblock, 32 bytes"},
    {"entries", "entries in the tar stream"},
    {"bytes_in", "bytes fed"},
    {"bytes_tar", "bytes of the uncompressed stream"},
    {"bytes_out", "bytes of the file system; the digests of its inodes stand behind them"},
    {"inodes", "inodes of the archive"},
    {NULL, NULL},
};

static PyStructSequence_Desc summary_description = {
    .name = "shifter_imagegw.squashfs._writer.Summary",
    .doc = "What became of a layer.",
    .fields = summary_fields,
    .n_in_sequence = 7,
};

static void *run(void *context)
{
    struct conversion *conversion = context;
    (void)layer_convert(&conversion->feed, conversion->fd, &conversion->recipe, &conversion->limits,
                        &conversion->summary, &conversion->failure);
    feed_desert(&conversion->feed);
    return NULL;
}

static void conversion_free(struct conversion *conversion)
{
    (void)close(conversion->fd);
    feed_destroy(&conversion->feed);
    failure_clear(&conversion->failure);
    PyMem_Free(conversion);
}

/* The process's signals are Python's business: none is delivered to the thread or to those it starts. */
static int start_thread(struct conversion *conversion)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&conversion->thread, NULL, run, conversion);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

static void release_views(struct layer_writer *self, uint64_t until)
{
    for (; self->unviewed < until; self->unviewed++)
        PyBuffer_Release(&self->views[self->unviewed % FEED_PIECES]);
}

static const char *kind_name(enum failure_kind kind)
{
    switch (kind) {
    case FAILURE_LAYER: return "layer";
    case FAILURE_LIMIT: return "limit";
    case FAILURE_ABORTED: return "aborted";
    default: return "conversion";
    }
}

static PyObject *raise_failure(const struct failure *failure)
{
    PyObject *reason = PyUnicode_DecodeUTF8(failure->reason, (Py_ssize_t)strlen(failure->reason), "backslashreplace");
    PyObject *entry = failure->entry == NULL ? new_reference(Py_None) : PyBytes_FromString(failure->entry);
    PyObject *arguments =
        reason == NULL || entry == NULL ? NULL : Py_BuildValue("(sOO)", kind_name(failure->kind), entry, reason);
    if (arguments != NULL)
        PyErr_SetObject(failure_type, arguments);
    Py_XDECREF(arguments);
    Py_XDECREF(entry);
    Py_XDECREF(reason);
    return NULL;
}

/* Claims the object for a call that gives up the GIL. */
static struct conversion *claim(struct layer_writer *self)
{
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "a LayerWriter is used by two threads at once");
        return NULL;
    }
    if (self->conversion == NULL) {
        PyErr_SetString(PyExc_ValueError, "the LayerWriter is finished or aborted");
        return NULL;
    }
    if (self->owner != getpid()) {
        PyErr_SetString(PyExc_RuntimeError, "a LayerWriter cannot be used in a forked child");
        return NULL;
    }
    self->busy = 1;
    return self->conversion;
}

/* Waits for the thread. What remains is the caller's to free. */
static struct conversion *join(struct layer_writer *self)
{
    struct conversion *conversion = self->conversion;
    Py_BEGIN_ALLOW_THREADS
    (void)pthread_join(conversion->thread, NULL);
    Py_END_ALLOW_THREADS
    release_views(self, self->viewed);
    self->conversion = NULL;
    self->busy = 0;
    return conversion;
}

static PyObject *writer_feed(struct layer_writer *self, PyObject *data)
{
    struct conversion *conversion = claim(self);
    if (conversion == NULL)
        return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        self->busy = 0;
        return NULL;
    }
    bool wanted;
    Py_BEGIN_ALLOW_THREADS
    wanted = feed_give(&conversion->feed, view.buf, (size_t)view.len);
    Py_END_ALLOW_THREADS
    release_views(self, wanted ? feed_released(&conversion->feed) : self->viewed);
    if (wanted)
        self->views[self->viewed++ % FEED_PIECES] = view;
    else
        PyBuffer_Release(&view);
    self->busy = 0;
    if (wanted)
        Py_RETURN_NONE;
    return raise_failure(&conversion->failure);
}

static PyObject *summarize(const struct summary *summary)
{
    PyObject *result = PyStructSequence_New((PyTypeObject *)summary_type);
    if (result == NULL)
        return NULL;
    char hex[sizeof summary->diff_id * 2 + 1];
    for (size_t i = 0; i < sizeof summary->diff_id; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", summary->diff_id[i]);
    PyStructSequence_SetItem(result, 0, PyUnicode_FromString(hex));
    PyStructSequence_SetItem(result, 1, PyBytes_FromStringAndSize((const char *)summary->checksum,
                                                                  sizeof summary->checksum));
    PyStructSequence_SetItem(result, 2, PyLong_FromUnsignedLongLong(summary->entries));
    PyStructSequence_SetItem(result, 3, PyLong_FromUnsignedLongLong(summary->bytes_in));
    PyStructSequence_SetItem(result, 4, PyLong_FromUnsignedLongLong(summary->bytes_tar));
    PyStructSequence_SetItem(result, 5, PyLong_FromUnsignedLongLong(summary->bytes_out));
    PyStructSequence_SetItem(result, 6, PyLong_FromUnsignedLong(summary->inodes));
    if (PyErr_Occurred())
        Py_CLEAR(result);
    return result;
}

static PyObject *writer_finish(struct layer_writer *self, PyObject *unused)
{
    (void)unused;
    struct conversion *conversion = claim(self);
    if (conversion == NULL)
        return NULL;
    feed_end(&conversion->feed);
    conversion = join(self);
    PyObject *result = conversion->failure.kind == FAILURE_NONE ? summarize(&conversion->summary)
                                                                : raise_failure(&conversion->failure);
    conversion_free(conversion);
    return result;
}

static PyObject *writer_abort(struct layer_writer *self, PyObject *unused)
{
    (void)unused;
    if (self->conversion == NULL)
        Py_RETURN_NONE;
    if (claim(self) == NULL)
        return NULL;
    feed_abort(&self->conversion->feed);
    conversion_free(join(self));
    Py_RETURN_NONE;
}

static void writer_dealloc(struct layer_writer *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->conversion != NULL && self->owner == getpid()) {
        feed_abort(&self->conversion->feed);
        conversion_free(join(self));
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static int parse(PyObject *arguments, PyObject *keywords, struct conversion *conversion)
{
    static char *names[] = {"fd", "compressor", "level", "block_size", "threads", "keep_owners", "keep_user_xattrs",
                            "keep_setid", "boot_set", "max_bytes", "max_ratio", "max_entries", "max_text", "max_path",
                            "max_name", "max_depth", "max_target", "max_links", "max_xattrs", NULL};
    struct recipe *recipe = &conversion->recipe;
    struct limits *limits = &conversion->limits;
    const char *compressor;
    int fd, keep_owners, keep_user_xattrs, keep_setid, boot_set;
    unsigned long long bytes, ratio, entries, text;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "i$sIIIppppKKKKIIIIII:LayerWriter", names, &fd, &compressor,
                                     &recipe->level, &recipe->block_size, &recipe->threads, &keep_owners,
                                     &keep_user_xattrs, &keep_setid, &boot_set, &bytes, &ratio, &entries, &text,
                                     &limits->max_path, &limits->max_name, &limits->max_depth, &limits->max_target,
                                     &limits->max_links, &limits->max_xattrs))
        return -1;
    int identifier = sqfs_compressor_id_from_name(compressor);
    bool sane = identifier > 0 && recipe->block_size >= SQFS_MIN_BLOCK_SIZE &&
                recipe->block_size <= SQFS_MAX_BLOCK_SIZE && (recipe->block_size & (recipe->block_size - 1)) == 0 &&
                recipe->threads > 0 && recipe->threads <= 1024 && ratio > 0 && entries < UINT32_MAX / 4 &&
                limits->max_path <= PATH_CEILING && limits->max_name <= NAME_CEILING &&
                limits->max_depth <= DEPTH_CEILING && limits->max_target <= TARGET_CEILING;
    if (!sane) {
        PyErr_SetString(PyExc_ValueError, "an argument of LayerWriter is out of its range");
        return -1;
    }
    recipe->compressor = (SQFS_COMPRESSOR)identifier;
    recipe->keep_owners = keep_owners;
    recipe->keep_user_xattrs = keep_user_xattrs;
    recipe->keep_setid = keep_setid;
    recipe->boot_set = boot_set;
    limits->max_bytes = bytes;
    limits->max_ratio = ratio;
    limits->max_entries = entries;
    limits->max_text = text;
    conversion->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (conversion->fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

static PyObject *writer_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    struct layer_writer *self = (struct layer_writer *)type->tp_alloc(type, 0);
    struct conversion *conversion = PyMem_Calloc(1, sizeof *conversion);
    if (self == NULL || conversion == NULL) {
        Py_XDECREF(self);
        PyMem_Free(conversion);
        return PyErr_NoMemory();
    }
    if (parse(arguments, keywords, conversion) < 0) {
        Py_DECREF(self);
        PyMem_Free(conversion);
        return NULL;
    }
    feed_init(&conversion->feed);
    self->owner = getpid();
    int result = start_thread(conversion);
    if (result != 0) {
        conversion_free(conversion);
        Py_DECREF(self);
        errno = result;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    self->conversion = conversion;
    return (PyObject *)self;
}

static PyMethodDef writer_methods[] = {
    {"feed", (PyCFunction)writer_feed, METH_O,
     "Takes the next piece of the compressed layer; waits while the conversion is behind. The piece is not copied."},
    {"finish", (PyCFunction)writer_finish, METH_NOARGS, "Ends the layer, waits, and returns its Summary."},
    {"abort", (PyCFunction)writer_abort, METH_NOARGS, "Gives up and waits for the thread. The file is incomplete."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_doc, "Converts one layer into the archive at `fd`, an empty file. Used by one thread."},
    {Py_tp_new, writer_new},
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_methods, writer_methods},
    {0, NULL},
};

static PyType_Spec writer_spec = {
    .name = "shifter_imagegw.squashfs._writer.LayerWriter",
    .basicsize = sizeof(struct layer_writer),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = writer_slots,
};

static int add(PyObject *module, const char *name, PyObject *object)
{
    if (object == NULL || PyModule_AddObject(module, name, new_reference(object)) == 0)
        return object == NULL ? -1 : 0;
    Py_DECREF(object);
    return -1;
}

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "shifter_imagegw.squashfs._writer",
    .m_doc = "From a layer's compressed tar stream to a layer archive.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__writer(void)
{
    PyObject *module = PyModule_Create(&module_definition);
    if (module == NULL)
        return NULL;
    failure_type = PyErr_NewExceptionWithDoc("shifter_imagegw.squashfs._writer.Failure",
                                             "args: kind (layer, limit, conversion, aborted), entry or None, reason.",
                                             NULL, NULL);
    summary_type = (PyObject *)PyStructSequence_NewType(&summary_description);
    PyObject *writer_type = PyType_FromSpec(&writer_spec);
    if (add(module, "Failure", failure_type) < 0 || add(module, "Summary", summary_type) < 0 ||
        add(module, "LayerWriter", writer_type) < 0)
        Py_CLEAR(module);
    Py_XDECREF(writer_type);
    return module;
}
