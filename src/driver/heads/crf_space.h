/* Where a conditional random field computes. */
#ifndef FL_DRIVER_HEADS_CRF_SPACE_H
#define FL_DRIVER_HEADS_CRF_SPACE_H

#include "driver/team_plan.h"
#include "driver/tiles.h"
#include "layout/pack.h"

/* Rows whose steps are products together, and runs of such groups that a worker takes one after the
 * other.  Gradients are summed over a run, and then over runs: their sizes depend on the batch
 * alone, so the sums are the same for any team and instruction set.  Each run has gradients of its
 * own, K^2 of them. */
enum { FL_CRF_ROWS = 6, FL_CRF_RUNS = 64 };

/* What all workers read: the transitions T in several forms, columns padded to whole lines. */
typedef struct {
    ptrdiff_t columns;
    real *largest;            /* [columns]: of each column, or 0 if that is -inf */
    real *e;                  /* [K][K]: e^(T - largest); to decode, [K][columns]: T */
    real *to;                 /* [K][columns]: T, by the tag that it leads to */
    real *forward, *backward; /* [groups][K][4*VL]: panels of e and of its transpose */
    real *zeros;              /* [columns] */
} crf_tables;

/* What a worker writes: rows of `columns` elements for each row of a group and step. */
typedef struct {
    ptrdiff_t row, columns; /* from one row of the group to the next; from step to step */
    real *a, *p, *q;
    real *largest; /* [FL_CRF_ROWS][T]: a of each step */
    real *g;       /* [FL_CRF_ROWS][columns], and the next two */
    real *u, *rest;
    real *weights; /* [columns] */
    real *sums;    /* [K][columns]: this and the next for gradients */
    real *panels;  /* [groups][T][4*VL] */
} crf_tape;

typedef struct {
    crf_tables tables;
    real *grads; /* [runs][K*K + K + K] */
    ptrdiff_t shared, worker;
} crf_space;

static inline real *crf_at(real *base, const crf_tape *tape, ptrdiff_t r, ptrdiff_t t)
{
    return base + r * tape->row + t * tape->columns;
}

static inline const real *crf_emissions(const fl_crf_call *call, ptrdiff_t t, ptrdiff_t row)
{
    return (const real *)call->emissions + t * call->emissions_step + row * call->emissions_row;
}

static inline ptrdiff_t crf_length(const fl_crf_call *call, ptrdiff_t row)
{
    return call->lengths ? call->lengths[row] : call->steps;
}

static inline ptrdiff_t crf_groups(const fl_crf_call *call)
{
    return divide_up(call->batch, FL_CRF_ROWS);
}

static inline ptrdiff_t crf_runs(const fl_crf_call *call)
{
    return minimum(crf_groups(call), FL_CRF_RUNS);
}

static inline ptrdiff_t crf_grads_size(const fl_crf_call *call)
{
    return call->tags * (call->tags + 2);
}

static crf_tape crf_take_tape(const fl_crf_call *call, arena *a)
{
    const ptrdiff_t columns = aligned(call->tags),
                    size = 4 * ((const fl_kernels *)call->kernels)->lanes;
    const ptrdiff_t row = call->steps * columns;
    crf_tape tape = {.row = row, .columns = columns};
    tape.a = arena_take(a, call->path ? row : FL_CRF_ROWS * row);
    tape.weights = arena_take(a, columns);
    if (call->path) {
        return tape;
    }
    tape.p = arena_take(a, FL_CRF_ROWS * row);
    tape.q = arena_take(a, FL_CRF_ROWS * row);
    tape.largest = arena_take(a, FL_CRF_ROWS * call->steps);
    tape.g = arena_take(a, FL_CRF_ROWS * columns);
    tape.u = arena_take(a, FL_CRF_ROWS * columns);
    tape.rest = arena_take(a, FL_CRF_ROWS * columns);
    if (call->labels) {
        tape.sums = arena_take(a, call->tags * columns);
        tape.panels = arena_take(a, divide_up(columns, size) * size * call->steps);
    }
    return tape;
}

static crf_space crf_space_at(const fl_crf_call *call)
{
    const ptrdiff_t tags = call->tags, columns = aligned(tags);
    const ptrdiff_t size = 4 * ((const fl_kernels *)call->kernels)->lanes;
    const ptrdiff_t panels = divide_up(columns, size) * size * tags;
    arena a = {call->scratch, 0};
    crf_space space = {.tables = {.columns = columns}};
    crf_tables *tables = &space.tables;
    tables->e = arena_take(&a, tags * columns);
    tables->to = arena_take(&a, tags * columns);
    if (!call->path) {
        tables->largest = arena_take(&a, columns);
        tables->zeros = arena_take(&a, columns);
        tables->forward = arena_take(&a, panels);
        tables->backward = arena_take(&a, panels);
        space.grads =
            arena_take_if(&a, call->labels != NULL, crf_runs(call) * crf_grads_size(call));
    }
    space.shared = a.used;
    crf_take_tape(call, &a);
    space.worker = a.used - space.shared;
    return space;
}

static crf_tape crf_tape_at(const fl_crf_call *call, const crf_space *space, int worker)
{
    arena a = {call->scratch, space->shared + worker * space->worker};
    return crf_take_tape(call, &a);
}

/* As many multiply-adds take as long as a step of a row: within a quarter for 2 to 200 tags (Xeon,
 * AVX-512: 83 ns and 2.1 us; the best paths 31 ns and 2.1 us). */
static double crf_step_work(const fl_crf_call *call)
{
    const double tags = (double)call->tags;
    return call->path ? 2200 + (60 + 4 * tags) * tags : 6000 + (100 + 3 * tags) * tags;
}

/* Workers share runs of rows, or rows for the best paths. */
static void plan_crf(fl_crf_call *call, fl_team_limits limits)
{
    const double work = crf_step_work(call) * (double)call->steps * (double)call->batch;
    plan_shares(&call->team, &limits, work, call->path ? call->batch : crf_runs(call));
    const crf_space space = crf_space_at(call);
    call->scratch_size = space.shared + call->team.workers * space.worker;
}

/* T by the tag it leads to, -inf beyond. */
static void crf_transpose(const fl_crf_call *call, const crf_tables *tables)
{
    const ptrdiff_t tags = call->tags, columns = tables->columns;
    const real *t = call->transitions;
    for (ptrdiff_t j = 0; j < tags; j++) {
        for (ptrdiff_t i = 0; i < columns; i++) {
            tables->to[j * columns + i] = i < tags ? t[i * tags + j] : -(real)INFINITY;
        }
    }
}

static void crf_prepare(const fl_crf_call *call, const crf_tables *tables)
{
    const fl_kernels *k = call->kernels;
    const ptrdiff_t tags = call->tags, columns = tables->columns, size = 4 * k->lanes;
    const fl_range groups = {0, divide_up(tags, size)};
    const real *t = call->transitions;
    crf_transpose(call, tables);
    for (ptrdiff_t j = 0; j < columns; j++) {
        real top = -(real)INFINITY;
        for (ptrdiff_t i = 0; j < tags && i < tags; i++) {
            top = t[i * tags + j] > top ? t[i * tags + j] : top;
        }
        tables->largest[j] = top > -(real)INFINITY ? top : 0;
        tables->zeros[j] = 0;
    }
    for (ptrdiff_t i = 0; i < tags; i++) {
        real *e = tables->e + i * tags;
        for (ptrdiff_t j = 0; j < tags; j++) {
            e[j] = t[i * tags + j] - tables->largest[j];
        }
        k->activate(FL_EXP, e, e, tags);
    }
    const matrix e = {tables->e, NULL, tags};
    pack_columns(tables->e, tags, tags, size, groups, tables->forward);
    pack_rows(FL_SAME, k, &e, tags, groups, (char *)tables->backward);
}

/* Runs one after the other. */
static void crf_add_grads(const fl_crf_call *call, const crf_space *space)
{
    const ptrdiff_t size = crf_grads_size(call);
    real *grads = call->grads;
    memset(grads, 0, (size_t)size * sizeof(real));
    for (ptrdiff_t run = 0; run < crf_runs(call); run++) {
        for (ptrdiff_t i = 0; i < size; i++) {
            grads[i] += space->grads[run * size + i];
        }
    }
}

#endif
