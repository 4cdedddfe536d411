# The binding: typed memoryviews in, one parallel region per call, no arithmetic.
# It allocates what the C driver needs and is the last place that knows shapes.

cimport cython
cimport numpy as cnp
from cython.parallel cimport parallel, threadid
from libc.stdint cimport uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

import time

import numpy as np

from fastlstm import _processors
from fastlstm._arrays import convert, row_indices, sequence
from fastlstm._arrays import state as check_state

cnp.import_array()

ctypedef fused real:
    float
    double

cdef extern from *:
    """
    #if defined(__linux__)
    #include <sys/mman.h>
    /* Large weights and tapes on pages of 2 MiB: fewer page faults and TLB misses. */
    static void fl_advise(void *p, size_t n) { if (n >= (4u << 20)) madvise(p, n, MADV_HUGEPAGE); }
    #else
    static void fl_advise(void *p, size_t n) { (void)p; (void)n; }
    #endif
    """
    void fl_advise(void *p, size_t n) nogil

cdef extern from *:
    """
    #if defined(__clang__)
    #define FL_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define FL_COMPILER "gcc " __VERSION__
    #else
    #define FL_COMPILER "unknown"
    #endif
    """
    const char *FL_COMPILER


cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX


def isas():
    """Names of the instruction sets this CPU can run, best first."""
    names, i = [], 0
    while fl_isa_at(i) != NULL:
        names.append(fl_isa_at(i).name.decode())
        i += 1
    return names


cdef int _num_threads() except -1:
    from fastlstm._config import get_num_threads

    return get_num_threads()


# More workers than that never meet after each step.
PROCESSORS = _processors.count()


cdef fl_team_limits _limits(int threads) except *:
    cdef int processors = PROCESSORS
    return fl_team_limits(threads, processors)


def has_openmp():
    """Whether this build can use more than one thread."""
    return bool(fl_has_openmp())


def compiler():
    """Name and version of the compiler that built the kernels."""
    return FL_COMPILER.decode()


cdef const fl_isa *_find_isa(str name) except NULL:
    cdef int i = 0
    cdef const fl_isa *found = fl_isa_at(0)  # asks the CPU, which takes 10 us in a virtual machine
    while found != NULL:
        if found.name.decode() == name:
            return found
        i += 1
        found = fl_isa_at(i)
    raise ValueError(f"isa: expected one of {', '.join(isas())}, got {name!r}")


cdef enum:
    PARALLEL_PACKING = 1 << 20  # bytes: less takes less time than waking a second thread


cdef class Buffer:
    """Aligned memory, freed with the object."""

    cdef void *_start
    cdef void *data
    cdef readonly Py_ssize_t nbytes

    def __cinit__(self, Py_ssize_t nbytes):
        cdef Py_ssize_t align = 2 << 20 if nbytes >= 4 << 20 else FL_ALIGN
        if nbytes < 0 or nbytes > PY_SSIZE_T_MAX - align:
            raise MemoryError("this call needs more memory than can be addressed")
        self._start = malloc(nbytes + align)
        if self._start == NULL:
            raise MemoryError(f"this call needs {nbytes} bytes of work space")
        self.data = <void *>((<uintptr_t>self._start + align - 1) // align * align)
        self.nbytes = nbytes
        fl_advise(self.data, nbytes)

    def clear(self):
        """Set all of it to zero."""
        memset(self.data, 0, self.nbytes)

    def __dealloc__(self):
        free(self._start)


cdef class Pool:
    """Keeps the largest two of the buffers given back, so that memory stays flat over calls.

    Each call takes a buffer of its own: one layer may be used by many threads at a time.  Two,
    because the tape of a training step is alive until that of the next one takes its name.
    """

    cdef Buffer _larger, _smaller

    def take(self, Py_ssize_t nbytes):
        """A kept buffer that is large enough, the smaller if both are, or a new one."""
        cdef Buffer buffer
        with cython.critical_section(self):
            if self._smaller is not None and self._smaller.nbytes >= nbytes:
                buffer, self._smaller = self._smaller, None
            elif self._larger is not None and self._larger.nbytes >= nbytes:
                buffer, self._larger, self._smaller = self._larger, self._smaller, None
            else:
                buffer = None
        return Buffer(nbytes) if buffer is None else buffer

    def give(self, Buffer buffer not None):
        """Keep it, or the two larger ones."""
        with cython.critical_section(self):
            if self._larger is None or self._larger.nbytes < buffer.nbytes:
                self._larger, buffer = buffer, self._larger
            if buffer is not None and (
                    self._smaller is None or self._smaller.nbytes < buffer.nbytes):
                self._smaller = buffer


cdef class Packed:
    """The weights of a stack of layers in the layout of one instruction set; immutable.

    Parameters
    ----------
    isa : str
    layers, directions, input_size, hidden_size : int
    bias : bool
    flat : (N,) array of float32 or float64
    threads : int
    """

    cdef fl_shape shape
    cdef const fl_engine *engine
    cdef const void *kernels
    cdef readonly bint is_double
    cdef readonly object flat
    cdef readonly Py_ssize_t itemsize
    cdef Buffer _forward, _backward

    def __cinit__(self, str isa, Py_ssize_t layers, Py_ssize_t directions, Py_ssize_t input_size,
                  Py_ssize_t hidden_size, bint bias, flat, int threads):
        cdef const fl_isa *found = _find_isa(isa)
        self.shape = fl_shape(layers, directions, input_size, hidden_size, bias)
        self.is_double = flat.dtype == np.float64
        self.itemsize = 8 if self.is_double else 4
        self.engine = &fl_engine_f64 if self.is_double else &fl_engine_f32
        self.kernels = found.f64 if self.is_double else found.f32
        if flat.shape[0] != self.engine.parameters_size(&self.shape):
            raise ValueError("flat: wrong size")
        self.flat = flat
        self._forward = self._pack(False, threads)

    cdef const void *_flat_data(self) except NULL:
        cdef const float[::1] f32
        cdef const double[::1] f64
        if self.is_double:
            f64 = self.flat
            return &f64[0]
        f32 = self.flat
        return &f32[0]

    cdef Buffer _pack(self, bint backward, int threads):
        cdef const fl_engine *engine = self.engine
        cdef const fl_shape *shape = &self.shape
        cdef const void *kernels = self.kernels
        cdef const void *flat = self._flat_data()
        size = (engine.backward_size if backward else engine.forward_size)(shape, kernels)
        cdef Buffer to = Buffer(size * self.itemsize)
        cdef int workers = threads if to.nbytes >= PARALLEL_PACKING else 1
        with nogil:
            if workers == 1:
                (engine.pack_backward if backward else engine.pack_forward)(
                    shape, kernels, flat, to.data, 0, 1)
            else:
                with parallel(num_threads=workers):
                    (engine.pack_backward if backward else engine.pack_forward)(
                        shape, kernels, flat, to.data, threadid(), fl_team_size())
        return to

    cdef Buffer _for_backward(self, int threads):
        if self._backward is None:
            self._backward = self._pack(True, threads)
        return self._backward

    def tape_nbytes(self, Py_ssize_t steps, Py_ssize_t batch, bint dropout):
        """Bytes of a tape for so many steps and rows."""
        cdef Py_ssize_t size = self.engine.tape_size(&self.shape, self.kernels, steps, batch,
                                                     dropout)
        return size * self.itemsize

    def sums_nbytes(self, Py_ssize_t count):
        """Bytes of the sums that `backward` needs for so many tokens."""
        return self.engine.sums_size(&self.shape, count) * self.itemsize

    def segment(self, Py_ssize_t batch):
        """Steps of which calls of `backward` for parts of a sequence hold a whole number."""
        return self.engine.segment(batch)


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


cdef int _check(fl_shape *s, const real[:, :, :] y, const real[:, :, :] h,
                const real[:, :, :] c) except -1:
    """Everything the C side relies on; users get better messages before they come here."""
    cdef Py_ssize_t steps = y.shape[0], batch = y.shape[1], states = s.layers * s.directions
    _check_array[real]("y", y, steps, batch, s.directions * s.hidden)
    _check_array[real]("h", h, states, batch, s.hidden)
    _check_array[real]("c", c, states, batch, s.hidden)
    if steps == 0 or batch == 0:
        raise ValueError("y: expected at least one step and one row")
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
    """Rows of different lengths, and where their states start anew.

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
            alive = np.searchsorted(-lengths, -np.arange(steps))
            self._starts = np.concatenate([[0], np.cumsum(alive)]).astype(np.intp)
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


def forward(Packed packed not None, Pool pool not None, x, tokens, Rows rows, y, h, c, Buffer tape,
            double rate, uint64_t key, Py_ssize_t first_step, int threads):
    """Run all steps; y, h and c are written, h and c hold the initial state before.

    Parameters
    ----------
    x : (T, B, I) array, features adjacent
    tokens : (T, B) array of intp, or None
        With it, x is a table (V, 1, I) of which the tokens are rows, or None: the unit matrix.
    rows : Rows, or None
    y : (T, B, D*H) array, features adjacent
    h, c : (L*D, B, H) contiguous arrays
    tape : Buffer of ``tape_nbytes`` bytes, or None for inference
    rate, key, first_step : dropout between layers, only with a tape
    threads : int
    """
    if packed.is_double:
        _forward[double](packed, pool, x, tokens, rows, y, h, c, tape, rate, key, first_step,
                         threads)
    else:
        _forward[float](packed, pool, x, tokens, rows, y, h, c, tape, rate, key, first_step,
                        threads)


cdef int _forward(Packed packed, Pool pool, const real[:, :, :] x, const Py_ssize_t[:, ::1] tokens,
                  Rows rows, real[:, :, :] y, real[:, :, ::1] h, real[:, :, ::1] c, Buffer tape, double rate,
                  uint64_t key, Py_ssize_t first_step, int threads) except -1:
    cdef fl_forward_call call
    cdef const fl_engine *engine = packed.engine
    cdef Py_ssize_t size = sizeof(real)
    cdef Buffer scratch
    cdef int workers
    _check[real](&packed.shape, y, h, c)
    memset(&call, 0, sizeof(call))
    call.shape = packed.shape
    call.kernels = packed.kernels
    call.packed = packed._forward.data
    call.steps, call.batch, call.first_step = y.shape[0], y.shape[1], first_step
    call.tokens = _tokens(tokens, packed.shape.input if x is None else x.shape[0], call.steps,
                          call.batch)
    if rows is not None:
        call.rows = rows._of(call.steps, call.batch)
    if x is not None:
        _check_input[real]("x", x, tokens is not None, y, packed.shape.input)
        call.x, call.x_step, call.x_row = &x[0, 0, 0], x.strides[0] // size, x.strides[1] // size
        if tokens is not None:
            call.x_row = call.x_step
    call.y, call.y_step, call.y_row = &y[0, 0, 0], y.strides[0] // size, y.strides[1] // size
    call.h, call.c = &h[0, 0, 0], &c[0, 0, 0]
    if tape is not None:
        if tape.nbytes < packed.tape_nbytes(call.steps, call.batch, rate > 0):
            raise ValueError("tape: too small")
        call.tape = tape.data
        call.dropout = fl_dropout(key, rate)
    engine.plan_forward(&call, _limits(threads), tape is not None)
    scratch = pool.take(call.plan.scratch * size)
    call.scratch = scratch.data
    workers = call.plan.workers
    with nogil:
        if workers == 1:
            engine.forward(&call, 0, 1)
        else:
            with parallel(num_threads=workers):
                engine.forward(&call, threadid(), fl_team_size())
    pool.give(scratch)
    return 0


cdef int _check_input(str name, const real[:, :, :] x, bint is_table, const real[:, :, :] y,
                      Py_ssize_t size) except -1:
    """x or dx: a sequence like y, or a table."""
    if is_table:
        return _check_array[real](name, x, max(x.shape[0], 1), 1, size)
    return _check_array[real](name, x, y.shape[0], y.shape[1], size)


def backward(Packed packed not None, Pool pool not None, x, tokens, Rows rows,
             Buffer tape not None, double rate, uint64_t key, Py_ssize_t first_step, dy, dh, dc, dx, grads, Buffer sums,
             edge, bint earlier, bint later, int threads):
    """Back-propagate through all steps of a call of `forward`.

    A long sequence is back-propagated in calls, the last steps first.

    Parameters
    ----------
    x, tokens, rows, tape, rate, key, first_step : as given to `forward`
    dy : (T, B, D*H) array, features adjacent
    dh, dc : (L*D, B, H) contiguous arrays
        Gradients of the final states; replaced by those of the initial states.
    dx : array like x, features adjacent, or None if it is not wanted
    grads : (N,) array
        The gradients of the parameters are added to it.
    sums : Buffer of ``sums_nbytes`` bytes, zeros before the last steps, or None without tokens
    edge : (L*D, B, 4H) contiguous array, or None if there is one call
    earlier, later : bool
        Whether there are calls for earlier steps, and were for later ones.
    threads : int
    """
    if packed.is_double:
        _backward[double](packed, pool, x, tokens, rows, tape, rate, key, first_step, dy, dh, dc, dx,
                          grads, sums, edge, earlier, later, threads)
    else:
        _backward[float](packed, pool, x, tokens, rows, tape, rate, key, first_step, dy, dh, dc, dx,
                         grads, sums, edge, earlier, later, threads)


cdef int _backward(Packed packed, Pool pool, const real[:, :, :] x,
                   const Py_ssize_t[:, ::1] tokens, Rows rows, Buffer tape, double rate,
                   uint64_t key, Py_ssize_t first_step, const real[:, :, :] dy, real[:, :, ::1] dh,
                   real[:, :, ::1] dc, real[:, :, :] dx, real[::1] grads, Buffer sums,
                   real[:, :, ::1] edge, bint earlier, bint later, int threads) except -1:
    cdef fl_backward_call call
    cdef const fl_engine *engine = packed.engine
    cdef Py_ssize_t size = sizeof(real), count = packed.shape.input if x is None else x.shape[0]
    cdef Buffer scratch, weights = packed._for_backward(threads)
    cdef int workers
    _check[real](&packed.shape, dy, dh, dc)
    memset(&call, 0, sizeof(call))
    call.shape = packed.shape
    call.kernels = packed.kernels
    call.packed = weights.data
    call.steps, call.batch, call.first_step = dy.shape[0], dy.shape[1], first_step
    call.tokens = _tokens(tokens, count, call.steps, call.batch)
    if rows is not None:
        call.rows = rows._of(call.steps, call.batch)
    if x is not None:
        _check_input[real]("x", x, tokens is not None, dy, packed.shape.input)
        call.x, call.x_step, call.x_row = &x[0, 0, 0], x.strides[0] // size, x.strides[1] // size
        if tokens is not None:
            call.x_row = call.x_step
    call.dy, call.dy_step, call.dy_row = &dy[0, 0, 0], dy.strides[0] // size, dy.strides[1] // size
    call.dh, call.dc = &dh[0, 0, 0], &dc[0, 0, 0]
    if dx is not None and x is not None:
        _check_array[real]("dx", dx, x.shape[0], x.shape[1], x.shape[2])
        call.dx = &dx[0, 0, 0]
        call.dx_step, call.dx_row = dx.strides[0] // size, dx.strides[1] // size
        if tokens is not None:
            call.dx_row = call.dx_step
    if tape.nbytes < packed.tape_nbytes(call.steps, call.batch, rate > 0):
        raise ValueError("tape: too small")
    if grads.shape[0] != engine.parameters_size(&packed.shape):
        raise ValueError("grads: wrong size")
    call.tape = tape.data
    call.dropout = fl_dropout(key, rate)
    call.grads = &grads[0]
    if tokens is not None:
        if sums is None or sums.nbytes < packed.sums_nbytes(count):
            raise ValueError("sums: too small")
        call.sums = sums.data
    if edge is not None:
        _check_array[real]("edge", edge, dh.shape[0], call.batch, 4 * packed.shape.hidden)
        call.edge = &edge[0, 0, 0]
    elif earlier or later:
        raise ValueError("edge: expected an array")
    call.earlier, call.later = earlier, later
    engine.plan_backward(&call, _limits(threads))
    scratch = pool.take(call.plan.scratch * size)
    call.scratch = scratch.data
    workers = call.plan.workers
    with nogil:
        if workers == 1:
            engine.backward(&call, 0, 1)
        else:
            with parallel(num_threads=workers):
                engine.backward(&call, threadid(), fl_team_size())
    pool.give(scratch)
    return 0


def head(str isa, Pool pool not None, y, weight, bias, targets, nll, dy, dweight, dbias,
         int threads):
    """Linear layer, softmax and cross-entropy of N predictions among V classes.

    Parameters
    ----------
    isa : str
    y, weight, bias : (N, H), (V, H) and (V,) arrays, contiguous
    targets : (N,) array of intp, contiguous, each in [0, V)
    nll : (N,) array
        Receives -log p(target).
    dy, dweight, dbias : arrays like `y`, `weight` and `bias`, or None if they are not wanted
        Gradients of the mean of `nll`: dy is written, the others are added to.
    threads : int
    """
    if y.dtype == np.float64:
        _head[double](isa, pool, y, weight, bias, targets, nll, dy, dweight, dbias, threads)
    else:
        _head[float](isa, pool, y, weight, bias, targets, nll, dy, dweight, dbias, threads)


cdef int _check_head(const real[:, ::1] y, const real[:, ::1] weight, const real[::1] bias,
                     const Py_ssize_t[::1] targets, const real[::1] nll) except -1:
    """Without gradients; None counts as an array without elements."""
    cdef Py_ssize_t n = y.shape[0], classes = weight.shape[0], i
    if min(n, y.shape[1], classes) == 0 or weight.shape[1] != y.shape[1] or (
            bias.shape[0] != classes or targets.shape[0] != n or nll.shape[0] != n):
        raise ValueError("y, weight, bias, targets, nll: shapes do not match, or are empty")
    for i in range(n):
        if not 0 <= targets[i] < classes:
            raise ValueError(f"targets: expected classes from 0 to {classes - 1}, "
                             f"got {targets[i]}")
    return 0


cdef int _head(str isa, Pool pool, const real[:, ::1] y, const real[:, ::1] weight,
               const real[::1] bias, const Py_ssize_t[::1] targets, real[::1] nll,
               real[:, ::1] dy, real[:, ::1] dweight, real[::1] dbias, int threads) except -1:
    cdef fl_head_call call
    cdef const fl_engine *engine
    cdef Py_ssize_t n = y.shape[0], hidden = y.shape[1], classes = weight.shape[0]
    cdef Buffer scratch
    _check_head[real](y, weight, bias, targets, nll)
    memset(&call, 0, sizeof(call))
    if dy is not None:
        if (dy.shape[0] != n or dy.shape[1] != hidden or dweight.shape[0] != classes or
                dweight.shape[1] != hidden or dbias.shape[0] != classes):
            raise ValueError("dy, dweight, dbias: expected the shapes of y, weight and bias")
        call.dy, call.dweight, call.dbias = &dy[0, 0], &dweight[0, 0], &dbias[0]
    if real is double:
        engine, call.kernels = &fl_engine_f64, _find_isa(isa).f64
    else:
        engine, call.kernels = &fl_engine_f32, _find_isa(isa).f32
    call.n, call.hidden, call.classes = n, hidden, classes
    call.y, call.weight, call.bias = &y[0, 0], &weight[0, 0], &bias[0]
    call.targets, call.nll = &targets[0], &nll[0]
    call.y_row = call.dy_row = hidden
    engine.plan_head(&call, _limits(threads))
    scratch = pool.take(call.scratch_size * sizeof(real))
    call.scratch = scratch.data
    with nogil:
        if call.workers == 1:
            engine.head(&call, 0, 1)
        else:
            with parallel(num_threads=call.workers):
                engine.head(&call, threadid(), fl_team_size())
    pool.give(scratch)
    return 0


def activate(str isa, str name, x):
    """The kernels' own sigmoid, tanh or exp of a contiguous 1-D array: what the tests measure."""
    out, which = np.empty_like(x), ("sigmoid", "tanh", "exp").index(name)
    if x.dtype == np.float64:
        _activate[double](isa, which, x, out)
    else:
        _activate[float](isa, which, x, out)
    return out


cdef int _activate(str isa, int which, const real[::1] x, real[::1] out) except -1:
    cdef const fl_isa *found = _find_isa(isa)
    if x.shape[0] > 0:
        if real is double:
            fl_engine_f64.activate(found.f64, which, &x[0], &out[0], x.shape[0])
        else:
            fl_engine_f32.activate(found.f32, which, &x[0], &out[0], x.shape[0])
    return 0


cdef class Stream:
    """A layer step by step, with its state kept in between; made by `LSTM.stream`.

    Steps, chunks of any size and the whole sequence give the same bits.

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
    cdef object _parameters, _h, _c
    cdef long _version
    cdef bint _release, _busy
    cdef Packed _packed
    cdef Pool _pool
    cdef Buffer _scratch
    cdef fl_forward_call _call
    cdef int _type, _threads

    def __init__(self, layer, h, c):
        self.layer = layer
        self._parameters = layer.parameters
        self._h, self._c = h, c
        self._pool = Pool()
        self._type = cnp.NPY_FLOAT64 if layer.dtype == np.float64 else cnp.NPY_FLOAT32
        self._prepare()

    cdef int _prepare(self) except -1:
        """Take the layer's weights as they are now and plan a step."""
        cdef cnp.ndarray h = self._h, c = self._c
        cdef Packed packed = self.layer._packed_weights()
        self._version = self._parameters.version
        self._packed = packed
        self._threads = _num_threads()
        memset(&self._call, 0, sizeof(self._call))
        self._call.shape = packed.shape
        self._call.kernels = packed.kernels
        self._call.packed = packed._forward.data
        self._call.steps, self._call.batch = 1, h.shape[1]
        self._call.x_row, self._call.y_row = packed.shape.input, packed.shape.hidden
        self._call.h, self._call.c = cnp.PyArray_DATA(h), cnp.PyArray_DATA(c)
        packed.engine.plan_forward(&self._call, _limits(self._threads), False)
        self._scratch = Buffer(self._call.plan.scratch * packed.itemsize)
        self._call.scratch = self._scratch.data
        # Small steps would spend a good part of their time giving the GIL away.
        self._release = packed.shape.layers * packed.shape.hidden * packed.shape.hidden > 1 << 18
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
        cdef Py_ssize_t inputs = self._call.shape.input
        x = np.array(convert(x_t, "x_t", self.layer.dtype), order="C")
        if not self._is_plain(x, inputs):
            raise ValueError(f"x_t: expected {self._expected(inputs)}, got {np.shape(x_t)}")
        return x

    cdef int _enter(self) except -1:
        """Refuse a second thread: the first may be computing without the GIL."""
        if self._busy:
            raise RuntimeError("stream: is in use by another thread; copy() makes one for each")
        if <long>self._parameters._version != self._version or (
                self._call.plan.workers > 1 and _num_threads() != self._threads):
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
        y_t : (B, H) array, or (H,) if `x_t` is (I,)
            `out` if it was given.

        Raises
        ------
        TypeError, ValueError
            If `x_t` or `out` have the wrong dtype or shape.
        RuntimeError
            If another thread is using the stream.
        """
        self._enter()
        cdef Py_ssize_t inputs = self._call.shape.input, width = self._call.shape.hidden
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
        self._busy = True
        self._run_step()
        self._busy = False
        return out

    cdef void _run_step(self) noexcept:
        cdef fl_forward_call *call = &self._call
        cdef const fl_engine *engine = self._packed.engine
        if call.plan.workers > 1:
            with nogil, parallel(num_threads=call.plan.workers):
                engine.forward(call, threadid(), fl_team_size())
        elif self._release:
            with nogil:
                engine.forward(call, 0, 1)
        else:
            engine.forward(call, 0, 1)

    def run(self, x):
        """Advance by a chunk of steps.

        Parameters
        ----------
        x : (T, B, I) array, or (T, I) if B = 1

        Returns
        -------
        y : (T, B, H) array, or (T, H) if `x` is (T, I)

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
        self._enter()
        y = np.empty((*x.shape[:x.ndim - 1], self.layer.hidden_size), self.layer.dtype)
        if y.size:
            x3, y3 = (x[:, None], y[:, None]) if x.ndim == 2 else (x, y)
            self._busy = True
            try:
                forward(self._packed, self._pool, x3, None, None, y3, self._h, self._c, None, 0, 0, 0,
                        _num_threads())
            finally:
                self._busy = False
        return y

    @property
    def state(self):
        """(h, c), each (L, B, H): copies.  Assign to set it."""
        return self._h.copy(), self._c.copy()

    @state.setter
    def state(self, value):
        h, c = check_state(value, "state", ("h", "c"), self._h.shape, self.layer.dtype)
        self._h[...], self._c[...] = h, c

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
        """
        chosen = slice(None) if rows is None else row_indices(rows, "rows", self._h.shape[1])
        self._h[:, chosen] = 0
        self._c[:, chosen] = 0

    def copy(self):
        """Return a stream of the same layer that goes on from the same state."""
        return Stream(self.layer, self._h.copy(), self._c.copy())

    def __reduce__(self):
        return Stream, (self.layer, self._h.copy(), self._c.copy())


cdef extern from *:
    """
    #define FL_DOUBLE 0
    #include "kernels_api.h"
    """
    ctypedef struct fl_kernels_f32 "struct fl_kernels_f32":
        Py_ssize_t lanes
        float (*probe_fma)(Py_ssize_t n) noexcept nogil
        float (*probe_read)(const float *p, Py_ssize_t n, Py_ssize_t repeats) noexcept nogil


def probe(str isa, str kind, Py_ssize_t nbytes, Py_ssize_t repeats, int threads):
    """Measure a limit of this machine, in float32, for all threads together: the best of many runs.

    Nothing makes a run faster than the machine is, and a short one is rarely interrupted.  Other
    processes may hold a processor for some milliseconds, so the runs go on for 20.

    Parameters
    ----------
    isa : str
    kind : {"fma", "read"}
    nbytes : int
        read: bytes that each thread reads, its own, a multiple of 4096.
    repeats : int
        read: how often it reads them.  fma: multiply-adds of a vector in each thread.
    threads : int

    Returns
    -------
    float
        fma: floating-point operations per second; read: bytes per second.
    """
    cdef const fl_kernels_f32 *kernels = <const fl_kernels_f32 *>_find_isa(isa).f32
    cdef bint reads = kind == "read"
    if (not reads and kind != "fma") or nbytes % 4096 or min(repeats, threads) < 1:
        raise ValueError("kind, nbytes, repeats, threads: see the docstring")
    threads = threads if fl_has_openmp() else 1
    cdef Buffer buffer = Buffer(nbytes * threads if reads else 0)
    cdef char *data = <char *>buffer.data
    cdef Py_ssize_t warm = repeats // 10 + 1
    if reads:
        with nogil, parallel(num_threads=threads):
            memset(data + threadid() * nbytes, 0, nbytes)  # by its reader: the page is near it
            kernels.probe_read(<float *>(data + threadid() * nbytes), nbytes // 4, warm)
    work = (nbytes if reads else 2 * kernels.lanes) * repeats * threads
    seconds = []
    while len(seconds) < 8 or sum(seconds) < 0.02:
        start = time.perf_counter()
        with nogil, parallel(num_threads=threads):
            if reads:
                kernels.probe_read(<float *>(data + threadid() * nbytes), nbytes // 4, repeats)
            else:
                kernels.probe_fma(repeats)
        seconds.append(time.perf_counter() - start)
    return work / min(seconds)
