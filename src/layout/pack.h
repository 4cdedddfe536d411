/* Packing weights into panels (pictures in packed_weights.h).  Workers share the panels of each
 * matrix. */
#ifndef FL_LAYOUT_PACK_H
#define FL_LAYOUT_PACK_H

#include "layout/packed_weights.h"
#include "layout/parameters.h"

#include <string.h>

/* Transpositions take pieces of K that stay in L1. */
enum { FL_PIECE = 128 };

/* m [GH, K], W or U -> out [blocks][K][4][lanes]. */
static void pack_gates(const fl_stack *s, int of_u, const real *m, ptrdiff_t k, ptrdiff_t lanes,
                       fl_range blocks, real *out)
{
    const ptrdiff_t vectors = 4 * lanes, hidden = s->hidden;
    for (ptrdiff_t block = blocks.begin; block < blocks.end; block++) {
        const ptrdiff_t first = block * lanes, units = minimum(lanes, hidden - first);
        const ptrdiff_t width = gate_width(hidden, lanes, block);
        for (ptrdiff_t i = 0; i < k; i += FL_PIECE) {
            const ptrdiff_t n = minimum(FL_PIECE, k - i);
            real *piece = out + (block * k + i) * vectors;
            if (units < lanes || gate_count(s) < FL_GATE_SLOTS) { /* what no gate writes */
                memset(piece, 0, (size_t)(n * vectors) * sizeof(real));
            }
            for (ptrdiff_t row = 0; row < FL_GATE_SLOTS * units; row++) {
                const ptrdiff_t slot = row / units, u = row % units;
                const ptrdiff_t gate = gate_of_slot(s, of_u, slot);
                const int absent = gate < 0 || (of_u && slot >= recurrent_gate_slots(s));
                const real *from = m + (gate * hidden + first + u) * k + i;
                for (ptrdiff_t j = 0; !absent && j < n; j++) {
                    piece[j * vectors + slot * width + u] = from[j];
                }
            }
        }
    }
}

/* out [blocks][4][lanes]: b_ih, b_hh or their sum, or zeros. */
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
            to[slot * width + u] = of_h < 0 ? in : in + b_hh[of_h * s->hidden + unit];
        }
    }
}

/* m [rows, K] -> out [groups][K][size]. */
static void pack_rows(const real *m, ptrdiff_t rows, ptrdiff_t k, ptrdiff_t size, fl_range groups,
                      real *out)
{
    for (ptrdiff_t group = groups.begin; group < groups.end; group++) {
        const ptrdiff_t first = group * size, width = minimum(size, rows - first);
        for (ptrdiff_t i = 0; i < k; i += FL_PIECE) {
            const ptrdiff_t n = minimum(FL_PIECE, k - i);
            real *piece = out + (group * k + i) * size;
            if (width < size) {
                memset(piece, 0, (size_t)(n * size) * sizeof(real));
            }
            for (ptrdiff_t row = 0; row < width; row++) {
                const real *from = m + (first + row) * k + i;
                for (ptrdiff_t j = 0; j < n; j++) {
                    piece[j * size + row] = from[j];
                }
            }
        }
    }
}

/* m [rows, n] -> out [groups][rows][size]. */
static void pack_columns(const real *m, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t size,
                         fl_range groups, real *out)
{
    for (ptrdiff_t group = groups.begin; group < groups.end; group++) {
        const ptrdiff_t j = group * size, width = minimum(size, n - j);
        for (ptrdiff_t i = 0; i < rows; i++) {
            real *to = out + (group * rows + i) * size;
            memcpy(to, m + i * n + j, (size_t)width * sizeof(real));
            memset(to + width, 0, (size_t)(size - width) * sizeof(real));
        }
    }
}

/* W or U [GH, n] -> out [groups][slots*H][size]. */
static void pack_gate_slots(const fl_stack *s, int of_u, const real *m, ptrdiff_t n, ptrdiff_t size,
                            fl_range groups, real *out)
{
    const ptrdiff_t rows = gate_slot_count(s) * s->hidden;
    for (ptrdiff_t group = groups.begin; group < groups.end; group++) {
        for (ptrdiff_t slot = 0; slot < gate_slot_count(s); slot++) {
            const ptrdiff_t gate = gate_of_slot(s, of_u, slot);
            real *to = out + (group * rows + slot * s->hidden) * size;
            if (gate < 0) {
                memset(to, 0, (size_t)(s->hidden * size) * sizeof(real));
            } else {
                const fl_range one = {group, group + 1};
                const real *from = m + gate * s->hidden * n;
                pack_columns(from, s->hidden, n, size, one, to - group * s->hidden * size);
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
            pack_gates(s, 0, p + from.w, input_size(s, l), k->lanes, blocks, to.w);
            pack_gates(s, 1, p + from.u, output_size(s), k->lanes, blocks, to.u);
            const real *candidate = p + from.u + recurrent_gate_slots(s) * s->hidden * s->hidden;
            const real *second = second_is_candidate(s) ? candidate : p + from.projection;
            pack_rows(second, second_product_size(s), s->hidden, 4 * k->lanes, seconds, to.second);
            pack_options(s, &from, p, k->lanes, blocks, to.peephole, to.gain, to.shift);
            pack_bias(s, p + from.b_ih, p + from.b_hh, k->lanes, blocks, to.bias);
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
            pack_gate_slots(s, 0, p + from.w, input_size(s, l), group, inputs, to.w);
            pack_gate_slots(s, 1, p + from.u, output_size(s), group, outputs, to.u);
            pack_columns(p + from.projection, s->projection, s->hidden, group, units,
                         to.projection);
            pack_options(s, &from, p, k->lanes, blocks, to.peephole, to.gain, to.shift);
        }
    }
}

#endif
