/* The plan of a call backward, and its work space. */
#ifndef FL_DRIVER_BACKWARD_PLAN_H
#define FL_DRIVER_BACKWARD_PLAN_H

#include "driver/dropout.h"
#include "driver/team_plan.h"
#include "driver/tiles.h"
#include "layout/packed_weights.h"

/* Steps of a segment of a long sequence, for so many rows of a shard. */
static ptrdiff_t segment_of(ptrdiff_t rows) { return rows < FL_TERMS ? FL_TERMS / rows : 1; }

/* Rows whose gradients are one sum, at most. */
static inline ptrdiff_t shard_rows(const fl_backward_call *call)
{
    return call->shards.count ? call->shards.most_rows : call->batch;
}

/* A row of dz: the gradients of the pre-activations, [slots][H], and, where there are any, that of
 * the projected hidden state, [P], and terms of the gradients of parameters of single units, each
 * [4][H].  Columns; -1: none. */
typedef struct {
    ptrdiff_t second; /* rows of the second product: the projection, or slot n */
    ptrdiff_t shift, gain, peephole;
    ptrdiff_t row; /* how far apart rows are */
} dz_columns;

/* A line more than needed: the weight gradients read columns of dz, and rows a power of two apart
 * would share few sets of the caches (H = 512: 1.5% slower). */
static inline dz_columns dz_columns_of(const fl_stack *s)
{
    ptrdiff_t end = aligned(gate_slot_count(s) * s->hidden);
    dz_columns at = {-1, -1, -1, -1, 0};
    if (second_is_candidate(s)) {
        at.second = recurrent_gate_slots(s) * s->hidden;
    } else if (s->projection) {
        at.second = end;
        end += aligned(s->projection);
    }
    if (has_norm(s)) {
        at.shift = end;
        at.gain = at.shift + FL_GATE_SLOTS * s->hidden;
        end = at.gain + FL_GATE_SLOTS * s->hidden;
    }
    if (has_peephole(s)) {
        at.peephole = end;
        end += FL_GATE_SLOTS * s->hidden;
    }
    at.row = aligned(end) + FL_ALIGN / (ptrdiff_t)sizeof(real);
    return at;
}

/* A step reads the dz of the step after it.  Where a segment has several steps, that of the segment
 * after it can lie in the same rows: the last step is written before the first.  What is written
 * again is still in L2 (H = 128: 2%). */
static inline ptrdiff_t dz_segments(ptrdiff_t segment) { return segment > 1 ? 1 : 2; }

/* Columns of dz that are factors of products: the first ones. */
static inline ptrdiff_t product_columns(const fl_stack *s)
{
    const ptrdiff_t second = dz_columns_of(s).second;
    return second < 0 ? gate_slot_count(s) * s->hidden : second + second_product_size(s);
}

/* For the weight gradients, columns of dz become rows, so many at a time: they stay in L2 while all
 * panels of inputs pass (H = 512: 6%).  They are whole tiles and vectors of every instruction set,
 * and a line longer than their terms: a power of two would share few sets of the caches.  Fewer
 * columns than FL_PACKED_COLUMNS are read where they are (packing takes 5% at H = 32, saves 1% at H
 * = 128 and 5% at H = 256). */
enum {
    FL_COLUMNS = 192,
    FL_COLUMN_SIZE = FL_TERMS + FL_ALIGN / sizeof(real),
    FL_PACKED_COLUMNS = 512
};

/* Rows of a shard are not equally far apart, so they are packed always. */
static inline int packs_dz(const fl_backward_call *call)
{
    return call->shards.count > 1 || product_columns(&call->stack) >= FL_PACKED_COLUMNS;
}

typedef struct {
    real *dz, *columns, *panels, *zeros;
    real *dh_rows, *zoneout_keep;
    ptrdiff_t zoneout_keep_worker;
    real *between[2]; /* [T][B][D*Hout]: gradients of the outputs of layers below the last */
    ptrdiff_t size;
} backward_space;

static inline ptrdiff_t dh_row_of(const fl_stack *s, const fl_kernels *k)
{
    return divide_up(s->hidden, 4 * k->lanes) * 4 * k->lanes;
}

static backward_space backward_space_at(const fl_backward_call *call)
{
    const fl_stack *s = &call->stack;
    const fl_kernels *k = call->kernels;
    const ptrdiff_t size = 4 * k->lanes;
    const ptrdiff_t input =
        s->layers > 1 && input_size(s, 1) > s->input ? input_size(s, 1) : s->input;
    const ptrdiff_t groups = divide_up(input, size) + divide_up(output_size(s), size) +
                             (second_product_size(s) ? divide_up(s->hidden, size) : 0);
    arena a = {call->scratch, 0};
    backward_space space = {0};
    space.dz = arena_take(&a, dz_segments(call->plan.segment) * call->plan.segment * call->batch *
                                  dz_columns_of(s).row);
    space.columns = arena_take(&a, packs_dz(call) ? 2 * FL_COLUMNS * FL_COLUMN_SIZE : 0);
    space.panels = arena_take(&a, groups * FL_TERMS * size);
    space.zeros = arena_take(&a, FL_GATE_SLOTS * s->hidden);
    space.dh_rows = arena_take(&a, call->batch * dh_row_of(s, k));
    space.zoneout_keep_worker = zoneout_keep_size(s);
    space.zoneout_keep = arena_take(&a, call->plan.team.workers * space.zoneout_keep_worker);
    for (ptrdiff_t l = 0; l < minimum(s->layers - 1, 2); l++) {
        space.between[l] =
            arena_take(&a, call->steps * call->batch * s->directions * output_size(s));
    }
    space.size = a.used;
    return space;
}

/* The recurrence alone: what follows from its dz is shared in tiles, whatever the workers share. */
static double backward_cycles(const team_work *work, const fl_team_limits *limits, int workers,
                              int split)
{
    const fl_backward_call *call = work->of;
    const fl_stack *s = &call->stack;
    const fl_kernels *k = call->kernels;
    const ptrdiff_t groups = divide_up(output_size(s), 4 * k->lanes);
    const ptrdiff_t units = split ? divide_up(groups, workers) * 4 * k->lanes : output_size(s);
    const ptrdiff_t gates = gate_slot_count(s) * s->hidden / s->heads;
    const step_cost step = {
        .lanes = k->lanes,
        .rows = split ? call->batch : divide_up(call->batch, workers),
        .columns = units,
        .outputs = gates,
        .written = split ? call->batch * gates * (workers - 1) / workers : 0,
        .meets = split,
        .weight_bytes = sizeof(real),
        .rate = 1,
    };
    return cycles_of(&step, limits->caches);
}

static void plan_backward(fl_backward_call *call, fl_team_limits limits)
{
    const fl_stack *s = &call->stack;
    const fl_kernels *k = call->kernels;
    const double step_work =
        work_of(4 * (double)s->hidden * (double)(s->hidden / s->heads), call->batch);
    const double steps = (double)call->steps * (double)s->directions * (double)s->layers;
    const team_work work = {
        .batch = call->batch,
        .unit_parts = has_norm(s) ? 1 : divide_up(s->hidden, 4 * k->lanes),
        /* A third of the multiply-adds: below that, meeting between segments costs more than it
         * saves. */
        .work = step_work * steps,
        .step_work = step_work,
        .of = call,
        .cycles = backward_cycles,
    };
    plan_team(&call->plan, &limits, &work);
    const double l2 = weights_in_l2(limits.caches);
    const double weights =
        (double)(gate_slot_count(s) * s->hidden * head_size(s)) * (double)sizeof(real);
    call->plan.fetches_weights = weights > l2 / 3;
    call->plan.fetches_tape = weights <= l2;
    call->plan.segment = minimum(segment_of(shard_rows(call)), call->steps);
    call->plan.zoneout_keep_worker = zoneout_keep_size(s);
    call->plan.scratch = backward_space_at(call).size;
}

#endif
