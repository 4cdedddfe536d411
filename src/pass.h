/* One layer and direction, forward over some steps: what one worker of a team does. */
#ifndef FL_PASS_H
#define FL_PASS_H

#include "rows.h"

#include <string.h>

/* The part of each step that is one worker's: some rows of the batch, some blocks of units. */
typedef struct {
    places rows;
    fl_range blocks;
    fl_barrier *barrier;
    int workers; /* that share a row, and so must meet after each step; 1: none */
} share;

/* One layer and direction over the steps of a chunk. */
typedef struct {
    const fl_kernels *k;
    forward_cell cell;
    timetable when;
    int kind; /* fl_cell */
    ptrdiff_t slots, input, hidden, blocks;
    ptrdiff_t first; /* the time that step 0 of x, out and y stands for */
    source x;
    sink out, y; /* y.data may be NULL */
    const real *zeros;
    real *h;     /* [B][H]: hidden state before the chunk in, after it out */
    real *c;     /* [B][H], in place; on a tape [T+1][B][H] by place: step s writes s + 1 */
    real *gates; /* [T][B][blocks][4][VL] by place, or NULL if they are not kept */
    ptrdiff_t ahead;
    real *z;     /* [ahead * rows][blocks][4][VL]: projections, of this worker's share */
    real *table; /* [count][blocks][4][VL]: projections of a table's rows, or NULL */
} pass;

/* The cell state of a row after step s - 1. */
static inline real *cell_state(const pass *p, const timetable *when, ptrdiff_t s, ptrdiff_t place)
{
    const ptrdiff_t row = p->gates ? s * when->batch + place : row_of(when, place);
    return p->c + row * p->hidden;
}

/* Rows cut into tiles evenly: 32 rows are 6 + 6 + 5 + 5 + 5 + 5, because a last tile of 2 would
 * wait for its weights (8 multiply-adds for 4 loads). */
typedef struct {
    ptrdiff_t size, larger; /* the first `larger` tiles have one row more */
} tiling;

static inline tiling tile_rows(const fl_kernels *k, ptrdiff_t n)
{
    if (n <= k->rows) {
        return (tiling){n, 0};
    }
    const ptrdiff_t tiles = divide_up(n, k->rows);
    return (tiling){n / tiles, n % tiles};
}

static inline ptrdiff_t next_tile(tiling *t) { return t->larger-- > 0 ? t->size + 1 : t->size; }

/* Vectors of the pre-activations of some blocks. */
static inline ptrdiff_t vectors_of_blocks(const pass *p, ptrdiff_t block, ptrdiff_t groups)
{
    const ptrdiff_t lanes = p->k->lanes, last = block + groups - 1;
    const ptrdiff_t of_last = p->slots == 1 ? 1 : 4 * gate_width(p->hidden, lanes, last) / lanes;
    return 4 * (groups - 1) + of_last;
}

/* z = bias + W x for some rows, up to a tile of them, that may be of different steps. */
static void project(const pass *p, const share *me, ptrdiff_t rows, const real *const *x, real *z,
                    ptrdiff_t z_row, ptrdiff_t block)
{
    const ptrdiff_t vectors = 4 * p->k->lanes;
    const real *init[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < rows; r++) {
        init[r] = p->cell.bias + block * vectors;
    }
    const fl_term term = {x, 1, p->cell.w + block * p->input * vectors, p->input};
    p->k->product(rows, vectors_of_blocks(p, block, 1), init, &term, 1,
                  z + (block - me->blocks.begin) * vectors, z_row);
}

/* The same for the rows that live at the steps from s0 to s1: it needs no state.  Of step s0, n
 * rows live. */
static void project_ahead(const pass *p, const share *me, ptrdiff_t s0, ptrdiff_t s1, ptrdiff_t n)
{
    const ptrdiff_t z_row = (me->blocks.end - me->blocks.begin) * 4 * p->k->lanes;
    ptrdiff_t total = 0, live = n;
    for (ptrdiff_t s = s0; s < s1; s++) {
        total += live = living(&p->when, &me->rows, s, live);
    }
    for (ptrdiff_t block = me->blocks.begin; block < me->blocks.end; block++) {
        tiling tiles = tile_rows(p->k, total);
        ptrdiff_t s = s0, i = 0;
        live = n;
        for (ptrdiff_t done = 0, tile; done < total; done += tile) {
            const real *x[FL_MAX_ROWS];
            tile = next_tile(&tiles);
            for (ptrdiff_t r = 0; r < tile; r++, i++) {
                for (; i == live; i = 0) {
                    live = living(&p->when, &me->rows, ++s, live);
                }
                const ptrdiff_t place = place_at(&me->rows, i);
                const ptrdiff_t t = time_of(&p->when, place, s) - p->first;
                x[r] = source_at(&p->x, t, row_of(&p->when, place));
            }
            project(p, me, tile, x, p->z + done * z_row, z_row, block);
        }
    }
}

/* z = bias + W x where x is a row of the unit matrix: a column of W, which is a row of a panel. */
static void project_unit(const pass *p, ptrdiff_t row, ptrdiff_t block, ptrdiff_t groups, real *z)
{
    static const real one = 1;
    const real *x = &one;
    const ptrdiff_t vectors = 4 * p->k->lanes;
    for (ptrdiff_t j = 0; j < groups; j++) {
        const real *bias = p->cell.bias + (block + j) * vectors;
        const fl_term term = {&x, 1, p->cell.w + ((block + j) * p->input + row) * vectors, 1};
        const ptrdiff_t computed = vectors_of_blocks(p, block + j, 1);
        p->k->product(1, computed, &bias, &term, 1, z + j * vectors, vectors);
    }
}

/* What a row of the pre-activations starts from.  If that includes the input, the sum with W is
 * already done. */
static inline const real *start_of(const pass *p, ptrdiff_t t, ptrdiff_t b, ptrdiff_t block,
                                   ptrdiff_t groups, real *local)
{
    const ptrdiff_t vectors = 4 * p->k->lanes;
    if (!p->x.tokens || (p->x.data && !p->table)) {
        return p->cell.bias + block * vectors;
    }
    const ptrdiff_t row = p->x.tokens[t * p->x.step + b];
    if (p->table) {
        return p->table + (row * p->blocks + block) * vectors;
    }
    project_unit(p, row, block, groups, local);
    return local;
}

/* One step of `rows` rows, from the i-th of this worker on, and `groups` blocks.  z: projections of
 * these rows, or NULL. */
FL_INLINE void tile_of_step(const int plain, const pass *p, const share *me, ptrdiff_t s, int first,
                            ptrdiff_t i, ptrdiff_t rows, ptrdiff_t block, ptrdiff_t groups,
                            const real *z, ptrdiff_t z_row)
{
    const ptrdiff_t vectors = 4 * p->k->lanes, unit = block * p->k->lanes;
    const ptrdiff_t local_row = groups * vectors;
    const int projected = z || p->table || !p->x.data;
    const timetable when = seen_as(&p->when, plain);
    _Alignas(FL_ALIGN) real local[FL_MAX_TILE];
    const real *x[FL_MAX_ROWS], *h_before[FL_MAX_ROWS], *init[FL_MAX_ROWS], *c_before[FL_MAX_ROWS];
    real *h[FL_MAX_ROWS], *y[FL_MAX_ROWS], *c[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t place = place_at(&me->rows, i + r), b = row_of(&when, place);
        const ptrdiff_t time = time_of(&when, place, s), t = time - p->first;
        const int anew = starts_anew(&when, place, time);
        init[r] = z ? z + r * z_row : start_of(p, t, b, block, groups, local + r * local_row);
        x[r] = projected ? NULL : source_at(&p->x, t, b);
        h_before[r] = anew    ? p->zeros
                      : first ? p->h + b * p->hidden
                              : sink_at(&p->out, when.reverse ? t + 1 : t - 1, b);
        c_before[r] = anew ? p->zeros : cell_state(p, &when, s, place) + unit;
        c[r] = cell_state(p, &when, s + 1, place) + unit;
        h[r] = sink_at(&p->out, t, b) + unit;
        y[r] = p->y.data ? sink_at(&p->y, t, b) + unit : NULL;
        FL_PREFETCH_WRITE(h[r]); /* cold lines make stores wait: 1% (H = 128, B = 32) */
    }
    const fl_term terms[2] = {
        {x, 1, p->cell.w + block * p->input * vectors, p->input},
        {h_before, 1, p->cell.u + block * p->hidden * vectors, p->hidden},
    };
    fl_tile tile = {
        .z = local,
        .z_row = local_row,
        .gates = local,
        .gates_row = local_row,
        .width = gate_width(p->hidden, p->k->lanes, block + groups - 1),
        .c_before = c_before,
        .c = c,
        .h = h,
        .y = p->y.data ? y : NULL,
        .units = p->hidden - unit,
    };
    if (p->gates) {
        const ptrdiff_t row = s * p->when.batch + place_at(&me->rows, i);
        tile.gates_row = me->rows.step * p->blocks * vectors;
        tile.gates = p->gates + (row * p->blocks + block) * vectors;
    }
    p->k->product(rows, vectors_of_blocks(p, block, groups), init, terms + projected, 2 - projected,
                  local, local_row);
    p->k->tile[p->kind](rows, groups, &tile);
}

static void run_tile(const pass *p, const share *me, ptrdiff_t s, int first, ptrdiff_t i,
                     ptrdiff_t rows, ptrdiff_t block, ptrdiff_t groups, const real *z,
                     ptrdiff_t z_row)
{
    if (is_plain(&p->when)) {
        tile_of_step(1, p, me, s, first, i, rows, block, groups, z, z_row);
    } else {
        tile_of_step(0, p, me, s, first, i, rows, block, groups, z, z_row);
    }
}

/* Blocks of one row that are computed together.  At least two calls for a step where there are two
 * pairs of blocks: the pair of the last call is then still in L1 for the first call of the next
 * step (H = 64: 94 instead of 103 us for 100 steps). */
static inline ptrdiff_t groups_of_row(const fl_kernels *k, ptrdiff_t blocks)
{
    return blocks > k->groups || blocks < 4 ? k->groups : 2;
}

/* Blocks outside, rows inside: a block's panel stays in cache for all rows.  Every other step takes
 * the blocks in the opposite order: what the caches still hold of the weights is what comes first.
 */
static void run_step(const pass *p, const share *me, ptrdiff_t s, int first, ptrdiff_t rows,
                     const real *z)
{
    const ptrdiff_t vectors = 4 * p->k->lanes;
    const ptrdiff_t blocks = me->blocks.end - me->blocks.begin, z_row = blocks * vectors;
    const ptrdiff_t most = rows > 1 ? 1 : groups_of_row(p->k, blocks);
    const tiling cut = tile_rows(p->k, rows);
    for (ptrdiff_t done = 0; done < blocks; done += most) {
        const ptrdiff_t groups = minimum(most, blocks - done);
        const ptrdiff_t at = s % 2 ? blocks - done - groups : done;
        tiling tiles = cut;
        for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
            tile = next_tile(&tiles);
            run_tile(p, me, s, first, i, tile, me->blocks.begin + at, groups,
                     z ? z + i * z_row + at * vectors : NULL, z_row);
        }
    }
    fl_barrier_wait(me->barrier, me->workers);
}

/* The hidden state of each row after its last step of the chunk into p->h, which nobody reads until
 * the next chunk. */
static void keep_state(const pass *p, const share *me, ptrdiff_t s0, ptrdiff_t s1)
{
    const ptrdiff_t unit = me->blocks.begin * p->k->lanes;
    const ptrdiff_t units = minimum(me->blocks.end * p->k->lanes, p->hidden) - unit;
    for (ptrdiff_t i = 0; units > 0 && i < me->rows.count; i++) {
        const ptrdiff_t place = place_at(&me->rows, i), b = row_of(&p->when, place);
        const ptrdiff_t end = minimum(length_of(&p->when, place), s1);
        if (end > s0) {
            const ptrdiff_t t = time_of(&p->when, place, end - 1) - p->first;
            memcpy(p->h + b * p->hidden + unit, sink_at(&p->out, t, b) + unit,
                   (size_t)units * sizeof(real));
        }
    }
}

static void run_pass(const pass *p, const share *me, ptrdiff_t s0, ptrdiff_t s1)
{
    const ptrdiff_t z_row = (me->blocks.end - me->blocks.begin) * 4 * p->k->lanes;
    const ptrdiff_t stride = p->ahead ? p->ahead : s1 - s0;
    ptrdiff_t rows = living(&p->when, &me->rows, s0, me->rows.count);
    for (ptrdiff_t a = s0; a < s1; a += stride) {
        const ptrdiff_t end = minimum(a + stride, s1);
        const real *z = p->ahead ? p->z : NULL;
        if (p->ahead) {
            rows = living(&p->when, &me->rows, a, rows);
            project_ahead(p, me, a, end, rows);
        }
        for (ptrdiff_t s = a; s < end; s++) {
            rows = living(&p->when, &me->rows, s, rows);
            run_step(p, me, s, s == s0, rows, z);
            z = z ? z + rows * z_row : NULL;
        }
    }
    keep_state(p, me, s0, s1);
    fl_barrier_wait(me->barrier, me->workers);
}

#endif
