# What follows the layers: a linear layer and a loss, together or each on its own.

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


def linear(str isa, BufferCache cache not None, y, weight, bias, out, int threads):
    """Linear layer alone: out = y W^T + bias.

    Parameters
    ----------
    isa : str
    y, weight, bias : (N, H), (V, H) and (V,) arrays, contiguous; or None for no bias
    out : (N, V) array
        Is written.
    threads : int
    """
    if y.dtype == np.float64:
        _linear[double](isa, cache, y, weight, bias, out, threads)
    else:
        _linear[float](isa, cache, y, weight, bias, out, threads)


def linear_backward(str isa, BufferCache cache not None, y, weight, dout, dy, dweight, dbias,
                    int threads):
    """Gradients of `linear`, from that of its result.

    Parameters
    ----------
    isa : str
    y, weight, dout : (N, H), (V, H) and (N, V) arrays, contiguous
    dy : (N, H) array, or None if it is not wanted
        Is written.
    dweight, dbias : (V, H) and (V,) arrays, or None for no bias
        Are added to.
    threads : int
    """
    if dbias is not None:
        dbias = dbias[None]
    if y.dtype == np.float64:
        _linear_backward[double](isa, cache, y, weight, dout, dy, dweight[None], dbias, threads)
    else:
        _linear_backward[float](isa, cache, y, weight, dout, dy, dweight[None], dbias, threads)


def loss(str isa, BufferCache cache not None, z, targets, losses, dz, int threads, double scale,
         weights=None):
    """Losses of N predictions of V values, as in `head`, where there is no linear layer.

    Parameters
    ----------
    isa : str
    z : (N, V) array, contiguous
    targets, losses, scale, weights
        As in `head`.  A weight of 0 makes a gradient of zeros, whatever is in `z`.
    dz : (N, V) array
        Gradient of the sum of scale * weights * losses: is written.
    threads : int
    """
    if z.dtype == np.float64:
        _loss[double](isa, cache, z, targets, losses, dz, threads, scale, weights)
    else:
        _loss[float](isa, cache, z, targets, losses, dz, threads, scale, weights)


cdef int _check_classes(const Py_ssize_t[::1] targets, Py_ssize_t n, Py_ssize_t classes) except -1:
    cdef Py_ssize_t i
    if targets.shape[0] != n:
        raise ValueError(f"targets: expected {n} of them, got {targets.shape[0]}")
    for i in range(n):
        if not 0 <= targets[i] < classes:
            raise ValueError(f"targets: expected classes from 0 to {classes - 1}, "
                             f"got {targets[i]}")
    return 0


cdef int _add_layer(fl_head_call *call, const real[:, ::1] y,
                    const real[:, ::1] weight) except -1:
    """None counts as an array without elements, here and below."""
    call.n, call.hidden, call.classes = y.shape[0], y.shape[1], weight.shape[0]
    if min(call.n, call.hidden, call.classes) == 0 or weight.shape[1] != call.hidden:
        raise ValueError("y, weight: shapes do not match, or are empty")
    call.y, call.weight = &y[0, 0], &weight[0, 0]
    call.y_row, call.batch = call.hidden, call.n
    return 0


cdef int _add_bias(fl_head_call *call, const real[::1] bias) except -1:
    if bias.shape[0] != call.classes:
        raise ValueError(f"bias: expected {call.classes} of them")
    call.bias = &bias[0]
    return 0


cdef const void *_outputs(fl_head_call *call, const real[:, ::1] z) except NULL:
    """The address of outputs, or of their gradients."""
    if z.shape[0] != call.n or z.shape[1] != call.classes:
        raise ValueError(f"outputs: expected {(call.n, call.classes)}")
    return &z[0, 0]


cdef int _add_losses(fl_head_call *call, targets, real[::1] losses, double scale,
                     const real[::1] weights) except -1:
    cdef const Py_ssize_t[::1] numbers
    cdef const real[:, ::1] values
    if losses.shape[0] != call.n or weights is not None and weights.shape[0] != call.n:
        raise ValueError(f"losses, weights: expected {call.n} of them")
    if np.ndim(targets) == 1:
        numbers = targets
        _check_classes(numbers, call.n, call.classes)
        call.targets = &numbers[0]
    else:
        values = targets
        if values.shape[0] != call.n or values.shape[1] != call.classes:
            raise ValueError(
                f"targets: expected {(call.n, call.classes)}, got {np.shape(targets)}")
        call.values = &values[0, 0]
    call.losses = &losses[0]
    call.scale = scale if scale else 1 / <double>call.n
    call.weights = &weights[0] if weights is not None else NULL
    return 0


cdef int _add_shards(fl_head_call *call, shards) except -1:
    call.shards = shards_of(shards)
    if call.shards.count:
        call.batch = call.shards.starts[call.shards.count]
        if call.batch < 1 or call.n % call.batch:
            raise ValueError("shards: expected those of all rows")
    return 0


cdef int _add_dy(fl_head_call *call, real[:, ::1] dy) except -1:
    if dy.shape[0] != call.n or dy.shape[1] != call.hidden:
        raise ValueError("dy: expected the shape of y")
    call.dy, call.dy_row = &dy[0, 0], call.hidden
    return 0


cdef int _add_dweight(fl_head_call *call, real[:, :, :] dweight, real[:, :] dbias) except -1:
    """Gradients of shards, or of one; no dbias is None."""
    cdef Py_ssize_t parts = max(call.shards.count, 1), size = sizeof(real)
    if (dweight.shape[0] != parts or dweight.shape[1] != call.classes or
            dweight.shape[2] != call.hidden or dbias is not None and (
            dbias.shape[0] != parts or dbias.shape[1] != call.classes)):
        raise ValueError("dweight, dbias: expected the shapes of weight and bias")
    if (dweight.strides[2] != size or dweight.strides[1] != size * call.hidden or
            dweight.strides[0] % size or dbias is not None and (
            dbias.strides[1] != size or parts > 1 and dweight.strides[0] != dbias.strides[0])):
        raise ValueError("dweight, dbias: expected contiguous ones, equally far apart")
    call.grads_step = dweight.strides[0] // size
    call.dweight = &dweight[0, 0, 0]
    call.dbias = &dbias[0, 0] if dbias is not None else NULL
    return 0


cdef int _run(fl_head_call *call, str isa, BufferCache cache, bint is_double,
              int threads) except -1:
    cdef const fl_driver *driver = driver_of(is_double)
    cdef Buffer scratch
    call.kernels = find_isa(isa).f64 if is_double else find_isa(isa).f32
    driver.plan_head(call, team_limits(threads))
    scratch = cache.take(call.scratch_size * (sizeof(double) if is_double else sizeof(float)))
    call.scratch = scratch.data
    with nogil:
        run_team(driver.head, call, &call.team)
    cache.give(scratch)
    return 0


cdef int _head(str isa, BufferCache cache, const real[:, ::1] y, const real[:, ::1] weight,
               const real[::1] bias, targets, real[::1] losses, real[:, ::1] dy,
               real[:, :, :] dweight, real[:, :] dbias, int threads, double scale,
               const real[::1] weights, shards) except -1:
    cdef fl_head_call call
    memset(&call, 0, sizeof(call))
    _add_layer[real](&call, y, weight)
    _add_bias[real](&call, bias)
    _add_losses[real](&call, targets, losses, scale, weights)
    _add_shards(&call, shards)
    if dy is not None:
        if dbias is None:
            raise ValueError("dbias: expected an array, got None")
        _add_dy[real](&call, dy)
        _add_dweight[real](&call, dweight, dbias)
    return _run(&call, isa, cache, real is double, threads)


cdef int _linear(str isa, BufferCache cache, const real[:, ::1] y, const real[:, ::1] weight,
                 const real[::1] bias, real[:, ::1] out, int threads) except -1:
    cdef fl_head_call call
    memset(&call, 0, sizeof(call))
    _add_layer[real](&call, y, weight)
    if bias is not None:
        _add_bias[real](&call, bias)
    call.z_out = <void *>_outputs[real](&call, out)
    return _run(&call, isa, cache, real is double, threads)


cdef int _linear_backward(str isa, BufferCache cache, const real[:, ::1] y,
                          const real[:, ::1] weight, const real[:, ::1] dout, real[:, ::1] dy,
                          real[:, :, :] dweight, real[:, :] dbias, int threads) except -1:
    cdef fl_head_call call
    memset(&call, 0, sizeof(call))
    _add_layer[real](&call, y, weight)
    call.z = _outputs[real](&call, dout)
    if dy is not None:
        _add_dy[real](&call, dy)
    _add_dweight[real](&call, dweight, dbias)
    return _run(&call, isa, cache, real is double, threads)


cdef int _loss(str isa, BufferCache cache, const real[:, ::1] z, targets, real[::1] losses,
               real[:, ::1] dz, int threads, double scale, const real[::1] weights) except -1:
    cdef fl_head_call call
    memset(&call, 0, sizeof(call))
    call.n, call.classes, call.batch = z.shape[0], z.shape[1], z.shape[0]
    if min(call.n, call.classes) == 0:
        raise ValueError("z: is empty")
    call.z = &z[0, 0]
    _add_losses[real](&call, targets, losses, scale, weights)
    call.z_out = <void *>_outputs[real](&call, dz)
    return _run(&call, isa, cache, real is double, threads)
