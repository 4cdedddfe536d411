/* The products of a step where U is block-diagonal: it leads to the units of a head from these
 * alone. */
#ifndef FL_DRIVER_FORWARD_BLOCK_DIAGONAL_H
#define FL_DRIVER_FORWARD_BLOCK_DIAGONAL_H

#include "driver/forward/projection.h"

/* The units of one head among the pre-activations of a block, those of the last head with what is
 * left of the block: from rows of `from` to rows of z. */
static void copy_units(const pass *p, const step_tile *at, fl_range units, const real *from,
                       real *z, ptrdiff_t z_row)
{
    const ptrdiff_t vectors = 4 * p->k->lanes, lane = units.begin - at->block * p->k->lanes;
    const ptrdiff_t width = gate_width(p->hidden, p->k->lanes, at->block);
    const ptrdiff_t n = units.end < p->hidden ? units.end - units.begin : width - lane;
    for (ptrdiff_t r = 0; r < at->rows; r++) {
        for (ptrdiff_t slot = 0; slot < p->slots; slot++) {
            const ptrdiff_t column = slot * width + lane;
            memcpy(z + r * z_row + column, from + r * vectors + column, (size_t)n * sizeof(real));
        }
    }
}

/* z = init + U h for a tile, or a part of it, that has units of the one head only; or, through a
 * copy, for those of this head in a block of several. */
static void add_head(const pass *p, const step_tile *at, ptrdiff_t head, int shared,
                     const real *const *init, real *z, ptrdiff_t z_row)
{
    const ptrdiff_t vectors = 4 * p->k->lanes, unit = head * p->head_size;
    const ptrdiff_t place = head * p->bytes.head_rows + at->i;
    const fl_range units = units_of_part(p->k->lanes, at->block, p->hidden);
    _Alignas(FL_ALIGN) real local[FL_MAX_TILE];
    const real *h[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < at->rows; r++) {
        h[r] = p->of_rows.h_before[at->i + r] + unit;
    }
    const fl_term term =
        term_of(p, h, &p->bytes.h, place, p->cell.u, at->block + head, p->head_size, NULL);
    p->k->product[p->weights](at->rows, vectors_of_blocks(p, at->block, at->groups), init, &term, 1,
                              shared ? local : z, shared ? vectors : z_row);
    if (shared) {
        copy_units(p, at, units_of_head(p->head_size, head, units), local, z, z_row);
    }
}

/* z = init + U h for a tile where U is block-diagonal: blocks of the same head at once, and one
 * after the other the heads of a block that has several.  init may be rows of z. */
static void add_heads(const pass *p, const step_tile *tile, const real *const *init, real *z,
                      ptrdiff_t z_row)
{
    const ptrdiff_t lanes = p->k->lanes, end = tile->block + tile->groups;
    for (step_tile at = *tile; at.block < end; at.block += at.groups) {
        const ptrdiff_t offset = (at.block - tile->block) * 4 * lanes;
        const fl_range heads = heads_of(p->head_size, units_of_part(lanes, at.block, p->hidden));
        const ptrdiff_t last = heads.end * p->head_size / lanes; /* block that it ends in */
        const int shared = heads.end - heads.begin > 1;
        const real *from[FL_MAX_ROWS];
        for (ptrdiff_t r = 0; r < at.rows; r++) {
            from[r] = init[r] + offset;
        }
        at.groups = shared || last <= at.block ? 1 : minimum(end, last) - at.block;
        for (ptrdiff_t head = heads.begin; head < heads.end; head++) {
            add_head(p, &at, head, shared, from, z + offset, z_row);
        }
    }
}

/* z = init + W x (or without, of_x being NULL) + U h. */
static void add_products(const pass *p, const step_tile *at, const real **init, const fl_term *of_x,
                         real *z, ptrdiff_t z_row)
{
    if (of_x) {
        p->k->product[p->weights](at->rows, vectors_of_blocks(p, at->block, at->groups), init, of_x,
                                  1, z, z_row);
        for (ptrdiff_t r = 0; r < at->rows; r++) {
            init[r] = z + r * z_row;
        }
    }
    add_heads(p, at, init, z, z_row);
}

#endif
