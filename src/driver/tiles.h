/* Rows in tiles, and work in shares. */
#ifndef FL_DRIVER_TILES_H
#define FL_DRIVER_TILES_H

#include "base/align.h"
#include "base/arena.h"
#include "driver/row_schedule.h"
#include "kernels/table.h"

/* Terms of a weight gradient that are summed in registers: panels of so many rows fit L2. */
enum { FL_TERMS = 256 };

/* Tiles of a weight gradient in a piece of work: one takes about a microsecond. */
enum { FL_TILES_AT_ONCE = 4 };

static const _Alignas(FL_ALIGN) real zeros[FL_MAX_TILE];

/* What a tile of rows asks for while its product runs: the part of its number of the panel that is
 * read next.  A part has a line for each of the k terms, so four tiles ask for a whole panel, of
 * vectors of 64 bytes.  Weights in L3 are there when they are wanted then (forward, 32 rows, H =
 * 256, 512, 1024: 4, 13, 27% less time), and to ask for what is in L2 anyway costs nothing. */
static inline const void *part_of_bytes(const char *panel, ptrdiff_t bytes, ptrdiff_t terms,
                                        int number)
{
    const ptrdiff_t part = terms * FL_ALIGN;
    return (number + 1) * part <= bytes ? panel + number * part : NULL;
}

static inline const void *part_to_fetch(const fl_kernels *k, const real *panel, ptrdiff_t terms,
                                        int number)
{
    const ptrdiff_t bytes = terms * 4 * k->lanes * (ptrdiff_t)sizeof(real);
    return part_of_bytes((const char *)panel, bytes, terms, number);
}

/* The part of a call that is one worker's: some rows of the batch, and with whom it shares them. */
typedef struct {
    ranks rows;
    fl_worker *team; /* those who share the units of a row, and so meet after each step */
} worker_share;

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

/* The rows of the i-th tile. */
static inline fl_range tile_at(const tiling *t, ptrdiff_t i)
{
    const ptrdiff_t begin = i * t->size + minimum(i, t->larger);
    return (fl_range){begin, begin + t->size + (i < t->larger)};
}

#endif
