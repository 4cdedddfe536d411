/* The backward driver: back-propagation through time, one layer and direction after the other.
 *
 * Steps are taken in segments, last first.  Within a segment the recurrence runs backward and
 * leaves the gradients of the pre-activations (dz); gradients.h turns these into the gradients of
 * inputs and weights while they are in cache. */
#ifndef FL_DRIVER_BACKWARD_BACKWARD_H
#define FL_DRIVER_BACKWARD_BACKWARD_H

#include "driver/backward/gradients.h"
#include "driver/backward/plain_step.h"

/* dz of a step next to those of this call: from the caller's rows to where dz lies, or back.  Where
 * workers share rows, one of them does it. */
static void pass_boundary_dz(const backward_pass *p, const worker_share *me, int worker,
                             ptrdiff_t s, int out)
{
    const size_t bytes = (size_t)p->rows * sizeof(real);
    const ranks all = all_ranks(worker == 0 ? p->when.batch : 0);
    const ranks rows = me->team->workers > 1 ? all : me->rows;
    const ptrdiff_t active = active_rows(&p->when, &rows, s, rows.count);
    for (ptrdiff_t i = 0; i < active; i++) {
        const ptrdiff_t rank = rank_at(&rows, i);
        real *boundary_dz = p->boundary_dz + row_of(&p->when, rank) * FL_GATE_SLOTS * p->hidden,
             *dz = dz_at(p, s, rank);
        if (!out) {
            memcpy(dz, boundary_dz, bytes);
        } else if (is_reset(&p->when, rank, s)) {
            memset(boundary_dz, 0, bytes);
        } else {
            memcpy(boundary_dz, dz, bytes);
        }
    }
    fl_meet(me->team);
}

/* False: the call ends early. */
static int run_backward(const backward_pass *p, const worker_share *me, fl_worker *team,
                        fl_watch *watch)
{
    const int worker = team->number;
    const double work = 2 * step_work(p->rows, 1, p->input + p->head_size, p->when.batch);
    ptrdiff_t going_on = 0;
    if (p->later) {
        pass_boundary_dz(p, me, worker, p->when.steps, 0);
        going_on = active_rows(&p->when, &me->rows, p->when.steps, 0);
    }
    for (ptrdiff_t s1 = p->when.steps; s1 > 0;) {
        const ptrdiff_t s0 = (s1 - 1) / p->segment * p->segment;
        if (fl_leaves(watch, work * (double)(s1 - s0))) {
            return 0;
        }
        for (ptrdiff_t s = s1 - 1; s >= s0; s--) {
            const ptrdiff_t rows = active_rows(&p->when, &me->rows, s, going_on);
            if (p->plain) {
                plain_step(p, me, s, rows, going_on);
            } else {
                options_step(p, me, s, rows, going_on);
            }
            going_on = rows;
        }
        if (s0 == 0 && p->earlier) {
            pass_boundary_dz(p, me, worker, 0, 1);
        } else if (s0 == 0) {
            state_gradients(p, me, going_on);
        }
        segment_gradients(p, team, s0, s1);
        s1 = s0;
    }
    for (ptrdiff_t i = 0; p->sums.recent && !p->earlier && i < shard_count(p); i++) {
        const backward_pass of_shard = pass_of_shard(p, i);
        token_gradients(&of_shard, team);
    }
    return 1;
}

/* Between layers: dy after dropout. */
static void drop_gradients(const fl_backward_call *call, fl_worker *team, ptrdiff_t layer, real *dy)
{
    const fl_stack *s = &call->stack;
    const ptrdiff_t width = s->directions * output_size(s), n = call->batch * width;
    const fl_kind steps = {call->steps, 1, 1};
    fl_work work = fl_begin(team, &steps, 1);
    for (fl_piece at; fl_next(&work, &at);) {
        for (ptrdiff_t t = at.units.begin; t < at.units.end; t++) {
            const ptrdiff_t row =
                number_of_row(&call->dropout, call->batch, call->first_step + t, 0);
            dropout_apply(&call->dropout, layer, row * width, n, dy + t * n, dy + t * n);
        }
    }
}

static void backward(void *argument, fl_worker *team)
{
    fl_backward_call *call = argument;
    const fl_stack *s = &call->stack;
    fl_worker alone = fl_alone();
    if (team->workers != call->plan.team.workers) { /* the system gave fewer threads */
        if (team->number > 0) {
            return;
        }
        team = &alone;
    }
    const int worker = team->number;
    const backward_space space = backward_space_at(call);
    const row_schedule when = {call->rows, call->steps, call->batch, 0};
    worker_share me = {all_ranks(call->batch), team};
    if (!call->plan.split_units) {
        me = (worker_share){ranks_of_worker(&when, worker, team->workers), &alone};
    }
    if (worker == 0) {
        memset(space.zeros, 0, (size_t)(FL_GATE_SLOTS * s->hidden) * sizeof(real));
    }
    fl_meet(team);
    /* All workers meet after each segment, whether they share rows or not. */
    fl_watch watch = fl_watch_of(call->interrupt, worker, team->workers > 1);
    int goes_on = 1;
    const fl_fpu saved = fl_fpu_enter();
    for (ptrdiff_t l = s->layers - 1; l >= 0; l--) {
        for (ptrdiff_t d = 0; d < s->directions && goes_on; d++) {
            const backward_pass p = make_backward_pass(call, &space, worker, l, d);
            goes_on = run_backward(&p, &me, team, &watch);
        }
        if (!goes_on) {
            break;
        }
        if (l > 0 && call->dropout.rate > 0) {
            drop_gradients(call, team, l - 1, space.between[(l - 1) % 2]);
        }
    }
    fl_fpu_leave(saved);
}

#endif
