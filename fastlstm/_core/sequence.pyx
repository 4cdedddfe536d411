# Layers over whole sequences: forward, backward.  Typed memoryviews in, one parallel region per
# call, no arithmetic.  It allocates what the C driver needs and is the last place that knows shapes.

from libc.string cimport memset

from fastlstm._core.c_api cimport *
from fastlstm._core.interrupts cimport Interrupt, interrupt_of
from fastlstm._core.library cimport (
    Buffer, BufferCache, driver_of, find_isa, run_team, team_limits,
)
from fastlstm._core.packed_weights cimport PackedWeights, StackConfig, dropout_of, shards_of

import numpy as np


cdef int _check_array(str name, const real[:, :, :] a, Py_ssize_t n0, Py_ssize_t n1,
                      Py_ssize_t n2) except -1:
    if a.shape[0] != n0 or a.shape[1] != n1 or a.shape[2] != n2:
        got = (a.shape[0], a.shape[1], a.shape[2])
        raise ValueError(f"{name}: expected {(n0, n1, n2)}, got {got}")
    if n2 > 1 and a.strides[2] != sizeof(real):
        raise ValueError(f"{name}: expected adjacent features")
    if a.strides[0] % sizeof(real) or a.strides[1] % sizeof(real):
        raise ValueError(f"{name}: expected strides of whole elements")
    return 0


cdef int _check(PackedWeights packed, const real[:, :, :] y, list states, void **addresses) except -1:
    """Everything the C side relies on; users get better messages before they come here.

    The addresses of the states are written.
    """
    cdef fl_stack *s = &packed.stack
    cdef Py_ssize_t steps = y.shape[0], batch = y.shape[1]
    cdef real[:, :, ::1] state
    cdef int i
    _check_array[real]("y", y, steps, batch, s.directions * packed.state_size(0))
    if steps == 0 or batch == 0:
        raise ValueError("y: expected at least one step and one row")
    if len(states) != packed.state_count:
        raise ValueError(f"states: expected {packed.state_count}, got {len(states)}")
    for i in range(packed.state_count):
        state = states[i]
        _check_array[real]("states", state, s.layers * s.directions, batch, packed.state_size(i))
        addresses[i] = &state[0, 0, 0]
    return 0


cdef fl_tokens _tokens(const Py_ssize_t[:, ::1] tokens, Py_ssize_t count, Py_ssize_t steps,
                       Py_ssize_t batch) except *:
    """Tokens for so many rows of a table; all have been checked to be below their number."""
    if tokens is None:
        return fl_tokens(NULL, 0)
    if tokens.shape[0] != steps or tokens.shape[1] != batch:
        raise ValueError("tokens: wrong shape")
    return fl_tokens(&tokens[0, 0], count)


cdef class Rows:
    """Rows of different lengths, and where their states are reset.

    Parameters
    ----------
    order : (B,) array of intp, or None
        The rows, longest first; None: all are as long as the call.
    lengths : (B,) array of intp, or None
        In that order, counted from the first step of the call.
    steps : int
    reset : (T, B) array of bool, or None
    """

    cdef const Py_ssize_t[::1] _order, _lengths, _starts
    cdef const unsigned char[:, ::1] _reset

    def __cinit__(self, order, lengths, Py_ssize_t steps, reset):
        self._order = self._lengths = self._starts = None
        self._reset = None
        if lengths is not None:
            self._order, self._lengths = order, lengths
            if (np.sort(order) != np.arange(len(lengths))).any() or (np.diff(lengths) > 0).any():
                raise ValueError("order, lengths: expected a permutation, the longest first")
            active = np.searchsorted(-lengths, -np.arange(steps))
            self._starts = np.concatenate([[0], np.cumsum(active)]).astype(np.intp)
        if reset is not None:
            self._reset = reset.view(np.uint8)

    cdef fl_rows _of(self, Py_ssize_t steps, Py_ssize_t batch) except *:
        cdef fl_rows rows = fl_rows(NULL, NULL, NULL, NULL)
        if self._lengths is not None:
            if self._lengths.shape[0] != batch or self._starts.shape[0] != steps + 1:
                raise ValueError("lengths: wrong shape")
            rows.order, rows.lengths = &self._order[0], &self._lengths[0]
            rows.starts = &self._starts[0]
        if self._reset is not None:
            if self._reset.shape[0] != steps or self._reset.shape[1] != batch:
                raise ValueError("reset: wrong shape")
            rows.reset = &self._reset[0, 0]
        return rows


def forward(PackedWeights packed not None, BufferCache cache not None, x, tokens, Rows rows, y,
            list states, Buffer tape, dropout, Py_ssize_t first_step, int threads):
    """Run all steps; y and states are written, states hold the initial ones before.

    Parameters
    ----------
    x : (T, B, I) array, features adjacent
    tokens : (T, B) array of intp, or None
        With it, x is a table (V, 1, I) of which the tokens are rows, or None: the unit matrix.
    rows : Rows, or None
    y : (T, B, D*Hout) array, features adjacent
    states : list of (L*D, B, Hout or H) contiguous arrays
        As in cells.h.
    tape : Buffer of ``tape_nbytes`` bytes, or None for inference
    dropout : (key, rate between layers, rate of recurrent dropout, batch, first_row), or None
        Only with a tape; the rows of the call are a part of a batch, as in fl_dropout.
    first_step : int
        Where the call stands in a longer one: for dropout and zoneout.
    threads : int
    """
    if packed.is_double:
        _forward[double](packed, cache, x, tokens, rows, y, states, tape, dropout_of(dropout),
                         first_step, threads)
    else:
        _forward[float](packed, cache, x, tokens, rows, y, states, tape, dropout_of(dropout),
                        first_step, threads)


cdef int _forward(PackedWeights packed, BufferCache cache, const real[:, :, :] x,
                  const Py_ssize_t[:, ::1] tokens, Rows rows, real[:, :, :] y, list states,
                  Buffer tape, fl_dropout dropout, Py_ssize_t first_step, int threads) except -1:
    cdef fl_forward_call call
    cdef const fl_driver *driver = packed.driver
    cdef Py_ssize_t size = sizeof(real)
    cdef Buffer scratch
    cdef Interrupt interrupt
    memset(&call, 0, sizeof(call))
    _check[real](packed, y, states, call.states)
    call.stack = packed.stack
    call.kernels = packed.kernels
    call.packed = packed.weights.data
    call.steps, call.batch, call.first_step = y.shape[0], y.shape[1], first_step
    call.tokens = _tokens(tokens, packed.stack.input if x is None else x.shape[0], call.steps,
                          call.batch)
    if rows is not None:
        call.rows = rows._of(call.steps, call.batch)
    if x is not None:
        _check_input[real]("x", x, tokens is not None, y, packed.stack.input)
        call.x, call.x_step, call.x_row = &x[0, 0, 0], x.strides[0] // size, x.strides[1] // size
        if tokens is not None:
            call.x_row = call.x_step
    call.y, call.y_step, call.y_row = &y[0, 0, 0], y.strides[0] // size, y.strides[1] // size
    if tape is not None:
        if tape.nbytes // size < driver.tape_size(&packed.stack, packed.kernels, call.steps,
                                                  call.batch, &dropout):
            raise ValueError("tape: too small")
        call.tape = tape.data
        call.dropout = dropout
    driver.plan_forward(&call, team_limits(threads), tape is not None)
    scratch = cache.take(call.plan.scratch * size)
    call.scratch = scratch.data
    interrupt = interrupt_of(&packed.stack, call.steps, call.batch)
    if interrupt is not None:
        call.interrupt = &interrupt.call
    with nogil:
        run_team(driver.forward, &call, &call.plan.team)
    cache.give(scratch)
    if interrupt is not None:
        interrupt.end()
    return 0


cdef int _check_input(str name, const real[:, :, :] x, bint is_table, const real[:, :, :] y,
                      Py_ssize_t size) except -1:
    """x or dx: a sequence like y, or a table."""
    if is_table:
        return _check_array[real](name, x, max(x.shape[0], 1), 1, size)
    return _check_array[real](name, x, y.shape[0], y.shape[1], size)


def backward(PackedWeights packed not None, BufferCache cache not None, x, tokens, Rows rows,
             Buffer tape not None, dropout, Py_ssize_t first_step, dy, list dstates, dx, grads,
             Buffer sums, boundary_dz, bint earlier, bint later, int threads, shards=None):
    """Back-propagate through all steps of a call of `forward`.

    A long sequence is back-propagated in calls, the last steps first.

    Parameters
    ----------
    x, tokens, rows, tape, dropout, first_step : as given to `forward`
    dy : (T, B, D*Hout) array, features adjacent
    dstates : list of arrays like states
        Gradients of the final states; replaced by those of the initial states.
    dx : array like x, features adjacent, or None if it is not wanted
    grads : (N,) array, or (S*N,) for S shards
        The gradients of the parameters are added to it.
    sums : Buffer of ``sums_nbytes`` bytes, zeros before the last steps, or None without tokens
        For each shard so many.
    boundary_dz : (L*D, B, 4H) contiguous array, or None if there is one call
    earlier, later : bool
        Whether there are calls for earlier steps, and were for later ones.
    threads : int
    shards : Shards, or None
        Their rows are those of the call.  With tokens, dx has a table for each, one after another.
    """
    if packed.is_double:
        _backward[double](packed, cache, x, tokens, rows, tape, dropout_of(dropout), first_step, dy,
                          dstates, dx, grads, sums, boundary_dz, earlier, later, threads, shards)
    else:
        _backward[float](packed, cache, x, tokens, rows, tape, dropout_of(dropout), first_step, dy,
                         dstates, dx, grads, sums, boundary_dz, earlier, later, threads, shards)


cdef int _backward(PackedWeights packed, BufferCache cache, const real[:, :, :] x,
                   const Py_ssize_t[:, ::1] tokens, Rows rows, Buffer tape,
                   fl_dropout dropout, Py_ssize_t first_step, const real[:, :, :] dy,
                   list dstates, real[:, :, :] dx, real[::1] grads, Buffer sums,
                   real[:, :, ::1] boundary_dz, bint earlier, bint later, int threads,
                   shards) except -1:
    cdef fl_backward_call call
    cdef const fl_driver *driver = packed.driver
    cdef Py_ssize_t size = sizeof(real), count = packed.stack.input if x is None else x.shape[0]
    cdef Buffer scratch
    cdef Interrupt interrupt
    cdef fl_shards cut = shards_of(shards)
    cdef Py_ssize_t parts = max(cut.count, 1)
    if packed.for_backward is None:
        raise ValueError("packed: expected weights for backward too")
    memset(&call, 0, sizeof(call))
    _check[real](packed, dy, dstates, call.dstates)
    call.stack = packed.stack
    call.kernels = packed.kernels
    call.packed = packed.for_backward.data
    call.steps, call.batch, call.first_step = dy.shape[0], dy.shape[1], first_step
    call.tokens = _tokens(tokens, count, call.steps, call.batch)
    if rows is not None:
        call.rows = rows._of(call.steps, call.batch)
    if x is not None:
        _check_input[real]("x", x, tokens is not None, dy, packed.stack.input)
        call.x, call.x_step, call.x_row = &x[0, 0, 0], x.strides[0] // size, x.strides[1] // size
        if tokens is not None:
            call.x_row = call.x_step
    call.dy, call.dy_step, call.dy_row = &dy[0, 0, 0], dy.strides[0] // size, dy.strides[1] // size
    if dx is not None and x is not None:
        tables = 1 if tokens is None else parts
        _check_array[real]("dx", dx, tables * x.shape[0], x.shape[1], x.shape[2])
        call.dx = &dx[0, 0, 0]
        call.dx_step, call.dx_row = dx.strides[0] // size, dx.strides[1] // size
        if tokens is not None:
            call.dx_row = call.dx_step
    if tape.nbytes // size < driver.tape_size(&packed.stack, packed.kernels, call.steps,
                                              call.batch, &dropout):
        raise ValueError("tape: too small")
    if grads.shape[0] != parts * driver.parameters_size(&packed.stack):
        raise ValueError("grads: wrong size")
    if cut.count and cut.starts[cut.count] != call.batch:
        raise ValueError("shards: expected those of all rows")
    call.tape = tape.data
    call.dropout = dropout
    call.shards = cut
    call.grads = &grads[0]
    if tokens is not None:
        if sums is None or sums.nbytes < parts * packed.sums_nbytes(count):
            raise ValueError("sums: too small")
        call.sums = sums.data
    if boundary_dz is not None:
        _check_array[real]("boundary_dz", boundary_dz,
                           packed.stack.layers * packed.stack.directions, call.batch,
                           4 * packed.stack.hidden)
        call.boundary_dz = &boundary_dz[0, 0, 0]
    elif earlier or later:
        raise ValueError("boundary_dz: expected an array")
    call.earlier, call.later = earlier, later
    driver.plan_backward(&call, team_limits(threads))
    scratch = cache.take(call.plan.scratch * size)
    call.scratch = scratch.data
    interrupt = interrupt_of(&packed.stack, call.steps, call.batch)
    if interrupt is not None:
        call.interrupt = &interrupt.call
    with nogil:
        run_team(driver.backward, &call, &call.plan.team)
    cache.give(scratch)
    if interrupt is not None:
        interrupt.end()
    return 0


def read_tape(PackedWeights packed not None, Buffer tape not None, Rows rows, Py_ssize_t layer,
              Py_ssize_t direction, int field, out):
    """Copy gates or states of a call of `forward` without dropout, for all steps.

    Parameters
    ----------
    tape, rows : as given to `forward`
    layer, direction : int
    field : int
        A gate slot, 0 to 3, or 4 and more: a state, in the order of cells.h.
    out : (T, B, H) contiguous array, (T, B, Hout) for the hidden state
        Of the steps and rows of that call.  Left as it is beyond the end of a row.
    """
    if packed.is_double:
        _read_tape[double](packed, tape, rows, layer, direction, field, out)
    else:
        _read_tape[float](packed, tape, rows, layer, direction, field, out)


cdef int _read_tape(PackedWeights packed, Buffer tape, Rows rows, Py_ssize_t layer, Py_ssize_t direction,
                    int field, real[:, :, ::1] out) except -1:
    cdef fl_forward_call call
    cdef fl_stack *s = &packed.stack
    memset(&call, 0, sizeof(call))
    call.stack, call.kernels = packed.stack, packed.kernels
    call.steps, call.batch = out.shape[0], out.shape[1]
    if rows is not None:
        call.rows = rows._of(call.steps, call.batch)
    is_hidden = field == FL_TRACE_STATES
    if (out.shape[2] != (packed.state_size(0) if is_hidden else s.hidden) or
            not 0 <= layer < s.layers or not 0 <= direction < s.directions or
            not 0 <= field < FL_TRACE_STATES + packed.state_count or
            tape.nbytes < packed.tape_nbytes(call.steps, call.batch, None)):
        raise ValueError("out, layer, direction, field, tape: do not match")
    call.tape = tape.data
    if out.size:
        packed.driver.read_tape(&call, layer, direction, field, &out[0, 0, 0])
    return 0


def plan(str isa, StackConfig config not None, bint is_double, Py_ssize_t steps, Py_ssize_t batch,
         dropout, bint training, int threads):
    """How calls would be shared and cut, without any: forward and, for training, backward.

    Parameters
    ----------
    steps, batch : int
        At least 1.
    dropout, threads : as for `forward`
    training : bool

    Returns
    -------
    list of dict
        The fields of fl_plan and its team that the text needs, with those that `_plan_fields`
        adds; sizes in bytes.
    """
    cdef fl_forward_call forward
    cdef fl_backward_call backward
    cdef const fl_isa *found = find_isa(isa)
    cdef const void *kernels = found.f64 if is_double else found.f32
    cdef const fl_driver *driver = driver_of(is_double)
    cdef const fl_stack *stack = &config.stack
    cdef fl_dropout choices = dropout_of(dropout)
    cdef fl_team_limits limits = team_limits(threads)
    cdef Py_ssize_t size = 8 if is_double else 4
    memset(&forward, 0, sizeof(forward))
    forward.stack, forward.kernels, forward.dropout = config.stack, kernels, choices
    forward.steps, forward.batch = steps, batch
    driver.plan_forward(&forward, limits, training)
    of_forward = _plan_fields(&forward.plan, &limits, stack, steps, batch)
    parts = forward.plan.team.workers if forward.plan.split_units else 1
    blocks = (forward.plan.blocks + parts - 1) // parts  # of a worker
    of_forward["tile"] = driver.tile_size(kernels, of_forward["rows"], blocks)
    of_forward["weights"] = driver.forward_size(stack, kernels) * size
    of_forward["scratch"] *= size
    if not training:
        return [of_forward]
    of_forward["tape"] = driver.tape_size(stack, kernels, steps, batch, &choices) * size
    memset(&backward, 0, sizeof(backward))
    backward.stack, backward.kernels, backward.dropout = config.stack, kernels, choices
    backward.steps, backward.batch = steps, batch
    driver.plan_backward(&backward, limits)
    of_backward = _plan_fields(&backward.plan, &limits, stack, steps, batch)
    of_backward["weights"] = driver.backward_size(stack, kernels) * size
    of_backward["scratch"] *= size
    return [of_forward, of_backward]


cdef dict _plan_fields(const fl_plan *plan, const fl_team_limits *limits, const fl_stack *stack,
                       Py_ssize_t steps, Py_ssize_t batch):
    """A plan, with what it was made for; rows: of a worker, at most."""
    cdef dict fields = plan[0]
    fields.update(fields.pop("team"))
    fields.update(threads=limits.threads, most=limits.most, layers=stack.layers,
                  directions=stack.directions, steps=steps, batch=batch)
    fields["rows"] = batch if plan.split_units else (batch + plan.team.workers - 1) // plan.team.workers
    return fields
