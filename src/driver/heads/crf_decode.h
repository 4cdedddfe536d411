/* The best path through a conditional random field, by Viterbi's recursion.
 *
 * Only scores are kept: which tag the best path to another one came from is found again for the
 * tags of the best path alone. */
#ifndef FL_DRIVER_HEADS_CRF_DECODE_H
#define FL_DRIVER_HEADS_CRF_DECODE_H

#include "driver/heads/crf_space.h"

/* The first i with the largest a[i] + b[i]. */
static ptrdiff_t best_of(ptrdiff_t n, const real *a, const real *b)
{
    ptrdiff_t best = 0;
    real largest = a[0] + b[0];
    for (ptrdiff_t i = 1; i < n; i++) {
        const real score = a[i] + b[i];
        if (score > largest) {
            largest = score;
            best = i;
        }
    }
    return best;
}

/* The largest score of a path to each tag, relative to the largest of the step before. */
static int crf_scores(const fl_crf_call *call, const crf_tables *tables, const crf_tape *tape,
                      ptrdiff_t row, fl_watch *watch)
{
    const fl_kernels *k = call->kernels;
    const ptrdiff_t tags = call->tags, columns = tables->columns, length = crf_length(call, row);
    const real *start = call->start;
    real *add = tape->weights, largest = 0;
    for (ptrdiff_t j = tags; j < columns; j++) {
        add[j] = -(real)INFINITY;
    }
    for (ptrdiff_t t = 0; t < length; t++) {
        const real *e = crf_emissions(call, t, row);
        real *a = crf_at(tape->a, tape, 0, t);
        if (fl_leaves(watch, (double)tags * (double)columns)) {
            return 0;
        }
        for (ptrdiff_t j = 0; j < tags; j++) {
            add[j] = e[j] - largest;
        }
        if (t == 0) {
            for (ptrdiff_t j = 0; j < columns; j++) {
                a[j] = j < tags ? start[j] + add[j] : -(real)INFINITY;
            }
        } else {
            largest = k->max_plus(tags, columns, a - columns, tables->e, columns, add, a);
            largest = largest > -(real)INFINITY ? largest : 0;
        }
    }
    return 1;
}

static void crf_trace(const fl_crf_call *call, const crf_tables *tables, const crf_tape *tape,
                      ptrdiff_t row)
{
    const ptrdiff_t tags = call->tags, length = crf_length(call, row);
    const real *to = call->end;
    for (ptrdiff_t t = length - 1; t >= 0; t--) {
        const ptrdiff_t tag = best_of(tags, crf_at(tape->a, tape, 0, t), to);
        call->path[t * call->batch + row] = tag;
        to = tables->to + tag * tables->columns;
    }
}

/* T with its rows padded, in the place of its exponentials. */
static void crf_pad(const fl_crf_call *call, const crf_tables *tables)
{
    const ptrdiff_t tags = call->tags, columns = tables->columns;
    const real *t = call->transitions;
    for (ptrdiff_t i = 0; i < tags; i++) {
        memset(tables->e + i * columns, 0, (size_t)columns * sizeof(real));
        memcpy(tables->e + i * columns, t + i * tags, (size_t)tags * sizeof(real));
    }
}

static void crf_decode(void *argument, fl_worker *team)
{
    const fl_crf_call *call = argument;
    const crf_space space = crf_space_at(call);
    const fl_fpu saved = fl_fpu_enter();
    const fl_kind rows = {call->batch, 1, 1};
    const crf_tape tape = crf_tape_at(call, &space, team->number);
    fl_watch watch = fl_watch_of(call->interrupt, team->number, 0);
    int going_on = 1;
    if (team->number == 0) {
        crf_pad(call, &space.tables);
        crf_transpose(call, &space.tables);
    }
    fl_meet(team);
    fl_work work = fl_begin(team, &rows, 1);
    for (fl_piece at; fl_next(&work, &at);) {
        for (ptrdiff_t row = at.units.begin; going_on && row < at.units.end; row++) {
            going_on = crf_scores(call, &space.tables, &tape, row, &watch);
            if (going_on) {
                crf_trace(call, &space.tables, &tape, row);
            }
        }
    }
    fl_fpu_leave(saved);
}

#endif
