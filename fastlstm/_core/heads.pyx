# What follows the layers: a linear layer and a loss.

from libc.string cimport memset

from fastlstm._core.c_api cimport *
from fastlstm._core.library cimport Buffer, BufferCache, driver_of, find_isa, run_team, team_limits
from fastlstm._core.packed_weights cimport shards_of

import numpy as np


def head(str isa, BufferCache cache not None, y, weight, bias, targets, losses, dy, dweight, dbias,
         int threads, double scale=0, weights=None, shards=None):
    """Linear layer and loss of N predictions of V values: classes, or numbers.

    Parameters
    ----------
    isa : str
    y, weight, bias : (N, H), (V, H) and (V,) arrays, contiguous
    targets : (N,) array of intp, or (N, V) array like `y`, contiguous
        Classes in [0, V), for the cross-entropy after a softmax, or numbers, for half the sum of
        squared errors.
    losses : (N,) array
        Receives the loss of each prediction.
    dy, dweight, dbias : arrays like `y`, `weight` and `bias`, or None if they are not wanted
        Gradients of the sum of scale * weights * losses: dy is written, the others are added to.
    threads : int
    scale : float, default 1 / N
    weights : (N,) array like `y`, or None for ones
    shards : Shards, or None
        The predictions are [T, B], and their rows those of the shards, of which each has gradients
        of its own: dweight and dbias are (S, V, H) and (S, V) then, both as far apart.
    """
    if dy is not None and shards is None:
        dweight, dbias = dweight[None], dbias[None]
    if y.dtype == np.float64:
        _head[double](isa, cache, y, weight, bias, targets, losses, dy, dweight, dbias, threads,
                      scale, weights, shards)
    else:
        _head[float](isa, cache, y, weight, bias, targets, losses, dy, dweight, dbias, threads,
                     scale, weights, shards)


cdef int _check_head(const real[:, ::1] y, const real[:, ::1] weight, const real[::1] bias,
                     const real[::1] losses, const real[::1] weights) except -1:
    """Without targets and gradients; None counts as an array without elements."""
    cdef Py_ssize_t n = y.shape[0]
    if min(n, y.shape[1], weight.shape[0]) == 0 or weight.shape[1] != y.shape[1] or (
            bias.shape[0] != weight.shape[0] or losses.shape[0] != n or
            weights is not None and weights.shape[0] != n):
        raise ValueError("y, weight, bias, losses, weights: shapes do not match, or are empty")
    return 0


cdef int _check_classes(const Py_ssize_t[::1] targets, Py_ssize_t n, Py_ssize_t classes) except -1:
    cdef Py_ssize_t i
    if targets.shape[0] != n:
        raise ValueError(f"targets: expected {n} of them, got {targets.shape[0]}")
    for i in range(n):
        if not 0 <= targets[i] < classes:
            raise ValueError(f"targets: expected classes from 0 to {classes - 1}, "
                             f"got {targets[i]}")
    return 0


cdef int _check_gradients(fl_head_call *call, real[:, ::1] dy, real[:, :, :] dweight,
                          real[:, :] dbias) except -1:
    """Their addresses are written, unless there are none."""
    cdef Py_ssize_t parts = max(call.shards.count, 1), size = sizeof(real)
    if (dy.shape[0] != call.n or dy.shape[1] != call.hidden or dweight.shape[0] != parts or
            dweight.shape[1] != call.classes or dweight.shape[2] != call.hidden or
            dbias.shape[0] != parts or dbias.shape[1] != call.classes):
        raise ValueError("dy, dweight, dbias: expected the shapes of y, weight and bias")
    if (dweight.strides[2] != size or dweight.strides[1] != size * call.hidden or
            dbias.strides[1] != size or
            (parts > 1 and dweight.strides[0] != dbias.strides[0]) or dweight.strides[0] % size):
        raise ValueError("dweight, dbias: expected contiguous ones, equally far apart")
    call.grads_step = dweight.strides[0] // size
    call.dy, call.dweight, call.dbias = &dy[0, 0], &dweight[0, 0, 0], &dbias[0, 0]
    return 0


cdef int _head(str isa, BufferCache cache, const real[:, ::1] y, const real[:, ::1] weight,
               const real[::1] bias, targets, real[::1] losses, real[:, ::1] dy,
               real[:, :, :] dweight, real[:, :] dbias, int threads, double scale,
               const real[::1] weights, shards) except -1:
    cdef fl_head_call call
    cdef const fl_driver *driver
    cdef Py_ssize_t n = y.shape[0], hidden = y.shape[1], classes = weight.shape[0]
    cdef const Py_ssize_t[::1] numbers
    cdef const real[:, ::1] values
    cdef Buffer scratch
    _check_head[real](y, weight, bias, losses, weights)
    memset(&call, 0, sizeof(call))
    if np.ndim(targets) == 1:
        numbers = targets
        _check_classes(numbers, n, classes)
        call.targets = &numbers[0]
    else:
        values = targets
        if values.shape[0] != n or values.shape[1] != classes:
            raise ValueError(f"targets: expected {(n, classes)}, got {np.shape(targets)}")
        call.values = &values[0, 0]
    call.n, call.hidden, call.classes = n, hidden, classes
    call.shards, call.batch = shards_of(shards), n
    if call.shards.count:
        call.batch = call.shards.starts[call.shards.count]
        if call.batch < 1 or n % call.batch:
            raise ValueError("shards: expected those of all rows")
    if dy is not None:
        _check_gradients[real](&call, dy, dweight, dbias)
    driver = driver_of(real is double)
    call.kernels = find_isa(isa).f64 if real is double else find_isa(isa).f32
    call.y, call.weight, call.bias = &y[0, 0], &weight[0, 0], &bias[0]
    call.losses = &losses[0]
    call.scale = scale if scale else 1 / <double>n
    call.weights = &weights[0] if weights is not None else NULL
    call.y_row = call.dy_row = hidden
    driver.plan_head(&call, team_limits(threads))
    scratch = cache.take(call.scratch_size * sizeof(real))
    call.scratch = scratch.data
    with nogil:
        run_team(driver.head, &call, &call.team)
    cache.give(scratch)
    return 0
