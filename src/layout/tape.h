/* What forward keeps for backward: the tape. */
#ifndef FL_LAYOUT_TAPE_H
#define FL_LAYOUT_TAPE_H

#include "layout/packed_weights.h"

#include <math.h>

/* Whether backward needs the inputs of the gates' functions too, not only their outputs. */
static inline int keeps_preacts(const fl_stack *s)
{
    if (!has_options(s)) {
        return 0;
    }
    int usual = 1;
    for (int d = 0; d < s->directions; d++) {
        const fl_function *f = s->options.functions[d];
        usual = usual && f[0].kind == FL_SIGMOID && f[1].kind == FL_TANH;
    }
    return !usual || s->options.layer_norm || s->options.preact_clip < INFINITY;
}

/* The tape: what one layer and direction keeps of a forward call.  Steps are counted in the order
 * they were computed, so step 0 of the reverse direction is time T-1; out is in time order. */
typedef struct {
    real *gates;   /* [T][B][blocks][4][VL] */
    real *preacts; /* like gates: what the functions were given, normed but not scaled; or NULL */
    real *scale;   /* [T][B][4]: 1 / standard deviation of the pre-activations of a slot; or NULL */
    real *forget_slope; /* [T][B][H]: d log f / d a_f of an sLSTM, f = sigmoid(a_f); or NULL */
    real *states[FL_MAX_STATES]; /* but h; each [T+1][B][H], the first the initial state */
    real *h0;                    /* [B][Hout] */
    real *second_input;          /* [T][B][H]: of the second product; or NULL */
    real *recurrent_mask;        /* [B][Hout]: what h was multiplied by before U; or NULL */
    real *out;                   /* [T][B][D*Hout], shared by the directions of a layer */
    real *passed;                /* what the next layer reads: out, or out after dropout */
} tape_cell;

static inline tape_cell tape_cell_at(const fl_stack *s, const fl_kernels *k, real *tape,
                                     ptrdiff_t steps, ptrdiff_t batch, const fl_dropout *dropout,
                                     ptrdiff_t layer, ptrdiff_t direction, ptrdiff_t *size)
{
    const ptrdiff_t cells = steps * batch, width = output_size(s),
                    out = cells * s->directions * width;
    const ptrdiff_t gates = cells * blocks_of(s, k) * 4 * k->lanes;
    arena a = {tape, 0};
    tape_cell cell = {0};
    for (ptrdiff_t l = 0; l <= layer; l++) {
        cell.out = arena_take(&a, out);
        cell.passed = dropout->rate > 0 && l < s->layers - 1 ? arena_take(&a, out) : cell.out;
        for (ptrdiff_t d = 0; d < s->directions && (l < layer || d <= direction); d++) {
            cell.gates = arena_take(&a, gates);
            cell.preacts = arena_take_if(&a, keeps_preacts(s), gates);
            cell.scale = arena_take_if(&a, has_norm(s), cells * FL_GATE_SLOTS);
            cell.forget_slope = arena_take_if(&a, s->cell == FL_SLSTM, cells * s->hidden);
            for (int i = FL_STATE_C; i < state_count(s); i++) {
                cell.states[i] = arena_take(&a, (cells + batch) * s->hidden);
            }
            cell.h0 = arena_take(&a, batch * width);
            cell.second_input = arena_take_if(&a, second_product_size(s) > 0, cells * s->hidden);
            cell.recurrent_mask = arena_take_if(&a, dropout->recurrent > 0, batch * width);
        }
    }
    *size = a.used;
    return cell;
}

static ptrdiff_t tape_size(const fl_stack *s, const void *kernels, ptrdiff_t steps, ptrdiff_t batch,
                           const fl_dropout *dropout)
{
    ptrdiff_t size;
    tape_cell_at(s, kernels, NULL, steps, batch, dropout, s->layers - 1, s->directions - 1, &size);
    return size;
}

#endif
