/* One layer and direction, backward: what it is made of and where things lie. */
#ifndef FL_DRIVER_BACKWARD_PASS_H
#define FL_DRIVER_BACKWARD_PASS_H

#include "driver/backward/plan.h"
#include "driver/cell_options.h"
#include "driver/sequence.h"
#include "layout/parameters.h"
#include "layout/tape.h"

#include <string.h>

/* With tokens, gradients of the pre-activations are summed for each token: FL_RECENT pieces of
 * FL_TERMS terms in `recent`, which is then added to `all`, so that rounding grows with the number
 * of such sums.  Gradients of W and of the table are products with the sums. */
enum { FL_RECENT = 8 };

typedef struct {
    real *recent, *all; /* [count][row]; NULL without tokens */
    ptrdiff_t count, row;
} token_sums;

static inline ptrdiff_t sums_row_of(const fl_stack *s)
{
    return aligned(gate_slot_count(s) * s->hidden);
}

static ptrdiff_t sums_size(const fl_stack *s, ptrdiff_t count)
{
    return s->directions * 2 * count * sums_row_of(s);
}

/* One layer and direction, backward.  Steps s are in the order of the forward computation. */
typedef struct {
    const fl_kernels *k;
    const fl_stack *stack;
    backward_cell cell;
    tape_cell tape;
    row_schedule when;
    ptrdiff_t input, hidden, out_size, blocks, width, segment;
    ptrdiff_t rows;                 /* of W and U by slot: slots*H */
    ptrdiff_t recurrent;            /* of U in the first product */
    ptrdiff_t head_size;            /* units of h that U leads to a unit from */
    ptrdiff_t x_columns, h_columns; /* of W and U whose gradients follow from dz, x and h */
    ptrdiff_t first_step;           /* as in the call */
    int earlier, later;
    source x, dy;
    sink dx;                            /* data NULL: not wanted */
    int add_dx;                         /* add to what the other direction left there */
    real *dh, *d_states[FL_MAX_STATES]; /* [B][Hout], and of the states but h [B][H] */
    real *dz;                           /* [dz_segments]: active rows, dz_row apart */
    ptrdiff_t dz_row;                   /* see dz_columns */
    real *columns;                      /* [2][FL_COLUMNS][FL_COLUMN_SIZE]: some of dz, as rows */
    real *panels;                       /* [groups of I, of Hout, of H][FL_TERMS][4*VL] */
    real *dw, *du, *db_ih, *db_hh;      /* biases NULL without */
    real *d_second;                     /* gradients of the weights of the second product */
    ptrdiff_t second_input_columns;     /* of those weights: H, or 0 */
    real *d_peephole, *d_gain;
    dz_columns at;
    ptrdiff_t factors; /* columns of dz that are factors of products: the first ones */
    int plain;         /* as in forward */
    int fetches_weights, fetches_tape; /* see plain_step.h */
    real *dh_rows; /* [B][groups of H][4*VL], by rank: for a layer norm; plain: [groups][B] */
    ptrdiff_t dh_row;
    fl_cell_options options;
    zoneout zoneout_h, zoneout_c;
    real *zoneout_keep; /* [FL_MAX_ROWS][H], of this worker */
    token_sums sums;    /* with tokens: dw and dx follow from these */
    const fl_shards *shards;
    fl_range shard;       /* rows whose gradients follow */
    ptrdiff_t shard_rows; /* at most, of all shards */
    int packs_dz;
    real *boundary_dz; /* [B][4H] */
    const real *zeros; /* [slots*H] */
} backward_pass;

/* The active rows of a segment are adjacent. */
static inline real *dz_at(const backward_pass *p, ptrdiff_t s, ptrdiff_t rank)
{
    const ptrdiff_t s0 = s - s % p->segment, place = s / p->segment % dz_segments(p->segment);
    const ptrdiff_t row = rows_before(&p->when, s) - rows_before(&p->when, s0) + rank;
    return p->dz + (place * p->segment * p->when.batch + row) * p->dz_row;
}

/* h before step s: the output of the step before it, or an initial state. */
static inline const real *h_before(const backward_pass *p, ptrdiff_t s, ptrdiff_t rank)
{
    const ptrdiff_t b = row_of(&p->when, rank), time = time_of(&p->when, rank, s);
    if (is_reset(&p->when, rank, time)) {
        return p->zeros;
    }
    if (s == 0) {
        return p->tape.h0 + b * p->out_size;
    }
    const ptrdiff_t before = p->when.reverse ? time + 1 : time - 1;
    const ptrdiff_t offset = p->when.reverse ? p->out_size : 0;
    return p->tape.out + (before * p->when.batch + b) * p->width + offset;
}

/* Vectors of a group of which `columns` columns are left. */
static inline ptrdiff_t vectors_of(const backward_pass *p, ptrdiff_t columns)
{
    return minimum(4, divide_up(columns, p->k->lanes));
}

/* What only layers with options have. */
static void add_backward_options(const fl_backward_call *call, const backward_space *space,
                                 backward_pass *p, int worker, ptrdiff_t l, ptrdiff_t d)
{
    const fl_stack *s = p->stack;
    const flat_cell flat = flat_cell_at(s, l, d);
    real *grads = call->grads;
    p->plain = is_plain(&p->when) && is_common(s) && !has_options(s) && !second_product_size(s) &&
               !p->tape.recurrent_mask;
    p->second_input_columns = second_product_size(s) ? s->hidden : 0;
    p->d_second =
        second_is_candidate(s) ? p->du + p->at.second * s->hidden : grads + flat.projection;
    p->d_peephole = grads + flat.peephole;
    p->d_gain = grads + flat.gain;
    p->dh_rows = space->dh_rows;
    p->dh_row = dh_row_of(s, p->k);
    p->zoneout_keep = space->zoneout_keep + worker * space->zoneout_keep_worker;
    if (has_options(s)) {
        p->options = cell_options_of(s, d, p->cell.peephole, p->cell.gain, p->cell.shift);
        p->zoneout_h = zoneout_of(s, &call->dropout, l, d, 0, call->batch);
        p->zoneout_c = zoneout_of(s, &call->dropout, l, d, 1, call->batch);
        p->zoneout_h.first_step = p->zoneout_c.first_step = call->first_step;
    }
}

static inline ptrdiff_t shard_count(const backward_pass *p)
{
    return p->shards->count ? p->shards->count : 1;
}

/* The pass with the gradients of its i-th shard. */
static backward_pass pass_of_shard(const backward_pass *p, ptrdiff_t i)
{
    backward_pass of_shard = *p;
    if (p->shards->count) {
        real **grads[] = {&of_shard.dw,    &of_shard.du,       &of_shard.db_ih,
                          &of_shard.db_hh, &of_shard.d_second, &of_shard.d_peephole,
                          &of_shard.d_gain};
        for (size_t g = 0; g < sizeof grads / sizeof *grads; g++) {
            *grads[g] += *grads[g] ? i * parameters_size(p->stack) : 0;
        }
        of_shard.shard = (fl_range){p->shards->starts[i], p->shards->starts[i + 1]};
    }
    if (p->sums.recent) {
        of_shard.sums.recent += i * sums_size(p->stack, p->sums.count);
        of_shard.sums.all += i * sums_size(p->stack, p->sums.count);
        of_shard.dx.data += p->dx.data ? i * p->sums.count * p->dx.step : 0;
    }
    return of_shard;
}

/* The input of the pass and the gradients of its output and input: the caller's, or those of the
 * layers above and below. */
static void find_sequences(const fl_backward_call *call, const backward_space *space,
                           backward_pass *p, ptrdiff_t l, ptrdiff_t d)
{
    const fl_stack *s = &call->stack;
    const ptrdiff_t step = call->batch * p->width;
    if (l == s->layers - 1) {
        const real *dy = (const real *)call->dy + d * p->out_size;
        p->dy = (source){dy, call->dy_step, call->dy_row, NULL};
    } else {
        p->dy = (source){space->between[l % 2] + d * p->out_size, step, p->width, NULL};
    }
    if (l == 0 && call->tokens.rows) {
        const ptrdiff_t count = call->tokens.count, row = sums_row_of(s);
        real *sums = (real *)call->sums + d * 2 * count * row;
        p->x = (source){call->x, call->batch, call->x_row, call->tokens.rows};
        p->dx = (sink){call->dx, call->dx_row, 0};
        p->x_columns = 0;
        p->sums = (token_sums){sums, sums + count * row, count, row};
    } else if (l == 0) {
        p->x = (source){call->x, call->x_step, call->x_row, NULL};
        p->dx = (sink){call->dx, call->dx_step, call->dx_row};
    } else {
        ptrdiff_t size;
        const tape_cell below = tape_cell_at(s, p->k, (real *)call->tape, call->steps, call->batch,
                                             &call->dropout, l - 1, 0, &size);
        p->x = (source){below.passed, step, p->width, NULL};
        p->dx = (sink){space->between[(l - 1) % 2], step, p->width};
    }
}

static backward_pass make_backward_pass(const fl_backward_call *call, const backward_space *space,
                                        int worker, ptrdiff_t l, ptrdiff_t d)
{
    const fl_stack *s = &call->stack;
    const fl_kernels *k = call->kernels;
    const ptrdiff_t boundary_row = (l * s->directions + d) * call->batch;
    const flat_cell flat = flat_cell_at(s, l, d);
    real *tape = (real *)call->tape, *grads = call->grads;
    ptrdiff_t size;
    backward_pass p = {
        .k = k,
        .stack = s,
        .rows = gate_slot_count(s) * s->hidden,
        .recurrent = recurrent_gate_slots(s) * s->hidden,
        .head_size = head_size(s),
        .cell = backward_cell_at(s, k, (real *)call->packed, l, d, &size),
        .tape = tape_cell_at(s, k, tape, call->steps, call->batch, &call->dropout, l, d, &size),
        .input = input_size(s, l),
        .hidden = s->hidden,
        .out_size = output_size(s),
        .blocks = blocks_of(s, k),
        .when = {call->rows, call->steps, call->batch, d == 1},
        .width = s->directions * output_size(s),
        .segment = call->plan.segment,
        .fetches_weights = call->plan.fetches_weights,
        .fetches_tape = call->plan.fetches_tape,
        .x_columns = input_size(s, l),
        .h_columns = output_size(s),
        .first_step = call->first_step,
        .earlier = call->earlier,
        .later = call->later,
        .add_dx = d == 1,
        .dh = state_at(s, call->dstates, FL_STATE_H, call->batch, l, d),
        .dz = space->dz,
        .at = dz_columns_of(s),
        .factors = product_columns(s),
        .dz_row = dz_columns_of(s).row,
        .columns = space->columns,
        .panels = space->panels,
        .zeros = space->zeros,
        .shards = &call->shards,
        .shard = {0, call->batch},
        .shard_rows = shard_rows(call),
        .packs_dz = packs_dz(call),
        .dw = grads + flat.w,
        .du = grads + flat.u,
        .db_ih = s->bias ? grads + flat.b_ih : NULL,
        .db_hh = has_b_hh(s) ? grads + flat.b_hh : NULL,
        .boundary_dz = call->boundary_dz
                           ? (real *)call->boundary_dz + FL_GATE_SLOTS * s->hidden * boundary_row
                           : NULL,
    };
    for (int i = FL_STATE_C; i < state_count(s); i++) {
        p.d_states[i] = state_at(s, call->dstates, i, call->batch, l, d);
    }
    add_backward_options(call, space, &p, worker, l, d);
    find_sequences(call, space, &p, l, d);
    return p;
}

#endif
