/* Packing weights into panels (pictures in packed_weights.h).  Workers share the panels of each
 * matrix. */
#ifndef FL_LAYOUT_PACK_H
#define FL_LAYOUT_PACK_H

#include "layout/packed_weights.h"
#include "layout/parameters.h"

#include <math.h>
#include <string.h>

/* Transpositions take pieces of K that stay in L1. */
enum { FL_PIECE = 128 };

/* A float, rounded to 16 bits before, to these bits. */
static inline uint16_t bfloat16_of(real value)
{
    const float single = (float)value;
    uint32_t bits;
    memcpy(&bits, &single, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static inline uint16_t float16_of(real value)
{
    const float magnitude = fabsf((float)value);
    const uint16_t sign = signbit(value) ? 0x8000 : 0;
    uint32_t bits;
    if (magnitude < 0x1p-14f) { /* a multiple of the least one */
        return (uint16_t)(sign | (uint16_t)(magnitude * 0x1p24f));
    }
    memcpy(&bits, &magnitude, sizeof bits);
    return (uint16_t)(sign | ((bits >> 13) - (112 << 10)));
}

/* A panel that is being filled: K rows of 4*lanes columns. */
typedef struct {
    char *data;
    ptrdiff_t columns;
    const fl_kernels *kernels;
} panel_in_work;

/* Row k of a column. */
FL_INLINE void put_weight(const int type, const panel_in_work *to, ptrdiff_t k, ptrdiff_t column,
                          real value)
{
    const ptrdiff_t at = k * to->columns + column;
    if (type == FL_SAME) {
        ((real *)to->data)[at] = value;
    } else if (type == FL_BFLOAT16) {
        ((uint16_t *)to->data)[at] = bfloat16_of(value);
    } else if (type == FL_FLOAT16) {
        ((uint16_t *)to->data)[at] = float16_of(value);
    } else {
        const ptrdiff_t four = FL_INT8_HEAD + k / 4;
        ((int8_t *)to->data)[(four * to->columns + column) * 4 + k % 4] = (int8_t)value;
        ((uint32_t *)to->data)[to->columns + column] -=
            (uint32_t)(to->kernels->byte_offset * (int)value);
    }
}

/* Columns of a panel from rows of a matrix [.., K]: row `first` + i becomes column `column` + i. */
FL_INLINE void put_rows(const int type, const panel_in_work *to, const real *m, ptrdiff_t k,
                        fl_range part, ptrdiff_t rows, ptrdiff_t column)
{
    for (ptrdiff_t row = 0; row < rows; row++) {
        for (ptrdiff_t i = part.begin; i < part.end; i++) {
            put_weight(type, to, i, column + row, m[row * k + i]);
        }
    }
}

/* A matrix [rows, K] with the scales of its rows, or without. */
typedef struct {
    const real *m, *scales;
    ptrdiff_t k;
} matrix;

/* Rows of a matrix, from `first` on, into columns of a panel. */
static void put(int type, const panel_in_work *to, const matrix *from, ptrdiff_t first,
                fl_range part, ptrdiff_t rows, ptrdiff_t column)
{
    const real *m = from->m + first * from->k;
    switch (type) {
    case FL_SAME: put_rows(FL_SAME, to, m, from->k, part, rows, column); break;
    case FL_BFLOAT16: put_rows(FL_BFLOAT16, to, m, from->k, part, rows, column); break;
    case FL_FLOAT16: put_rows(FL_FLOAT16, to, m, from->k, part, rows, column); break;
    default: put_rows(FL_INT8, to, m, from->k, part, rows, column);
    }
    if (from->scales && part.begin == 0) {
        memcpy((real *)to->data + column, from->scales + first, (size_t)rows * sizeof(real));
    }
}

/* The panel of a block, from the rows of W or U of some units of it. */
static void pack_gate_panel(const fl_stack *s, const fl_kernels *k, int of_u, const matrix *from,
                            ptrdiff_t block, fl_range units, char *out)
{
    const ptrdiff_t bytes = panel_bytes(s->weights, k->lanes, from->k), hidden = s->hidden;
    const ptrdiff_t n = units.end - units.begin, lane = units.begin - block * k->lanes;
    const ptrdiff_t width = gate_width(hidden, k->lanes, block);
    const panel_in_work to = {out, 4 * k->lanes, k};
    if (s->weights == FL_INT8 || n < k->lanes || gate_count(s) < FL_GATE_SLOTS) {
        memset(to.data, 0, (size_t)bytes); /* what no gate writes */
    }
    for (ptrdiff_t i = 0; i < from->k; i += FL_PIECE) {
        const fl_range part = {i, minimum(i + FL_PIECE, from->k)};
        for (ptrdiff_t slot = 0; slot < FL_GATE_SLOTS; slot++) {
            const ptrdiff_t gate = gate_of_slot(s, of_u, slot);
            if (gate >= 0 && !(of_u && slot >= recurrent_gate_slots(s))) {
                const ptrdiff_t first = gate * hidden + units.begin, column = slot * width + lane;
                put(s->weights, &to, from, first, part, n, column);
            }
        }
    }
}

/* W or U -> out [panels][K][4][lanes]; W is as of one head. */
static void pack_gates(const fl_stack *s, const fl_kernels *k, int of_u, const matrix *from,
                       fl_range blocks, char *out)
{
    const ptrdiff_t bytes = panel_bytes(s->weights, k->lanes, from->k);
    const ptrdiff_t size = of_u ? s->hidden / s->heads : s->hidden;
    for (ptrdiff_t block = blocks.begin; block < blocks.end; block++) {
        const fl_range units = units_of_part(k->lanes, block, s->hidden);
        const fl_range heads = heads_of(size, units);
        for (ptrdiff_t head = heads.begin; head < heads.end; head++) {
            pack_gate_panel(s, k, of_u, from, block, units_of_head(size, head, units),
                            out + (block + head) * bytes);
        }
    }
}

/* out [blocks][4][lanes]: b_ih, b_hh (or NULL) or their sum, or zeros. */
static void pack_bias(const fl_stack *s, const real *b_ih, const real *b_hh, ptrdiff_t lanes,
                      fl_range blocks, real *out)
{
    for (ptrdiff_t block = blocks.begin; block < blocks.end; block++) {
        const ptrdiff_t first = block * lanes, units = minimum(lanes, s->hidden - first);
        const ptrdiff_t width = gate_width(s->hidden, lanes, block);
        real *to = out + block * 4 * lanes;
        memset(to, 0, (size_t)(4 * lanes) * sizeof(real));
        for (ptrdiff_t i = 0; s->bias && !has_norm(s) && i < FL_GATE_SLOTS * units; i++) {
            const ptrdiff_t slot = i / units, u = i % units, unit = first + u;
            const ptrdiff_t of_x = gate_of_slot(s, 0, slot), of_h = gate_of_slot(s, 1, slot);
            const real in = of_x < 0 ? 0 : b_ih[of_x * s->hidden + unit];
            to[slot * width + u] = of_h < 0 || !b_hh ? in : in + b_hh[of_h * s->hidden + unit];
        }
    }
}

/* [rows, K] -> out [groups][K][4*lanes]. */
static void pack_rows(int weights, const fl_kernels *k, const matrix *from, ptrdiff_t rows,
                      fl_range groups, char *out)
{
    const ptrdiff_t bytes = panel_bytes(weights, k->lanes, from->k), size = 4 * k->lanes;
    for (ptrdiff_t group = groups.begin; group < groups.end; group++) {
        const ptrdiff_t first = group * size, width = minimum(size, rows - first);
        const panel_in_work to = {out + group * bytes, size, k};
        if (weights == FL_INT8 || width < size) {
            memset(to.data, 0, (size_t)bytes);
        }
        for (ptrdiff_t i = 0; i < from->k; i += FL_PIECE) {
            const fl_range part = {i, minimum(i + FL_PIECE, from->k)};
            put(weights, &to, from, first, part, width, 0);
        }
    }
}

/* Columns of m [rows, n] into a panel [rows][size], from its column `to` on; zeros beside them. */
static void pack_panel(const real *m, ptrdiff_t rows, ptrdiff_t n, fl_range columns, ptrdiff_t to,
                       ptrdiff_t size, real *out)
{
    const ptrdiff_t width = columns.end - columns.begin, end = to + width;
    for (ptrdiff_t i = 0; i < rows; i++, out += size) {
        memset(out, 0, (size_t)to * sizeof(real));
        memcpy(out + to, m + i * n + columns.begin, (size_t)width * sizeof(real));
        memset(out + end, 0, (size_t)(size - end) * sizeof(real));
    }
}

/* m [rows, n] -> out [groups][rows][size]. */
static void pack_columns(const real *m, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t size,
                         fl_range groups, real *out)
{
    for (ptrdiff_t group = groups.begin; group < groups.end; group++) {
        pack_panel(m, rows, n, units_of_part(size, group, n), 0, size, out + group * rows * size);
    }
}

/* W or U [GH, n] -> out [panels][slots][H/heads][size]; of W heads is 1. */
static void pack_gate_slots(const fl_stack *s, int of_u, ptrdiff_t heads, const real *m,
                            ptrdiff_t n, ptrdiff_t size, fl_range groups, real *out)
{
    const ptrdiff_t slots = gate_slot_count(s), rows = s->hidden / heads, panel = rows * size;
    for (ptrdiff_t group = groups.begin; group < groups.end; group++) {
        const fl_range columns = units_of_part(size, group, n * heads), own = heads_of(n, columns);
        for (ptrdiff_t i = own.begin * slots; i < own.end * slots; i++) {
            const ptrdiff_t head = i / slots, slot = i % slots;
            const ptrdiff_t gate = gate_of_slot(s, of_u, slot);
            const fl_range units = units_of_head(n, head, columns);
            const fl_range part = {units.begin - head * n, units.end - head * n};
            real *to = out + ((group + head) * slots + slot) * panel;
            if (gate < 0) {
                memset(to, 0, (size_t)panel * sizeof(real));
            } else {
                pack_panel(m + (gate * s->hidden + head * rows) * n, rows, n, part,
                           units.begin - columns.begin, size, to);
            }
        }
    }
}

/* One value a unit, by slot -> out [blocks][4][lanes]; part_of: which H values of m a slot has. */
static void pack_units(const fl_stack *s, ptrdiff_t (*part_of)(const fl_stack *, ptrdiff_t),
                       const real *m, const real *m2, ptrdiff_t lanes, fl_range blocks, real *out)
{
    for (ptrdiff_t block = blocks.begin; block < blocks.end; block++) {
        const ptrdiff_t first = block * lanes, units = minimum(lanes, s->hidden - first);
        real *to = out + block * FL_GATE_SLOTS * lanes;
        memset(to, 0, (size_t)(FL_GATE_SLOTS * lanes) * sizeof(real));
        for (ptrdiff_t i = 0; m && i < FL_GATE_SLOTS * units; i++) {
            const ptrdiff_t slot = i / units, u = i % units, part = part_of(s, slot);
            if (part >= 0) {
                const ptrdiff_t at = part * s->hidden + first + u;
                to[slot * lanes + u] = m2 ? m[at] + m2[at] : m[at];
            }
        }
    }
}

static ptrdiff_t gate_part(const fl_stack *s, ptrdiff_t slot) { return gate_of_slot(s, 0, slot); }

/* The same for forward and backward. */
static void pack_options(const fl_stack *s, const flat_cell *from, const real *p, ptrdiff_t lanes,
                         fl_range blocks, real *peephole, real *gain, real *shift)
{
    if (has_peephole(s)) {
        pack_units(s, peephole_of_slot, p + from->peephole, NULL, lanes, blocks, peephole);
    }
    if (has_norm(s)) {
        pack_units(s, gate_part, p + from->gain, NULL, lanes, blocks, gain);
        pack_units(s, gate_part, s->bias ? p + from->b_ih : NULL, p + from->b_hh, lanes, blocks,
                   shift);
    }
}

typedef struct {
    matrix w, u, second;
} matrices;

static matrices matrices_of(const fl_pack_call *call, ptrdiff_t l, ptrdiff_t d)
{
    const fl_stack *s = call->stack;
    const flat_cell at = flat_cell_at(s, l, d);
    const scale_cell scale = scale_cell_at(s, l, d);
    const real *p = call->flat, *scales = call->scales;
    const ptrdiff_t candidate = recurrent_gate_slots(s) * s->hidden;
    matrices m = {
        .w = {p + at.w, scales ? scales + scale.w : NULL, input_size(s, l)},
        .u = {p + at.u, scales ? scales + scale.u : NULL, head_size(s)},
        .second = {p + at.projection, scales ? scales + scale.projection : NULL, s->hidden},
    };
    if (second_is_candidate(s)) {
        m.second.m = m.u.m + candidate * s->hidden;
        m.second.scales = scales ? m.u.scales + candidate : NULL;
    }
    return m;
}

/* Each worker has a part of the units of every layer. */
static void pack_forward(void *argument, fl_worker *me)
{
    const fl_pack_call *call = argument;
    const fl_stack *s = call->stack;
    const fl_kernels *k = call->kernels;
    const fl_range blocks = fl_part(blocks_of(s, k), me->workers, me->number);
    const fl_range seconds =
        fl_part(divide_up(second_product_size(s), 4 * k->lanes), me->workers, me->number);
    ptrdiff_t size;
    for (ptrdiff_t l = 0; l < s->layers; l++) {
        for (ptrdiff_t d = 0; d < s->directions; d++) {
            const flat_cell from = flat_cell_at(s, l, d);
            const forward_cell to = forward_cell_at(s, k, call->packed, l, d, &size);
            const real *p = call->flat;
            const matrices m = matrices_of(call, l, d);
            pack_gates(s, k, 0, &m.w, blocks, to.w);
            pack_gates(s, k, 1, &m.u, blocks, to.u);
            pack_rows(s->weights, k, &m.second, second_product_size(s), seconds, to.second);
            pack_options(s, &from, p, k->lanes, blocks, to.peephole, to.gain, to.shift);
            pack_bias(s, p + from.b_ih, has_b_hh(s) ? p + from.b_hh : NULL, k->lanes, blocks,
                      to.bias);
        }
    }
}

static void pack_backward(void *argument, fl_worker *me)
{
    const fl_pack_call *call = argument;
    const fl_stack *s = call->stack;
    const fl_kernels *k = call->kernels;
    const ptrdiff_t group = 4 * k->lanes;
    const fl_range units = fl_part(divide_up(s->hidden, group), me->workers, me->number);
    const fl_range outputs = fl_part(divide_up(output_size(s), group), me->workers, me->number);
    const fl_range blocks = fl_part(blocks_of(s, k), me->workers, me->number);
    ptrdiff_t size;
    for (ptrdiff_t l = 0; l < s->layers; l++) {
        const fl_range inputs =
            fl_part(divide_up(input_size(s, l), group), me->workers, me->number);
        for (ptrdiff_t d = 0; d < s->directions; d++) {
            const flat_cell from = flat_cell_at(s, l, d);
            const backward_cell to = backward_cell_at(s, k, call->packed, l, d, &size);
            const real *p = call->flat;
            pack_gate_slots(s, 0, 1, p + from.w, input_size(s, l), group, inputs, to.w);
            pack_gate_slots(s, 1, s->heads, p + from.u, head_size(s), group, outputs, to.u);
            pack_columns(p + from.projection, s->projection, s->hidden, group, units,
                         to.projection);
            pack_options(s, &from, p, k->lanes, blocks, to.peephole, to.gain, to.shift);
        }
    }
}

#endif
