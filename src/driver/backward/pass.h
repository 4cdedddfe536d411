/* One layer and direction, backward: what it is made of and where things lie. */
#ifndef FL_DRIVER_BACKWARD_PASS_H
#define FL_DRIVER_BACKWARD_PASS_H

#include "driver/forward/forward.h"

/* Terms of a weight gradient that are summed in registers: panels of so many rows fit L2. */
enum { FL_TERMS = 256 };

/* Steps of a segment of a long sequence. */
static ptrdiff_t segment_of(ptrdiff_t batch) { return batch < FL_TERMS ? FL_TERMS / batch : 1; }

/* With tokens, gradients of the pre-activations are summed for each token: FL_RECENT pieces of
 * FL_TERMS terms in `recent`, which is then added to `all`, so that rounding grows with the number
 * of such sums.  Gradients of W and of the table are products with the sums. */
enum { FL_RECENT = 8 };

typedef struct {
    real *recent, *all; /* [count][row]; NULL without tokens */
    ptrdiff_t count, row;
} token_sums;

static inline ptrdiff_t sums_row_of(const fl_shape *s) { return aligned(slots_of(s) * s->hidden); }

static ptrdiff_t sums_size(const fl_shape *s, ptrdiff_t count)
{
    return s->directions * 2 * count * sums_row_of(s);
}

/* A row of dz: the gradients of the pre-activations, [slots][H], and, where there are any, that of
 * the projected hidden state, [P], and terms of the gradients of parameters of single units, each
 * [4][H].  Columns; -1: none. */
typedef struct {
    ptrdiff_t second; /* rows of the second product: the projection, or slot n */
    ptrdiff_t shift, gain, peephole;
    ptrdiff_t row; /* how far apart rows are */
} dz_columns;

/* A line more than needed: the weight gradients read columns of dz, and rows a power of two apart
 * would share few sets of the caches (H = 512: 1.5% slower). */
static inline dz_columns dz_columns_of(const fl_shape *s)
{
    ptrdiff_t end = aligned(slots_of(s) * s->hidden);
    dz_columns at = {-1, -1, -1, -1, 0};
    if (s->cell == FL_GRU_BEFORE) {
        at.second = 2 * s->hidden;
    } else if (s->projection) {
        at.second = end;
        end += aligned(s->projection);
    }
    if (has_norm(s)) {
        at.shift = end;
        at.gain = at.shift + FL_SLOTS * s->hidden;
        end = at.gain + FL_SLOTS * s->hidden;
    }
    if (has_peephole(s)) {
        at.peephole = end;
        end += FL_SLOTS * s->hidden;
    }
    at.row = aligned(end) + FL_ALIGN / (ptrdiff_t)sizeof(real);
    return at;
}

/* One layer and direction, backward.  Steps s are in the order of the forward computation. */
typedef struct {
    const fl_kernels *k;
    const fl_shape *shape;
    backward_cell cell;
    tape_cell tape;
    timetable when;
    ptrdiff_t input, hidden, out_size, blocks, width, segment;
    ptrdiff_t rows;                 /* of W and U by slot: slots*H */
    ptrdiff_t recurrent;            /* of U in the first product */
    ptrdiff_t x_columns, h_columns; /* of W and U whose gradients follow from dz, x and h */
    ptrdiff_t first_step;           /* as in the call */
    int earlier, later;
    source x, dy;
    sink dx;                       /* data NULL: not wanted */
    int add_dx;                    /* add to what the other direction left there */
    real *dh, *dc;                 /* [B][Hout], [B][H] */
    real *dz;                      /* ring of two segments: rows that live, dz_row apart */
    ptrdiff_t dz_row;              /* see dz_columns */
    real *panels;                  /* [groups of I, of Hout, of H][FL_TERMS][4*VL] */
    real *dw, *du, *db_ih, *db_hh; /* biases NULL without */
    real *d_second;                /* gradients of the weights of the second product */
    ptrdiff_t inner_columns;       /* of those weights: H, or 0 */
    real *d_peephole, *d_gain;
    dz_columns at;
    int plain;     /* none of what follows but the usual */
    real *dh_rows; /* [B][groups of H][4*VL], by place: for a layer norm */
    ptrdiff_t dh_row;
    fl_cell_options options;
    zoneout zone_h, zone_c;
    real *zone;        /* [FL_MAX_ROWS][H], of this worker */
    token_sums sums;   /* with tokens: dw and dx follow from these */
    real *edge;        /* [B][4H] */
    const real *zeros; /* [slots*H] */
} backward_pass;

/* Rows that live in a segment are adjacent, and the segment next to it has the other half of the
 * ring. */
static inline real *dz_at(const backward_pass *p, ptrdiff_t s, ptrdiff_t place)
{
    const ptrdiff_t s0 = s - s % p->segment, half = s / p->segment % 2;
    const ptrdiff_t row = rows_before(&p->when, s) - rows_before(&p->when, s0) + place;
    return p->dz + (half * p->segment * p->when.batch + row) * p->dz_row;
}

/* h before step s: the output of the step before it, or an initial state. */
static inline const real *h_before(const backward_pass *p, ptrdiff_t s, ptrdiff_t place)
{
    const ptrdiff_t b = row_of(&p->when, place), time = time_of(&p->when, place, s);
    if (starts_anew(&p->when, place, time)) {
        return p->zeros;
    }
    if (s == 0) {
        return p->tape.h0 + b * p->out_size;
    }
    const ptrdiff_t before = p->when.reverse ? time + 1 : time - 1;
    const ptrdiff_t offset = p->when.reverse ? p->out_size : 0;
    return p->tape.out + (before * p->when.batch + b) * p->width + offset;
}

/* Vectors of a group of which `columns` columns are left. */
static inline ptrdiff_t vectors_of(const backward_pass *p, ptrdiff_t columns)
{
    return minimum(4, divide_up(columns, p->k->lanes));
}

#endif
