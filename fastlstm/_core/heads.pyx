# What follows the layers: the linear layer, softmax and cross-entropy of a language model.

from libc.string cimport memset

from fastlstm._core.c_api cimport *
from fastlstm._core.library cimport Buffer, BufferCache, driver_of, find_isa, run_team, team_limits

import numpy as np


def head(str isa, BufferCache cache not None, y, weight, bias, targets, nll, dy, dweight, dbias,
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
        _head[double](isa, cache, y, weight, bias, targets, nll, dy, dweight, dbias, threads)
    else:
        _head[float](isa, cache, y, weight, bias, targets, nll, dy, dweight, dbias, threads)


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


cdef int _head(str isa, BufferCache cache, const real[:, ::1] y, const real[:, ::1] weight,
               const real[::1] bias, const Py_ssize_t[::1] targets, real[::1] nll,
               real[:, ::1] dy, real[:, ::1] dweight, real[::1] dbias, int threads) except -1:
    cdef fl_head_call call
    cdef const fl_driver *driver
    cdef Py_ssize_t n = y.shape[0], hidden = y.shape[1], classes = weight.shape[0]
    cdef Buffer scratch
    _check_head[real](y, weight, bias, targets, nll)
    memset(&call, 0, sizeof(call))
    if dy is not None:
        if (dy.shape[0] != n or dy.shape[1] != hidden or dweight.shape[0] != classes or
                dweight.shape[1] != hidden or dbias.shape[0] != classes):
            raise ValueError("dy, dweight, dbias: expected the shapes of y, weight and bias")
        call.dy, call.dweight, call.dbias = &dy[0, 0], &dweight[0, 0], &dbias[0]
    driver = driver_of(real is double)
    call.kernels = find_isa(isa).f64 if real is double else find_isa(isa).f32
    call.n, call.hidden, call.classes = n, hidden, classes
    call.y, call.weight, call.bias = &y[0, 0], &weight[0, 0], &bias[0]
    call.targets, call.nll = &targets[0], &nll[0]
    call.y_row = call.dy_row = hidden
    driver.plan_head(&call, team_limits(threads))
    scratch = cache.take(call.scratch_size * sizeof(real))
    call.scratch = scratch.data
    with nogil:
        run_team(driver.head, &call, &call.team)
    cache.give(scratch)
    return 0
