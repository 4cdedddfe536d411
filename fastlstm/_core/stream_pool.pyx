# Many streams on one set of weights: their states side by side, some of them run as a batch.

cimport numpy as cnp

from fastlstm._core.arguments cimport data_of, is_output, is_plain, new_output, overlap, stride_of
from fastlstm._core.batch_step cimport Block
from fastlstm._core.c_api cimport *
from fastlstm._core.library cimport team_limits
from fastlstm._core.locked_slots cimport LockedSlots
from fastlstm._core.packed_weights cimport PackedWeights

import numpy as np

from fastlstm._core import threads
from fastlstm._validation import check_size, convert, integer, shape_text, slot_numbers

cnp.import_array()

# Multiply-adds of a call.  With fewer than the first the planner takes one worker; with fewer than
# the second, giving the GIL away would take a good part of the time; with more than the third it
# takes a tenth of a second or so, and others should not have to wait for its end.
cdef enum:
    ONE_WORKER = 1 << 17
    KEEP_GIL = 1 << 20
    ONE_TURN = 1 << 30


cdef class StreamPool:
    """Many live streams of one layer; those that have input are advanced together, as a batch.

    A stream lives in a slot.  It has the bits it would have alone, whichever others are stepped
    with it and in whatever order.  Edits of the layer's parameters count from the next step on.

    All methods may be called by several threads at a time, and take turns.  A slot should belong
    to one of them, else the order of its steps is theirs.

    Parameters
    ----------
    layer : LSTM, GRU, RNN or SLSTM
        Of one direction.
    capacity : int
        How many streams can be open at a time.

    Attributes
    ----------
    layer : LSTM, GRU, RNN or SLSTM
    capacity : int
    open_slots : array of int
        In ascending order; ``len(pool)`` is their number.

    Raises
    ------
    TypeError, ValueError
        If the layer is none or bidirectional, or `capacity` is no positive integer.

    Notes
    -----
    Memory beside the layer's: 2*L*capacity*H values of states, 4*L*capacity*H of an `SLSTM`, and a
    work space of at most (2*L + min(L-1, 2))*k*H values, or 4*L, for the largest k that was stepped.  That of `run` is somewhat
    larger, but does not grow with the length of its blocks.  A pool cannot be pickled or copied; a
    stream moves to another one as ``other.open(pool.state(slot))``.

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
    cdef int _type
    cdef Py_ssize_t _inputs, _width, _weights  # of x, of y, and how many there are
    cdef LockedSlots _slots

    def __cinit__(self, layer, capacity):
        if not hasattr(layer, "_packed_weights"):
            raise TypeError(f"layer: expected a layer of fastlstm, got {type(layer).__name__}")
        if layer.bidirectional:
            raise ValueError("layer: expected one direction, got a bidirectional layer")
        capacity = integer(capacity, "capacity", 1)
        check_size(capacity * layer.num_layers * layer.hidden_size, layer.dtype, "capacity")
        self.layer, self.capacity = layer, capacity
        self._watch(layer.parameters)  # first: if others come, these get a new version
        self._slots = LockedSlots(layer._packed_weights(), self._arrays(None, capacity))
        self._type = cnp.NPY_FLOAT64 if layer.dtype == np.float64 else cnp.NPY_FLOAT32
        self._inputs, self._weights = layer.input_size, layer.parameters.size
        self._width = layer._output_size

    def __reduce__(self):
        raise TypeError("a StreamPool cannot be pickled or copied; open(pool.state(slot)) moves a "
                        "stream to another pool")

    def __repr__(self):
        return f"StreamPool({self.layer!r}, capacity={self.capacity}, open={len(self)})"

    def __len__(self):
        return self._slots.slots.count

    @property
    def open_slots(self):
        return self._slots.numbers()

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
        cdef list states = None if state is None else self._arrays(state)  # zero already
        cdef Py_ssize_t slot = self._slots.open(states)
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
        self._slots.close(self._number(slot))

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
        self._slots.move(self._number(slot), states, False)
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
        self._slots.move(self._number(slot), states, True)

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
        return self._run(x, slots, out, 0)

    def run(self, x, slots, out=None):
        """Advance some streams by a block of steps: T calls of `step` in one.

        Parameters
        ----------
        x : (T, k, I) array
        slots : (k,) array of int
            Of open slots, in any order, each once: x[:, j] is for the stream in slots[j].
        out : (T, k, Hout) array, optional
            C-contiguous, of the layer's dtype.  With it, and with `x` and `slots` as for `step`, a
            call allocates no memory unless T or k is larger than before, or it is a long one.

        Returns
        -------
        y : (T, k, Hout) array
            `out` if it was given.

        Raises
        ------
        TypeError, ValueError
            If `x` or `out` have the wrong dtype or shape, or `slots` are not open slots or have
            one of them twice.  Then no stream has moved.

        Notes
        -----
        A long call, of about a tenth of a second or more, is cut: in between other threads have
        their turns, and signals are handled.  If it ends there, by Ctrl-C or because one of its
        streams has been closed, the states are as they were before it, and what is in `out` is of
        no use.  Parameters that are edited meanwhile may count from a cut on.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> lstm = fastlstm.LSTM(2, 3, seed=0)
        >>> pool = fastlstm.StreamPool(lstm, capacity=4)
        >>> slots = np.array([pool.open() for _ in range(4)])
        >>> x = np.random.default_rng(0).random((64, 2, 2), np.float32)
        >>> y = pool.run(x, slots[2:])
        >>> bool((y[:, 1] == lstm.stream().run(x[:, 1])).all())
        True
        """
        return self._run(x, slots, out, 1)

    cdef object _run(self, object x, object slots, object out, int lead):
        """Of a step, or with 1 `lead` of a block."""
        cdef cnp.ndarray numbers = self._numbers(slots)
        cdef cnp.ndarray frames = self._input(x, numbers.shape[0], lead)
        cdef cnp.ndarray y = self._output(out, frames)
        cdef Block block
        block.k, block.steps = numbers.shape[0], frames.shape[0] if lead else 1
        if block.k == 0 or block.steps == 0:
            return y
        if overlap(frames, y):
            frames = frames.copy()
        block.slots = <const Py_ssize_t *>data_of(numbers)
        block.x, block.y = data_of(frames), data_of(y)
        block.x_step, block.x_row = stride_of(frames, 0), stride_of(frames, lead)

        cdef PackedWeights packed = None
        if self._watched[0] != self._slots.version:
            self._watch(self.layer.parameters)
            packed = self.layer._packed_weights()
        cdef double work = <double>(block.k + 1) * self._weights * block.steps
        cdef fl_team_limits limits = team_limits(1, live=True)
        if work > ONE_WORKER:
            limits = team_limits(threads.get_num_threads(), live=True)
        if work > ONE_TURN and block.steps > 1:
            self._slots.run_in_turns(&block, packed, limits, self._arrays(None, block.k),
                                     <Py_ssize_t>(ONE_TURN / work * block.steps))
        else:
            self._slots.run(&block, packed, limits, work > KEEP_GIL, NULL)
        return y

    cdef int _watch(self, parameters) except -1:
        self._parameters = parameters
        self._watched = <const long long *>cnp.PyArray_DATA(parameters._watched)
        return 0

    # Arguments.

    cdef list _arrays(self, state, rows=None):
        """New arrays of states, (L, ...) or (L, rows, ...): copies of a user's, or zeros."""
        shape = (self.layer.num_layers,) if rows is None else (self.layer.num_layers, rows)
        return self.layer._states.to_core(state, "state", shape)

    cdef Py_ssize_t _number(self, object slot) except -1:
        return integer(slot, "slot", 0, self.capacity - 1)

    cdef cnp.ndarray _numbers(self, object slots):
        """`slots`, or an array (k,) of the same numbers."""
        if is_plain(slots, cnp.NPY_INTP) and (<cnp.ndarray>slots).ndim == 1:
            return slots
        return slot_numbers(slots, "slots")

    cdef cnp.ndarray _input(self, object x, Py_ssize_t k, int lead):
        """`x`, or an array of its values whose features are adjacent."""
        if cnp.PyArray_CheckExact(x) and is_plain(x, self._type) and self._fits(x, k, lead):
            return x
        cdef cnp.ndarray array = convert(x, "x", self.layer.dtype)
        if not self._fits(array, k, lead):
            expected = f"({'T, ' if lead else ''}{k}, {self._inputs})"
            raise ValueError(f"x: expected {expected}, got {shape_text(np.shape(array))}")
        return array

    cdef bint _fits(self, cnp.ndarray x, Py_ssize_t k, int lead) noexcept:
        return (x.ndim == lead + 2 and x.shape[lead] == k and x.shape[lead + 1] == self._inputs)

    cdef cnp.ndarray _output(self, object out, cnp.ndarray x):
        """`out`, if it can take the results for `x`, or a new array."""
        if out is None:
            return new_output(x, self._width)
        if (is_plain(out, self._type) and is_output(out, x, self._width)
                and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)):
            return out
        shape = shape_text((*np.shape(x)[:x.ndim - 1], self._width))
        raise ValueError(f"out: expected a writable C-contiguous {self.layer.dtype} array {shape}")
