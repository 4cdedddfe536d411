# cython: boundscheck=False
# What optimizers do to flat vectors: one pass over weights, gradients and state per update.
#
# A dozen NumPy passes over cached blocks took 2.3 times as long: 0.60 ms, now 0.26, the time of
# the roots and divisions (Adam, 430,000 float32 weights, one thread on Zen 4).  The compiler makes
# vectors of these loops, and a loop for each case of an `if` on an option.  Elements are computed
# each on its own, by roundings in a fixed order and without flags of an instruction set, so the
# bits depend neither on the threads nor on the CPU.  Denormals count as zero, in each thread of a
# team: the state of a weight whose gradient stays 0 would end as one, and with such operands a step
# took 35 times as long.  Every index is below the size that `_check` compares; bounds checks inside
# of prange would make gcc warn.

from cython.parallel cimport parallel, prange
from libc.math cimport sqrt, sqrtf

from fastlstm._core.c_api cimport (
    fl_fpu, fl_fpu_enter, fl_fpu_leave, fl_team_call, fl_team_plan, real,
)
from fastlstm._core.library cimport begin_call, end_call, threads_for

import numpy as np

cdef enum:
    PER_THREAD = 1 << 16  # elements: Adam takes 40 us for them, waking a thread up to 25
    BLOCK = 8192  # elements whose squares are summed on their own
    PIECE = 1 << 14  # elements that a thread takes at a time: one that is put aside has few
    CHAINS = 8  # sums of a block that grow side by side


cdef inline real _sqrt(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt(x)


cdef inline real _with_decay(real g, real p, real decay) noexcept nogil:
    return decay * p + g if decay else g  # not 0 * p, which is NaN for an infinite weight


cdef inline bint _is_small(real weight) noexcept nogil:
    return -0.5 < weight < 0.5


cdef inline real _lerp(real start, real end, real pull, bint small) noexcept nogil:
    # As torch: beside a start that hardly counts but is large, the end must not be lost.
    return (start if small else end) + (end - start) * pull


cdef enum:  # kinds of calls, for begin_call
    SGD = 16
    RMSPROP = 32
    ADAGRAD = 48
    ADAM = 64
    SQUARES = 80


cdef struct Region:
    fl_team_plan plan
    fl_team_call call


cdef void _begin(Region *region, int kind, Py_ssize_t n, int threads) noexcept nogil:
    cdef int wanted = max(1, min(threads, n // PER_THREAD))
    region.plan = fl_team_plan(wanted, threads_for(wanted), n)
    if wanted > 1:
        region.call = begin_call(&region.plan, kind)


cdef void _end(Region *region) noexcept nogil:
    if region.plan.wanted > 1:
        end_call(&region.call)


cdef int _check(const real[::1] vector, Py_ssize_t n) except -1:
    """The loops rely on it.  A vector that is not there, None, has any size."""
    if vector is not None and vector.shape[0] != n:
        raise ValueError(f"expected vectors of {n} elements, got {vector.shape[0]}")
    return 0


def sgd(real[::1] p not None, const real[::1] g not None, real[::1] velocity, *, real lr,
        real decay, real momentum, real weight, bint nesterov, int threads):
    """Update `p`, and `velocity` if there is one.

    ::

        d = g + decay * p
        velocity = momentum * velocity + weight * d
        p = p - lr * velocity                         (nesterov: lr * (d + momentum * velocity))

    Parameters
    ----------
    p, g : (N,) contiguous arrays of float32 or float64
        The numbers below are first rounded to that type.
    velocity : (N,) array or None
        None: d is taken for it.
    lr, decay, momentum, weight : float
    nesterov : bool
    threads : int
        At most so many; the result does not depend on it.
    """
    cdef Region region
    cdef fl_fpu before = 0
    cdef Py_ssize_t i, n = p.shape[0]
    cdef bint moves = velocity is not None
    cdef real d, v
    _check[real](g, n)
    _check[real](velocity, n)
    _begin(&region, SGD, n, threads)
    with nogil, parallel(num_threads=region.plan.workers):
        before = fl_fpu_enter()
        for i in prange(n, schedule="dynamic", chunksize=PIECE):
            d = _with_decay(g[i], p[i], decay)
            if moves:
                v = velocity[i] * momentum + d * weight
                velocity[i] = v
                d = v * momentum + d if nesterov else v
            p[i] = p[i] - d * lr
        fl_fpu_leave(before)
    _end(&region)


def rmsprop(real[::1] p not None, const real[::1] g not None, real[::1] square not None,
            real[::1] mean, real[::1] velocity, *, real lr, real decay, real alpha, real weight,
            real eps, real momentum, int threads):
    """Update `p`, `square`, and `mean` and `velocity` if there are.

    ::

        d = g + decay * p
        square = alpha * square + weight * d^2
        mean = mean + weight * (d - mean)
        velocity = momentum * velocity + d / (sqrt(square - mean^2) + eps)
        p = p - lr * velocity

    Parameters
    ----------
    p, g, square : (N,) contiguous arrays of float32 or float64
        The numbers below are first rounded to that type.
    mean, velocity : (N,) array or None
        None: 0 is taken for the mean, the quotient for the velocity.
    lr, decay, alpha, weight, eps, momentum : float
        The weight is 1 - alpha.
    threads : int
        At most so many; the result does not depend on it.
    """
    cdef Region region
    cdef fl_fpu before = 0
    cdef Py_ssize_t i, n = p.shape[0]
    cdef bint centered = mean is not None, moves = velocity is not None, small = _is_small(weight)
    cdef real pull = weight if small else weight - 1
    cdef real d, v
    _check[real](g, n)
    _check[real](square, n)
    _check[real](mean, n)
    _check[real](velocity, n)
    _begin(&region, RMSPROP, n, threads)
    with nogil, parallel(num_threads=region.plan.workers):
        before = fl_fpu_enter()
        if centered:  # apart: the compiler would make no vectors of a loop with so many cases
            for i in prange(n, schedule="dynamic", chunksize=PIECE):
                mean[i] = _lerp(mean[i], _with_decay(g[i], p[i], decay), pull, small)
        for i in prange(n, schedule="dynamic", chunksize=PIECE):
            d = _with_decay(g[i], p[i], decay)
            v = square[i] * alpha + weight * d * d  # overflows after d * d
            square[i] = v
            if centered:
                v = v - mean[i] * mean[i]
                v = 0 if v < 0 else v  # of a steady gradient, by rounding; NaN stays NaN
            d = d / (_sqrt(v) + eps)
            if moves:
                d = velocity[i] * momentum + d
                velocity[i] = d
            p[i] = p[i] - d * lr
        fl_fpu_leave(before)
    _end(&region)


def adagrad(real[::1] p not None, const real[::1] g not None, real[::1] total not None, *,
            real lr, real decay, real eps, int threads):
    """Update `p` and `total`.

    ::

        d = g + decay * p
        total = total + d^2
        p = p - lr * d / (sqrt(total) + eps)

    Parameters
    ----------
    p, g, total : (N,) contiguous arrays of float32 or float64
        The numbers below are first rounded to that type.
    lr, decay, eps : float
    threads : int
        At most so many; the result does not depend on it.
    """
    cdef Region region
    cdef fl_fpu before = 0
    cdef Py_ssize_t i, n = p.shape[0]
    cdef real d, v
    _check[real](g, n)
    _check[real](total, n)
    _begin(&region, ADAGRAD, n, threads)
    with nogil, parallel(num_threads=region.plan.workers):
        before = fl_fpu_enter()
        for i in prange(n, schedule="dynamic", chunksize=PIECE):
            d = _with_decay(g[i], p[i], decay)
            v = total[i] + d * d
            total[i] = v
            p[i] = p[i] - d / (_sqrt(v) + eps) * lr
        fl_fpu_leave(before)
    _end(&region)


def adam(real[::1] p not None, const real[::1] g not None, real[::1] mean not None,
         real[::1] square not None, real[::1] largest, *, real lr, real decay, real shrink,
         real weight, real beta2, real weight2, real eps, int threads):
    """Update `p`, `mean`, `square`, and `largest` if there is one.

    ::

        d = g + decay * p
        mean = mean + weight * (d - mean)
        square = beta2 * square + weight2 * d^2
        largest = max(largest, square)
        p = shrink * p - lr * mean / (sqrt(largest) + eps)

    Parameters
    ----------
    p, g, mean, square : (N,) contiguous arrays of float32 or float64
        The numbers below are first rounded to that type.
    largest : (N,) array or None
        None: the square is taken for it.
    lr, decay, shrink, weight, beta2, weight2, eps : float
        The weights are 1 - beta1 and 1 - beta2.
    threads : int
        At most so many; the result does not depend on it.
    """
    cdef Region region
    cdef fl_fpu before = 0
    cdef Py_ssize_t i, n = p.shape[0]
    cdef bint amsgrad = largest is not None, small = _is_small(weight)
    cdef real pull = weight if small else weight - 1
    cdef real d, m, v
    _check[real](g, n)
    _check[real](mean, n)
    _check[real](square, n)
    _check[real](largest, n)
    _begin(&region, ADAM, n, threads)
    with nogil, parallel(num_threads=region.plan.workers):
        before = fl_fpu_enter()
        for i in prange(n, schedule="dynamic", chunksize=PIECE):
            d = _with_decay(g[i], p[i], decay)
            m = _lerp(mean[i], d, pull, small)
            mean[i] = m
            v = square[i] * beta2 + weight2 * d * d  # overflows after d * d
            square[i] = v
            if amsgrad:
                v = largest[i] if largest[i] > v else v  # NaN if v is
                largest[i] = v
            p[i] = p[i] * shrink - m / (_sqrt(v) + eps) * lr
        fl_fpu_leave(before)
    _end(&region)


def sum_of_squares(const real[::1] vector not None, int threads):
    """Return the sum of the squares of a contiguous vector, added up in double precision.

    Sums of blocks are added in their order, so the result does not depend on `threads`.

    Examples
    --------
    >>> import numpy as np
    >>> sum_of_squares(np.array([3.0, 4.0]), threads=1)
    25.0
    """
    cdef Region region
    cdef fl_fpu before = 0
    cdef Py_ssize_t i, n = vector.shape[0], blocks = (n + BLOCK - 1) // BLOCK
    cdef double[::1] sums = np.empty(blocks)
    cdef double total = 0
    _begin(&region, SQUARES, n, threads)
    with nogil, parallel(num_threads=region.plan.workers):
        before = fl_fpu_enter()
        for i in prange(blocks, schedule="dynamic", chunksize=2):
            sums[i] = _sum_block(vector, i * BLOCK, min(n, (i + 1) * BLOCK))
        fl_fpu_leave(before)
    _end(&region)
    for i in range(blocks):
        total += sums[i]
    return total


cdef double _sum_block(const real[::1] vector, Py_ssize_t start, Py_ssize_t end) noexcept nogil:
    # The compiler may not reorder a sum: in one chain each addition would wait for the last.
    cdef double chains[CHAINS]
    cdef double x, total = 0
    cdef Py_ssize_t i, k, rows = (end - start) // CHAINS
    for k in range(CHAINS):
        chains[k] = 0
    for i in range(rows):
        for k in range(CHAINS):
            x = vector[start + i * CHAINS + k]
            chains[k] += x * x
    for k in range(CHAINS):
        total += chains[k]
    for i in range(start + rows * CHAINS, end):
        x = vector[i]
        total += x * x
    return total
