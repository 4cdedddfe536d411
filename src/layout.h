/* Where things lie: flat parameters, packed weights, the tape.  Closed forms of the sizes only. */
#ifndef FL_LAYOUT_H
#define FL_LAYOUT_H

#include "fastlstm.h"
#include "kernels_api.h"

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

static inline ptrdiff_t input_of(const fl_shape *s, ptrdiff_t layer)
{
    return layer == 0 ? s->input : s->directions * s->hidden;
}

/* Pre-activations have slots: an LSTM has one for each gate.  A GRU has r, z, and two for n,
 * because r multiplies the part of it that comes from h: W leads to slots 0, 1, 2 and U to 0, 1, 3.
 */
enum { FL_SLOTS = 4 };

static inline ptrdiff_t gates_of(const fl_shape *s)
{
    return s->cell == FL_LSTM ? 4 : s->cell == FL_GRU ? 3 : 1;
}

static inline ptrdiff_t slots_of(const fl_shape *s) { return s->cell <= FL_GRU ? FL_SLOTS : 1; }

/* The gate of W (or U) whose pre-activations a slot has; -1: none. */
static inline ptrdiff_t gate_of_slot(const fl_shape *s, int of_u, ptrdiff_t slot)
{
    if (s->cell == FL_GRU) {
        return slot < 2 ? slot : slot == 2 + of_u ? 2 : -1;
    }
    return slot < gates_of(s) ? slot : -1;
}

/* One layer and direction in the flat vector of parameters or gradients. */
typedef struct {
    ptrdiff_t w, u, b_ih, b_hh; /* offsets; the biases only if shape.bias */
} flat_cell;

static inline ptrdiff_t flat_cell_size(const fl_shape *s, ptrdiff_t layer)
{
    return gates_of(s) * s->hidden * (input_of(s, layer) + s->hidden + (s->bias ? 2 : 0));
}

static inline flat_cell flat_cell_at(const fl_shape *s, ptrdiff_t layer, ptrdiff_t direction)
{
    ptrdiff_t start = direction * flat_cell_size(s, layer);
    if (layer > 0) {
        start += s->directions * (flat_cell_size(s, 0) + (layer - 1) * flat_cell_size(s, 1));
    }
    flat_cell cell;
    cell.w = start;
    const ptrdiff_t gates = gates_of(s) * s->hidden;
    cell.u = cell.w + gates * input_of(s, layer);
    cell.b_ih = cell.u + gates * s->hidden;
    cell.b_hh = cell.b_ih + gates;
    return cell;
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
    real *bias; /* [blocks][4][VL], b_ih + b_hh */
    real *w;    /* [blocks][I][4][VL] */
    real *u;    /* [blocks][H][4][VL] */
} forward_cell;

/* Packed for backward: rows of W and U by slot, zeros where a slot has none, cut into groups of
 * 4*VL columns. */
typedef struct {
    real *w; /* [groups of I][slots*H][4*VL] */
    real *u; /* [groups of H][slots*H][4*VL] */
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
            cell.u = carve(&c, vectors * s->hidden);
        }
    }
    *size = c.used;
    return cell;
}

static inline backward_cell backward_cell_at(const fl_shape *s, const fl_kernels *k, real *packed,
                                             ptrdiff_t layer, ptrdiff_t direction, ptrdiff_t *size)
{
    const ptrdiff_t group = 4 * k->lanes, rows = slots_of(s) * s->hidden;
    carver c = {packed, 0};
    backward_cell cell = {0};
    for (ptrdiff_t l = 0; l <= layer; l++) {
        for (ptrdiff_t d = 0; d < s->directions && (l < layer || d <= direction); d++) {
            cell.w = carve(&c, divide_up(input_of(s, l), group) * rows * group);
            cell.u = carve(&c, divide_up(s->hidden, group) * rows * group);
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

/* The tape: what one layer and direction keeps of a forward call.  Steps are counted in the order
 * they were computed, so step 0 of the reverse direction is time T-1; out is in time order. */
typedef struct {
    real *gates;  /* [T][B][blocks][4][VL] */
    real *c;      /* [T+1][B][H], c[0] the initial state */
    real *h0;     /* [B][H] */
    real *out;    /* [T][B][D*H], shared by the directions of a layer */
    real *passed; /* what the next layer reads: out, or out after dropout */
} tape_cell;

static inline tape_cell tape_cell_at(const fl_shape *s, const fl_kernels *k, real *tape,
                                     ptrdiff_t steps, ptrdiff_t batch, int dropout, ptrdiff_t layer,
                                     ptrdiff_t direction, ptrdiff_t *size)
{
    const ptrdiff_t cells = steps * batch, out = cells * s->directions * s->hidden;
    carver c = {tape, 0};
    tape_cell cell = {0};
    for (ptrdiff_t l = 0; l <= layer; l++) {
        cell.out = carve(&c, out);
        cell.passed = dropout && l < s->layers - 1 ? carve(&c, out) : cell.out;
        for (ptrdiff_t d = 0; d < s->directions && (l < layer || d <= direction); d++) {
            cell.gates = carve(&c, cells * blocks_of(s, k) * 4 * k->lanes);
            cell.c = carve(&c, (cells + batch) * s->hidden);
            cell.h0 = carve(&c, batch * s->hidden);
        }
    }
    *size = c.used;
    return cell;
}

static ptrdiff_t tape_size(const fl_shape *s, const void *kernels, ptrdiff_t steps, ptrdiff_t batch,
                           int dropout)
{
    ptrdiff_t size;
    tape_cell_at(s, kernels, NULL, steps, batch, dropout, s->layers - 1, s->directions - 1, &size);
    return size;
}

#endif
