# What stream_pool uses of this one.

from cpython.pythread cimport PyThread_type_lock

from fastlstm._core.batch_step cimport BatchStep, Block
from fastlstm._core.c_api cimport fl_team_limits
from fastlstm._core.packed_weights cimport PackedWeights
from fastlstm._core.slots cimport Moment, Slots, outcome


cdef class LockedSlots:
    cdef object __weakref__
    cdef PyThread_type_lock _lock, _turnstile
    # What it guards:
    cdef Slots slots
    cdef list _states  # arrays (L, capacity, size), as in cells.h
    cdef PackedWeights _packed
    cdef long version  # of the packed weights
    cdef BatchStep _batch

    cdef int _new_lock(self) except -1
    cdef void _acquire(self) noexcept
    cdef void _acquire_in_turn(self) noexcept
    cdef void _release(self) noexcept nogil
    cdef object numbers(self)
    cdef Py_ssize_t open(self, list states) noexcept
    cdef int close(self, Py_ssize_t slot) except -1
    cdef int move(self, Py_ssize_t slot, list states, bint into) except -1
    cdef int _expect_open(self, bint is_open, Py_ssize_t slot) except -1
    cdef int run(self, const Block *block, PackedWeights packed, fl_team_limits limits,
                 bint share_gil, Moment *moment) except -1
    cdef int run_in_turns(self, const Block *whole, PackedWeights packed, fl_team_limits limits,
                          list states, Py_ssize_t steps) except -1
    cdef outcome _run(self, const Block *block, PackedWeights packed, fl_team_limits limits,
                      bint share_gil, Moment *moment, Py_ssize_t *last) noexcept
    cdef void _put_back(self, const Block *block, Moment *moment) noexcept
