# Connectionist temporal classification: losses of rows of logits, and their gradients.

from libc.string cimport memset

from fastlstm._core.c_api cimport *
from fastlstm._core.interrupts cimport Interrupt, interrupt_for
from fastlstm._core.lengths cimport check_lengths
from fastlstm._core.library cimport Buffer, BufferCache, driver_of, find_isa, run_team, team_limits

import numpy as np


def loss(str isa, BufferCache cache not None, logits, lengths, targets, target_lengths,
         Py_ssize_t blank, nll, dlogits, int threads):
    """Forward and backward over all rows.

    Parameters
    ----------
    isa : str
    logits : (T, B, K) array, the last axis contiguous
    lengths : (B,) array of intp
        From 0 to T.
    targets : (B, S) array of intp, contiguous, S at least 1
        Symbols in [0, K) that are not the blank, as many as `target_lengths` says.
    target_lengths : (B,) array of intp
    blank : int
    nll : (B,) array
        Receives -log p(target), infinity where no path leads to it.
    dlogits : (T, B, K) array, contiguous
        Receives the gradients of the sum of nll, zeros where it is infinite.
    threads : int
    """
    if logits.dtype == np.float64:
        _loss[double](isa, cache, logits, lengths, targets, target_lengths, blank, nll, dlogits,
                      threads)
    else:
        _loss[float](isa, cache, logits, lengths, targets, target_lengths, blank, nll, dlogits,
                     threads)


cdef int _check_targets(const Py_ssize_t[:, ::1] targets, const Py_ssize_t[::1] lengths,
                        Py_ssize_t symbols, Py_ssize_t blank) except -1:
    cdef Py_ssize_t b, i
    if not 0 <= blank < symbols:
        raise ValueError(f"blank: expected a symbol from 0 to {symbols - 1}, got {blank}")
    for b in range(targets.shape[0]):
        for i in range(lengths[b]):
            if not 0 <= targets[b, i] < symbols:
                raise ValueError(f"targets: expected symbols from 0 to {symbols - 1}, "
                                 f"got {targets[b, i]}")
            if targets[b, i] == blank:
                raise ValueError(f"targets: expected symbols other than the blank, {blank}, "
                                 f"got it in row {b}")
    return 0


cdef int _loss(str isa, BufferCache cache, const real[:, :, :] logits,
               const Py_ssize_t[::1] lengths, const Py_ssize_t[:, ::1] targets,
               const Py_ssize_t[::1] target_lengths, Py_ssize_t blank, real[::1] nll,
               real[:, :, ::1] dlogits, int threads) except -1:
    cdef fl_ctc_call call
    cdef const fl_driver *driver = driver_of(real is double)
    cdef Py_ssize_t T = logits.shape[0], B = logits.shape[1], K = logits.shape[2]
    cdef Py_ssize_t b, S = targets.shape[1]
    cdef Buffer scratch
    cdef Interrupt interrupt
    memset(&call, 0, sizeof(call))
    if min(T, B, K, S) < 1 or (K > 1 and logits.strides[2] != sizeof(real)):
        raise ValueError("logits, targets: expected rows of adjacent elements, and some of them")
    if logits.strides[0] % sizeof(real) or logits.strides[1] % sizeof(real):
        raise ValueError("logits: expected whole elements between rows")
    if targets.shape[0] != B or nll.shape[0] != B or (
            dlogits.shape[0], dlogits.shape[1], dlogits.shape[2]) != (T, B, K):
        raise ValueError("targets, nll, dlogits: expected (B, S), (B,) and the shape of the logits")
    check_lengths(lengths, "lengths", T, B)
    check_lengths(target_lengths, "target_lengths", S, B)
    _check_targets(targets, target_lengths, K, blank)
    call.steps, call.batch, call.symbols, call.blank = T, B, K, blank
    call.logits = &logits[0, 0, 0]
    call.logits_step = logits.strides[0] // <Py_ssize_t>sizeof(real)
    call.logits_row = logits.strides[1] // <Py_ssize_t>sizeof(real)
    call.lengths, call.targets, call.targets_row = &lengths[0], &targets[0, 0], S
    call.target_lengths = &target_lengths[0]
    for b in range(B):
        call.most_targets = max(call.most_targets, target_lengths[b])
    call.nll, call.dlogits = &nll[0], &dlogits[0, 0, 0]
    call.kernels = find_isa(isa).f64 if real is double else find_isa(isa).f32
    driver.plan_ctc(&call, team_limits(threads))
    interrupt = interrupt_for(call.team.work)
    if interrupt is not None:
        call.interrupt = &interrupt.call
    scratch = cache.take(call.scratch_size * sizeof(real))
    call.scratch = scratch.data
    with nogil:
        run_team(driver.ctc, &call, &call.team)
    cache.give(scratch)
    if interrupt is not None:
        interrupt.end()
    return 0
