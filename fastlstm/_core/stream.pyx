# A layer step by step.  A step allocates nothing, takes no lock and packs no weights.

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from libc.string cimport memset

from fastlstm._core.c_api cimport *
from fastlstm._core.library cimport ONE_WORKER, Buffer, BufferCache, run_team, team_limits
from fastlstm._core.packed_weights cimport PackedWeights

import os

import numpy as np

from fastlstm._core import threads
from fastlstm._core.sequence import forward
from fastlstm._validation import convert, row_indices, sequence

cnp.import_array()

cdef extern from *:
    """
    /* Who holds a stream: a process, or nobody, 0.  Under the GIL no thread can come between. */
    #ifdef Py_GIL_DISABLED
    #include <stdatomic.h>
    typedef atomic_int fl_holder;
    static int fl_take(fl_holder *holder, int free, int process)
    {
        return atomic_compare_exchange_strong(holder, &free, process);
    }
    #else
    typedef int fl_holder;
    static int fl_take(fl_holder *holder, int free, int process)
    {
        return *holder == free ? (*holder = process, 1) : 0;
    }
    #endif
    """
    ctypedef int fl_holder
    bint fl_take(fl_holder *holder, int free, int process) noexcept nogil


cdef int process = 1  # this one; its parents have lower numbers


def _after_fork():
    global process
    process += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef int get_num_threads() except -1:
    return threads.get_num_threads()


cdef class Stream:
    """A layer step by step, with its state kept in between; made by `LSTM.stream`.

    Steps, chunks of any size and the whole sequence give the same bits.

    One thread at a time: while one is in a method, all methods raise ``RuntimeError`` in others.
    An edit of the layer's parameters counts from the next call on.  In a forked child a stream
    goes on from its last complete chunk; a step that another thread was in the middle of may have
    left the state half-way, so `reset` it there.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> stream = fastlstm.LSTM(2, 3, seed=0).stream(batch_size=4)
    >>> y_t = np.empty((4, 3), np.float32)
    >>> stream.step(np.ones((4, 2), np.float32), out=y_t) is y_t
    True
    >>> stream.run(np.ones((10, 4, 2), np.float32)).shape
    (10, 4, 3)
    """

    cdef readonly object layer
    cdef object _parameters
    cdef const long long *_version  # of these parameters, as it is now
    cdef list _states  # arrays (L, B, size), as in cells.h
    cdef bint _release, _asks  # gives the GIL away; asks how many threads a step may use
    cdef fl_holder _holder
    cdef PackedWeights _packed
    cdef BufferCache _cache
    cdef Buffer _scratch, _memory
    cdef fl_forward_call *_call  # in _memory: it wants whole cache lines, which objects have not
    cdef int _type
    cdef int _threads, _most  # limits of the plan of a step; 0 threads: nothing is prepared

    def __cinit__(self, layer, *states):
        if layer.bidirectional:
            raise ValueError("stream: expected a layer of one direction, got a bidirectional one")
        batch = np.shape(states[0])[1] if np.ndim(states[0]) == 3 else 1
        state = layer._states.from_core(states)
        self.layer = layer
        self._states = layer._states.to_core(state, "state", (layer.num_layers, batch))
        self._cache = BufferCache()
        self._type = cnp.NPY_FLOAT64 if layer.dtype == np.float64 else cnp.NPY_FLOAT32
        self._memory = Buffer(sizeof(fl_forward_call))
        self._call = <fl_forward_call *>self._memory.data
        self._prepare()

    cdef int _prepare(self) except -1:
        """Take the layer's weights as they are now and plan a step."""
        cdef cnp.ndarray state
        cdef int i
        self._parameters = self.layer.parameters  # first: if others come, these get a new version
        self._version = <const long long *>cnp.PyArray_DATA(self._parameters._watched)
        cdef PackedWeights packed = self.layer._packed_weights()
        cdef int team = get_num_threads()
        self._packed = packed
        self._threads = 0  # until all of it is done
        memset(self._call, 0, sizeof(self._call[0]))
        self._call.stack = packed.stack
        self._call.kernels = packed.kernels
        self._call.packed = packed.weights.data
        for i in range(packed.state_count):
            state = self._states[i]
            self._call.states[i] = cnp.PyArray_DATA(state)
        self._call.steps, self._call.batch = 1, state.shape[1]
        self._call.x_row, self._call.y_row = packed.stack.input, packed.state_size(0)
        cdef fl_team_limits limits = team_limits(team, live=True)
        self._most = limits.most
        packed.driver.plan_forward(self._call, limits, False)
        self._scratch = Buffer(self._call.plan.scratch * packed.itemsize)
        self._call.scratch = self._scratch.data
        # With one thread nobody knows whether more would pay; for small steps they never do.
        cdef Py_ssize_t work = (self._call.batch + 1) * self._parameters.flat.size
        self._asks = self._call.plan.team.wanted > 1 or (team == 1 and work > ONE_WORKER)
        # Small steps would spend a good part of their time giving the GIL away.
        self._release = (self._call.plan.team.workers > 1 or
                         packed.stack.layers * packed.stack.hidden * packed.stack.hidden > 1 << 18)
        self._threads = team
        return 0

    cdef bint _is_plain(self, object a, Py_ssize_t size):
        """Whether `a` can be used as it is: an array (size,) or (B, size) of the right type."""
        if not cnp.PyArray_Check(a):
            return False
        cdef cnp.ndarray array = a
        if cnp.PyArray_TYPE(array) != self._type or not cnp.PyArray_ISCARRAY_RO(array):
            return False
        if array.ndim == 1:
            return self._call.batch == 1 and array.shape[0] == size
        return array.ndim == 2 and array.shape[0] == self._call.batch and array.shape[1] == size

    cdef str _expected(self, Py_ssize_t size):
        if self._call.batch == 1:
            return f"({size},) or (1, {size})"
        return f"({self._call.batch}, {size})"

    cdef object _convert(self, object x_t):
        cdef Py_ssize_t inputs = self._call.stack.input
        x = np.array(convert(x_t, "x_t", self.layer.dtype), order="C")
        if not self._is_plain(x, inputs):
            raise ValueError(f"x_t: expected {self._expected(inputs)}, got {np.shape(x_t)}")
        return x

    cdef int _enter(self) except -1:
        """Refuse a second thread until `_leave`: the first may be computing without the GIL."""
        if fl_take(&self._holder, 0, process):
            return 0
        cdef int holder = self._holder
        if holder and holder < process and fl_take(&self._holder, holder, process):
            self._threads = 0  # a thread of the parent had it at the fork: plan again
            return 0
        raise RuntimeError("stream: is in use by another thread; copy() makes one for each")

    cdef void _leave(self) noexcept:
        self._holder = 0

    cdef bint _limits_differ(self) except -1:
        """Whether a step would be planned for another team now."""
        cdef fl_team_limits now = team_limits(get_num_threads(), live=True)
        return now.threads != self._threads or now.most != self._most

    cdef int _refresh(self) except -1:
        """See that the weights and the plan are those of now."""
        if self._version[0] != self._packed.version or self._threads == 0 or (
                self._asks and self._limits_differ()):
            self._prepare()
        return 0

    def step(self, x_t, out=None):
        """Advance by one step.

        Parameters
        ----------
        x_t : (B, I) array, or (I,) if B = 1
        out : array like the result, optional
            C-contiguous, of the layer's dtype.  With it, and with `x_t` contiguous too, a call
            allocates no memory and takes no lock.

        Returns
        -------
        y_t : (B, Hout) array, or (Hout,) if `x_t` is (I,)
            `out` if it was given.

        Raises
        ------
        TypeError, ValueError
            If `x_t` or `out` have the wrong dtype or shape.
        RuntimeError
            If another thread is using the stream.
        """
        self._enter()
        try:
            return self._step(x_t, out)
        finally:
            self._leave()

    cdef object _step(self, x_t, out):
        self._refresh()
        cdef Py_ssize_t inputs = self._call.stack.input, width = self._call.y_row
        if not self._is_plain(x_t, inputs):
            x_t = self._convert(x_t)
        cdef cnp.ndarray x = x_t, y
        if out is None:
            shape = [width] if x.ndim == 1 else [self._call.batch, width]
            out = np.empty(shape, self.layer.dtype)
        elif not self._is_plain(out, width) or not cnp.PyArray_ISWRITEABLE(out):
            raise ValueError(f"out: expected a writable C-contiguous {self.layer.dtype} array "
                             f"{self._expected(width)}")
        y = out
        cdef char *x_data = <char *>cnp.PyArray_DATA(x)
        cdef char *y_data = <char *>cnp.PyArray_DATA(y)
        if x_data < y_data + cnp.PyArray_NBYTES(y) and y_data < x_data + cnp.PyArray_NBYTES(x):
            x_t = x_t.copy()
            x_data = <char *>cnp.PyArray_DATA(x_t)
        self._call.x, self._call.y = x_data, y_data
        self._run_step()
        return out

    cdef void _run_step(self) noexcept:
        cdef fl_forward_call *call = self._call
        cdef const fl_driver *driver = self._packed.driver
        if self._release:
            with nogil:
                run_team(driver.forward, call, &call.plan.team)
        else:
            run_team(driver.forward, call, &call.plan.team)

    def run(self, x):
        """Advance by a chunk of steps.

        Parameters
        ----------
        x : (T, B, I) array, or (T, I) if B = 1

        Returns
        -------
        y : (T, B, Hout) array, or (T, Hout) if `x` is (T, I)

        Raises
        ------
        TypeError, ValueError
            If `x` has the wrong dtype or shape.
        RuntimeError
            If another thread is using the stream.
        """
        x = sequence(x, "x", self.layer.input_size, self.layer.dtype, False)
        batch = self._call.batch
        if (x.ndim == 2 and batch != 1) or (x.ndim == 3 and x.shape[1] != batch):
            raise ValueError(f"x: expected (T, {batch}, {self.layer.input_size}), got {x.shape}")
        y = np.empty((*x.shape[:x.ndim - 1], self._states[0].shape[2]), self.layer.dtype)
        if not y.size:
            return y
        x3, y3 = (x[:, None], y[:, None]) if x.ndim == 2 else (x, y)
        self._enter()
        try:
            self._refresh()
            states = [state.copy() for state in self._states]
            forward(self._packed, self._cache, x3, None, None, y3, states, None, None, 0,
                    get_num_threads())
            PyErr_CheckSignals()  # the last moment to leave the state as it was
            self._set(states)
        finally:
            self._leave()
        return y

    @property
    def state(self):
        """(h, c), or h, (L, B, Hout) and (L, B, H): copies.  Assign to set it."""
        return self.layer._states.from_core(self._copies())

    @state.setter
    def state(self, value):
        states = self.layer._states.to_core(value, "state", self._states[0].shape[:2])
        self._enter()
        try:
            self._set(states)
        finally:
            self._leave()

    cdef int _set(self, list states) except -1:
        for kept, state in zip(self._states, states):
            cnp.PyArray_CopyInto(kept, state)
        return 0

    cdef list _copies(self):
        self._enter()
        try:
            return [state.copy() for state in self._states]
        finally:
            self._leave()

    def reset(self, rows=None):
        """Set the state of some rows to zero.

        Parameters
        ----------
        rows : int, sequence of int, slice, or (B,) array of bool, optional
            Default: all rows.

        Raises
        ------
        TypeError, ValueError
            If `rows` are not rows of this stream.
        RuntimeError
            If another thread is using the stream.
        """
        chosen = slice(None) if rows is None else row_indices(rows, "rows", self._states[0].shape[1])
        self._enter()
        try:
            for state in self._states:
                state[:, chosen] = 0
        finally:
            self._leave()

    def copy(self):
        """Return a stream of the same layer that goes on from the same state."""
        return Stream(self.layer, *self._copies())

    def __reduce__(self):
        return Stream, (self.layer, *self._copies())
