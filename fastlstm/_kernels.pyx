# Beside the layers: the head of a language model, the gate functions alone, the machine's limits.

from cython.parallel cimport parallel, threadid
from libc.string cimport memset

from fastlstm._c_api cimport *
from fastlstm._core cimport Buffer, Pool, engine_of, find_isa, team_limits

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


def head(str isa, Pool pool not None, y, weight, bias, targets, nll, dy, dweight, dbias,
         int threads):
    """Linear layer, softmax and cross-entropy of N predictions among V classes.

    Parameters
    ----------
    isa : str
    y, weight, bias : (N, H), (V, H) and (V,) arrays, contiguous
    targets : (N,) array of intp, contiguous, each in [0, V)
    nll : (N,) array
        Receives -log p(target).
    dy, dweight, dbias : arrays like `y`, `weight` and `bias`, or None if they are not wanted
        Gradients of the mean of `nll`: dy is written, the others are added to.
    threads : int
    """
    if y.dtype == np.float64:
        _head[double](isa, pool, y, weight, bias, targets, nll, dy, dweight, dbias, threads)
    else:
        _head[float](isa, pool, y, weight, bias, targets, nll, dy, dweight, dbias, threads)


cdef int _check_head(const real[:, ::1] y, const real[:, ::1] weight, const real[::1] bias,
                     const Py_ssize_t[::1] targets, const real[::1] nll) except -1:
    """Without gradients; None counts as an array without elements."""
    cdef Py_ssize_t n = y.shape[0], classes = weight.shape[0], i
    if min(n, y.shape[1], classes) == 0 or weight.shape[1] != y.shape[1] or (
            bias.shape[0] != classes or targets.shape[0] != n or nll.shape[0] != n):
        raise ValueError("y, weight, bias, targets, nll: shapes do not match, or are empty")
    for i in range(n):
        if not 0 <= targets[i] < classes:
            raise ValueError(f"targets: expected classes from 0 to {classes - 1}, "
                             f"got {targets[i]}")
    return 0


cdef int _head(str isa, Pool pool, const real[:, ::1] y, const real[:, ::1] weight,
               const real[::1] bias, const Py_ssize_t[::1] targets, real[::1] nll,
               real[:, ::1] dy, real[:, ::1] dweight, real[::1] dbias, int threads) except -1:
    cdef fl_head_call call
    cdef const fl_driver *engine
    cdef Py_ssize_t n = y.shape[0], hidden = y.shape[1], classes = weight.shape[0]
    cdef Buffer scratch
    _check_head[real](y, weight, bias, targets, nll)
    memset(&call, 0, sizeof(call))
    if dy is not None:
        if (dy.shape[0] != n or dy.shape[1] != hidden or dweight.shape[0] != classes or
                dweight.shape[1] != hidden or dbias.shape[0] != classes):
            raise ValueError("dy, dweight, dbias: expected the shapes of y, weight and bias")
        call.dy, call.dweight, call.dbias = &dy[0, 0], &dweight[0, 0], &dbias[0]
    engine = engine_of(real is double)
    call.kernels = find_isa(isa).f64 if real is double else find_isa(isa).f32
    call.n, call.hidden, call.classes = n, hidden, classes
    call.y, call.weight, call.bias = &y[0, 0], &weight[0, 0], &bias[0]
    call.targets, call.nll = &targets[0], &nll[0]
    call.y_row = call.dy_row = hidden
    engine.plan_head(&call, team_limits(threads))
    scratch = pool.take(call.scratch_size * sizeof(real))
    call.scratch = scratch.data
    with nogil:
        if call.workers == 1:
            engine.head(&call, 0, 1)
        else:
            with parallel(num_threads=call.workers):
                engine.head(&call, threadid(), fl_team_size())
    pool.give(scratch)
    return 0


def activate(str isa, str name, x):
    """The kernels' own sigmoid, tanh or exp of a contiguous 1-D array: what the tests measure."""
    out, which = np.empty_like(x), ("sigmoid", "tanh", "exp").index(name)
    if x.dtype == np.float64:
        _activate[double](isa, which, x, out)
    else:
        _activate[float](isa, which, x, out)
    return out


cdef int _activate(str isa, int which, const real[::1] x, real[::1] out) except -1:
    cdef const fl_isa *found = find_isa(isa)
    if x.shape[0] > 0:
        engine_of(real is double).activate(found.f64 if real is double else found.f32, which,
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
