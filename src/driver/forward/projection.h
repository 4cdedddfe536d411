/* Projections of the input, bias + W x: ahead of the recurrence, of a table, of unit vectors. */
#ifndef FL_DRIVER_FORWARD_PROJECTION_H
#define FL_DRIVER_FORWARD_PROJECTION_H

#include "driver/forward/pass.h"

/* One tile of a step. */
typedef struct {
    ptrdiff_t s;
    ptrdiff_t i, rows;       /* so many rows, from the i-th of this worker on */
    ptrdiff_t block, groups; /* so many blocks, from this one on */
    int number;              /* of the tile, among those of its blocks */
    ptrdiff_t next;          /* the block that follows them, or -1 */
} step_tile;

/* What a tile asks for of the panel of block `next`, of W or U; -1: there is none. */
static inline const void *panel_to_fetch(const pass *p, ptrdiff_t next, int number,
                                         const char *weights, ptrdiff_t k)
{
    const ptrdiff_t bytes = panel_bytes(p->weights, p->k->lanes, k);
    const ptrdiff_t terms = p->weights == FL_INT8 ? divide_up(k, 4) : k;
    return next < 0 ? NULL : part_of_bytes(weights + next * bytes, bytes, terms, number);
}

/* Rows, or bytes in their place from the i-th on, times the panel of a block. */
static inline fl_term term_of(const pass *p, const real *const *rows, const fl_bytes *bytes,
                              ptrdiff_t i, const char *weights, ptrdiff_t block, ptrdiff_t k,
                              const void *next)
{
    const char *panel = weights + block * panel_bytes(p->weights, p->k->lanes, k);
    return (fl_term){rows, 1, panel, k, next, bytes_from(bytes, i)};
}

/* z = bias + W x for some rows, up to a tile of them, that may be of different steps. */
static void project(const pass *p, ptrdiff_t rows, const real *const *x, fl_bytes bytes, real *z,
                    ptrdiff_t z_row, ptrdiff_t block, const void *next)
{
    const ptrdiff_t vectors = 4 * p->k->lanes;
    const real *init[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < rows; r++) {
        init[r] = p->cell.bias + block * vectors;
    }
    const fl_term term = term_of(p, x, &bytes, 0, p->cell.w, block, p->input, next);
    p->k->product[p->weights](rows, vectors_of_blocks(p, block, 1), init, &term, 1, z, z_row);
}

/* Where the projections ahead of a block lie: those of a share are together, so that its worker
 * reads no lines that another one wrote. */
typedef struct {
    real *first; /* of the first row */
    ptrdiff_t row;
} z_place;

static inline z_place z_place_of(const pass *p, fl_range share, ptrdiff_t block)
{
    const ptrdiff_t vectors = 4 * p->k->lanes;
    return (z_place){p->z + (share.begin * p->z_rows + block - share.begin) * vectors,
                     (share.end - share.begin) * vectors};
}

/* A row of the input, of those that are active at one step after the other. */
typedef struct {
    ptrdiff_t s, i, active;
} input_rows;

static inline const real *next_input(const pass *p, const ranks *rows, input_rows *at)
{
    for (; at->i == at->active; at->i = 0) {
        at->active = active_rows(&p->when, rows, ++at->s, at->active);
    }
    const ptrdiff_t rank = rank_at(rows, at->i++);
    return source_at(&p->x, time_of(&p->when, rank, at->s) - p->first, row_of(&p->when, rank));
}

/* The same for the rows active at steps from s0 on, `total` in all of them, `active` at s0. */
static void project_block(const pass *p, const ranks *rows, ptrdiff_t s0, ptrdiff_t total,
                          ptrdiff_t active, fl_range share, ptrdiff_t block)
{
    const z_place z = z_place_of(p, share, block);
    int number = 0; /* of the tile */
    tiling tiles = tile_rows(p->k, total);
    input_rows at = {s0, 0, active};
    for (ptrdiff_t done = 0, tile; done < total; done += tile) {
        const real *x[FL_MAX_ROWS];
        tile = next_tile(&tiles);
        for (ptrdiff_t r = 0; r < tile; r++) {
            x[r] = next_input(p, rows, &at);
        }
        const ptrdiff_t next = block + 1 < share.end ? block + 1 : -1;
        project(p, tile, x, bytes_from(&p->bytes.ahead, done), z.first + done * z.row, z.row, block,
                panel_to_fetch(p, next, number++, p->cell.w, p->input));
    }
}

/* What the blocks read of these rows, of FL_INT8: for itself, because workers take any block. */
static void quantize_ahead(const pass *p, const ranks *rows, ptrdiff_t s0, ptrdiff_t total,
                           ptrdiff_t active)
{
    input_rows at = {s0, 0, active};
    for (ptrdiff_t i = 0; i < total; i++) {
        const real *x = next_input(p, rows, &at);
        const fl_bytes to = bytes_from(&p->bytes.ahead, i);
        p->k->quantize(1, p->input, &x, &to);
    }
}

/* Of all blocks, for the steps from s0 to s1: it needs no state.  At step s0, n rows are active. */
static void project_ahead(const pass *p, const worker_share *me, ptrdiff_t s0, ptrdiff_t s1,
                          ptrdiff_t n)
{
    ptrdiff_t total = 0, active = n;
    for (ptrdiff_t s = s0; s < s1; s++) {
        total += active = active_rows(&p->when, &me->rows, s, active);
    }
    if (p->weights == FL_INT8) {
        quantize_ahead(p, &me->rows, s0, total, n);
    }
    const fl_kind blocks = {p->blocks, 1, 1};
    fl_work work = fl_begin(me->team, &blocks, 1);
    for (fl_piece at; fl_next(&work, &at);) {
        for (ptrdiff_t block = at.units.begin; block < at.units.end; block++) {
            project_block(p, &me->rows, s0, total, n, at.share, block);
        }
    }
}

/* z = bias + W x where x is a row of the unit matrix: a column of W, which is a row of a panel. */
static void project_unit(const pass *p, ptrdiff_t row, ptrdiff_t block, ptrdiff_t groups, real *z)
{
    static const real one = 1;
    const real *x = &one;
    const ptrdiff_t vectors = 4 * p->k->lanes;
    const ptrdiff_t bytes = panel_bytes(p->weights, p->k->lanes, p->input);
    for (ptrdiff_t j = 0; j < groups; j++) {
        const real *bias = p->cell.bias + (block + j) * vectors;
        const char *panel = p->cell.w + (block + j) * bytes;
        const ptrdiff_t computed = vectors_of_blocks(p, block + j, 1);
        if (p->weights == FL_INT8) {
            p->k->unit_of_bytes(computed, bias, panel, row, z + j * vectors);
        } else {
            const char *of_row = panel + row * panel_bytes(p->weights, p->k->lanes, 1);
            const fl_term term = {.a = &x, .a_step = 1, .panel = of_row, .k = 1};
            p->k->product[p->weights](1, computed, &bias, &term, 1, z + j * vectors, vectors);
        }
    }
}

/* What the pre-activations of this worker's i-th row start from.  If that includes the input, the
 * sum with W is already done. */
static inline const real *start_of(const pass *p, ptrdiff_t i, ptrdiff_t block, ptrdiff_t groups,
                                   real *local)
{
    const ptrdiff_t vectors = 4 * p->k->lanes;
    if (!p->x.tokens || (p->x.data && !p->table)) {
        return p->cell.bias + block * vectors;
    }
    const ptrdiff_t row = p->of_rows.token[i];
    if (p->table) {
        return p->table + (row * p->blocks + block) * vectors;
    }
    project_unit(p, row, block, groups, local);
    return local;
}

#endif
