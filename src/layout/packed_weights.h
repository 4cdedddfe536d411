/* Weights in panels, as the products read them: where each lies. */
#ifndef FL_LAYOUT_PACKED_WEIGHTS_H
#define FL_LAYOUT_PACKED_WEIGHTS_H

#include "base/arena.h"
#include "kernels/table.h"
#include "layout/stack.h"

/* Packed for forward: blocks of VL hidden units, the four slots of a block side by side.
 *
 *     w:  block 0: k = 0:  i[VL] f[VL] g[VL] o[VL]
 *                  k = 1:  i[VL] f[VL] g[VL] o[VL]   ...  k = I-1
 *         block 1: ...                                       (zeros beyond unit H-1)
 *
 * If the last block has at most VL/2 units, its gates are packed closer, VL/2 or VL/4 apart: they
 * fit two vectors or one, and a product computes no more (H = 17 would take as long as H = 32).
 *
 * Elements are those of the weight type.  Of FL_INT8, the four bytes that one instruction
 * multiplies are adjacent: a panel is its head (see fl_term), and then i[VL][4] f[VL][4] ... for k
 * = 0 to 3, 4 to 7, ... (zeros beyond K-1).
 *
 * Where units are in several heads, u has a panel for each block and each head that has units in
 * it, number block + head: k counts the units of that head, and there are zeros for the others.
 */
typedef struct {
    real *bias;   /* [blocks][4][VL], b_ih + b_hh; zeros before a layer norm, which has it after */
    char *w;      /* [blocks][I][4][VL] */
    char *u;      /* [panels][Hout/heads][4][VL]; zeros for a slot that awaits a second product */
    char *second; /* [groups of second_product_size][H][4*VL] */
    real *peephole, *gain, *shift; /* [blocks][4][VL], units VL apart in the last block too */
} forward_cell;

/* Packed for backward: rows of W and U by slot, zeros where a slot has none, cut into groups of
 * 4*VL columns.  Panels of u are those of a group and a head, as above. */
typedef struct {
    real *w;                       /* [groups of I][slots*H][4*VL] */
    real *u;                       /* [panels][slots][H/heads][4*VL] */
    real *projection;              /* [groups of H][P][4*VL] */
    real *peephole, *gain, *shift; /* [blocks][4][VL] */
} backward_cell;

static inline ptrdiff_t blocks_of(const fl_stack *s, const fl_kernels *k)
{
    return divide_up(s->hidden, k->lanes);
}

/* How far apart the gates of a block are packed. */
static inline ptrdiff_t gate_width(ptrdiff_t hidden, ptrdiff_t lanes, ptrdiff_t block)
{
    const ptrdiff_t units = hidden - block * lanes;
    return units > lanes / 2 ? lanes : units > lanes / 4 ? lanes / 2 : lanes / 4;
}

/* The heads, each of so many units, that have some of these. */
static inline fl_range heads_of(ptrdiff_t head_size, fl_range units)
{
    return (fl_range){units.begin / head_size, divide_up(units.end, head_size)};
}

/* The units of a head that are among these. */
static inline fl_range units_of_head(ptrdiff_t head_size, ptrdiff_t head, fl_range units)
{
    const ptrdiff_t begin = head * head_size, end = begin + head_size;
    return (fl_range){begin > units.begin ? begin : units.begin, minimum(end, units.end)};
}

/* Those of a block, or of another part of that size. */
static inline fl_range units_of_part(ptrdiff_t size, ptrdiff_t part, ptrdiff_t units)
{
    return (fl_range){part * size, minimum((part + 1) * size, units)};
}

/* Bytes of a panel of K rows. */
static inline ptrdiff_t panel_bytes(int weights, ptrdiff_t lanes, ptrdiff_t k)
{
    const ptrdiff_t columns = 4 * lanes;
    switch (weights) {
    case FL_INT8: return (FL_INT8_HEAD + divide_up(k, 4)) * columns * 4;
    case FL_BFLOAT16:
    case FL_FLOAT16: return k * columns * 2;
    default: return k * columns * (ptrdiff_t)sizeof(real);
    }
}

/* Bytes of a weight, but for the head of a panel. */
static inline double weight_bytes(int weights)
{
    return weights == FL_SAME ? (double)sizeof(real) : weights == FL_INT8 ? 1 : 2;
}

/* So many panels of K rows. */
static inline char *take_panels(arena *a, const fl_stack *s, const fl_kernels *k, ptrdiff_t panels,
                                ptrdiff_t rows)
{
    const ptrdiff_t bytes = panels * panel_bytes(s->weights, k->lanes, rows);
    return (char *)arena_take(a, divide_up(bytes, sizeof(real)));
}

static inline forward_cell forward_cell_at(const fl_stack *s, const fl_kernels *k, real *packed,
                                           ptrdiff_t layer, ptrdiff_t direction, ptrdiff_t *size)
{
    const ptrdiff_t vectors = blocks_of(s, k) * 4 * k->lanes;
    arena a = {packed, 0};
    forward_cell cell = {0};
    for (ptrdiff_t l = 0; l <= layer; l++) {
        for (ptrdiff_t d = 0; d < s->directions && (l < layer || d <= direction); d++) {
            cell.bias = arena_take(&a, vectors);
            cell.w = take_panels(&a, s, k, blocks_of(s, k), input_size(s, l));
            cell.u = take_panels(&a, s, k, blocks_of(s, k) + s->heads - 1, head_size(s));
            cell.second =
                take_panels(&a, s, k, divide_up(second_product_size(s), 4 * k->lanes), s->hidden);
            cell.peephole = arena_take(&a, has_peephole(s) ? vectors : 0);
            cell.gain = arena_take(&a, has_norm(s) ? vectors : 0);
            cell.shift = arena_take(&a, has_norm(s) ? vectors : 0);
        }
    }
    *size = a.used;
    return cell;
}

static inline backward_cell backward_cell_at(const fl_stack *s, const fl_kernels *k, real *packed,
                                             ptrdiff_t layer, ptrdiff_t direction, ptrdiff_t *size)
{
    const ptrdiff_t group = 4 * k->lanes, rows = gate_slot_count(s) * s->hidden;
    const ptrdiff_t vectors = blocks_of(s, k) * group;
    arena a = {packed, 0};
    backward_cell cell = {0};
    for (ptrdiff_t l = 0; l <= layer; l++) {
        for (ptrdiff_t d = 0; d < s->directions && (l < layer || d <= direction); d++) {
            cell.w = arena_take(&a, divide_up(input_size(s, l), group) * rows * group);
            cell.u = arena_take(&a, (divide_up(output_size(s), group) + s->heads - 1) *
                                        (rows / s->heads) * group);
            cell.projection = arena_take(&a, s->projection * divide_up(s->hidden, group) * group);
            cell.peephole = arena_take(&a, has_peephole(s) ? vectors : 0);
            cell.gain = arena_take(&a, has_norm(s) ? vectors : 0);
            cell.shift = arena_take(&a, has_norm(s) ? vectors : 0);
        }
    }
    *size = a.used;
    return cell;
}

static ptrdiff_t forward_size(const fl_stack *s, const void *kernels)
{
    ptrdiff_t size;
    forward_cell_at(s, kernels, NULL, s->layers - 1, s->directions - 1, &size);
    return size;
}

static ptrdiff_t backward_size(const fl_stack *s, const void *kernels)
{
    ptrdiff_t size;
    backward_cell_at(s, kernels, NULL, s->layers - 1, s->directions - 1, &size);
    return size;
}

#endif
