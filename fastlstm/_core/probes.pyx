# What is measured: the gate functions alone, the machine's limits, the compiler.

from cython.parallel cimport parallel, threadid
from libc.string cimport memset

from fastlstm._core.c_api cimport *
from fastlstm._core.library cimport Buffer, driver_of, find_isa

import time

import numpy as np

cdef extern from *:
    """
    #if defined(__clang__)
    #define FL_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define FL_COMPILER "gcc " __VERSION__
    #else
    #define FL_COMPILER "unknown"
    #endif
    """
    const char *FL_COMPILER


def compiler():
    """Name and version of the compiler that built the kernels."""
    return FL_COMPILER.decode()


def activate(str isa, str name, x):
    """The kernels' own functions of a contiguous 1-D array: what the tests measure."""
    functions = ("sigmoid", "tanh", "exp", "log", "log_sigmoid")
    out, which = np.empty_like(x), functions.index(name)
    if x.dtype == np.float64:
        _activate[double](isa, which, x, out)
    else:
        _activate[float](isa, which, x, out)
    return out


cdef int _activate(str isa, int which, const real[::1] x, real[::1] out) except -1:
    cdef const fl_isa *found = find_isa(isa)
    if x.shape[0] > 0:
        driver_of(real is double).activate(found.f64 if real is double else found.f32, which,
                                           &x[0], &out[0], x.shape[0])
    return 0


cdef extern from *:
    """
    #define FL_DOUBLE 0
    #include "kernels/table.h"
    """
    ctypedef struct fl_kernels_f32 "struct fl_kernels_f32":
        Py_ssize_t lanes
        float (*probe_fma)(Py_ssize_t n) noexcept nogil
        float (*probe_read)(const float *p, Py_ssize_t n, Py_ssize_t repeats) noexcept nogil


def probe(str isa, str kind, Py_ssize_t nbytes, Py_ssize_t repeats, int threads):
    """Measure a limit of this machine, in float32, for all threads together: the median of runs.

    The median, because that is what is reported of calls: a machine's clock may fall by a tenth for
    minutes, and calls compared with its best moment would seem to leave as much unused.  The runs
    go on for 20 ms, because other processes may hold a processor for some.

    Parameters
    ----------
    isa : str
    kind : {"fma", "read"}
    nbytes : int
        read: bytes that each thread reads, its own, a multiple of 4096.
    repeats : int
        read: how often it reads them.  fma: multiply-adds of a vector in each thread.
    threads : int

    Returns
    -------
    float
        fma: floating-point operations per second; read: bytes per second.
    """
    cdef const fl_kernels_f32 *kernels = <const fl_kernels_f32 *>find_isa(isa).f32
    cdef bint reads = kind == "read"
    if (not reads and kind != "fma") or nbytes % 4096 or min(repeats, threads) < 1:
        raise ValueError("kind, nbytes, repeats, threads: see the docstring")
    threads = threads if fl_has_openmp() else 1
    cdef Buffer buffer = Buffer(nbytes * threads if reads else 0)
    cdef char *data = <char *>buffer.data
    cdef Py_ssize_t warm = repeats // 10 + 1
    if reads:
        with nogil, parallel(num_threads=threads):
            memset(data + threadid() * nbytes, 0, nbytes)  # by its reader: the page is near it
            kernels.probe_read(<float *>(data + threadid() * nbytes), nbytes // 4, warm)
    work = (nbytes if reads else 2 * kernels.lanes) * repeats * threads
    seconds = []
    while len(seconds) < 8 or sum(seconds) < 0.02:
        start = time.perf_counter()
        with nogil, parallel(num_threads=threads):
            if reads:
                kernels.probe_read(<float *>(data + threadid() * nbytes), nbytes // 4, repeats)
            else:
                kernels.probe_fma(repeats)
        seconds.append(time.perf_counter() - start)
    return work / sorted(seconds)[len(seconds) // 2]
