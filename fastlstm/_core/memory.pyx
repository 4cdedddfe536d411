# Memory of results, tapes and weights: kept when they die, and used again.  The first write to a
# page that comes from the system takes as long as much arithmetic.
#
# Arrays have it through a handler of NumPy (NEP 49) that is in force only while they are made.  So
# they own their data like any others: `resize` works, tracemalloc sees them, and NumPy gives the
# memory back itself.  A `base` that owned it would have to bring all that about.

cimport cython
cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import os

import numpy as np

cnp.import_array()

cdef extern from *:
    """
    #if defined(__linux__)
    #include <sys/mman.h>
    static void fl_advise(void *p, size_t n) { madvise(p, n, MADV_HUGEPAGE); }
    #else
    static void fl_advise(void *p, size_t n) { (void)p; (void)n; }
    #endif
    """
    void fl_advise(void *p, size_t n) nogil

cdef extern from "Python.h":
    size_t PY_SSIZE_T_MAX

cdef extern from "base/align.h":
    size_t FL_ALIGN

cdef enum:
    SMALLEST = 128 << 10  # bytes that are kept; the C library is good at smaller ones
    LARGE = 4 << 20  # from here on in pages of 2 MiB: fewer page faults and TLB misses
    PAGE = 2 << 20
    ALWAYS = 64 << 20  # may be kept however little was in use
    WINDOW = 256  # blocks that are taken: "of late" is that long, or twice
    BINS = 192  # enough for all of memory
    NO_BIN = -1
    DEFAULT_MIB = 1024


cdef struct Block:  # in front of the memory
    void *start  # what malloc gave
    Block *next  # in a list
    size_t nbytes
    int bin

cdef struct Pool:
    Block *bins[BINS]  # blocks that are kept; those of a bin have one size
    unsigned long long last_use[BINS]
    unsigned long long now  # counts blocks that are taken or given back
    size_t kept, in_use, peak, peak_before  # bytes; most in use in this window, and the one before
    size_t taken  # blocks in this window

# Who holds the lock runs no Python code.  So nobody does when os.fork has the GIL, or has stopped
# all other threads: children find it free, and the pool whole.
cdef cython.pymutex lock
cdef Pool pool

cdef bint is_set = False
cdef size_t most = 0  # bytes that may be kept; 0: nothing is


cdef int read_setting() except -1:
    """Read FASTLSTM_KEEP_MEMORY, once."""
    global is_set, most
    if not is_set:
        text = os.environ.get("FASTLSTM_KEEP_MEMORY") or str(DEFAULT_MIB)
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(f"FASTLSTM_KEEP_MEMORY: expected a whole number of MiB, got {text!r}")
        most = min(int(text) << 20, PY_SSIZE_T_MAX)
        is_set = True
    return 0


cdef int bin_of(size_t *nbytes) noexcept nogil:
    """The bin of a size, which is rounded up to that of the bin: there are four to an octave."""
    cdef size_t quarter = SMALLEST // 8, quarters
    cdef int bin = 0
    while 8 * quarter < nbytes[0]:
        quarter *= 2
        bin += 4
    quarters = (nbytes[0] + quarter - 1) // quarter  # 5 to 8
    nbytes[0] = quarters * quarter
    return bin + <int>quarters - 5


cdef Block *pop_fitting(int bin) noexcept nogil:
    """A kept block that fits, less than twice as large: batches of many sizes share a few."""
    cdef Block *block = NULL
    cdef int last = min(bin + 4, BINS)
    while block == NULL and bin < last:
        block = pop(bin)
        bin += 1
    return block


cdef Block *pop(int bin) noexcept nogil:
    cdef Block *block = pool.bins[bin]
    if block != NULL:
        pool.bins[bin] = block.next
        pool.kept -= block.nbytes
    return block


cdef size_t limit() noexcept nogil:
    """How much may be kept: as much as was in use at once of late."""
    return min(most, max(<size_t>ALWAYS, pool.peak, pool.peak_before))


cdef Block *surplus(size_t limit) noexcept nogil:
    """Take out what is beyond the limit, from the bins that were used longest ago."""
    cdef Block *out = NULL
    cdef Block *block
    cdef int i, oldest
    while pool.kept > limit:
        oldest = NO_BIN
        for i in range(BINS):
            if pool.bins[i] != NULL and (
                    oldest == NO_BIN or pool.last_use[i] < pool.last_use[oldest]):
                oldest = i
        block = pop(oldest)
        block.next, out = out, block
    return out


cdef Block *note_use(Block *block) noexcept nogil:
    """Count a block that is taken; returns the surplus."""
    pool.now += 1
    pool.last_use[block.bin] = pool.now
    pool.in_use += block.nbytes
    pool.taken += 1
    if pool.taken == WINDOW:
        pool.taken, pool.peak_before, pool.peak = 0, pool.peak, 0
    pool.peak = max(pool.peak, pool.in_use)
    return surplus(limit())


cdef Block *keep(Block *block) noexcept nogil:
    """Put a block into its bin; returns the surplus."""
    pool.now += 1
    pool.last_use[block.bin] = pool.now
    pool.in_use -= block.nbytes
    block.next = NULL
    if block.nbytes > limit():  # others need not go for it
        return block
    block.next, pool.bins[block.bin] = pool.bins[block.bin], block
    pool.kept += block.nbytes
    return surplus(limit())


cdef void free_all(Block *block) noexcept nogil:
    cdef Block *next
    while block != NULL:
        next = block.next
        free(block.start)
        block = next


cdef size_t free_kept() noexcept nogil:
    cdef size_t nbytes
    cdef Block *out
    with lock:
        nbytes = pool.kept
        out = surplus(0)
    free_all(out)
    return nbytes


cdef Block *new_block(size_t nbytes, int bin) noexcept nogil:
    cdef size_t align = PAGE if nbytes >= LARGE else FL_ALIGN
    cdef void *start = malloc(FL_ALIGN + nbytes + align)
    cdef char *data
    cdef Block *block
    if start == NULL:
        return NULL
    data = <char *>((<uintptr_t>start + FL_ALIGN + align - 1) // align * align)
    if nbytes >= LARGE:
        fl_advise(data, nbytes)
    block = <Block *>(data - FL_ALIGN)
    block.start, block.nbytes, block.bin = start, nbytes, bin
    return block


cdef void *allocate(size_t nbytes) noexcept nogil:
    """Memory that begins with a cache line, for `release`; NULL if there is not enough."""
    cdef Block *block = NULL
    cdef Block *out
    cdef int bin = NO_BIN
    if nbytes > PY_SSIZE_T_MAX // 2:  # room for what is added to it
        return NULL
    if nbytes >= SMALLEST and most > 0:
        bin = bin_of(&nbytes)
        with lock:
            block = pop_fitting(bin)
    if block == NULL:
        block = new_block(nbytes, bin)
    if block == NULL and free_kept():
        block = new_block(nbytes, bin)
    if block == NULL:
        return NULL
    if bin != NO_BIN:
        with lock:
            out = note_use(block)
        free_all(out)
    return <char *>block + FL_ALIGN


cdef void release(void *data) noexcept nogil:
    """Give back what `allocate` gave, in any thread."""
    cdef Block *block
    cdef Block *out
    if data == NULL:
        return
    block = <Block *>(<char *>data - FL_ALIGN)
    if block.bin == NO_BIN:
        free(block.start)
        return
    with lock:
        out = keep(block)
    free_all(out)


# What NumPy calls.

cdef void *_malloc(void *ctx, size_t nbytes) noexcept nogil:
    return allocate(nbytes)


cdef void *_calloc(void *ctx, size_t count, size_t size) noexcept nogil:
    cdef void *data = NULL
    if size == 0 or count <= PY_SSIZE_T_MAX // size:
        data = allocate(count * size)
    if data != NULL:
        memset(data, 0, count * size)
    return data


cdef void *_realloc(void *ctx, void *data, size_t nbytes) noexcept nogil:
    cdef void *other = allocate(nbytes)
    if other != NULL and data != NULL:
        memcpy(other, data, min(nbytes, (<Block *>(<char *>data - FL_ALIGN)).nbytes))
        release(data)
    return other


cdef void _free(void *ctx, void *data, size_t nbytes) noexcept nogil:
    release(data)


cdef cnp.PyDataMem_Handler _functions
memset(&_functions, 0, sizeof(_functions))
memcpy(_functions.name, b"fastlstm", 8)
_functions.version = 1
_functions.allocator = cnp.PyDataMemAllocator(NULL, _malloc, _calloc, _realloc, _free)
_handler = PyCapsule_New(&_functions, "mem_handler", NULL)


cdef object new_array(int ndim, const cnp.npy_intp *shape, int type, bint zeros):
    """A C-contiguous array of a type of numbers; the large ones have their memory from here."""
    cdef double nbytes = 8 if type == cnp.NPY_FLOAT64 else 4  # that cannot overflow
    cdef cnp.npy_intp *dims = <cnp.npy_intp *>shape
    cdef int i
    read_setting()
    for i in range(ndim):
        nbytes *= shape[i]
    before = cnp.PyDataMem_SetHandler(_handler) if nbytes >= SMALLEST and most > 0 else None
    try:
        if zeros:
            return cnp.PyArray_ZEROS(ndim, dims, type, False)
        return cnp.PyArray_EMPTY(ndim, dims, type, False)
    finally:
        if before is not None:
            cnp.PyDataMem_SetHandler(before)


cdef object _array(tuple shape, dtype, bint zeros):
    cdef cnp.npy_intp dims[4]
    cdef int i
    if len(shape) > 4:
        raise ValueError(f"shape: expected at most 4 axes, got {len(shape)}")
    for i, size in enumerate(shape):
        dims[i] = size
    return new_array(len(shape), dims, dtype.num, zeros)


def empty(tuple shape not None, dtype):
    """As `numpy.empty`, for float32 and float64."""
    return _array(shape, dtype, False)


def zeros(tuple shape not None, dtype):
    """As `numpy.zeros`, for float32 and float64."""
    return _array(shape, dtype, True)


def most_kept():
    """The bytes that may be kept: what FASTLSTM_KEEP_MEMORY sets."""
    read_setting()
    return most


def usage():
    """Bytes in use, and bytes that are kept for the next ones: (int, int)."""
    with lock:
        in_use, kept = pool.in_use, pool.kept
    return in_use, kept


def release_memory():
    """Give back the memory that is kept for the next results.

    When large results, tapes and packed weights die, their memory is kept and used again,
    because fresh memory costs page faults.  It is at most as much as was in use at once while the
    last 256 to 512 of them were made, or 64 MiB if that is more; and in any case 1 GiB, or the
    number of MiB that the environment variable ``FASTLSTM_KEEP_MEMORY`` had at the first call.
    With 0 nothing is kept.  A process that falls idle keeps what it has until it calls this.

    Returns
    -------
    int
        The bytes that were kept.  The C library may hold on to some of them.

    Examples
    --------
    After training, when something else needs the memory:

    >>> import fastlstm
    >>> _ = fastlstm.release_memory()
    >>> fastlstm.release_memory()
    0
    """
    return free_kept()
