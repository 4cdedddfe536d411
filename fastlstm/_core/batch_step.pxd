# A block of steps of some streams of a pool, as one batch: its plan, its work space, its run.  As
# slots.pxd it is C only, and the pool's lock is held.

from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastlstm._core.c_api cimport *
from fastlstm._core.library cimport meet, run_team
from fastlstm._core.packed_weights cimport PackedWeights
from fastlstm._core.slots cimport NO_MEMORY, DONE, Slots, copy_chosen, outcome


cdef struct BatchStep:
    fl_forward_call call  # the one that was planned; of no rows: none
    fl_team_limits limits  # that it was planned with
    const fl_driver *driver
    void *work
    Py_ssize_t work_nbytes


cdef struct BlockOfSlots:
    BatchStep *step
    Slots *slots


cdef struct Block:  # what some streams are to compute
    const Py_ssize_t *slots  # (k,)
    Py_ssize_t steps, k
    const char *x  # (steps, k, I), with x_step and x_row elements from one to the next
    Py_ssize_t x_step, x_row
    char *y  # (steps, k, Hout)


cdef inline bint is_planned(const BatchStep *step, const Block *block,
                            fl_team_limits limits) noexcept nogil:
    return (step.call.batch == block.k and step.call.steps == block.steps
            and step.limits.threads == limits.threads
            and step.limits.processors == limits.processors and step.limits.most == limits.most)


cdef inline Py_ssize_t whole_lines(Py_ssize_t n) noexcept nogil:
    return (n + FL_ALIGN - 1) // FL_ALIGN * FL_ALIGN


cdef inline Py_ssize_t state_nbytes(const Slots *slots, int state, Py_ssize_t k) noexcept nogil:
    """What one state of k rows takes in the work space."""
    return whole_lines(slots.layers * k * slots.row[state])


cdef inline outcome plan_step(BatchStep *step, const Slots *slots, PackedWeights packed,
                              const Block *block, fl_team_limits limits) noexcept:
    """Plan a call for the block, and see that there is work space for it."""
    cdef fl_forward_call *call = &step.call
    cdef Py_ssize_t k = block.k, states = 0
    cdef int i
    memset(call, 0, sizeof(call[0]))
    call.stack, call.kernels, call.packed = packed.stack, packed.kernels, packed.weights.data
    call.steps, call.batch = block.steps, k
    call.y_row = packed.state_size(0)
    call.y_step = k * call.y_row
    packed.driver.plan_forward(call, limits, False)
    for i in range(slots.state_count):
        states += state_nbytes(slots, i, k)
    cdef Py_ssize_t nbytes = states + call.plan.scratch * packed.itemsize
    if nbytes > step.work_nbytes:
        free(step.work)
        step.work = malloc(nbytes + FL_ALIGN)
        step.work_nbytes = 0 if step.work == NULL else nbytes
    if step.work == NULL:
        call.batch = 0  # nothing is planned
        return NO_MEMORY
    cdef char *start = <char *>whole_lines(<Py_ssize_t>step.work)
    call.scratch = start + states
    for i in range(slots.state_count):
        call.states[i] = start
        start += state_nbytes(slots, i, k)
    step.limits, step.driver = limits, packed.driver
    return DONE


cdef inline void run_step(BatchStep *step, Slots *slots) noexcept nogil:
    cdef BlockOfSlots both = BlockOfSlots(step, slots)
    run_team(run_share, &both, &step.call.plan.team)


cdef inline void run_share(void *argument, fl_worker *me) noexcept nogil:
    """What one worker does: gather a part of the states, compute, put that part back."""
    cdef BlockOfSlots *both = <BlockOfSlots *>argument
    cdef fl_forward_call *call = &both.step.call
    cdef fl_range part = fl_part(call.batch, me.workers, me.number)
    copy_chosen(both.slots, part.begin, part.end, call.batch, call.states, True)
    meet(me)
    both.step.driver.forward(call, me)
    meet(me)
    copy_chosen(both.slots, part.begin, part.end, call.batch, call.states, False)
