/* Connectionist temporal classification.
 *
 * The states of a target of S symbols are blank, symbol, blank, ... blank: 2S + 1.  With a[t][s]
 * the logarithm of the sum of all paths to state s at step t, and
 *
 *     l[t][s] = log(e^a[t-1][s] + e^a[t-1][s-1] + e^a[t-1][s-2]),   a[t][s] = l[t][s] + log y[t][s]
 *
 * where y are the softmax of the logits, and the last term is there for a symbol other than the one
 * before, e^(a[t-1][r] - l[t][s]) is the part of r in what s has.  So the probabilities g[t] of the
 * states at each step, given the target, follow from the last step backward, and the gradient of
 * -log p is y - g, summed over the states of a symbol.
 *
 * a is kept relative to the largest of the step before.  A path that is not there has FL_LOG_ZERO
 * and less. */
#ifndef FL_DRIVER_HEADS_CTC_H
#define FL_DRIVER_HEADS_CTC_H

#include "driver/heads/log_of_sum.h"
#include "driver/team_plan.h"
#include "driver/tiles.h"

#include <math.h>
#include <string.h>

/* What a worker writes; what steps and states have begins after an edge, and ends with one. */
typedef struct {
    ptrdiff_t step;
    real *a;    /* [T+1][step]: before the first step, and after each */
    real *lse;  /* [T][step] */
    real *emit; /* [step], and the next three */
    real *skip, *g, *g_before;
    real *row;  /* [K, padded]: logits */
    real *ends; /* [FL_SUM_LANES]: a of the states that a path may end in */
} ctc_space;

/* A row of the batch. */
typedef struct {
    const fl_ctc_call *call;
    const fl_kernels *k;
    ctc_space space;
    ptrdiff_t row, length, states;
    ptrdiff_t padded; /* states, in whole lines */
    const ptrdiff_t *target;
} ctc_row;

static ctc_space ctc_space_at(const fl_ctc_call *call, arena *a)
{
    const ptrdiff_t step = aligned(2 * call->most_targets + 1) + 2 * FL_CTC_EDGE;
    ctc_space space = {.step = step};
    space.a = arena_take(a, (call->steps + 1) * step);
    space.lse = arena_take(a, call->steps * step);
    space.emit = arena_take(a, step);
    space.skip = arena_take(a, step);
    space.g = arena_take(a, step);
    space.g_before = arena_take(a, step);
    space.row = arena_take(a, call->symbols);
    space.ends = arena_take(a, FL_SUM_LANES);
    return space;
}

/* Workers share rows.  A step of one takes as long as so many multiply-adds: within a quarter for
 * 30 to 1,000 symbols and 11 to 101 states (Xeon, AVX-512: 0.20 to 0.69 us). */
static void plan_ctc(fl_ctc_call *call, fl_team_limits limits)
{
    const double states = 2 * (double)call->most_targets + 1;
    const double step = 12000 + 100 * states + 40 * (double)call->symbols;
    const double work = step * (double)call->steps * (double)call->batch;
    arena a = {NULL, 0};
    plan_shares(&call->team, &limits, work, call->batch);
    ctc_space_at(call, &a);
    call->scratch_size = call->team.workers * a.used;
}

/* State 0 of what `base` has at a step. */
static inline real *ctc_at(const ctc_row *r, real *base, ptrdiff_t t)
{
    return base + t * r->space.step + FL_CTC_EDGE;
}

static inline real *ctc_dlogits(const ctc_row *r, ptrdiff_t t)
{
    const fl_ctc_call *call = r->call;
    return (real *)call->dlogits + (t * call->batch + r->row) * call->symbols;
}

static void ctc_prepare(const ctc_row *r)
{
    const ctc_space *space = &r->space;
    for (ptrdiff_t i = 0; i < space->step; i++) {
        const ptrdiff_t s = i - FL_CTC_EDGE, n = s / 2;
        const int is_symbol = s > 0 && s % 2 && s < r->states;
        const int skips = is_symbol && n > 0 && r->target[n] != r->target[n - 1];
        space->skip[i] = skips ? 0 : FL_LOG_ZERO;
        space->emit[i] = space->a[i] = FL_LOG_ZERO;
        space->g[i] = space->g_before[i] = 0;
    }
    ctc_at(r, space->a, 0)[0] = 0; /* from where states 0 and 1 are entered */
}

static inline real ctc_log_y(real logit, real top, real log_sum)
{
    const real log_y = (logit - top) - log_sum;
    return log_y < FL_LOG_ZERO ? FL_LOG_ZERO : log_y; /* a NaN stays one */
}

/* The softmax of a step, left in the place of the gradient, and log y of the states.  Returns
 * whether they are numbers. */
static int ctc_emit(const ctc_row *r, ptrdiff_t t)
{
    const fl_ctc_call *call = r->call;
    const ptrdiff_t n = call->symbols;
    const real *logits =
        (const real *)call->logits + t * call->logits_step + r->row * call->logits_row;
    real *y = r->space.row, *emit = ctc_at(r, r->space.emit, 0), *out = ctc_dlogits(r, t), top;
    memcpy(y, logits, (size_t)n * sizeof(real));
    for (ptrdiff_t i = n; i < aligned(n); i++) {
        y[i] = -(real)INFINITY;
    }
    const real sum = r->k->exponentials(aligned(n), y, y, &top), factor = 1 / sum;
    for (ptrdiff_t i = 0; i < n; i++) {
        out[i] = y[i] * factor;
    }
    const real log_sum = (real)log_of_sum((double)sum);
    const real blank = ctc_log_y(logits[call->blank], top, log_sum);
    for (ptrdiff_t s = 0; s + 1 < r->states; s += 2) {
        emit[s] = blank;
        emit[s + 1] = ctc_log_y(logits[r->target[s / 2]], top, log_sum);
    }
    emit[r->states - 1] = blank;
    return blank == blank;
}

/* Returns log p of the target, and leaves the probabilities of the last states. */
static double ctc_end(const ctc_row *r, double shifted)
{
    const real *a = ctc_at(r, r->space.a, r->length);
    real *ends = r->space.ends, *g = ctc_at(r, r->space.g, 0), top;
    for (ptrdiff_t i = 0; i < FL_SUM_LANES; i++) {
        ends[i] = i < minimum(r->states, 2) ? a[r->states - 1 - i] : -(real)INFINITY;
    }
    const real sum = r->k->exponentials(FL_SUM_LANES, ends, ends, &top);
    for (ptrdiff_t i = 0; i < minimum(r->states, 2); i++) {
        g[r->states - 1 - i] = ends[i] / sum;
    }
    return shifted + ((double)top + log_of_sum((double)sum));
}

static int ctc_recursion(const ctc_row *r, fl_watch *watch, double *log_p)
{
    double shifted = 0;
    real shift = 0;
    ctc_prepare(r);
    for (ptrdiff_t t = 0; t < r->length; t++) {
        real *a = ctc_at(r, r->space.a, t);
        if (fl_leaves(watch, 120 * (double)r->padded)) {
            return 0;
        }
        if (!ctc_emit(r, t)) {
            *log_p = (double)NAN; /* a maximum of data may lose it */
            return 1;
        }
        a[-1] = a[-2] = FL_LOG_ZERO;
        const fl_ctc_step step = {
            .n = r->padded,
            .a = a,
            .skip = ctc_at(r, r->space.skip, 0),
            .lse = ctc_at(r, r->space.lse, t),
            .emit = ctc_at(r, r->space.emit, 0),
            .shift = shift,
            .out = a + r->space.step,
        };
        shifted += (double)shift;
        shift = r->k->ctc_forward(&step);
    }
    *log_p = ctc_end(r, shifted);
    return 1;
}

/* What the gradient is where there is no recursion backward. */
static void ctc_fill(const ctc_row *r, ptrdiff_t first, ptrdiff_t end, real value)
{
    for (ptrdiff_t t = first; t < end; t++) {
        real *out = ctc_dlogits(r, t);
        for (ptrdiff_t i = 0; i < r->call->symbols; i++) {
            out[i] = value;
        }
    }
}

/* y - g of a step. */
static void ctc_subtract(const ctc_row *r, ptrdiff_t t, const real *g)
{
    real *out = ctc_dlogits(r, t), blank = 0;
    for (ptrdiff_t s = 0; s + 1 < r->states; s += 2) {
        blank += g[s];
        out[r->target[s / 2]] -= g[s + 1];
    }
    out[r->call->blank] -= blank + g[r->states - 1];
}

static void ctc_gradient(ctc_row *r)
{
    for (ptrdiff_t t = r->length - 1; t >= 0; t--) {
        real *g = r->space.g, *lse = ctc_at(r, r->space.lse, t);
        ctc_subtract(r, t, g + FL_CTC_EDGE);
        lse[r->padded] = lse[r->padded + 1] = 0;
        const fl_ctc_step step = {
            .n = r->padded,
            .a = ctc_at(r, r->space.a, t),
            .skip = ctc_at(r, r->space.skip, 0),
            .lse = lse,
            .g = g + FL_CTC_EDGE,
            .g_out = r->space.g_before + FL_CTC_EDGE,
        };
        r->k->ctc_backward(&step);
        r->space.g = r->space.g_before;
        r->space.g_before = g;
    }
}

static int ctc_row_of(ctc_row *r, fl_watch *watch)
{
    const fl_ctc_call *call = r->call;
    double log_p;
    if (!ctc_recursion(r, watch, &log_p)) {
        return 0;
    }
    const int no_path = log_p < (double)FL_LOG_ZERO / 10;
    ((real *)call->nll)[r->row] = no_path ? (real)INFINITY : (real)(0 - log_p);
    if (no_path || log_p != log_p) {
        ctc_fill(r, 0, r->length, (real)(no_path ? 0 : log_p));
    } else {
        ctc_gradient(r);
    }
    ctc_fill(r, r->length, call->steps, 0);
    return 1;
}

static void ctc(void *argument, fl_worker *team)
{
    const fl_ctc_call *call = argument;
    arena a = {NULL, 0};
    ctc_space_at(call, &a);
    a = (arena){call->scratch, team->number * a.used};
    const ctc_space space = ctc_space_at(call, &a);
    const fl_fpu saved = fl_fpu_enter();
    const fl_kind rows = {call->batch, 1, 1};
    fl_watch watch = fl_watch_of(call->interrupt, team->number, 0);
    int going_on = 1;
    fl_work work = fl_begin(team, &rows, 1);
    for (fl_piece at; fl_next(&work, &at);) {
        for (ptrdiff_t row = at.units.begin; going_on && row < at.units.end; row++) {
            const ptrdiff_t states = 2 * call->target_lengths[row] + 1;
            ctc_row r = {
                .call = call,
                .k = call->kernels,
                .space = space,
                .row = row,
                .length = call->lengths[row],
                .states = states,
                .padded = aligned(states),
                .target = call->targets + row * call->targets_row,
            };
            going_on = ctc_row_of(&r, &watch);
        }
    }
    fl_fpu_leave(saved);
}

#endif
