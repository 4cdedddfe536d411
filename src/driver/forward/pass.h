/* One layer and direction, forward over some steps: what it is made of and where things lie. */
#ifndef FL_DRIVER_FORWARD_PASS_H
#define FL_DRIVER_FORWARD_PASS_H

#include "driver/dropout.h"
#include "driver/row_schedule.h"
#include "driver/sequence.h"
#include "layout/tape.h"

#include <string.h>

static const _Alignas(FL_ALIGN) real zeros[FL_MAX_TILE];

/* The part of each step that is one worker's: some rows of the batch, some blocks of units. */
typedef struct {
    places rows;
    fl_range blocks;
    fl_range seconds; /* of the groups of the second product */
    fl_barrier *barrier;
    int workers; /* that share a row, and so must meet after each step; 1: none */
} share;

/* One layer and direction over the steps of a chunk. */
typedef struct {
    const fl_kernels *k;
    forward_cell cell;
    timetable when;
    int kind;  /* fl_cell */
    int plain; /* none of what follows but the usual: see is_plain */
    ptrdiff_t slots, input, hidden, out_size, blocks;
    ptrdiff_t first; /* the time that step 0 of x, out and y stands for */
    source x;
    sink out, y; /* y.data may be NULL */
    const real *zeros;
    int taped;          /* what follows has a row for each step and place; else for each place */
    real *h;            /* [B][Hout]: hidden state before the chunk in, after it out */
    real *c;            /* [B][H] by row, in place; on a tape [T+1][B][H]: step s writes s + 1 */
    real *gates;        /* [T][B][blocks][4][VL], or NULL if they are not kept beyond a tile */
    real *inner;        /* [T][B][H]: what the second product is made of; NULL: there is none */
    real *sums, *scale; /* as in tape_cell */
    int whole_rows;     /* a layer norm: products first, then the rest, row by row */
    fl_cell_options options;
    zoneout zone_h, zone_c;
    real *zone;       /* [FL_MAX_ROWS][H or Hout], of this worker */
    const real *feed; /* [B][Hout]: what h is multiplied by before U, or NULL */
    real *fed;        /* [2][B][Hout]: the products, of this step and the next */
    ptrdiff_t ahead;
    real *z;     /* [ahead * rows][blocks][4][VL]: projections, of this worker's share */
    real *table; /* [count][blocks][4][VL]: projections of a table's rows, or NULL */
} pass;

/* The cell state of a row after step s - 1. */
static inline real *cell_state(const pass *p, const timetable *when, ptrdiff_t s, ptrdiff_t place)
{
    const ptrdiff_t row = p->taped ? s * when->batch + place : row_of(when, place);
    return p->c + row * p->hidden;
}

/* A row of what is kept of step s: of the gates, of the inner units. */
static inline ptrdiff_t kept_row(const pass *p, const timetable *when, ptrdiff_t s, ptrdiff_t place)
{
    return (p->taped ? s * when->batch : 0) + place;
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

/* Whether the gates of a step are kept until all its tiles are done. */
static inline int is_kept(const pass *p) { return p->whole_rows || p->kind == FL_GRU_BEFORE; }

/* Whether the hidden state is not yet what the tiles make of it. */
static inline int ends_later(const pass *p)
{
    return (p->inner && p->kind != FL_GRU_BEFORE) || p->zone_h.rate > 0;
}

/* What U reads of row b at step s, after recurrent dropout. */
static inline real *fed_row(const pass *p, ptrdiff_t s, ptrdiff_t b)
{
    return p->fed + (s % 2 * p->when.batch + b) * p->out_size;
}

/* Units of the hidden state that are one worker's. */
static inline fl_range outputs_of(const pass *p, const share *me)
{
    const ptrdiff_t size = p->inner ? 4 * p->k->lanes : p->k->lanes;
    const fl_range parts = p->inner ? me->seconds : me->blocks;
    return (fl_range){minimum(parts.begin * size, p->out_size),
                      minimum(parts.end * size, p->out_size)};
}

#endif
