/* The backward driver: back-propagation through time, one layer and direction after the other.
 *
 * Steps are taken in segments, last first.  Within a segment the recurrence runs backward and
 * leaves the gradients of the pre-activations (dz); gradients.h makes of these the gradients of
 * inputs and weights while they are in cache. */
#ifndef FL_BACKWARD_H
#define FL_BACKWARD_H

#include "gradients.h"

/* dh for a tile of rows, from the i-th of this worker on: what comes in from above, and dz U from
 * the step after.  Rows that end here get the gradient of their final state instead; they are the
 * last ones of a tile, because rows are taken longest first.  `going_on` rows of this worker live
 * at the step after. */
FL_INLINE void hidden_gradient(const backward_pass *p, const timetable when, const share *me,
                               ptrdiff_t s, ptrdiff_t i, ptrdiff_t rows, ptrdiff_t going_on,
                               ptrdiff_t group, real *tile)
{
    const ptrdiff_t size = 4 * p->k->lanes, unit = group * size, k = p->rows;
    const ptrdiff_t left = going_on - i, go_on = left < 0 ? 0 : minimum(left, rows);
    const real *next = go_on > 0 ? dz_at(p, s + 1, place_at(&me->rows, i)) : NULL;
    const real *dy[FL_MAX_ROWS], *dh[FL_MAX_ROWS], *dz[FL_MAX_ROWS], *init[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t place = place_at(&me->rows, i + r), b = row_of(&when, place);
        dy[r] = source_at(&p->dy, time_of(&when, place, s), b) + unit;
        init[r] = tile + r * size;
        if (r < go_on) {
            const int cut = starts_anew(&when, place, time_of(&when, place, s + 1));
            dz[r] = cut ? p->zeros : next + r * me->rows.step * p->dz_row;
        } else {
            dh[r] = p->dh + b * p->hidden + unit;
        }
    }
    p->k->load(go_on, p->hidden - unit, dy, NULL, tile);
    p->k->load(rows - go_on, p->hidden - unit, dy + go_on, dh + go_on, tile + go_on * size);
    if (go_on > 0) {
        const fl_term term = {dz, 1, p->cell.u + group * k * size, k};
        p->k->product(go_on, vectors_of(p, p->hidden - unit), init, &term, 1, tile, size);
    }
}

/* One tile of a step: dz, and dc for the step before. */
FL_INLINE void gradient_of_tile(const int plain, const backward_pass *p, const share *me,
                                ptrdiff_t s, ptrdiff_t i, ptrdiff_t rows, ptrdiff_t going_on,
                                ptrdiff_t group)
{
    const ptrdiff_t size = 4 * p->k->lanes, unit = group * size, h = p->hidden;
    const ptrdiff_t first = place_at(&me->rows, i), row = s * p->when.batch + first;
    const timetable when = seen_as(&p->when, plain);
    const real *c_before[FL_MAX_ROWS], *c[FL_MAX_ROWS];
    real *dc[FL_MAX_ROWS];
    int anew[FL_MAX_ROWS];
    _Alignas(FL_ALIGN) real dh[FL_MAX_TILE];
    hidden_gradient(p, when, me, s, i, rows, going_on, group, dh);
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t place = place_at(&me->rows, i + r);
        const real *before = p->tape.c + (s * when.batch + place) * h + unit;
        anew[r] = starts_anew(&when, place, time_of(&when, place, s));
        c_before[r] = anew[r] ? p->zeros : before;
        c[r] = before + when.batch * h;
        dc[r] = p->dc + row_of(&when, place) * h + unit;
    }
    const fl_gradient gradient = {
        .dh = dh,
        .gates = p->tape.gates + (row * p->blocks + 4 * group) * size,
        .gates_row = me->rows.step * p->blocks * size,
        .c_before = c_before,
        .c = c,
        .dc = dc,
        .dz = dz_at(p, s, first) + unit,
        .dz_row = me->rows.step * p->dz_row,
        .gate_step = h,
        .units = h - unit,
    };
    p->k->gradient[p->shape->cell](rows, &gradient);
    for (ptrdiff_t r = 0; r < rows; r++) {
        if (anew[r]) {
            memset(dc[r], 0, (size_t)minimum(size, h - unit) * sizeof(real));
        }
    }
}

/* `rows` rows of this worker live at step s, `going_on` of them also at the step after. */
static void backward_step(const backward_pass *p, const share *me, ptrdiff_t s, ptrdiff_t rows,
                          ptrdiff_t going_on)
{
    for (ptrdiff_t group = me->blocks.begin; group < me->blocks.end; group++) {
        tiling tiles = tile_rows(p->k, rows);
        for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
            tile = next_tile(&tiles);
            if (is_plain(&p->when)) {
                gradient_of_tile(1, p, me, s, i, tile, going_on, group);
            } else {
                gradient_of_tile(0, p, me, s, i, tile, going_on, group);
            }
        }
    }
    fl_barrier_wait(me->barrier, me->workers);
}

/* The gradient of the initial hidden state, dz[0] U, of the rows that have a step. */
static void state_gradients(const backward_pass *p, const share *me, ptrdiff_t rows)
{
    for (ptrdiff_t group = me->blocks.begin; group < me->blocks.end; group++) {
        tiling tiles = tile_rows(p->k, rows);
        for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
            tile = next_tile(&tiles);
            const real *dz[FL_MAX_ROWS];
            real *dh[FL_MAX_ROWS];
            for (ptrdiff_t r = 0; r < tile; r++) {
                const ptrdiff_t place = place_at(&me->rows, i + r);
                const int anew = starts_anew(&p->when, place, time_of(&p->when, place, 0));
                dz[r] = anew ? p->zeros : dz_at(p, 0, place);
                dh[r] = p->dh + row_of(&p->when, place) * p->hidden;
            }
            rows_times_weights(p, dz, tile, p->cell.u, group, p->hidden, dh, 0);
        }
    }
}

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
    space.zeros = carve(&c, FL_SLOTS * s->hidden);
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
        .shape = s,
        .rows = slots_of(s) * s->hidden,
        .cell = backward_cell_at(s, k, (real *)call->packed, l, d, &size),
        .tape = tape_cell_at(s, k, tape, call->steps, call->batch, dropout, l, d, &size),
        .input = input_of(s, l),
        .hidden = s->hidden,
        .blocks = blocks_of(s, k),
        .when = {call->rows, call->steps, call->batch, d == 1},
        .width = width,
        .segment = call->plan.segment,
        .x_columns = input_of(s, l),
        .h_columns = s->hidden,
        .first_step = call->first_step,
        .earlier = call->earlier,
        .later = call->later,
        .add_dx = d == 1,
        .dh = (real *)call->dh + states,
        .dc = (real *)call->dc + states,
        .dz = space->dz,
        .dz_row = dz_row_of(s),
        .panels = space->panels,
        .zeros = space->zeros,
        .dw = grads + flat.w,
        .du = grads + flat.u,
        .db_ih = s->bias ? grads + flat.b_ih : NULL,
        .db_hh = s->bias ? grads + flat.b_hh : NULL,
        .edge = call->edge ? (real *)call->edge + FL_SLOTS * states : NULL,
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
    const timetable when = {call->rows, call->steps, call->batch, 0};
    share me = {all_places(call->batch), {0, groups}, &call->barrier, 1};
    if (call->plan.split_units) {
        me.blocks = fl_part(groups, workers, worker);
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
