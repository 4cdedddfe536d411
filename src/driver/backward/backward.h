/* The backward driver: back-propagation through time, one layer and direction after the other.
 *
 * Steps are taken in segments, last first.  Within a segment the recurrence runs backward and
 * leaves the gradients of the pre-activations (dz); gradients.h makes of these the gradients of
 * inputs and weights while they are in cache. */
#ifndef FL_DRIVER_BACKWARD_BACKWARD_H
#define FL_DRIVER_BACKWARD_BACKWARD_H

#include "driver/backward/gradients.h"
#include "driver/backward/step.h"
#include "layout/parameters.h"

/* dz of a step next to those of this call: from the edge into the ring, or back.  Where workers
 * share rows, one of them does it. */
static void pass_edge(const backward_pass *p, const share *me, int worker, ptrdiff_t s, int out)
{
    const size_t bytes = (size_t)p->rows * sizeof(real);
    const places all = all_places(worker == 0 ? p->when.batch : 0);
    const places rows = me->workers > 1 ? all : me->rows;
    const ptrdiff_t live = living(&p->when, &rows, s, rows.count);
    for (ptrdiff_t i = 0; i < live; i++) {
        const ptrdiff_t place = place_at(&rows, i);
        real *edge = p->edge + row_of(&p->when, place) * FL_SLOTS * p->hidden,
             *dz = dz_at(p, s, place);
        if (!out) {
            memcpy(dz, edge, bytes);
        } else if (starts_anew(&p->when, place, s)) {
            memset(edge, 0, bytes);
        } else {
            memcpy(edge, dz, bytes);
        }
    }
    fl_barrier_wait(me->barrier, me->workers);
}

static void run_backward(const backward_pass *p, const share *me, fl_barrier *barrier, int worker,
                         int workers)
{
    ptrdiff_t going_on = 0;
    if (p->later) {
        pass_edge(p, me, worker, p->when.steps, 0);
        going_on = living(&p->when, &me->rows, p->when.steps, 0);
    }
    for (ptrdiff_t s1 = p->when.steps; s1 > 0;) {
        const ptrdiff_t s0 = (s1 - 1) / p->segment * p->segment;
        for (ptrdiff_t s = s1 - 1; s >= s0; s--) {
            const ptrdiff_t rows = living(&p->when, &me->rows, s, going_on);
            backward_step(p, me, s, rows, going_on);
            going_on = rows;
        }
        if (s0 == 0 && p->earlier) {
            pass_edge(p, me, worker, 0, 1);
        } else if (s0 == 0) {
            state_gradients(p, me, going_on);
        }
        segment_gradients(p, barrier, worker, workers, s0, s1);
        s1 = s0;
    }
    if (p->sums.recent && !p->earlier) {
        token_gradients(p, barrier, worker, workers);
    }
}

typedef struct {
    real *dz, *panels, *zeros;
    real *dh_rows, *zone;
    ptrdiff_t zone_worker;
    real *between[2]; /* [T][B][D*Hout]: gradients of the outputs of layers below the last */
    ptrdiff_t size;
} backward_space;

static inline ptrdiff_t dh_row_of(const fl_shape *s, const fl_kernels *k)
{
    return divide_up(s->hidden, 4 * k->lanes) * 4 * k->lanes;
}

static backward_space backward_space_at(const fl_backward_call *call)
{
    const fl_shape *s = &call->shape;
    const fl_kernels *k = call->kernels;
    const ptrdiff_t size = 4 * k->lanes;
    const ptrdiff_t input = s->layers > 1 && input_of(s, 1) > s->input ? input_of(s, 1) : s->input;
    const ptrdiff_t groups = divide_up(input, size) + divide_up(out_of(s), size) +
                             (second_of(s) ? divide_up(s->hidden, size) : 0);
    carver c = {call->scratch, 0};
    backward_space space = {0};
    space.dz = carve(&c, 2 * call->plan.segment * call->batch * dz_columns_of(s).row);
    space.panels = carve(&c, groups * FL_TERMS * size);
    space.zeros = carve(&c, FL_SLOTS * s->hidden);
    space.dh_rows = carve(&c, has_norm(s) ? call->batch * dh_row_of(s, k) : 0);
    space.zone_worker = zone_size(s);
    space.zone = carve(&c, call->plan.workers * space.zone_worker);
    for (ptrdiff_t l = 0; l < minimum(s->layers - 1, 2); l++) {
        space.between[l] = carve(&c, call->steps * call->batch * s->directions * out_of(s));
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
    plan_team(&call->plan, &limits, call->batch,
              has_norm(s) ? 1 : divide_up(s->hidden, 4 * k->lanes), step_work * steps, step_work);
    call->plan.segment = minimum(segment_of(call->batch), call->steps);
    call->plan.zone_worker = zone_size(s);
    call->plan.scratch = backward_space_at(call).size;
}

/* What only layers with options have. */
static void add_backward_options(const fl_backward_call *call, const backward_space *space,
                                 backward_pass *p, int worker, ptrdiff_t l, ptrdiff_t d)
{
    const fl_shape *s = p->shape;
    const flat_cell flat = flat_cell_at(s, l, d);
    real *grads = call->grads;
    p->plain = is_plain(&p->when) && s->cell < FL_LSTM_OPTIONS && !s->projection && !p->tape.feed;
    p->inner_columns = second_of(s) ? s->hidden : 0;
    p->d_second =
        s->cell == FL_GRU_BEFORE ? p->du + 2 * s->hidden * s->hidden : grads + flat.projection;
    p->d_peephole = grads + flat.peephole;
    p->d_gain = grads + flat.gain;
    p->dh_rows = space->dh_rows;
    p->dh_row = dh_row_of(s, p->k);
    p->zone = space->zone + worker * space->zone_worker;
    if (s->cell == FL_LSTM_OPTIONS) {
        p->options = cell_options_of(s, d, p->cell.peephole, p->cell.gain, p->cell.shift);
        p->zone_h = zoneout_of(s, &call->dropout, l, d, 0, call->batch);
        p->zone_c = zoneout_of(s, &call->dropout, l, d, 1, call->batch);
        p->zone_h.first_step = p->zone_c.first_step = call->first_step;
    }
}

static backward_pass make_backward_pass(const fl_backward_call *call, const backward_space *space,
                                        int worker, ptrdiff_t l, ptrdiff_t d)
{
    const fl_shape *s = &call->shape;
    const fl_kernels *k = call->kernels;
    const ptrdiff_t width = s->directions * out_of(s), step = call->batch * width;
    const ptrdiff_t states = (l * s->directions + d) * call->batch;
    const int top = l == s->layers - 1;
    const flat_cell flat = flat_cell_at(s, l, d);
    real *tape = (real *)call->tape, *grads = call->grads;
    ptrdiff_t size;
    backward_pass p = {
        .k = k,
        .shape = s,
        .rows = slots_of(s) * s->hidden,
        .recurrent = recurrent_slots_of(s) * s->hidden,
        .cell = backward_cell_at(s, k, (real *)call->packed, l, d, &size),
        .tape = tape_cell_at(s, k, tape, call->steps, call->batch, &call->dropout, l, d, &size),
        .input = input_of(s, l),
        .hidden = s->hidden,
        .out_size = out_of(s),
        .blocks = blocks_of(s, k),
        .when = {call->rows, call->steps, call->batch, d == 1},
        .width = width,
        .segment = call->plan.segment,
        .x_columns = input_of(s, l),
        .h_columns = out_of(s),
        .first_step = call->first_step,
        .earlier = call->earlier,
        .later = call->later,
        .add_dx = d == 1,
        .dh = (real *)call->dh + states * out_of(s),
        .dc = (real *)call->dc + states * s->hidden,
        .dz = space->dz,
        .at = dz_columns_of(s),
        .dz_row = dz_columns_of(s).row,
        .panels = space->panels,
        .zeros = space->zeros,
        .dw = grads + flat.w,
        .du = grads + flat.u,
        .db_ih = s->bias ? grads + flat.b_ih : NULL,
        .db_hh = s->bias ? grads + flat.b_hh : NULL,
        .edge = call->edge ? (real *)call->edge + FL_SLOTS * s->hidden * states : NULL,
    };
    add_backward_options(call, space, &p, worker, l, d);
    if (top) {
        p.dy = (source){(const real *)call->dy + d * out_of(s), call->dy_step, call->dy_row, NULL};
    } else {
        p.dy = (source){space->between[l % 2] + d * out_of(s), step, width, NULL};
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
            tape_cell_at(s, k, tape, call->steps, call->batch, &call->dropout, l - 1, 0, &size);
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
    const timetable when = {call->rows, call->steps, call->batch, 0};
    const ptrdiff_t outputs = divide_up(out_of(s), 4 * k->lanes);
    share me = {all_places(call->batch), {0, groups}, {0, outputs}, &call->barrier, 1};
    if (call->plan.split_units) {
        me.blocks = fl_part(groups, workers, worker);
        me.seconds = fl_part(outputs, workers, worker);
        me.workers = workers;
    } else {
        me.rows = places_of_worker(&when, worker, workers);
    }
    if (worker == 0) {
        memset(space.zeros, 0, (size_t)(FL_SLOTS * s->hidden) * sizeof(real));
    }
    fl_barrier_wait(&call->barrier, workers);
    const fl_fpu saved = fl_fpu_enter();
    for (ptrdiff_t l = s->layers - 1; l >= 0; l--) {
        for (ptrdiff_t d = 0; d < s->directions; d++) {
            const backward_pass p = make_backward_pass(call, &space, worker, l, d);
            run_backward(&p, &me, &call->barrier, worker, workers);
        }
        if (l > 0 && call->dropout.rate > 0) {
            const ptrdiff_t n = call->steps * call->batch * s->directions * out_of(s);
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
