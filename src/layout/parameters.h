/* Offsets in the flat vector of parameters or gradients. */
#ifndef FL_LAYOUT_PARAMETERS_H
#define FL_LAYOUT_PARAMETERS_H

#include "layout/stack.h"

/* One layer and direction in the flat vector of parameters or gradients: offsets. */
typedef struct {
    ptrdiff_t w, u;
    ptrdiff_t b_ih, b_hh; /* only if there are any, and so on */
    ptrdiff_t projection, peephole, gain;
    ptrdiff_t end;
} flat_cell;

static inline flat_cell flat_cell_from(const fl_stack *s, ptrdiff_t layer, ptrdiff_t start)
{
    const ptrdiff_t gates = gate_count(s) * s->hidden;
    flat_cell cell;
    cell.w = start;
    cell.u = cell.w + gates * input_size(s, layer);
    cell.b_ih = cell.u + gates * head_size(s);
    cell.b_hh = cell.b_ih + (s->bias ? gates : 0);
    cell.projection = cell.b_hh + (has_b_hh(s) ? gates : 0);
    cell.peephole = cell.projection + s->projection * s->hidden;
    cell.gain = cell.peephole + (has_peephole(s) ? (gate_count(s) - 1) * s->hidden : 0);
    cell.end = cell.gain + (has_norm(s) ? gates : 0);
    return cell;
}

static inline ptrdiff_t flat_cell_size(const fl_stack *s, ptrdiff_t layer)
{
    return flat_cell_from(s, layer, 0).end;
}

static inline flat_cell flat_cell_at(const fl_stack *s, ptrdiff_t layer, ptrdiff_t direction)
{
    ptrdiff_t start = direction * flat_cell_size(s, layer);
    if (layer > 0) {
        start += s->directions * (flat_cell_size(s, 0) + (layer - 1) * flat_cell_size(s, 1));
    }
    return flat_cell_from(s, layer, start);
}

/* One layer and direction in the vector of scales: offsets. */
typedef struct {
    ptrdiff_t w, u, projection;
    ptrdiff_t end;
} scale_cell;

static inline scale_cell scale_cell_at(const fl_stack *s, ptrdiff_t layer, ptrdiff_t direction)
{
    const ptrdiff_t gates = gate_count(s) * s->hidden, size = 2 * gates + s->projection;
    const ptrdiff_t start = (layer * s->directions + direction) * size;
    return (scale_cell){start, start + gates, start + 2 * gates, start + size};
}

static ptrdiff_t scales_size(const fl_stack *s)
{
    return scale_cell_at(s, s->layers - 1, s->directions - 1).end;
}

static ptrdiff_t parameters_size(const fl_stack *s)
{
    return s->directions *
           (flat_cell_size(s, 0) + (s->layers - 1) * flat_cell_size(s, s->layers - 1));
}

#endif
