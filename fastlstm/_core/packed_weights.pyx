# What a stack of layers is made of, and its weights in the layout of one instruction set.

from libc.string cimport memset

from fastlstm._core.c_api cimport *
from fastlstm._core.library cimport Buffer, driver_of, find_isa, run_team, threads_for

import numpy as np


cdef enum:
    PARALLEL_PACKING = 1 << 20  # bytes: less takes less time than waking a second thread


cdef class StackConfig:
    """What a stack of layers is made of.

    Parameters
    ----------
    cell : int
        As in cells.h.
    layers, directions, input_size, hidden_size : int
    proj_size : int
        0: no projection.
    bias : bool
    options : Options, or None
        Of an LSTM with options.
    weights : int
        As in weight_types.h.
    heads : int
        Parts of the units of which each sees itself alone in the step before; a divisor of
        `hidden_size`, and 1 but for an sLSTM.
    """

    def __cinit__(self, int cell, Py_ssize_t layers, Py_ssize_t directions, Py_ssize_t input_size,
                  Py_ssize_t hidden_size, Py_ssize_t proj_size, bint bias, options, int weights=0,
                  Py_ssize_t heads=1):
        cdef fl_stack *s = &self.stack
        memset(s, 0, sizeof(fl_stack))
        s.layers, s.directions, s.input, s.hidden = layers, directions, input_size, hidden_size
        s.projection, s.bias, s.cell, s.weights = proj_size, bias, cell, weights
        s.heads = heads
        if options is not None:
            s.options.peephole, s.options.coupled = options.peephole, options.coupled
            s.options.layer_norm = options.layer_norm
            s.options.layer_norm_eps = options.layer_norm_eps
            s.options.preact_clip, s.options.cell_clip = options.preact_clip, options.cell_clip
            s.options.zoneout_h, s.options.zoneout_c = options.zoneout
            for d, functions in enumerate(options.functions[:2]):
                for i, (kind, alpha, beta) in enumerate(functions[:3]):
                    s.options.functions[d][i] = fl_function(kind, alpha, beta)


cdef fl_dropout dropout_of(object dropout) except *:
    """The fields of fl_dropout but zoneout, which is at random; or None: as in inference."""
    if dropout is None:
        return fl_dropout(0, 0, 0, False, 0, 0)
    key, rate, recurrent, batch, first_row = dropout
    return fl_dropout(key, rate, recurrent, True, batch, first_row)


cdef fl_shards shards_of(object shards) except *:
    """As `fastlstm._shards.Shards`, whose `starts` have to be kept; or None: all rows are one."""
    cdef const Py_ssize_t[::1] starts
    if shards is None:
        return fl_shards(0, NULL, 0)
    starts = shards.starts
    return fl_shards(starts.shape[0] - 1, &starts[0], shards.most_rows)


cdef class PackedWeights:
    """The weights of a stack of layers in the layout of one instruction set; immutable.

    Parameters
    ----------
    isa : str
    stack : StackConfig
    flat : (N,) array of float32 or float64
        Read at once: the weights for forward.
    version : int
        Of the parameters, a number that only they have, and only now.
    threads : int
    scales : array of float32, or None
        Of weights of 8 bits: of the rows of W, U and the projection, layer by layer.
    """

    def __cinit__(self, str isa, StackConfig stack not None, flat, long version, int threads,
                  scales=None):
        cdef const fl_isa *found = find_isa(isa)
        self.stack = stack.stack
        self.state_count = fl_cells[self.stack.cell].state_count
        self.is_double = flat.dtype == np.float64
        self.itemsize = 8 if self.is_double else 4
        self.driver = driver_of(self.is_double)
        self.kernels = found.f64 if self.is_double else found.f32
        self.version = version
        if self.stack.weights and self.is_double:
            raise ValueError("flat: expected float32")
        self.weights = self._pack(flat, scales, False, threads)

    def is_of(self, long version, bint backward):
        """Whether these are the weights of that version, for backward too if it is asked for."""
        return self.version == version and (self.for_backward is not None or not backward)

    def add_backward(self, flat, int threads):
        """Pack the same parameters for backward too, once."""
        if self.for_backward is None:
            self.for_backward = self._pack(flat, None, True, threads)

    cdef Py_ssize_t state_size(self, int state) noexcept:
        """Units of a row of one state; the first is h, whose units are those of an output."""
        return self.driver.state_size(&self.stack, state)

    cdef Buffer _pack(self, array, scales, bint backward, int threads):
        cdef const fl_driver *driver = self.driver
        cdef const fl_stack *stack = &self.stack
        cdef const void *kernels = self.kernels
        if array.shape[0] != driver.parameters_size(stack):
            raise ValueError("flat: wrong size")
        cdef const float[::1] f32 = None if self.is_double else array
        cdef const double[::1] f64 = array if self.is_double else None
        cdef const void *flat = <const void *>&f64[0] if self.is_double else &f32[0]
        cdef const float[::1] of_rows = scales
        if scales is not None and scales.shape[0] != driver.scales_size(stack):
            raise ValueError("scales: wrong size")
        cdef const void *scales_at = &of_rows[0] if scales is not None else NULL
        size = (driver.backward_size if backward else driver.forward_size)(stack, kernels)
        cdef Buffer to = Buffer(size * self.itemsize)
        cdef fl_pack_call call = fl_pack_call(stack, kernels, flat, scales_at, to.data)
        cdef fl_job pack = driver.pack_backward if backward else driver.pack_forward
        cdef int wanted = threads if to.nbytes >= PARALLEL_PACKING else 1
        cdef fl_team_plan team = fl_team_plan(wanted, threads_for(wanted), size)
        with nogil:
            run_team(pack, &call, &team)
        return to

    def tape_nbytes(self, Py_ssize_t steps, Py_ssize_t batch, dropout):
        """Bytes of a tape for so many steps and rows; dropout as for `forward`."""
        cdef fl_dropout choices = dropout_of(dropout)
        cdef Py_ssize_t size = self.driver.tape_size(&self.stack, self.kernels, steps, batch,
                                                     &choices)
        return size * self.itemsize

    def sums_nbytes(self, Py_ssize_t count):
        """Bytes of the sums that `backward` needs for so many tokens."""
        return self.driver.sums_size(&self.stack, count) * self.itemsize

    def segment(self, Py_ssize_t rows):
        """Steps of which calls of `backward` for parts of a sequence hold a whole number.

        It depends on the rows of the largest shard, or of the batch.
        """
        return self.driver.segment(rows)
