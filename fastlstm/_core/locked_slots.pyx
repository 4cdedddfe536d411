# The slots of a pool, the weights and the plan they are run with, and the lock that guards all of
# that: what is done with it held.
#
# It makes calls take turns.  While it is held no Python runs: a garbage collection might call back,
# from a finalizer that closes a slot, and wait for itself.

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    NOWAIT_LOCK, WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
    PyThread_release_lock, PyThread_type_lock,
)
from libc.stdlib cimport free
from libc.string cimport memcpy

from fastlstm._core.arguments cimport data_of
from fastlstm._core.batch_step cimport *
from fastlstm._core.c_api cimport *
from fastlstm._core.packed_weights cimport PackedWeights
from fastlstm._core.slots cimport *

import os
import weakref

import numpy as np

cnp.import_array()

# Another thread may have held a lock at a fork; in the child it does not exist to give it back.
_all = weakref.WeakSet()


def _after_fork():
    for slots in _all:
        (<LockedSlots>slots)._new_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef class LockedSlots:
    """Slots for streams of a layer.

    Parameters
    ----------
    packed : PackedWeights
    states : list of (L, capacity, Hout or H) contiguous arrays
        As in cells.h; zeros.
    """

    def __cinit__(self, PackedWeights packed not None, list states not None):
        cdef int i
        self._packed, self.version = packed, packed.version
        self._states = states
        self.slots.layers, self.slots.capacity = states[0].shape[:2]
        self.slots.state_count = addresses(states, self.slots.states)
        for i in range(self.slots.state_count):
            self.slots.row[i] = packed.state_size(i) * packed.itemsize
        if not allocate(&self.slots):
            raise MemoryError(f"capacity: no memory for {self.slots.capacity} slots")
        self._new_lock()
        _all.add(self)

    def __dealloc__(self):
        release(&self.slots)
        free(self._batch.work)
        if self._lock != NULL:
            PyThread_free_lock(self._lock)
        if self._turnstile != NULL:
            PyThread_free_lock(self._turnstile)

    cdef int _new_lock(self) except -1:
        self._lock, self._turnstile = PyThread_allocate_lock(), PyThread_allocate_lock()
        if self._lock == NULL or self._turnstile == NULL:
            raise MemoryError("pool: the system has no more locks")
        self._batch.call.batch = 0  # what was planned for a team: the child has none
        return 0

    cdef void _acquire(self) noexcept:
        if not PyThread_acquire_lock(self._lock, NOWAIT_LOCK):
            self._acquire_in_turn()

    cdef void _acquire_in_turn(self) noexcept:
        """Not before one who waits already: it stands in the turnstile until it has the lock.

        A thread that has just released the lock would otherwise have it again before the one that
        it woke.
        """
        with nogil:
            PyThread_acquire_lock(self._turnstile, WAIT_LOCK)
            PyThread_acquire_lock(self._lock, WAIT_LOCK)
            PyThread_release_lock(self._turnstile)

    cdef void _release(self) noexcept nogil:
        PyThread_release_lock(self._lock)

    cdef object numbers(self):
        """Those of the open slots."""
        cdef Py_ssize_t[::1] found = np.empty(self.slots.capacity, np.intp)
        cdef Py_ssize_t slot, n = 0
        self._acquire()
        for slot in range(self.slots.capacity):
            if self.slots.marks[slot] != CLOSED:
                found[n] = slot
                n += 1
        self._release()
        return np.array(found[:n])

    cdef Py_ssize_t open(self, list states) noexcept:
        """The number of a slot that was free, with these states, or zeros; or the capacity."""
        cdef Py_ssize_t slot
        cdef char *data[FL_MAX_STATES]
        if states is not None:
            addresses(states, data)
        self._acquire()
        slot = open_lowest(&self.slots)
        if slot < self.slots.capacity and states is not None:
            move_state(&self.slots, slot, data, True)
        self._release()
        return slot

    cdef int close(self, Py_ssize_t slot) except -1:
        """Free an open slot."""
        self._acquire()
        cdef bint is_open = self.slots.marks[slot] != CLOSED
        if is_open:
            close_slot(&self.slots, slot)
        self._release()
        return self._expect_open(is_open, slot)

    cdef int move(self, Py_ssize_t slot, list states, bint into) except -1:
        """Copy states into an open slot or out of it."""
        cdef char *data[FL_MAX_STATES]
        addresses(states, data)
        self._acquire()
        cdef bint is_open = self.slots.marks[slot] != CLOSED
        if is_open:
            move_state(&self.slots, slot, data, into)
        self._release()
        return self._expect_open(is_open, slot)

    cdef int run(self, const Block *block, PackedWeights packed, fl_team_limits limits,
                 bint share_gil, Moment *moment) except -1:
        """Advance some streams; without the GIL, if that is worth it.

        Parameters
        ----------
        packed : PackedWeights, or None
            Newer ones.
        moment : of these slots, or NULL
            At the first call the streams are kept in it; later ones must find the same.
        """
        cdef Py_ssize_t slot = 0
        cdef outcome found = self._run(block, packed, limits, share_gil, moment, &slot)
        if found == DONE:
            return 0
        if found == NO_MEMORY:
            raise MemoryError("slots: the work space for so many does not fit into memory")
        if found == TWICE:
            raise ValueError(f"slots: expected each slot once, got {slot} again")
        if found == NOT_OPEN:
            raise ValueError(f"slots: expected open slots, got {slot}, which is closed")
        raise ValueError(f"slots: expected slots from 0 to {self.slots.capacity - 1}, got {slot}")

    cdef int run_in_turns(self, const Block *whole, PackedWeights packed, fl_team_limits limits,
                          list states, Py_ssize_t steps) except -1:
        """Run a long block, so many steps at a time but at least one.

        `states`, one array (L, k, Hout or H) for each: where those of before are kept.
        """
        cdef long long[::1] openings = np.empty(whole.k, np.longlong)
        cdef Py_ssize_t[::1] numbers = np.empty(whole.k, np.intp)  # which nobody else writes
        cdef Moment moment
        cdef Block part = whole[0]
        cdef Py_ssize_t done = 0, size = self._packed.itemsize
        addresses(states, <char **>moment.states)
        moment.openings, moment.is_kept = &openings[0], False
        memcpy(&numbers[0], whole.slots, whole.k * sizeof(Py_ssize_t))
        part.slots = &numbers[0]
        try:
            while done < whole.steps:
                part.steps = min(max(steps, 1), whole.steps - done)
                part.x = whole.x + done * whole.x_step * size
                part.y = whole.y + done * whole.k * self._packed.state_size(0) * size
                self.run(&part, packed, limits, True, &moment)
                PyErr_CheckSignals()
                done += part.steps
        except BaseException:
            self._put_back(&part, &moment)
            raise
        return 0

    cdef int _expect_open(self, bint is_open, Py_ssize_t slot) except -1:
        if not is_open:
            raise ValueError(f"slot: expected an open slot, got {slot}, which is closed")
        return 0

    cdef outcome _run(self, const Block *block, PackedWeights packed, fl_team_limits limits,
                      bint share_gil, Moment *moment, Py_ssize_t *last) noexcept:
        """As `run`; `last`: the slot that a refusal is about."""
        if moment != NULL and moment.is_kept:
            self._acquire_in_turn()  # the next part of a long run
        else:
            self._acquire()
        # Versions grow: a thread that was overtaken on its way to the lock has older weights.
        if packed is not None and packed.version > self.version:
            self.version = packed.version
            self._packed, packed = packed, self._packed
            self._batch.call.batch = 0
        cdef outcome found = choose(&self.slots, block.slots, block.k, last)
        if found == DONE and moment != NULL:
            if moment.is_kept:
                found = are_those(&self.slots, block.k, moment, last)
            else:
                keep(&self.slots, block.k, moment)
        if found == DONE and not is_planned(&self._batch, block, limits):
            found = plan_step(&self._batch, &self.slots, self._packed, block, limits)
        if found != DONE:
            self._release()
            return found
        cdef fl_forward_call *call = &self._batch.call
        call.x, call.x_step, call.x_row = block.x, block.x_step, block.x_row
        call.y = block.y
        if share_gil:
            with nogil:
                run_step(&self._batch, &self.slots)
                self._release()  # first, because the GIL may be long in coming
        else:
            run_step(&self._batch, &self.slots)
            self._release()
        return DONE

    cdef void _put_back(self, const Block *block, Moment *moment) noexcept:
        """Make the streams what they were when they were kept, if they were."""
        if moment.is_kept:
            self._acquire()
            put_back(&self.slots, block.slots, block.k, moment)
            self._release()


cdef int addresses(list arrays, char **data) noexcept:
    """Where the arrays lie; returns their number."""
    cdef int i, count = len(arrays)
    for i in range(count):
        data[i] = data_of(arrays[i])
    return count
