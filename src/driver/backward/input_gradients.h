/* The gradients of the inputs, dz W. */
#ifndef FL_DRIVER_BACKWARD_INPUT_GRADIENTS_H
#define FL_DRIVER_BACKWARD_INPUT_GRADIENTS_H

#include "driver/backward/pass.h"

/* A product of rows of dz with W, stored into (or, with `add`, added to) out. */
static void rows_times_weights(const backward_pass *p, const real *const *dz, ptrdiff_t rows,
                               ptrdiff_t group, const void *next, real *const *out, int add)
{
    const ptrdiff_t size = 4 * p->k->lanes, k = p->rows, n = p->input - group * size;
    _Alignas(FL_ALIGN) real tile[FL_MAX_TILE];
    const real *before[FL_MAX_ROWS], *init[FL_MAX_ROWS];
    real *to[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < rows; r++) {
        to[r] = out[r] + group * size;
        before[r] = add ? to[r] : zeros;
        init[r] = tile + r * size;
    }
    p->k->load(rows, n, before, NULL, tile);
    const fl_term term = {dz, 1, p->cell.w + group * k * size, k, next, {0}};
    p->k->product[FL_SAME](rows, vectors_of(p, n), init, &term, 1, tile, size);
    p->k->store(rows, n, tile, to);
}

/* dx for some tiles of the n rows of the segment that begins at s0, counted step by step. */
static void input_gradients(const backward_pass *p, ptrdiff_t s0, ptrdiff_t n, fl_range tiles,
                            ptrdiff_t group)
{
    const tiling cut = tile_rows(p->k, n);
    const ptrdiff_t size = 4 * p->k->lanes, groups = divide_up(p->input, size);
    for (ptrdiff_t tile = tiles.begin; tile < tiles.end; tile++) {
        const fl_range rows = tile_at(&cut, tile);
        const real *dz[FL_MAX_ROWS];
        real *dx[FL_MAX_ROWS];
        occurrence at = occurrence_at(&p->when, s0, rows.begin);
        const real *first = dz_at(p, at.s, at.rank);
        for (ptrdiff_t r = 0; r < rows.end - rows.begin; r++, at = next_occurrence(&p->when, at)) {
            dz[r] = first + r * p->dz_row;
            dx[r] = sink_at(&p->dx, time_of(&p->when, at.rank, at.s), row_of(&p->when, at.rank));
        }
        const void *next = NULL;
        if (group + 1 < groups) {
            next =
                part_to_fetch(p->k, p->cell.w + (group + 1) * p->rows * size, p->rows, (int)tile);
        }
        rows_times_weights(p, dz, rows.end - rows.begin, group, next, dx, p->add_dx);
    }
}

#endif
