/* The recurrent product backward, dz U. */
#ifndef FL_DRIVER_BACKWARD_RECURRENT_H
#define FL_DRIVER_BACKWARD_RECURRENT_H

#include "driver/backward/pass.h"

/* Some units of one head in a group of columns: tile = init + dz U, where U leads to them from the
 * units of the head alone, gate by gate. */
static void times_head(const backward_pass *p, const real *const *dz, ptrdiff_t rows,
                       ptrdiff_t group, ptrdiff_t head, const real *const *init, real *tile)
{
    const ptrdiff_t lanes = p->k->lanes, size = 4 * lanes, k = p->head_size;
    const fl_range columns = units_of_part(size, group, p->out_size);
    const fl_range units = units_of_head(k, head, columns);
    const ptrdiff_t begin = units.begin - columns.begin, end = units.end - columns.begin;
    const ptrdiff_t first = begin / lanes * lanes; /* of whole vectors */
    const int shared = begin > first || (end % lanes > 0 && units.end < columns.end);
    const real *weights = p->cell.u + (group + head) * (p->rows / p->hidden * k) * size + first;
    const real *da[FL_GATE_SLOTS][FL_MAX_ROWS], *from[FL_MAX_ROWS];
    fl_term terms[FL_GATE_SLOTS];
    _Alignas(FL_ALIGN) real local[FL_MAX_TILE];
    for (ptrdiff_t r = 0; r < rows; r++) {
        from[r] = init[r] + first;
        for (ptrdiff_t slot = 0; slot < FL_GATE_SLOTS; slot++) {
            da[slot][r] = dz[r] + slot * p->hidden + head * k;
        }
    }
    for (ptrdiff_t slot = 0; slot < FL_GATE_SLOTS; slot++) {
        terms[slot] = (fl_term){da[slot], 1, weights + slot * k * size, k, NULL, {0}};
    }
    p->k->product[FL_SAME](rows, divide_up(end - first, lanes), from, terms, FL_GATE_SLOTS,
                           (shared ? local : tile) + first, size);
    for (ptrdiff_t r = 0; shared && r < rows; r++) {
        memcpy(tile + r * size + begin, local + r * size + begin,
               (size_t)(end - begin) * sizeof(real));
    }
}

/* tile = init + dz of the step after, times U. */
FL_INLINE void times_recurrent(const int plain, const backward_pass *p, const real *const *dz,
                               ptrdiff_t rows, ptrdiff_t group, const void *next,
                               const real *const *init, real *tile)
{
    const ptrdiff_t size = 4 * p->k->lanes, n = p->out_size - group * size;
    if (plain || p->head_size == p->out_size) {
        const real *weights = p->cell.u + group * p->rows * size;
        const fl_term term = {dz, 1, weights, p->recurrent, next, {0}};
        p->k->product[FL_SAME](rows, vectors_of(p, n), init, &term, 1, tile, size);
        return;
    }
    const fl_range heads = heads_of(p->head_size, units_of_part(size, group, p->out_size));
    for (ptrdiff_t head = heads.begin; head < heads.end; head++) {
        times_head(p, dz, rows, group, head, init, tile);
    }
}

#endif
