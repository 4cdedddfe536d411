# A conditional random field over rows of tags: losses and gradients, marginals, the best paths.

from libc.string cimport memset

from fastlstm._core.c_api cimport *
from fastlstm._core.interrupts cimport Interrupt, interrupt_for
from fastlstm._core.lengths cimport check_lengths
from fastlstm._core.library cimport Buffer, BufferCache, driver_of, find_isa, run_team, team_limits

import numpy as np


def loss(str isa, BufferCache cache not None, emissions, parameters, lengths, labels, nll,
         marginals, grads, int threads):
    """Forward and backward over all rows.

    Parameters
    ----------
    isa : str
    emissions : (T, B, K) array, the last axis contiguous
    parameters : (K * K + K + K,) array like it, contiguous
        Transitions (from, to), start and end.
    lengths : (B,) array of intp, or None
        From 0 to T.
    labels : (T, B) array of intp, contiguous, or None
        In [0, K), or 0 beyond the end of a row.
    nll : (B,) array
        Receives -log p(labels); without labels, log of the sum of e^score over all paths.
    marginals : (T, B, K) array, contiguous
        Receives the probability of each tag at each step, and with labels the gradients of the sum
        of nll with respect to the emissions.
    grads : array like `parameters`, or None
        With labels: receives theirs.
    threads : int
    """
    if emissions.dtype == np.float64:
        _run[double](isa, cache, emissions, parameters, lengths, labels, nll, marginals, grads,
                     None, threads)
    else:
        _run[float](isa, cache, emissions, parameters, lengths, labels, nll, marginals, grads,
                    None, threads)


def decode(str isa, BufferCache cache not None, emissions, parameters, lengths, path, int threads):
    """The tags of the best paths, written to `path`, (T, B) of intp; the rest as for `loss`."""
    if emissions.dtype == np.float64:
        _run[double](isa, cache, emissions, parameters, lengths, None, None, None, None, path,
                     threads)
    else:
        _run[float](isa, cache, emissions, parameters, lengths, None, None, None, None, path,
                    threads)


cdef int _check_labels(const Py_ssize_t[:, ::1] labels, Py_ssize_t steps, Py_ssize_t batch,
                       Py_ssize_t tags) except -1:
    cdef Py_ssize_t t, b
    if labels.shape[0] != steps or labels.shape[1] != batch:
        raise ValueError(f"labels: expected {(steps, batch)}")
    for t in range(steps):
        for b in range(batch):
            if not 0 <= labels[t, b] < tags:
                raise ValueError(f"labels: expected tags from 0 to {tags - 1}, got {labels[t, b]}")
    return 0


cdef int _run(str isa, BufferCache cache, const real[:, :, :] emissions,
              const real[::1] parameters, const Py_ssize_t[::1] lengths,
              const Py_ssize_t[:, ::1] labels, real[::1] nll, real[:, :, ::1] marginals,
              real[::1] grads, Py_ssize_t[:, ::1] path, int threads) except -1:
    cdef fl_crf_call call
    cdef const fl_driver *driver = driver_of(real is double)
    cdef Py_ssize_t T = emissions.shape[0], B = emissions.shape[1], K = emissions.shape[2]
    cdef Buffer scratch
    cdef Interrupt interrupt
    memset(&call, 0, sizeof(call))
    if min(T, B, K) < 1 or (K > 1 and emissions.strides[2] != sizeof(real)):
        raise ValueError("emissions: expected rows of adjacent elements, and some of them")
    if emissions.strides[0] % sizeof(real) or emissions.strides[1] % sizeof(real):
        raise ValueError("emissions: expected whole elements between rows")
    if parameters.shape[0] != K * (K + 2):
        raise ValueError(f"parameters: expected {K * (K + 2)} of them")
    call.steps, call.batch, call.tags = T, B, K
    call.emissions = &emissions[0, 0, 0]
    call.emissions_step = emissions.strides[0] // <Py_ssize_t>sizeof(real)
    call.emissions_row = emissions.strides[1] // <Py_ssize_t>sizeof(real)
    call.transitions, call.start = &parameters[0], &parameters[K * K]
    call.end = &parameters[K * K + K]
    if lengths is not None:
        check_lengths(lengths, "lengths", T, B)
        call.lengths = &lengths[0]
    if path is not None:
        if path.shape[0] != T or path.shape[1] != B:
            raise ValueError(f"path: expected {(T, B)}")
        call.path = &path[0, 0]
    else:
        if nll.shape[0] != B or (marginals.shape[0], marginals.shape[1],
                                 marginals.shape[2]) != (T, B, K):
            raise ValueError("nll, marginals: expected (B,) and the shape of the emissions")
        call.nll, call.marginals = &nll[0], &marginals[0, 0, 0]
    if labels is not None:
        _check_labels(labels, T, B, K)
        if grads.shape[0] != parameters.shape[0]:
            raise ValueError("grads: expected the shape of the parameters")
        call.labels, call.grads = &labels[0, 0], &grads[0]
    call.kernels = find_isa(isa).f64 if real is double else find_isa(isa).f32
    driver.plan_crf(&call, team_limits(threads))
    interrupt = interrupt_for(call.team.work)
    if interrupt is not None:
        call.interrupt = &interrupt.call
    scratch = cache.take(call.scratch_size * sizeof(real))
    call.scratch = scratch.data
    with nogil:
        run_team(driver.crf_decode if call.path != NULL else driver.crf, &call, &call.team)
    cache.give(scratch)
    if interrupt is not None:
        interrupt.end()
    return 0
