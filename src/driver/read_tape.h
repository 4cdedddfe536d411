/* Reading a tape: what gates and states were, step by step. */
#ifndef FL_DRIVER_READ_TAPE_H
#define FL_DRIVER_READ_TAPE_H

#include "driver/row_schedule.h"
#include "layout/tape.h"

#include <string.h>

/* One row of a tape: the units of a slot, or of a state after step s. */
static void read_row(const fl_forward_call *call, const tape_cell *tape, const row_schedule *when,
                     int field, ptrdiff_t s, ptrdiff_t rank, real *out)
{
    const fl_kernels *k = call->kernels;
    const ptrdiff_t hidden = call->stack.hidden, blocks = blocks_of(&call->stack, k);
    const ptrdiff_t out_size = output_size(&call->stack);
    const ptrdiff_t width = call->stack.directions * out_size, row = s * when->batch + rank;
    const size_t bytes = (size_t)hidden * sizeof(real);
    if (field > FL_TRACE_STATES + FL_STATE_H) {
        const real *states = tape->states[field - FL_TRACE_STATES];
        memcpy(out, states + (row + when->batch) * hidden, bytes);
        return;
    }
    if (field == FL_TRACE_STATES + FL_STATE_H) {
        const ptrdiff_t at = time_of(when, rank, s) * when->batch + row_of(when, rank);
        memcpy(out, tape->out + at * width + (when->reverse ? out_size : 0),
               (size_t)out_size * sizeof(real));
        return;
    }
    for (ptrdiff_t block = 0; block < blocks; block++) {
        const ptrdiff_t unit = block * k->lanes, units = minimum(k->lanes, hidden - unit);
        const real *slot =
            tape->gates + ((row * blocks + block) * FL_GATE_SLOTS + field) * k->lanes;
        memcpy(out + unit, slot, (size_t)units * sizeof(real));
    }
}

/* `field` of a layer and direction -> out [T,B,H] (or Hout) in the order of time and rows; steps
 * of no active row are left as they are. */
static void read_tape(const fl_forward_call *call, ptrdiff_t layer, ptrdiff_t direction, int field,
                      void *out)
{
    ptrdiff_t size;
    const tape_cell tape = tape_cell_at(&call->stack, call->kernels, call->tape, call->steps,
                                        call->batch, &call->dropout, layer, direction, &size);
    const int is_h = field == FL_TRACE_STATES + FL_STATE_H;
    const ptrdiff_t row = is_h ? output_size(&call->stack) : call->stack.hidden;
    const row_schedule when = {call->rows, call->steps, call->batch, direction == 1};
    for (ptrdiff_t rank = 0; rank < call->batch; rank++) {
        const ptrdiff_t end = minimum(length_of(&when, rank), call->steps);
        for (ptrdiff_t s = 0; s < end; s++) {
            const ptrdiff_t at = time_of(&when, rank, s) * call->batch + row_of(&when, rank);
            read_row(call, &tape, &when, field, s, rank, (real *)out + at * row);
        }
    }
}

#endif
