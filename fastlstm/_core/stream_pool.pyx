# Many streams on one set of weights: their states side by side, some of them stepped as a batch.
#
# A lock of the pool makes its calls take turns.  While it is held no Python runs: a garbage
# collection might call back, from a finalizer that closes a slot, and wait for itself.

cimport numpy as cnp
from cpython.pythread cimport (
    NOWAIT_LOCK, WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
    PyThread_release_lock, PyThread_type_lock,
)
from libc.stdlib cimport free

from fastlstm._core.batch_step cimport *
from fastlstm._core.c_api cimport *
from fastlstm._core.library cimport ONE_WORKER, Buffer, team_limits
from fastlstm._core.packed_weights cimport PackedWeights
from fastlstm._core.slots cimport *

import os
import weakref

import numpy as np

from fastlstm._core import threads
from fastlstm._validation import check_size, convert, integer, shape_text, slot_numbers

cnp.import_array()

# Multiply-adds of a step: with fewer, giving the GIL away would take a good part of the time.
cdef enum:
    KEEP_GIL = 1 << 20

# Another thread may have held a lock at a fork; in the child it does not exist to give it back.
_pools = weakref.WeakSet()


def _after_fork():
    for pool in _pools:
        (<StreamPool>pool)._new_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef class StreamPool:
    """Many live streams of one layer; those that have input are stepped together, as a batch.

    A stream lives in a slot.  It has the bits it would have alone, whichever others are stepped
    with it and in whatever order.  Edits of the layer's parameters count from the next step on.

    All methods may be called by several threads at a time, and take turns.  A slot should belong
    to one of them, else the order of its steps is theirs.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        Of one direction.
    capacity : int
        How many streams can be open at a time.

    Attributes
    ----------
    layer : LSTM, GRU or RNN
    capacity : int
    open_slots : array of int
        In ascending order; ``len(pool)`` is their number.

    Raises
    ------
    TypeError, ValueError
        If the layer is none or bidirectional, or `capacity` is no positive integer.

    Notes
    -----
    Memory beside the layer's: 2*L*capacity*H values of states, and a work space of at most
    (2*L + min(L-1, 2))*k*H values for the largest k that was stepped.  A pool cannot be pickled or
    copied; a stream moves to another one as ``other.open(pool.state(slot))``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> pool = fastlstm.StreamPool(fastlstm.LSTM(2, 3, seed=0), capacity=1000)
    >>> first, second, third = pool.open(), pool.open(), pool.open()
    >>> pool.step(np.ones((2, 2), np.float32), [third, first]).shape
    (2, 3)
    >>> pool.close(second)
    >>> len(pool), pool.open_slots
    (2, array([0, 2]))
    """

    cdef readonly object layer
    cdef readonly Py_ssize_t capacity
    cdef object __weakref__
    cdef object _parameters
    cdef const long long *_watched  # the version of these parameters, as it is now
    cdef list _states  # arrays (L, capacity, size), as in cells.h
    cdef int _type
    cdef Py_ssize_t _inputs, _width, _weights  # of x, of y, and how many there are
    cdef PyThread_type_lock _lock
    # What it guards:
    cdef Slots _slots
    cdef PackedWeights _packed
    cdef long _version  # of the packed weights
    cdef Buffer _memory
    cdef BatchStep _batch  # its call is in _memory: it wants whole cache lines, which objects have not

    def __cinit__(self, layer, capacity):
        cdef int i
        if not hasattr(layer, "_packed_weights"):
            raise TypeError(f"layer: expected a layer of fastlstm, got {type(layer).__name__}")
        if layer.bidirectional:
            raise ValueError("layer: expected one direction, got a bidirectional layer")
        capacity = integer(capacity, "capacity", 1)
        check_size(capacity * layer.num_layers * layer.hidden_size, layer.dtype, "capacity")
        self.layer, self.capacity = layer, capacity
        self._watch(layer.parameters)  # first: if others come, these get a new version
        self._packed = layer._packed_weights()
        self._version = self._packed.version
        self._memory = Buffer(sizeof(fl_forward_call))
        self._batch.call = <fl_forward_call *>self._memory.data
        self._type = cnp.NPY_FLOAT64 if layer.dtype == np.float64 else cnp.NPY_FLOAT32
        self._inputs, self._weights = layer.input_size, layer.parameters.flat.size
        self._width = self._packed.state_size(0)
        self._states = self._arrays(None, capacity)
        self._slots.capacity, self._slots.layers = capacity, layer.num_layers
        self._slots.state_count = _addresses(self._states, self._slots.states)
        for i in range(self._slots.state_count):
            self._slots.row[i] = self._packed.state_size(i) * self._packed.itemsize
        if not allocate(&self._slots):
            raise MemoryError(f"capacity: no memory for {capacity} slots")
        self._new_lock()
        _pools.add(self)

    def __dealloc__(self):
        release(&self._slots)
        free(self._batch.work)
        if self._lock != NULL:
            PyThread_free_lock(self._lock)

    def __reduce__(self):
        raise TypeError("a StreamPool cannot be pickled or copied; open(pool.state(slot)) moves a "
                        "stream to another pool")

    def __len__(self):
        return self._slots.count

    @property
    def open_slots(self):
        cdef Py_ssize_t[::1] found = np.empty(self.capacity, np.intp)
        cdef Py_ssize_t slot, n = 0
        self._acquire()
        for slot in range(self.capacity):
            if self._slots.marks[slot] != CLOSED:
                found[n] = slot
                n += 1
        self._release()
        return np.array(found[:n])

    def open(self, state=None):
        """Start a stream.

        Parameters
        ----------
        state : (h_0, c_0), or h_0, optional
            Each (L, H): as of a call of the layer without a batch.  Default: zeros.

        Returns
        -------
        slot : int
            The lowest that is free.

        Raises
        ------
        TypeError, ValueError
            If `state` has the wrong dtype or shape.
        RuntimeError
            If all slots are open.

        Examples
        --------
        A stream that goes on where a whole sequence ended:

        >>> import numpy as np
        >>> import fastlstm
        >>> gru = fastlstm.GRU(2, 3, seed=0)
        >>> y, h_n = gru(np.ones((10, 2), np.float32))
        >>> slot = fastlstm.StreamPool(gru, 8).open(h_n)
        """
        cdef Py_ssize_t slot
        cdef char *data[FL_MAX_STATES]
        cdef list states = None
        if state is not None:  # else it is zero already
            states = self._arrays(state)
            _addresses(states, data)
        self._acquire()
        slot = open_lowest(&self._slots)
        if slot < self.capacity and states is not None:
            move_state(&self._slots, slot, data, True)
        self._release()
        if slot == self.capacity:
            raise RuntimeError(f"pool: all {self.capacity} slots are open; close one first")
        return slot

    def close(self, slot):
        """End a stream; its slot is free for another one, which sees nothing of it.

        Parameters
        ----------
        slot : int

        Raises
        ------
        TypeError, ValueError
            If `slot` is not an open slot.
        """
        cdef Py_ssize_t number = self._enter(slot)
        close_slot(&self._slots, number)
        self._release()

    def reset(self, slot):
        """Set the state of a stream to zero.

        Parameters
        ----------
        slot : int

        Raises
        ------
        TypeError, ValueError
            If `slot` is not an open slot.
        """
        self.set_state(slot, None)

    def state(self, slot):
        """Return a copy of the state of a stream.

        Parameters
        ----------
        slot : int

        Returns
        -------
        (h, c), or h : arrays (L, H)

        Raises
        ------
        TypeError, ValueError
            If `slot` is not an open slot.
        """
        cdef list states = self._arrays(None)
        cdef char *data[FL_MAX_STATES]
        _addresses(states, data)
        cdef Py_ssize_t number = self._enter(slot)
        move_state(&self._slots, number, data, False)
        self._release()
        return self.layer._states.from_core(states)

    def set_state(self, slot, state):
        """Replace the state of a stream.

        Parameters
        ----------
        slot : int
        state : (h, c), or h, or None
            As for `open`.

        Raises
        ------
        TypeError, ValueError
            If `slot` is not an open slot, or `state` has the wrong dtype or shape.
        """
        cdef list states = self._arrays(state)
        cdef char *data[FL_MAX_STATES]
        _addresses(states, data)
        cdef Py_ssize_t number = self._enter(slot)
        move_state(&self._slots, number, data, True)
        self._release()

    def step(self, x, slots, out=None):
        """Advance some streams by one step each.

        Parameters
        ----------
        x : (k, I) array
        slots : (k,) array of int
            Of open slots, in any order, each once: row j of `x` is for the stream in slots[j].
        out : (k, Hout) array, optional
            C-contiguous, of the layer's dtype.  With it, with `x` contiguous too, and with
            contiguous `slots` of type ``np.intp``, a call allocates no memory unless k is larger
            than before.

        Returns
        -------
        y : (k, Hout) array
            `out` if it was given.

        Raises
        ------
        TypeError, ValueError
            If `x` or `out` have the wrong dtype or shape, or `slots` are not open slots or have
            one of them twice.  Then no stream has moved.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> lstm = fastlstm.LSTM(2, 3, seed=0)
        >>> pool = fastlstm.StreamPool(lstm, capacity=4)
        >>> slots = np.array([pool.open() for _ in range(4)])
        >>> x = np.random.default_rng(0).random((4, 2), np.float32)
        >>> y = pool.step(x, slots)
        >>> bool((y[2] == lstm.stream().step(x[2])).all())
        True
        """
        if not self._is_slots(slots):
            slots = slot_numbers(slots, "slots")
        cdef cnp.ndarray chosen = slots
        cdef Py_ssize_t k = chosen.shape[0], last = 0
        if not self._is_plain(x, k, self._inputs):
            x = self._convert(x, k)
        if out is None:
            out = np.empty((k, self._width), self.layer.dtype)
        elif not self._is_plain(out, k, self._width) or not cnp.PyArray_ISWRITEABLE(out):
            raise ValueError(f"out: expected a writable C-contiguous {self.layer.dtype} array "
                             f"({k}, {self._width})")
        if k == 0:
            return out
        cdef char *x_data = _data(x)
        cdef char *y_data = _data(out)
        if x_data < y_data + cnp.PyArray_NBYTES(out) and y_data < x_data + cnp.PyArray_NBYTES(x):
            x = x.copy()
            x_data = _data(x)

        cdef PackedWeights packed = None
        if self._watched[0] != self._version:
            self._watch(self.layer.parameters)
            packed = self.layer._packed_weights()
        cdef Py_ssize_t work = (k + 1) * self._weights
        cdef fl_team_limits limits = fl_team_limits(1, 1, 1, True)
        if work > ONE_WORKER:
            limits = team_limits(threads.get_num_threads(), live=True)
        self._acquire()
        # Versions grow: a thread that was overtaken on its way to the lock has older weights.
        if packed is not None and packed.version > self._version:
            self._version = packed.version
            self._packed, packed = packed, self._packed
            self._batch.call.batch = 0
        cdef outcome found = self._advance(
            <const Py_ssize_t *>cnp.PyArray_DATA(chosen), k, x_data, y_data, limits,
            work > KEEP_GIL, &last)
        if found != DONE:
            self._refuse(found, last)
        return out

    cdef int _watch(self, parameters) except -1:
        self._parameters = parameters
        self._watched = <const long long *>cnp.PyArray_DATA(parameters._watched)
        return 0

    # Arguments.

    cdef list _arrays(self, state, rows=None):
        """New arrays of states, (L, ...) or (L, rows, ...): copies of a user's, or zeros."""
        shape = (self.layer.num_layers,) if rows is None else (self.layer.num_layers, rows)
        return self.layer._states.to_core(state, "state", shape)

    cdef bint _is_slots(self, object a):
        """Whether `a` can be used as it is: an array (k,) of intp."""
        if not cnp.PyArray_Check(a):
            return False
        cdef cnp.ndarray array = a
        return (cnp.PyArray_TYPE(array) == cnp.NPY_INTP and cnp.PyArray_ISCARRAY_RO(array)
                and array.ndim == 1)

    cdef bint _is_plain(self, object a, Py_ssize_t rows, Py_ssize_t size):
        """Whether `a` can be used as it is: an array (rows, size) of the right type."""
        if not cnp.PyArray_Check(a):
            return False
        cdef cnp.ndarray array = a
        return (cnp.PyArray_TYPE(array) == self._type and cnp.PyArray_ISCARRAY_RO(array)
                and array.ndim == 2 and array.shape[0] == rows and array.shape[1] == size)

    cdef object _convert(self, object x, Py_ssize_t k):
        array = np.array(convert(x, "x", self.layer.dtype), order="C")
        if not self._is_plain(array, k, self._inputs):
            raise ValueError(f"x: expected ({k}, {self._inputs}), got {shape_text(np.shape(array))}")
        return array

    cdef int _refuse(self, outcome found, Py_ssize_t slot) except -1:
        if found == NO_MEMORY:
            raise MemoryError("slots: the work space for so many does not fit into memory")
        if found == TWICE:
            raise ValueError(f"slots: expected each slot once, got {slot} again")
        if found == NOT_OPEN:
            raise ValueError(f"slots: expected open slots, got {slot}, which is closed")
        raise ValueError(f"slots: expected slots from 0 to {self.capacity - 1}, got {slot}")

    cdef Py_ssize_t _enter(self, object slot) except -1:
        """The number of an open slot, with the lock held."""
        cdef Py_ssize_t number = integer(slot, "slot", 0, self.capacity - 1)
        self._acquire()
        if self._slots.marks[number] != CLOSED:
            return number
        self._release()
        raise ValueError(f"slot: expected an open slot, got {number}, which is closed")

    # The lock.

    cdef int _new_lock(self) except -1:
        self._lock = PyThread_allocate_lock()
        if self._lock == NULL:
            raise MemoryError("pool: the system has no more locks")
        self._batch.call.batch = 0  # what was planned for a team of the parent has its barrier
        return 0

    cdef void _acquire(self) noexcept:
        if not PyThread_acquire_lock(self._lock, NOWAIT_LOCK):
            with nogil:
                PyThread_acquire_lock(self._lock, WAIT_LOCK)

    cdef void _release(self) noexcept nogil:
        PyThread_release_lock(self._lock)

    # With the lock held.

    cdef outcome _advance(self, const Py_ssize_t *slots, Py_ssize_t k, char *x, char *y,
                          fl_team_limits limits, bint share_gil, Py_ssize_t *last) noexcept:
        """Step, and release the lock; without the GIL, if that is worth it."""
        cdef outcome found = choose(&self._slots, slots, k, last)
        if found == DONE and not is_planned(&self._batch, k, limits):
            found = plan_step(&self._batch, &self._slots, self._packed, k, limits)
        if found != DONE:
            self._release()
            return found
        self._batch.call.x, self._batch.call.y = x, y
        if share_gil:
            with nogil:
                run_step(&self._batch, &self._slots)
                self._release()  # first, because the GIL may be long in coming
        else:
            run_step(&self._batch, &self._slots)
            self._release()
        return DONE


cdef inline char *_data(object array) noexcept:
    return <char *>cnp.PyArray_DATA(array)


cdef int _addresses(list arrays, char **data) noexcept:
    """Where the arrays lie; returns their number."""
    cdef int i, count = len(arrays)
    for i in range(count):
        data[i] = _data(arrays[i])
    return count
