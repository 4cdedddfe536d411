/* The forward driver: what one worker of a team does, from the plan to the last step. */
#ifndef FL_DRIVER_FORWARD_FORWARD_H
#define FL_DRIVER_FORWARD_FORWARD_H

#include "driver/forward/step.h"

/* The hidden state of each row after its last step of the chunk into p->h, which nobody reads until
 * the next chunk. */
static void keep_state(const pass *p, const worker_share *me, ptrdiff_t s0, ptrdiff_t s1)
{
    const fl_range part = outputs_of(p, me);
    const ptrdiff_t unit = part.begin, units = part.end - part.begin;
    for (ptrdiff_t i = 0; units > 0 && i < me->rows.count; i++) {
        const ptrdiff_t rank = rank_at(&me->rows, i), b = row_of(&p->when, rank);
        const ptrdiff_t end = minimum(length_of(&p->when, rank), s1);
        if (end > s0) {
            const ptrdiff_t t = time_of(&p->when, rank, end - 1) - p->first;
            memcpy(p->h + b * p->out_size + unit, sink_at(&p->out, t, b) + unit,
                   (size_t)units * sizeof(real));
        }
    }
}

/* What U reads at the first step, after recurrent dropout. */
static void mask_first_h(const pass *p, const worker_share *me, ptrdiff_t s0, ptrdiff_t rows)
{
    const fl_range part = outputs_of(p, me);
    for (ptrdiff_t i = 0; i < rows && part.begin < part.end; i++) {
        const ptrdiff_t b = row_of(&p->when, rank_at(&me->rows, i));
        const real *h = p->h + b * p->out_size + part.begin;
        const real *mask = p->recurrent_mask + b * p->out_size + part.begin;
        real *masked_h = masked_h_row(p, s0, b) + part.begin;
        p->k->multiply(1, part.end - part.begin, &h, &mask, &masked_h);
    }
    fl_meet(me->team);
}

/* False: the call ends early. */
static int run_pass(const pass *p, const worker_share *me, fl_watch *watch, ptrdiff_t s0,
                    ptrdiff_t s1)
{
    const double work = step_work(p->slots, p->hidden, p->input + p->head_size, p->when.batch);
    const ptrdiff_t stride = p->ahead ? p->ahead : s1 - s0;
    ptrdiff_t rows = active_rows(&p->when, &me->rows, s0, me->rows.count);
    if (p->recurrent_mask) {
        mask_first_h(p, me, s0, rows);
    }
    for (ptrdiff_t a = s0; a < s1; a += stride) {
        const ptrdiff_t end = minimum(a + stride, s1);
        ptrdiff_t projected = p->ahead ? 0 : -1;
        if (p->ahead) {
            rows = active_rows(&p->when, &me->rows, a, rows);
            project_ahead(p, me, a, end, rows);
        }
        for (ptrdiff_t s = a; s < end; s++) {
            if (fl_leaves(watch, work)) {
                return 0;
            }
            rows = active_rows(&p->when, &me->rows, s, rows);
            run_step(p, me, s, s == s0, rows, projected);
            projected = p->ahead ? projected + rows : -1;
        }
    }
    keep_state(p, me, s0, s1);
    return 1;
}

/* Initial states into the tape, and final ones out of it, of some rows. */
static void tape_states(const fl_forward_call *call, const pass *p, ranks rows, ptrdiff_t l,
                        ptrdiff_t d, int final)
{
    const fl_stack *s = &call->stack;
    const size_t bytes = (size_t)s->hidden * sizeof(real);
    ptrdiff_t size;
    const tape_cell t = tape_cell_at(s, call->kernels, call->tape, call->steps, call->batch,
                                     &call->dropout, l, d, &size);
    for (ptrdiff_t i = 0; i < rows.count; i++) {
        const ptrdiff_t rank = rank_at(&rows, i), b = row_of(&p->when, rank);
        const ptrdiff_t end = minimum(length_of(&p->when, rank), call->steps);
        for (int state = FL_STATE_C; state < p->state_count; state++) {
            real *row = state_at(s, call->states, state, call->batch, l, d) + b * s->hidden;
            if (final && end > 0) {
                memcpy(row, p->states[state] + state_row(p, &p->when, end, rank), bytes);
            } else if (!final) {
                memcpy(p->states[state] + state_row(p, &p->when, 0, rank), row, bytes);
            }
        }
        if (!final) {
            memcpy(t.h0 + b * p->out_size, p->h + b * p->out_size,
                   (size_t)p->out_size * sizeof(real));
            if (t.recurrent_mask) {
                draw_recurrent_mask(s, &call->dropout, l, d, b, p->out_size,
                                    t.recurrent_mask + b * p->out_size);
            }
        }
    }
}

/* What the next layer reads, after dropout. */
static void tape_dropout(const fl_forward_call *call, const row_schedule *when, ranks rows,
                         ptrdiff_t l)
{
    const fl_stack *s = &call->stack;
    const ptrdiff_t width = s->directions * output_size(s);
    ptrdiff_t size;
    const tape_cell t = tape_cell_at(s, call->kernels, call->tape, call->steps, call->batch,
                                     &call->dropout, l, 0, &size);
    for (ptrdiff_t i = 0; i < rows.count; i++) {
        const ptrdiff_t rank = rank_at(&rows, i), b = row_of(when, rank);
        const ptrdiff_t end = minimum(length_of(when, rank), call->steps);
        for (ptrdiff_t time = 0; time < end; time++) {
            const ptrdiff_t at = (time * call->batch + b) * width;
            const ptrdiff_t row =
                number_of_row(&call->dropout, call->batch, call->first_step + time, b);
            dropout_apply(&call->dropout, l, row * width, width, t.out + at, t.passed + at);
        }
    }
}

/* False: the call ends early. */
static int forward_chunk(const fl_forward_call *call, const worker_share *me, fl_watch *watch,
                         ptrdiff_t begin)
{
    const int worker = watch->worker;
    const fl_stack *s = &call->stack;
    const ptrdiff_t end = minimum(begin + call->plan.chunk, call->steps);
    /* Where workers share rows, one of them does what is done row by row. */
    const ranks all = all_ranks(worker == 0 ? call->batch : 0);
    const ranks rows = me->team->workers > 1 ? all : me->rows;
    const row_schedule when = {call->rows, call->steps, call->batch, 0};
    for (ptrdiff_t l = 0; l < s->layers; l++) {
        for (ptrdiff_t d = 0; d < s->directions; d++) {
            const pass p = make_pass(call, worker, l, d, begin);
            if (begin > 0 || l > 0 || d > 0) {
                fl_meet(me->team); /* what the pass before has left is all there */
            }
            if (call->tape) {
                tape_states(call, &p, rows, l, d, 0);
                fl_meet(me->team);
            }
            if (!run_pass(&p, me, watch, begin, end)) {
                return 0;
            }
            if (call->tape) {
                fl_meet(me->team);
                tape_states(call, &p, rows, l, d, 1);
            }
        }
        if (call->tape && call->dropout.rate > 0 && l < s->layers - 1) {
            tape_dropout(call, &when, rows, l);
            fl_meet(me->team);
        }
    }
    return 1;
}

/* Projections of all rows of the table. */
static void project_rows(const pass *p, ptrdiff_t rows, ptrdiff_t z_row, ptrdiff_t block)
{
    tiling tiles = tile_rows(p->k, rows);
    for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
        const real *x[FL_MAX_ROWS];
        tile = next_tile(&tiles);
        for (ptrdiff_t r = 0; r < tile; r++) {
            x[r] = p->x.data + (i + r) * p->x.row;
        }
        if (p->weights == FL_INT8) {
            p->k->quantize(tile, p->input, x, &p->bytes.x);
        }
        project(p, tile, x, p->bytes.x, p->table + i * z_row + block * 4 * p->k->lanes, z_row,
                block, NULL);
    }
}

static void project_table(fl_forward_call *call, fl_worker *team)
{
    const ptrdiff_t z_row = table_row_of(&call->plan, call->kernels);
    const fl_kind blocks = {call->plan.blocks, 1, call->stack.directions};
    fl_work work = fl_begin(team, &blocks, 1);
    for (fl_piece at; fl_next(&work, &at);) {
        const pass p = make_pass(call, team->number, 0, at.time, 0);
        for (ptrdiff_t block = at.units.begin; block < at.units.end; block++) {
            project_rows(&p, call->tokens.count, z_row, block);
        }
    }
}

static void forward(void *argument, fl_worker *team)
{
    fl_forward_call *call = argument;
    fl_worker alone = fl_alone();
    if (team->workers != call->plan.team.workers) { /* the system gave fewer threads */
        if (team->number > 0) {
            return;
        }
        team = &alone;
    }
    const int worker = team->number;
    const row_schedule when = {call->rows, call->steps, call->batch, 0};
    worker_share me = {all_ranks(call->batch), team};
    if (!call->plan.split_units) {
        me = (worker_share){ranks_of_worker(&when, worker, team->workers), &alone};
    }
    if (call->plan.zeros_worker) {
        memset((real *)call->scratch + call->plan.zeros + worker * call->plan.zeros_worker, 0,
               (size_t)call->plan.zeros_worker * sizeof(real));
    }
    fl_watch watch = fl_watch_of(call->interrupt, worker, me.team->workers > 1);
    const fl_fpu saved = fl_fpu_enter();
    if (call->plan.project_table) {
        project_table(call, team);
    }
    int goes_on = 1;
    for (ptrdiff_t begin = 0; begin < call->steps && goes_on; begin += call->plan.chunk) {
        goes_on = forward_chunk(call, &me, &watch, begin);
    }
    fl_fpu_leave(saved);
}

#endif
