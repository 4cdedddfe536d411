/* The backward driver: back-propagation through time, one layer and direction after the other.
 *
 * Steps are taken in segments, last first.  Within a segment the recurrence runs backward and
 * leaves the gradients of the pre-activations (dz); gradients.h makes of these the gradients of
 * inputs and weights while they are in cache. */
#ifndef FL_BACKWARD_H
#define FL_BACKWARD_H

#include "gradients.h"

/* dh for a tile: what comes in from above, and dz U from the step after. */
static void hidden_gradient(const backward_pass *p, ptrdiff_t s, ptrdiff_t row, ptrdiff_t rows,
                            ptrdiff_t group, real *tile)
{
    const ptrdiff_t size = 4 * p->k->lanes, unit = group * size, k = 4 * p->hidden;
    const real *dy[FL_MAX_ROWS], *dh[FL_MAX_ROWS], *dz[FL_MAX_ROWS], *init[FL_MAX_ROWS];
    const int last = s == p->steps - 1 && !p->later;
    for (ptrdiff_t r = 0; r < rows; r++) {
        dy[r] = source_at(&p->dy, backward_time(p, s), row + r) + unit;
        dh[r] = p->dh + (row + r) * p->hidden + unit;
        dz[r] = last ? NULL : dz_at(p, s + 1, row + r);
        init[r] = tile + r * size;
    }
    p->k->load(rows, p->hidden - unit, dy, last ? dh : NULL, tile);
    if (!last) {
        const fl_term term = {dz, 1, p->cell.u + group * k * size, k};
        p->k->product(rows, vectors_of(p, p->hidden - unit), init, &term, 1, tile, size);
    }
}

static void backward_step(const backward_pass *p, const share *me, ptrdiff_t s)
{
    const ptrdiff_t lanes = p->k->lanes, size = 4 * lanes, h = p->hidden;
    const ptrdiff_t rows = me->rows.end - me->rows.begin;
    const ptrdiff_t gates_row = p->blocks * size, states = p->batch * h;
    for (ptrdiff_t group = me->blocks.begin; group < me->blocks.end; group++) {
        tiling tiles = tile_rows(p->k, rows);
        for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
            const ptrdiff_t row = me->rows.begin + i, unit = group * size, at = row * h + unit;
            tile = next_tile(&tiles);
            _Alignas(FL_ALIGN) real dh[FL_MAX_TILE];
            hidden_gradient(p, s, row, tile, group, dh);
            const fl_lstm_gradient gradient = {
                .dh = dh,
                .gates = p->tape.gates + (s * p->batch + row) * gates_row + 4 * group * size,
                .gates_row = gates_row,
                .c_before = p->tape.c + s * states + at,
                .c = p->tape.c + (s + 1) * states + at,
                .dc = p->dc + at,
                .c_row = h,
                .dz = dz_at(p, s, row) + unit,
                .dz_row = p->dz_row,
                .gate_step = h,
                .units = h - unit,
            };
            p->k->lstm_gradient(tile, &gradient);
        }
    }
    fl_barrier_wait(me->barrier, me->workers);
}

/* The gradient of the initial hidden state, dz[0] U. */
static void state_gradients(const backward_pass *p, const share *me)
{
    const ptrdiff_t rows = me->rows.end - me->rows.begin;
    for (ptrdiff_t group = me->blocks.begin; group < me->blocks.end; group++) {
        tiling tiles = tile_rows(p->k, rows);
        for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
            const ptrdiff_t row = me->rows.begin + i;
            tile = next_tile(&tiles);
            const real *dz[FL_MAX_ROWS];
            real *dh[FL_MAX_ROWS];
            for (ptrdiff_t r = 0; r < tile; r++) {
                dz[r] = dz_at(p, 0, row + r);
                dh[r] = p->dh + (row + r) * p->hidden;
            }
            rows_times_weights(p, dz, tile, p->cell.u, group, p->hidden, dh, 0);
        }
    }
}

/* dz of a step next to those of this call: from the edge into the ring, or back. */
static void pass_edge(const backward_pass *p, const share *me, int worker, ptrdiff_t s, int out)
{
    const size_t bytes = (size_t)(4 * p->hidden) * sizeof(real);
    const fl_range all = {0, worker == 0 ? p->batch : 0};
    const fl_range rows = me->workers > 1 ? all : me->rows;
    for (ptrdiff_t b = rows.begin; b < rows.end; b++) {
        real *edge = p->edge + b * 4 * p->hidden;
        memcpy(out ? edge : dz_at(p, s, b), out ? dz_at(p, s, b) : edge, bytes);
    }
    fl_barrier_wait(me->barrier, me->workers);
}

static void run_backward(const backward_pass *p, const share *me, fl_barrier *barrier, int worker,
                         int workers)
{
    if (p->later) {
        pass_edge(p, me, worker, p->steps, 0);
    }
    for (ptrdiff_t s1 = p->steps; s1 > 0;) {
        const ptrdiff_t s0 = (s1 - 1) / p->segment * p->segment;
        for (ptrdiff_t s = s1 - 1; s >= s0; s--) {
            backward_step(p, me, s);
        }
        if (s0 == 0 && p->earlier) {
            pass_edge(p, me, worker, 0, 1);
        } else if (s0 == 0) {
            state_gradients(p, me);
        }
        segment_gradients(p, barrier, worker, workers, s0, s1);
        s1 = s0;
    }
    if (p->sums.recent && !p->earlier) {
        token_gradients(p, barrier, worker, workers);
    }
}

typedef struct {
    real *dz, *panels;
    real *between[2]; /* [T][B][D*H]: gradients of the outputs of layers below the last */
    ptrdiff_t size;
} backward_space;

static backward_space backward_space_at(const fl_backward_call *call)
{
    const fl_shape *s = &call->shape;
    const fl_kernels *k = call->kernels;
    const ptrdiff_t size = 4 * k->lanes;
    const ptrdiff_t input = s->layers > 1 && input_of(s, 1) > s->input ? input_of(s, 1) : s->input;
    const ptrdiff_t groups = divide_up(input, size) + divide_up(s->hidden, size);
    carver c = {call->scratch, 0};
    backward_space space = {0};
    space.dz = carve(&c, 2 * call->plan.segment * call->batch * dz_row_of(s));
    space.panels = carve(&c, groups * FL_TERMS * size);
    for (ptrdiff_t l = 0; l < minimum(s->layers - 1, 2); l++) {
        space.between[l] = carve(&c, call->steps * call->batch * s->directions * s->hidden);
    }
    space.size = c.used;
    return space;
}

static void plan_backward(fl_backward_call *call, fl_team_limits limits)
{
    const fl_shape *s = &call->shape;
    const fl_kernels *k = call->kernels;
    /* A third of the multiply-adds: below that, meeting between segments costs more than it saves.
     */
    const double step_work = work_of(4 * (double)s->hidden * (double)s->hidden, call->batch);
    const double steps = (double)call->steps * (double)s->directions * (double)s->layers;
    plan_team(&call->plan, &limits, call->batch, divide_up(s->hidden, 4 * k->lanes),
              step_work * steps, step_work);
    call->plan.segment = minimum(segment_of(call->batch), call->steps);
    call->plan.scratch = backward_space_at(call).size;
}

static backward_pass make_backward_pass(const fl_backward_call *call, const backward_space *space,
                                        ptrdiff_t l, ptrdiff_t d)
{
    const fl_shape *s = &call->shape;
    const fl_kernels *k = call->kernels;
    const ptrdiff_t width = s->directions * s->hidden, step = call->batch * width;
    const ptrdiff_t states = (l * s->directions + d) * call->batch * s->hidden;
    const int dropout = call->dropout.rate > 0, top = l == s->layers - 1;
    const flat_cell flat = flat_cell_at(s, l, d);
    real *tape = (real *)call->tape, *grads = call->grads;
    ptrdiff_t size;
    backward_pass p = {
        .k = k,
        .cell = backward_cell_at(s, k, (real *)call->packed, l, d, &size),
        .tape = tape_cell_at(s, k, tape, call->steps, call->batch, dropout, l, d, &size),
        .input = input_of(s, l),
        .hidden = s->hidden,
        .blocks = blocks_of(s, k),
        .steps = call->steps,
        .batch = call->batch,
        .width = width,
        .segment = call->plan.segment,
        .x_columns = input_of(s, l),
        .h_columns = s->hidden,
        .first_step = call->first_step,
        .reverse = d == 1,
        .earlier = call->earlier,
        .later = call->later,
        .add_dx = d == 1,
        .dh = (real *)call->dh + states,
        .dc = (real *)call->dc + states,
        .dz = space->dz,
        .dz_row = dz_row_of(s),
        .panels = space->panels,
        .dw = grads + flat.w,
        .du = grads + flat.u,
        .db_ih = s->bias ? grads + flat.b_ih : NULL,
        .db_hh = s->bias ? grads + flat.b_hh : NULL,
        .edge = call->edge ? (real *)call->edge + 4 * states : NULL,
    };
    if (top) {
        p.dy = (source){(const real *)call->dy + d * s->hidden, call->dy_step, call->dy_row, NULL};
    } else {
        p.dy = (source){space->between[l % 2] + d * s->hidden, step, width, NULL};
    }
    if (l == 0 && call->tokens.rows) {
        const ptrdiff_t count = call->tokens.count, row = sums_row_of(s);
        real *sums = (real *)call->sums + d * 2 * count * row;
        p.x = (source){call->x, call->batch, call->x_row, call->tokens.rows};
        p.dx = (sink){call->dx, call->dx_row, 0};
        p.x_columns = 0;
        p.sums = (token_sums){sums, sums + count * row, count, row};
    } else if (l == 0) {
        p.x = (source){call->x, call->x_step, call->x_row, NULL};
        p.dx = (sink){call->dx, call->dx_step, call->dx_row};
    } else {
        const tape_cell below =
            tape_cell_at(s, k, tape, call->steps, call->batch, dropout, l - 1, 0, &size);
        p.x = (source){below.passed, step, width, NULL};
        p.dx = (sink){space->between[(l - 1) % 2], step, width};
    }
    return p;
}

static void backward(fl_backward_call *call, int worker, int workers)
{
    const fl_shape *s = &call->shape;
    const fl_kernels *k = call->kernels;
    if (workers != call->plan.workers) { /* the system gave fewer threads: one does it all */
        if (worker > 0) {
            return;
        }
        workers = 1;
    }
    const backward_space space = backward_space_at(call);
    const ptrdiff_t groups = divide_up(s->hidden, 4 * k->lanes);
    share me = {{0, call->batch}, {0, groups}, &call->barrier, 1};
    if (call->plan.split_units) {
        me.blocks = fl_part(groups, workers, worker);
        me.workers = workers;
    } else {
        me.rows = fl_part(call->batch, workers, worker);
    }
    const fl_fpu saved = fl_fpu_enter();
    for (ptrdiff_t l = s->layers - 1; l >= 0; l--) {
        for (ptrdiff_t d = 0; d < s->directions; d++) {
            const backward_pass p = make_backward_pass(call, &space, l, d);
            run_backward(&p, &me, &call->barrier, worker, workers);
        }
        if (l > 0 && call->dropout.rate > 0) {
            const ptrdiff_t n = call->steps * call->batch * s->directions * s->hidden;
            const fl_range part = fl_part(n, workers, worker);
            const ptrdiff_t first = call->first_step * (n / call->steps) + part.begin;
            real *dy = space.between[(l - 1) % 2] + part.begin;
            dropout_apply(&call->dropout, l - 1, first, part.end - part.begin, dy, dy);
        }
        fl_barrier_wait(&call->barrier, workers);
    }
    fl_fpu_leave(saved);
}

#endif
