/* One layer and direction, forward over some steps: what it is made of and where things lie. */
#ifndef FL_DRIVER_FORWARD_PASS_H
#define FL_DRIVER_FORWARD_PASS_H

#include "driver/cell_options.h"
#include "driver/forward/plan.h"
#include "driver/sequence.h"
#include "driver/tiles.h"
#include "layout/tape.h"

#include <string.h>

/* What the tiles of a step read and write, row by row: the same for all blocks, so it is looked up
 * once a step (for each tile it was 4 to 8% of a step, H = 128 to 512).  Pointers to whole rows. */
typedef struct {
    const real **x, **h_before, **before[FL_MAX_STATES]; /* h, and the states but h */
    real **after[FL_MAX_STATES], **h, **y, **second_input;
    ptrdiff_t *token;
} step_rows;

/* One layer and direction over the steps of a chunk. */
typedef struct {
    const fl_kernels *k;
    forward_cell cell;
    row_schedule when;
    int kind; /* fl_cell */
    int second_is_candidate;
    int plain; /* no lengths, resets, options, second product, recurrent mask, heads, more states */
    int weights; /* fl_weight_type */
    int state_count;
    ptrdiff_t slots, input, hidden, out_size, blocks;
    ptrdiff_t head_size; /* units of h that U leads to a unit from */
    ptrdiff_t first;     /* the time that step 0 of x, out and y stands for */
    source x;
    sink out, y; /* y.data may be NULL */
    const real *zeros;
    int taped; /* what follows has a row for each step and rank; else for each rank */
    real *h;   /* [B][Hout]: hidden state before the chunk in, after it out */
    /* States but h, each [B][H] by row, in place; on a tape [T+1][B][H]: step s writes s + 1. */
    real *states[FL_MAX_STATES];
    real *forget_slope;    /* [T][B][H], or NULL */
    real *gates;           /* [T][B][blocks][4][VL], or NULL if they are not kept beyond a tile */
    real *second_input;    /* [T][B][H]: of the second product; NULL: there is none */
    real *preacts, *scale; /* as in tape_cell */
    int whole_rows;        /* a layer norm: products first, then the rest, row by row */
    fl_cell_options options;
    zoneout zoneout_h, zoneout_c;
    real *zoneout_keep;         /* [FL_MAX_ROWS][H or Hout], of this worker */
    const real *recurrent_mask; /* [B][Hout]: what h is multiplied by before U, or NULL */
    real *masked_h;             /* [2][B][Hout]: the products, of this step and the next */
    step_rows of_rows;          /* of this worker */
    row_bytes bytes;            /* likewise */
    ptrdiff_t ahead;
    int fetches;      /* panels are asked for before they are read */
    real *z;          /* projections ahead, see z_place */
    ptrdiff_t z_rows; /* of which there is room */
    real *table;      /* [count][blocks][4][VL]: projections of a table's rows, or NULL */
} pass;

/* Where the states but h of a row after step s - 1 begin in their arrays. */
static inline ptrdiff_t state_row(const pass *p, const row_schedule *when, ptrdiff_t s,
                                  ptrdiff_t rank)
{
    return (p->taped ? s * when->batch + rank : row_of(when, rank)) * p->hidden;
}

/* A row of what is kept of step s: of the gates, of the second product's input. */
static inline ptrdiff_t kept_row(const pass *p, const row_schedule *when, ptrdiff_t s,
                                 ptrdiff_t rank)
{
    return (p->taped ? s * when->batch : 0) + rank;
}

/* Vectors of the pre-activations of some blocks. */
static inline ptrdiff_t vectors_of_blocks(const pass *p, ptrdiff_t block, ptrdiff_t groups)
{
    const ptrdiff_t lanes = p->k->lanes, last = block + groups - 1;
    const ptrdiff_t of_last = p->slots == 1 ? 1 : 4 * gate_width(p->hidden, lanes, last) / lanes;
    return 4 * (groups - 1) + of_last;
}

/* Whether the gates of a step are kept until all its tiles are done. */
static inline int is_kept(const pass *p) { return p->whole_rows || p->second_is_candidate; }

/* Whether the hidden state is not finished when the tiles are. */
static inline int ends_later(const pass *p)
{
    return (p->second_input && !p->second_is_candidate) || p->zoneout_h.rate > 0;
}

/* What U reads of row b at step s, after recurrent dropout. */
static inline real *masked_h_row(const pass *p, ptrdiff_t s, ptrdiff_t b)
{
    return p->masked_h + (s % 2 * p->when.batch + b) * p->out_size;
}

/* Units of the hidden state that a worker handles where nothing is computed: whole lines. */
static inline fl_range outputs_of(const pass *p, const worker_share *me)
{
    const ptrdiff_t size = 4 * p->k->lanes;
    const fl_range groups =
        fl_part(divide_up(p->out_size, size), me->team->workers, me->team->number);
    return (fl_range){minimum(groups.begin * size, p->out_size),
                      minimum(groups.end * size, p->out_size)};
}

/* What only layers with options have. */
static void add_options(const fl_forward_call *call, pass *p, const tape_cell *tape, int worker,
                        ptrdiff_t l, ptrdiff_t d)
{
    const fl_stack *s = &call->stack;
    real *scratch = call->scratch;
    p->plain = is_plain(&p->when) && is_common(s) && !has_options(s) && !second_product_size(s) &&
               !tape->recurrent_mask;
    p->whole_rows = has_norm(s);
    p->zoneout_keep = scratch + call->plan.zoneout_keep + worker * call->plan.zoneout_keep_worker;
    p->recurrent_mask = tape->recurrent_mask;
    p->masked_h = scratch + call->plan.masked_h;
    if (call->tape) {
        p->second_input = tape->second_input;
        p->preacts = tape->preacts;
        p->scale = tape->scale;
    } else {
        p->second_input = second_product_size(s) ? scratch + call->plan.second_input : NULL;
        p->gates = is_kept(p) ? scratch + call->plan.gates : NULL;
    }
    if (has_options(s)) {
        p->options = cell_options_of(s, d, p->cell.peephole, p->cell.gain, p->cell.shift);
        p->zoneout_h = zoneout_of(s, &call->dropout, l, d, 0, call->batch);
        p->zoneout_c = zoneout_of(s, &call->dropout, l, d, 1, call->batch);
        p->zoneout_h.first_step = p->zoneout_c.first_step = call->first_step;
    }
}

/* Room for a worker's rows. */
static step_rows step_rows_at(const fl_forward_call *call, int worker)
{
    const ptrdiff_t most = call->plan.team.workers * call->plan.rows_worker;
    void **at = (void **)((real *)call->scratch + call->plan.row_pointers);
    at += worker * call->plan.rows_worker;
    step_rows rows = {
        .x = (const real **)at,
        .h_before = (const real **)(at + most),
        .h = (real **)(at + 2 * most),
        .y = (real **)(at + 3 * most),
        .second_input = (real **)(at + 4 * most),
        .token = (ptrdiff_t *)(at + 5 * most),
    };
    at += 6 * most;
    for (int i = FL_STATE_C; i < state_count(&call->stack); i++, at += 2 * most) {
        rows.before[i] = (const real **)at;
        rows.after[i] = (real **)(at + most);
    }
    return rows;
}

/* Where inference keeps the output of a layer below the last. */
static inline real *output_between(const fl_forward_call *call, ptrdiff_t l)
{
    return (real *)call->scratch + call->plan.between[l % 2];
}

/* What the pass reads: the input of the call, or the output of the layer below. */
static void find_input(const fl_forward_call *call, pass *p, ptrdiff_t l, ptrdiff_t d)
{
    const fl_stack *s = &call->stack;
    const ptrdiff_t width = s->directions * p->out_size, step = call->batch * width;
    if (l == 0 && call->tokens.rows) {
        const ptrdiff_t *tokens = call->tokens.rows + p->first * call->batch;
        p->x = (source){call->x, call->batch, call->x_row, tokens};
        if (call->plan.project_table) {
            p->table = (real *)call->scratch + call->plan.table +
                       d * call->tokens.count * table_row_of(&call->plan, p->k);
        }
        p->ahead = call->x && !p->table ? p->ahead : 0;
    } else if (l == 0) {
        const real *x = (const real *)call->x + p->first * call->x_step;
        p->x = (source){x, call->x_step, call->x_row, NULL};
    } else if (call->tape) {
        ptrdiff_t size;
        const tape_cell below = tape_cell_at(s, p->k, call->tape, call->steps, call->batch,
                                             &call->dropout, l - 1, 0, &size);
        p->x = (source){below.passed + p->first * step, step, width, NULL};
    } else {
        p->x = (source){output_between(call, l - 1), step, width, NULL};
    }
}

/* Where it leaves its output: on the tape, in that of the call, or for the layer above. */
static void find_output(const fl_forward_call *call, pass *p, const tape_cell *tape, ptrdiff_t l,
                        ptrdiff_t d)
{
    const ptrdiff_t width = call->stack.directions * p->out_size, step = call->batch * width;
    const int top = l == call->stack.layers - 1;
    real *const y = (real *)call->y + p->first * call->y_step + d * p->out_size;
    const sink to_caller = {y, call->y_step, call->y_row};
    if (call->tape) {
        p->out = (sink){tape->out + p->first * step + d * p->out_size, step, width};
        p->y = top ? to_caller : (sink){0};
    } else {
        p->out = top ? to_caller : (sink){output_between(call, l) + d * p->out_size, step, width};
    }
}

/* The pass of layer l, direction d over the chunk that begins at step `begin`. */
static pass make_pass(const fl_forward_call *call, int worker, ptrdiff_t l, ptrdiff_t d,
                      ptrdiff_t begin)
{
    const fl_stack *s = &call->stack;
    const fl_kernels *k = call->kernels;
    real *const scratch = call->scratch;
    tape_cell tape = {0};
    ptrdiff_t size;
    pass p = {
        .k = k,
        .cell = forward_cell_at(s, k, (real *)call->packed, l, d, &size),
        .kind = s->cell,
        .second_is_candidate = second_is_candidate(s),
        .weights = s->weights,
        .state_count = state_count(s),
        .head_size = head_size(s),
        .slots = gate_slot_count(s),
        .input = input_size(s, l),
        .hidden = s->hidden,
        .out_size = output_size(s),
        .blocks = call->plan.blocks,
        .when = {call->rows, call->steps, call->batch, d == 1},
        .first = begin,
        .zeros = scratch + call->plan.zeros + worker * call->plan.zeros_worker,
        .taped = call->tape != NULL,
        .h = state_at(s, call->states, FL_STATE_H, call->batch, l, d),
        .of_rows = step_rows_at(call, worker),
        .bytes = row_bytes_at(call, scratch + call->plan.bytes, worker, &size),
        .ahead = call->plan.ahead,
        .z_rows = call->plan.z_rows,
        .z = scratch + call->plan.z + (call->plan.split_units ? 0 : worker * call->plan.z_worker),
    };
    for (int i = FL_STATE_C; i < p.state_count; i++) {
        p.states[i] = state_at(s, call->states, i, call->batch, l, d);
    }
    if (call->tape) {
        tape =
            tape_cell_at(s, k, call->tape, call->steps, call->batch, &call->dropout, l, d, &size);
        memcpy(p.states, tape.states, sizeof p.states);
        p.gates = tape.gates;
        p.forget_slope = tape.forget_slope;
    }
    add_options(call, &p, &tape, worker, l, d);
    find_input(call, &p, l, d);
    find_output(call, &p, &tape, l, d);
    return p;
}

#endif
