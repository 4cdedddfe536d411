/* Where things lie: flat parameters, packed weights, the tape.  Closed forms of the sizes only. */
#ifndef FL_LAYOUT_TAPE_H
#define FL_LAYOUT_TAPE_H

#include "fastlstm.h"
#include "kernels/table.h"

#include <math.h>

/* A sequence in memory: step t, row b starts at data + t*step + b*row, features adjacent.  With
 * tokens, data is a table, and tokens[t*step + b] the number of a row of it. */
typedef struct {
    const real *data;
    ptrdiff_t step, row;
    const ptrdiff_t *tokens;
} source;

typedef struct {
    real *data;
    ptrdiff_t step, row;
} sink;

static inline const real *source_at(const source *s, ptrdiff_t t, ptrdiff_t b)
{
    if (s->tokens) {
        return s->data + s->tokens[t * s->step + b] * s->row;
    }
    return s->data + t * s->step + b * s->row;
}

static inline real *sink_at(const sink *s, ptrdiff_t t, ptrdiff_t b)
{
    return s->data + t * s->step + b * s->row;
}

static inline ptrdiff_t divide_up(ptrdiff_t n, ptrdiff_t by) { return (n + by - 1) / by; }

static inline ptrdiff_t minimum(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* Asks for the lines of n elements that a product will leave its results in. */
static inline void fetch_to_write(const real *p, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += FL_ALIGN / (ptrdiff_t)sizeof(real)) {
        FL_PREFETCH_WRITE(p + i);
    }
}

/* Rounded up to whole cache lines, so that what follows is aligned. */
static inline ptrdiff_t aligned(ptrdiff_t elements)
{
    const ptrdiff_t line = FL_ALIGN / (ptrdiff_t)sizeof(real);
    return divide_up(elements, line) * line;
}

/* Hands out pieces of a block one after the other; with a NULL base it measures. */
typedef struct {
    real *base;
    ptrdiff_t used;
} carver;

static inline real *carve(carver *c, ptrdiff_t elements)
{
    real *piece = c->base ? c->base + c->used : NULL;
    c->used += aligned(elements);
    return piece;
}

/* Units of a hidden state, and of an output. */
static inline ptrdiff_t out_of(const fl_shape *s)
{
    return s->projection ? s->projection : s->hidden;
}

static inline ptrdiff_t input_of(const fl_shape *s, ptrdiff_t layer)
{
    return layer == 0 ? s->input : s->directions * out_of(s);
}

/* Pre-activations have slots: an LSTM has one for each gate, and coupled none for W and U of f.  A
 * GRU has r, z, and two for n, because r multiplies the part of it that comes from h: W leads to
 * slots 0, 1, 2 and U to 0, 1, 3.  If r multiplies h before, U_n is not of the same product: slots
 * are r, z, n. */
enum { FL_SLOTS = 4 };

static inline int is_coupled(const fl_shape *s)
{
    return s->cell == FL_LSTM_OPTIONS && s->options.coupled;
}

static inline int has_peephole(const fl_shape *s)
{
    return s->cell == FL_LSTM_OPTIONS && s->options.peephole;
}

static inline int has_norm(const fl_shape *s)
{
    return s->cell == FL_LSTM_OPTIONS && s->options.layer_norm;
}

static inline int has_zoneout(const fl_shape *s)
{
    return s->cell == FL_LSTM_OPTIONS && (s->options.zoneout_h > 0 || s->options.zoneout_c > 0);
}

static inline ptrdiff_t gates_of(const fl_shape *s)
{
    switch (s->cell) {
    case FL_LSTM: return 4;
    case FL_LSTM_OPTIONS: return s->options.coupled ? 3 : 4;
    case FL_GRU:
    case FL_GRU_BEFORE: return 3;
    default: return 1;
    }
}

static inline ptrdiff_t slots_of(const fl_shape *s)
{
    const int plain = s->cell == FL_RNN_TANH || s->cell == FL_RNN_RELU;
    return plain ? 1 : s->cell == FL_GRU_BEFORE ? 3 : FL_SLOTS;
}

/* The gate of W (or U) whose pre-activations a slot has; -1: none. */
static inline ptrdiff_t gate_of_slot(const fl_shape *s, int of_u, ptrdiff_t slot)
{
    if (s->cell == FL_GRU) {
        return slot < 2 ? slot : slot == 2 + of_u ? 2 : -1;
    }
    if (is_coupled(s)) {
        return slot == 0 ? 0 : slot - 1 > 0 ? slot - 1 : -1;
    }
    return slot < gates_of(s) ? slot : -1;
}

/* Whether the slots are not simply the gates. */
static inline int slots_differ(const fl_shape *s) { return s->cell == FL_GRU || is_coupled(s); }

/* The part of the peephole weights that a slot has; -1: none. */
static inline ptrdiff_t peephole_of_slot(const fl_shape *s, ptrdiff_t slot)
{
    if (is_coupled(s)) {
        return slot == 0 ? 0 : slot == 3 ? 1 : -1;
    }
    return slot < 2 ? slot : slot == 3 ? 2 : -1;
}

/* A step may end with a second product, of H inner units with so many rows: the projection, or U_n
 * of a GRU that resets before it.  0: none. */
static inline ptrdiff_t second_of(const fl_shape *s)
{
    return s->cell == FL_GRU_BEFORE ? s->hidden : s->projection;
}

/* Slots that U leads to in the first product. */
static inline ptrdiff_t recurrent_slots_of(const fl_shape *s)
{
    return s->cell == FL_GRU_BEFORE ? 2 : slots_of(s);
}

/* One layer and direction in the flat vector of parameters or gradients: offsets. */
typedef struct {
    ptrdiff_t w, u;
    ptrdiff_t b_ih, b_hh; /* only if shape.bias; and so on */
    ptrdiff_t projection, peephole, gain;
    ptrdiff_t end;
} flat_cell;

static inline flat_cell flat_cell_from(const fl_shape *s, ptrdiff_t layer, ptrdiff_t start)
{
    const ptrdiff_t gates = gates_of(s) * s->hidden;
    flat_cell cell;
    cell.w = start;
    cell.u = cell.w + gates * input_of(s, layer);
    cell.b_ih = cell.u + gates * out_of(s);
    cell.b_hh = cell.b_ih + (s->bias ? gates : 0);
    cell.projection = cell.b_hh + (s->bias ? gates : 0);
    cell.peephole = cell.projection + s->projection * s->hidden;
    cell.gain = cell.peephole + (has_peephole(s) ? (gates_of(s) - 1) * s->hidden : 0);
    cell.end = cell.gain + (has_norm(s) ? gates : 0);
    return cell;
}

static inline ptrdiff_t flat_cell_size(const fl_shape *s, ptrdiff_t layer)
{
    return flat_cell_from(s, layer, 0).end;
}

static inline flat_cell flat_cell_at(const fl_shape *s, ptrdiff_t layer, ptrdiff_t direction)
{
    ptrdiff_t start = direction * flat_cell_size(s, layer);
    if (layer > 0) {
        start += s->directions * (flat_cell_size(s, 0) + (layer - 1) * flat_cell_size(s, 1));
    }
    return flat_cell_from(s, layer, start);
}

static ptrdiff_t parameters_size(const fl_shape *s)
{
    return s->directions *
           (flat_cell_size(s, 0) + (s->layers - 1) * flat_cell_size(s, s->layers - 1));
}

/* Packed for forward: blocks of VL hidden units, the four slots of a block side by side.
 *
 *     w:  block 0: k = 0:  i[VL] f[VL] g[VL] o[VL]
 *                  k = 1:  i[VL] f[VL] g[VL] o[VL]   ...  k = I-1
 *         block 1: ...                                       (zeros beyond unit H-1)
 *
 * If the last block has at most VL/2 units, its gates are packed closer, VL/2 or VL/4 apart: they
 * fit two vectors or one, and a product computes no more (H = 17 would take as long as H = 32).
 */
typedef struct {
    real *bias;   /* [blocks][4][VL], b_ih + b_hh; zeros before a layer norm, which has it after */
    real *w;      /* [blocks][I][4][VL] */
    real *u;      /* [blocks][Hout][4][VL]; see gate_of_first */
    real *second; /* [groups of second_of][H][4*VL] */
    real *peephole, *gain, *shift; /* [blocks][4][VL], units VL apart in the last block too */
} forward_cell;

/* Packed for backward: rows of W and U by slot, zeros where a slot has none, cut into groups of
 * 4*VL columns. */
typedef struct {
    real *w;                       /* [groups of I][slots*H][4*VL] */
    real *u;                       /* [groups of Hout][slots*H][4*VL] */
    real *projection;              /* [groups of H][P][4*VL] */
    real *peephole, *gain, *shift; /* [blocks][4][VL] */
} backward_cell;

static inline ptrdiff_t blocks_of(const fl_shape *s, const fl_kernels *k)
{
    return divide_up(s->hidden, k->lanes);
}

/* How far apart the gates of a block are packed. */
static inline ptrdiff_t gate_width(ptrdiff_t hidden, ptrdiff_t lanes, ptrdiff_t block)
{
    const ptrdiff_t units = hidden - block * lanes;
    return units > lanes / 2 ? lanes : units > lanes / 4 ? lanes / 2 : lanes / 4;
}

static inline forward_cell forward_cell_at(const fl_shape *s, const fl_kernels *k, real *packed,
                                           ptrdiff_t layer, ptrdiff_t direction, ptrdiff_t *size)
{
    const ptrdiff_t vectors = blocks_of(s, k) * 4 * k->lanes;
    carver c = {packed, 0};
    forward_cell cell = {0};
    for (ptrdiff_t l = 0; l <= layer; l++) {
        for (ptrdiff_t d = 0; d < s->directions && (l < layer || d <= direction); d++) {
            cell.bias = carve(&c, vectors);
            cell.w = carve(&c, vectors * input_of(s, l));
            cell.u = carve(&c, vectors * out_of(s));
            cell.second =
                carve(&c, divide_up(second_of(s), 4 * k->lanes) * 4 * k->lanes * s->hidden);
            cell.peephole = carve(&c, has_peephole(s) ? vectors : 0);
            cell.gain = carve(&c, has_norm(s) ? vectors : 0);
            cell.shift = carve(&c, has_norm(s) ? vectors : 0);
        }
    }
    *size = c.used;
    return cell;
}

static inline backward_cell backward_cell_at(const fl_shape *s, const fl_kernels *k, real *packed,
                                             ptrdiff_t layer, ptrdiff_t direction, ptrdiff_t *size)
{
    const ptrdiff_t group = 4 * k->lanes, rows = slots_of(s) * s->hidden;
    const ptrdiff_t vectors = blocks_of(s, k) * group;
    carver c = {packed, 0};
    backward_cell cell = {0};
    for (ptrdiff_t l = 0; l <= layer; l++) {
        for (ptrdiff_t d = 0; d < s->directions && (l < layer || d <= direction); d++) {
            cell.w = carve(&c, divide_up(input_of(s, l), group) * rows * group);
            cell.u = carve(&c, divide_up(out_of(s), group) * rows * group);
            cell.projection = carve(&c, s->projection * divide_up(s->hidden, group) * group);
            cell.peephole = carve(&c, has_peephole(s) ? vectors : 0);
            cell.gain = carve(&c, has_norm(s) ? vectors : 0);
            cell.shift = carve(&c, has_norm(s) ? vectors : 0);
        }
    }
    *size = c.used;
    return cell;
}

static ptrdiff_t forward_size(const fl_shape *s, const void *kernels)
{
    ptrdiff_t size;
    forward_cell_at(s, kernels, NULL, s->layers - 1, s->directions - 1, &size);
    return size;
}

static ptrdiff_t backward_size(const fl_shape *s, const void *kernels)
{
    ptrdiff_t size;
    backward_cell_at(s, kernels, NULL, s->layers - 1, s->directions - 1, &size);
    return size;
}

/* Whether backward needs what the gates' functions were given, beside what they made of it. */
static inline int keeps_sums(const fl_shape *s)
{
    if (s->cell != FL_LSTM_OPTIONS) {
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
    real *gates;  /* [T][B][blocks][4][VL] */
    real *sums;   /* like gates: what the functions were given, normed but not scaled; or NULL */
    real *scale;  /* [T][B][4]: 1 / standard deviation of the sums of a slot; or NULL */
    real *c;      /* [T+1][B][H], c[0] the initial state */
    real *h0;     /* [B][Hout] */
    real *inner;  /* [T][B][H]: what the second product was given; or NULL */
    real *feed;   /* [B][Hout]: what h was multiplied by before U; or NULL */
    real *out;    /* [T][B][D*Hout], shared by the directions of a layer */
    real *passed; /* what the next layer reads: out, or out after dropout */
} tape_cell;

static inline real *carve_if(carver *c, int wanted, ptrdiff_t elements)
{
    return wanted ? carve(c, elements) : NULL;
}

static inline tape_cell tape_cell_at(const fl_shape *s, const fl_kernels *k, real *tape,
                                     ptrdiff_t steps, ptrdiff_t batch, const fl_dropout *dropout,
                                     ptrdiff_t layer, ptrdiff_t direction, ptrdiff_t *size)
{
    const ptrdiff_t cells = steps * batch, width = out_of(s), out = cells * s->directions * width;
    const ptrdiff_t gates = cells * blocks_of(s, k) * 4 * k->lanes;
    carver c = {tape, 0};
    tape_cell cell = {0};
    for (ptrdiff_t l = 0; l <= layer; l++) {
        cell.out = carve(&c, out);
        cell.passed = dropout->rate > 0 && l < s->layers - 1 ? carve(&c, out) : cell.out;
        for (ptrdiff_t d = 0; d < s->directions && (l < layer || d <= direction); d++) {
            cell.gates = carve(&c, gates);
            cell.sums = carve_if(&c, keeps_sums(s), gates);
            cell.scale = carve_if(&c, has_norm(s), cells * FL_SLOTS);
            cell.c = carve(&c, (cells + batch) * s->hidden);
            cell.h0 = carve(&c, batch * width);
            cell.inner = carve_if(&c, second_of(s) > 0, cells * s->hidden);
            cell.feed = carve_if(&c, dropout->recurrent > 0, batch * width);
        }
    }
    *size = c.used;
    return cell;
}

static ptrdiff_t tape_size(const fl_shape *s, const void *kernels, ptrdiff_t steps, ptrdiff_t batch,
                           const fl_dropout *dropout)
{
    ptrdiff_t size;
    tape_cell_at(s, kernels, NULL, steps, batch, dropout, s->layers - 1, s->directions - 1, &size);
    return size;
}

#endif
