# The C API, line for line like src/fastlstm.h, src/cells.h and what they include of src/base.

from libc.stdint cimport int64_t, uint64_t, uintptr_t

ctypedef fused real:
    float
    double


cdef extern from "base/openmp.h" nogil:
    int fl_team_size()
    int fl_has_openmp()
    int fl_most_threads()
    int fl_usual_threads()


cdef extern from "base/fpu.h" nogil:
    ctypedef uint64_t fl_fpu
    fl_fpu fl_fpu_enter()
    void fl_fpu_leave(fl_fpu)


cdef extern from "base/threads.h" nogil:
    int fl_ask_for_threads(int wanted)
    void fl_dismiss_threads()


cdef extern from "base/wait.h" nogil:
    int64_t fl_now()


cdef extern from "base/team.h" nogil:
    ctypedef struct fl_team:
        int64_t slept
    ctypedef struct fl_worker:
        int number, workers
    ctypedef void (*fl_job)(void *call, fl_worker *me) noexcept nogil
    ctypedef struct fl_range:
        Py_ssize_t begin, end
    fl_worker fl_alone()
    ctypedef struct fl_team_space:
        pass
    fl_team *fl_team_open(int workers, fl_team_space *)
    void fl_team_close(fl_team *)
    void fl_work_in(fl_team *, fl_job, void *call, int number, int workers)
    void fl_meet(fl_worker *)
    fl_range fl_part(Py_ssize_t n, Py_ssize_t parts, Py_ssize_t i)


cdef extern from "base/team_size.h" nogil:
    ctypedef struct fl_team_plan:
        int wanted, workers
        double work
    int fl_team_most()
    ctypedef struct fl_team_call:
        const fl_team_plan *plan
        uintptr_t job
        int64_t began, ended, slept
    void fl_team_remember(const fl_team_call *)
    bint fl_pause_is_likely(int64_t began)
    void fl_team_adapts(bint on)


cdef extern from "base/interrupt.h" nogil:
    ctypedef struct fl_interrupt:
        int (*ask)(void *) noexcept nogil
        void *context


cdef extern from "cells.h" nogil:
    enum:
        FL_CELLS
        FL_MAX_STATES

    ctypedef struct fl_cell_properties:
        const char *name
        const char *gates
        const char *states
        int gate_count, state_count, slots, slots_by_u, has_options, biases

    const fl_cell_properties fl_cells[]


cdef extern from "fastlstm.h" nogil:
    enum:
        FL_ALIGN
        FL_TRACE_STATES

    ctypedef struct fl_function:
        int kind
        double alpha, beta

    ctypedef struct fl_options:
        int peephole, coupled, layer_norm
        double layer_norm_eps
        double preact_clip, cell_clip
        double zoneout_h, zoneout_c
        fl_function functions[2][3]

    ctypedef struct fl_stack:
        Py_ssize_t layers, directions, input, hidden
        Py_ssize_t projection
        Py_ssize_t heads
        int bias
        int cell
        int weights
        fl_options options

    ctypedef struct fl_isa:
        const char *name
        const void *f32
        const void *f64

    const fl_isa *fl_isa_at(int i)

    ctypedef struct fl_caches:
        Py_ssize_t l1d, l2, l3
        int l2_sharers, l3_sharers, l3_rate

    const fl_caches *fl_machine_caches()
    int fl_linux_caches(const char *folder, fl_caches *caches)

    ctypedef struct fl_team_limits:
        int threads, processors
        int most, live
        const fl_caches *caches

    ctypedef struct fl_pack_call:
        const fl_stack *stack
        const void *kernels
        const void *flat
        const void *scales
        void *packed

    ctypedef struct fl_tokens:
        const Py_ssize_t *rows
        Py_ssize_t count

    ctypedef struct fl_rows:
        const Py_ssize_t *order
        const Py_ssize_t *lengths
        const Py_ssize_t *starts
        const unsigned char *reset

    ctypedef struct fl_plan:
        fl_team_plan team
        int split_units
        Py_ssize_t blocks, chunk, ahead, segment
        Py_ssize_t between[2]
        Py_ssize_t z, z_worker, z_rows
        Py_ssize_t zeros, zeros_worker
        Py_ssize_t gates, second_input, masked_h
        Py_ssize_t zoneout_keep, zoneout_keep_worker
        Py_ssize_t table
        int project_table
        Py_ssize_t scratch

    ctypedef struct fl_dropout:
        uint64_t key
        double rate
        double recurrent
        bint zoneout
        Py_ssize_t batch, first_row

    ctypedef struct fl_shards:
        Py_ssize_t count
        const Py_ssize_t *starts
        Py_ssize_t most_rows

    ctypedef struct fl_forward_call:
        fl_stack stack
        const void *kernels
        const void *packed
        Py_ssize_t steps, batch, first_step
        const void *x
        Py_ssize_t x_step, x_row
        fl_tokens tokens
        fl_rows rows
        void *y
        Py_ssize_t y_step, y_row
        void *states[FL_MAX_STATES]
        void *tape
        fl_dropout dropout
        void *scratch
        fl_interrupt *interrupt
        fl_plan plan

    ctypedef struct fl_backward_call:
        fl_stack stack
        const void *kernels
        const void *packed
        Py_ssize_t steps, batch, first_step
        const void *x
        Py_ssize_t x_step, x_row
        fl_tokens tokens
        fl_rows rows
        const void *tape
        fl_dropout dropout
        const void *dy
        Py_ssize_t dy_step, dy_row
        void *dstates[FL_MAX_STATES]
        void *dx
        Py_ssize_t dx_step, dx_row
        fl_shards shards
        void *grads
        void *sums
        int earlier, later
        void *boundary_dz
        void *scratch
        fl_interrupt *interrupt
        fl_plan plan

    ctypedef struct fl_head_call:
        const void *kernels
        Py_ssize_t n, hidden, classes
        const void *y
        Py_ssize_t y_row
        const void *weight
        const void *bias
        const void *z
        const Py_ssize_t *targets
        const void *values
        void *losses
        double scale
        const void *weights
        void *z_out
        void *dy
        Py_ssize_t dy_row
        Py_ssize_t batch
        fl_shards shards
        Py_ssize_t grads_step
        void *dweight
        void *dbias
        void *scratch
        Py_ssize_t scratch_size
        fl_team_plan team

    ctypedef struct fl_crf_call:
        const void *kernels
        Py_ssize_t steps, batch, tags
        const void *emissions
        Py_ssize_t emissions_step, emissions_row
        const void *transitions
        const void *start
        const void *end
        const Py_ssize_t *lengths
        const Py_ssize_t *labels
        void *nll
        void *marginals
        void *grads
        Py_ssize_t *path
        void *scratch
        Py_ssize_t scratch_size
        fl_interrupt *interrupt
        fl_team_plan team

    ctypedef struct fl_ctc_call:
        const void *kernels
        Py_ssize_t steps, batch, symbols
        const void *logits
        Py_ssize_t logits_step, logits_row
        const Py_ssize_t *lengths
        const Py_ssize_t *targets
        Py_ssize_t targets_row
        const Py_ssize_t *target_lengths
        Py_ssize_t most_targets
        Py_ssize_t blank
        void *nll
        void *dlogits
        void *scratch
        Py_ssize_t scratch_size
        fl_interrupt *interrupt
        fl_team_plan team

    ctypedef struct fl_tile_size:
        Py_ssize_t rows, units

    ctypedef struct fl_driver:
        Py_ssize_t (*parameters_size)(const fl_stack *) noexcept nogil
        Py_ssize_t (*scales_size)(const fl_stack *) noexcept nogil
        Py_ssize_t (*state_size)(const fl_stack *, int) noexcept nogil
        Py_ssize_t (*forward_size)(const fl_stack *, const void *) noexcept nogil
        Py_ssize_t (*backward_size)(const fl_stack *, const void *) noexcept nogil
        fl_job pack_forward
        fl_job pack_backward
        Py_ssize_t (*tape_size)(const fl_stack *, const void *, Py_ssize_t, Py_ssize_t,
                                const fl_dropout *) noexcept nogil
        Py_ssize_t (*sums_size)(const fl_stack *, Py_ssize_t) noexcept nogil
        Py_ssize_t (*segment)(Py_ssize_t) noexcept nogil
        void (*plan_forward)(fl_forward_call *, fl_team_limits, int) noexcept nogil
        void (*plan_backward)(fl_backward_call *, fl_team_limits) noexcept nogil
        fl_tile_size (*tile_size)(const void *, Py_ssize_t, Py_ssize_t) noexcept nogil
        fl_job forward
        fl_job backward
        void (*read_tape)(const fl_forward_call *, Py_ssize_t, Py_ssize_t, int, void *) noexcept nogil
        void (*plan_head)(fl_head_call *, fl_team_limits) noexcept nogil
        fl_job head
        void (*plan_crf)(fl_crf_call *, fl_team_limits) noexcept nogil
        fl_job crf
        fl_job crf_decode
        void (*plan_ctc)(fl_ctc_call *, fl_team_limits) noexcept nogil
        fl_job ctc
        void (*activate)(const void *, int, const void *, void *, Py_ssize_t) noexcept nogil

    const fl_driver fl_driver_f32, fl_driver_f64
