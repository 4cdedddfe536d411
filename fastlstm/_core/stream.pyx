# A layer step by step or block by block.  A step allocates nothing, takes no lock and packs no
# weights; a block of a length that has been planned allocates nothing.

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from libc.string cimport memcpy, memset

from fastlstm._core.arguments cimport data_of, is_plain, new_output, overlap, stride_of
from fastlstm._core.c_api cimport *
from fastlstm._core.holder cimport fl_holder, fl_take
from fastlstm._core.interrupts cimport Interrupt, interrupt_of
from fastlstm._core.library cimport Buffer, run_team, team_limits
from fastlstm._core.packed_weights cimport PackedWeights

import os

import numpy as np

from fastlstm._core import threads
from fastlstm._validation import convert, row_indices, shape_text

cnp.import_array()

# Multiply-adds of a block.  With fewer, giving the GIL away would take a good part of the time.
cdef enum:
    KEEP_GIL = 1 << 20


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

    Steps, blocks of any size and the whole sequence give the same bits.

    One thread at a time: while one is in a method, all methods raise ``RuntimeError`` in others.
    An edit of the layer's parameters counts from the next call on.  In a forked child a stream
    goes on from its last complete block; a step that another thread was in the middle of may have
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
    cdef list _states, _spare  # arrays (L, B, size), as in cells.h; a block runs in the spare ones
    cdef bint _release, _asks  # gives the GIL away for a step; asks how many workers it may have
    cdef fl_holder _holder
    cdef PackedWeights _packed
    cdef Buffer _scratch
    cdef fl_forward_call _call
    cdef Interrupt _interrupt
    cdef Py_ssize_t _batch, _inputs, _width, _weights  # of x, of y, and how many there are
    cdef int _type
    cdef int _threads, _most  # limits of the team that was planned; 0 threads: nothing is prepared

    def __cinit__(self, layer, *states):
        if layer.bidirectional:
            raise ValueError("stream: expected a layer of one direction, got a bidirectional one")
        self._batch = np.shape(states[0])[1] if np.ndim(states[0]) == 3 else 1
        state = layer._states.from_core(states)
        self.layer = layer
        self._states = layer._states.to_core(state, "state", (layer.num_layers, self._batch))
        self._type = cnp.NPY_FLOAT64 if layer.dtype == np.float64 else cnp.NPY_FLOAT32
        self._inputs, self._width = layer.input_size, self._states[0].shape[2]
        self._weights = layer.parameters.size
        self._interrupt = Interrupt()
        self._scratch = Buffer(0)
        self._prepare()
        self._plan(1)

    cdef int _prepare(self) except -1:
        """Take the layer's weights as they are now."""
        self._parameters = self.layer.parameters  # first: if others come, these get a new version
        self._version = <const long long *>cnp.PyArray_DATA(self._parameters._watched)
        cdef PackedWeights packed = self.layer._packed_weights()
        self._packed = packed
        self._threads = 0  # until there is a plan, too
        memset(&self._call, 0, sizeof(self._call))
        self._call.stack = packed.stack
        self._call.kernels = packed.kernels
        self._call.packed = packed.weights.data
        self._call.batch = self._batch
        self._call.y_step, self._call.y_row = self._batch * self._width, self._width
        self._run_in(self._states)
        # Small steps would spend a good part of their time giving the GIL away.
        self._release = packed.stack.layers * packed.stack.hidden * packed.stack.hidden > 1 << 18
        return 0

    cdef int _plan(self, Py_ssize_t steps) except -1:
        """Plan a call of so many steps."""
        cdef fl_team_limits limits = team_limits(2, live=True)
        self._threads = 0  # until all of it is done
        self._call.steps = steps
        limits.most = 1  # a second worker is not looked for, only whether it would pay
        self._packed.driver.plan_forward(&self._call, limits, False)
        self._asks = self._call.plan.team.wanted > 1
        limits = team_limits(get_num_threads(), live=True)
        if self._asks:
            self._packed.driver.plan_forward(&self._call, limits, False)
        cdef Py_ssize_t nbytes = self._call.plan.scratch * self._packed.itemsize
        if nbytes > self._scratch.nbytes:
            self._scratch = Buffer(nbytes)
        self._call.scratch = self._scratch.data
        self._threads, self._most = limits.threads, limits.most
        return 0

    cdef void _run_in(self, list states) noexcept:
        """Let calls start from these states, and change them."""
        cdef int i
        for i in range(self._packed.state_count):
            self._call.states[i] = data_of(states[i])

    cdef bint _fits(self, cnp.ndarray a, int lead, Py_ssize_t size) noexcept:
        """Whether it has the shape of a step, (size,) or (B, size), or with 1 `lead` of a block."""
        if a.ndim == lead + 1:
            return self._batch == 1 and a.shape[lead] == size
        return a.ndim == lead + 2 and a.shape[lead] == self._batch and a.shape[lead + 1] == size

    cdef str _expected(self, str steps, Py_ssize_t size):
        """Shapes that fit; `steps`: of a block, else empty."""
        rows = f"({steps}{self._batch}, {size})"
        if self._batch > 1:
            return rows
        return f"({steps}{size}) or {rows}" if steps else f"({size},) or {rows}"

    cdef cnp.ndarray _input(self, object x, int lead):
        """`x`, or an array of its values whose features are adjacent."""
        if (cnp.PyArray_CheckExact(x) and is_plain(x, self._type)
                and self._fits(x, lead, self._inputs)):
            return x
        name = "x" if lead else "x_t"
        cdef cnp.ndarray array = convert(x, name, self.layer.dtype)
        if not self._fits(array, lead, self._inputs):
            expected = self._expected("T, " if lead else "", self._inputs)
            raise ValueError(f"{name}: expected {expected}, got {shape_text(np.shape(array))}")
        return array

    cdef cnp.ndarray _output(self, object out, cnp.ndarray x, int lead):
        """`out`, if it can take the results for `x`, or a new array."""
        if out is None:
            return new_output(x, self._width)
        if (is_plain(out, self._type) and self._fits(out, lead, self._width)
                and (lead == 0 or (<cnp.ndarray>out).shape[0] == x.shape[0])
                and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)):
            return out
        expected = self._expected(f"{x.shape[0]}, " if lead else "", self._width)
        raise ValueError(f"out: expected a writable C-contiguous {self.layer.dtype} array "
                         f"{expected}")

    cdef cnp.ndarray _connect(self, cnp.ndarray x, cnp.ndarray y):
        """Let the call read x and write y; returns what it reads: a copy if they overlap."""
        if overlap(x, y):
            x = x.copy()
        self._call.x, self._call.y = data_of(x), data_of(y)
        self._call.x_step, self._call.x_row = stride_of(x, 0), stride_of(x, max(x.ndim - 2, 0))
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
        """Whether another team would be planned now."""
        cdef fl_team_limits now = team_limits(get_num_threads(), live=True)
        return now.threads != self._threads or now.most != self._most

    cdef int _refresh(self, Py_ssize_t steps) except -1:
        """See that the weights are those of now, and the plan one of so many steps."""
        if self._version[0] != self._packed.version or self._threads == 0:
            self._prepare()
        if self._threads == 0 or self._call.steps != steps or (
                self._asks and self._limits_differ()):
            self._plan(steps)
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
        cdef cnp.ndarray x = self._input(x_t, 0), y = self._output(out, x, 0)
        self._refresh(1)
        x = self._connect(x, y)
        self._run_call(self._release)
        return y

    cdef void _run_call(self, bint share_gil) noexcept:
        cdef fl_forward_call *call = &self._call
        cdef const fl_driver *driver = self._packed.driver
        if share_gil or call.plan.team.workers > 1:
            with nogil:
                run_team(driver.forward, call, &call.plan.team)
        else:
            run_team(driver.forward, call, &call.plan.team)

    def run(self, x, out=None):
        """Advance by a block of steps.

        Parameters
        ----------
        x : (T, B, I) array, or (T, I) if B = 1
        out : array like the result, optional
            C-contiguous, of the layer's dtype.  With it, and with `x` contiguous too, a call
            allocates no memory once one of as many steps, or of more, was made.

        Returns
        -------
        y : (T, B, Hout) array, or (T, Hout) if `x` is (T, I)
            `out` if it was given.

        Raises
        ------
        TypeError, ValueError
            If `x` or `out` have the wrong dtype or shape.
        RuntimeError
            If another thread is using the stream.

        Notes
        -----
        A block that is interrupted, as by Ctrl-C, leaves the state as it was before it; what is in
        `out` then is of no use.

        Examples
        --------
        Sound, in blocks that are as long as the buffers it comes in:

        >>> import numpy as np
        >>> import fastlstm
        >>> stream = fastlstm.LSTM(1, 40, seed=0).stream()
        >>> sound = np.zeros((6400, 1), np.float32)
        >>> y = np.empty((64, 40), np.float32)
        >>> for block in sound.reshape(-1, 64, 1):
        ...     y = stream.run(block, out=y)
        """
        self._enter()
        try:
            return self._run(x, out)
        finally:
            self._leave()

    cdef object _run(self, x, out):
        cdef cnp.ndarray block = self._input(x, 1), y = self._output(out, block, 1)
        cdef Py_ssize_t steps = block.shape[0]
        if steps == 0:
            return y
        self._refresh(steps)
        block = self._connect(block, y)
        cdef Interrupt interrupt
        try:
            self._run_in(self._copy_to_spare())
            interrupt = interrupt_of(&self._call.stack, steps, self._batch, self._interrupt)
            if interrupt is not None:
                self._call.interrupt = &interrupt.call
            self._run_call(<double>steps * self._batch * self._weights > KEEP_GIL)
            if interrupt is not None:
                interrupt.end()
            PyErr_CheckSignals()  # the last moment to leave the state as it was
            self._states, self._spare = self._spare, self._states
        finally:
            self._call.interrupt = NULL
            self._run_in(self._states)
        return y

    cdef list _copy_to_spare(self):
        """The spare states, a copy of the others."""
        cdef cnp.ndarray state
        cdef int i
        if self._spare is None:
            self._spare = [np.empty_like(state) for state in self._states]
        for i in range(self._packed.state_count):
            state = self._states[i]
            memcpy(data_of(self._spare[i]), data_of(state), cnp.PyArray_NBYTES(state))
        return self._spare

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

    def __repr__(self):
        return f"Stream({self.layer!r}, batch_size={self._batch})"

    def copy(self):
        """Return a stream of the same layer that goes on from the same state."""
        return Stream(self.layer, *self._copies())

    def __reduce__(self):
        return Stream, (self.layer, *self._copies())
