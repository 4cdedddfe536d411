/* What the kernels of one instruction set offer the driver, for the element type `real`.
 *
 * A vector holds VL units, a group is four vectors side by side.  In forward a group is the four
 * gates (i, f, g, o) of VL hidden units; in backward it is 4*VL neighbouring columns.  A tile is
 * up to `rows` rows by one group, or one row by up to `groups` groups.  Panels and tiles are
 * FL_ALIGN-aligned and padded to whole vectors; everything else is in the user's layout, and only
 * `units` columns of it, from the tile's first on, are read or written.
 *
 * A kernel cannot fail, keeps no state and does not know who calls it. */
#ifndef FL_KERNELS_TABLE_H
#define FL_KERNELS_TABLE_H

#include "base/real.h"
#include "cells.h"
#include "weight_types.h"

#include <stddef.h>
#include <stdint.h>

/* The largest tile of any instruction set, in rows and in elements. */
enum { FL_MAX_ROWS = 6, FL_MAX_TILE = 24 * 16 };

/* Terms of a sum of products that are one chain: see product.h. */
enum { FL_SUM_BLOCK = 128 };

/* A sum along a row is kept in as many lanes as the longest vector of any instruction set has, and
 * these are added in one order: it is the same for every vector length. */
enum { FL_SUM_LANES = 64 / sizeof(real) };

/* Rows of bytes, each with its scale.  What a byte stands for is the kernels' own matter. */
typedef struct {
    uint8_t *bytes;
    ptrdiff_t row; /* from row to row, a multiple of FL_ALIGN */
    real *scales;
} FL_NAME(fl_bytes);
typedef FL_NAME(fl_bytes) fl_bytes;

/* A panel of bytes begins with a scale for each column and a sum of integers, which has what the
 * kernels' form of the bytes adds to a product: -byte_offset times the sum of the column. */
enum { FL_INT8_HEAD = 2 }; /* rows of 32 bits for each column */

/* One term of a sum of products: rows of `a`, or of `q`, times a panel. */
typedef struct {
    const real *const *a; /* row r, element n is a[r][n * a_step] */
    ptrdiff_t a_step;
    const void *panel; /* [groups][k][4][VL]; of FL_INT8 [groups]: head, [(k + 3) / 4][4][VL][4] */
    ptrdiff_t k;       /* at least 1 */
    const void *next;  /* k cache lines that will be read later, (k + 3) / 4 of FL_INT8; or NULL */
    fl_bytes q;        /* of FL_INT8, in place of a */
} FL_NAME(fl_term);
typedef FL_NAME(fl_term) fl_term;

typedef struct {
    int kind; /* fl_function_kind */
    real alpha, beta;
} FL_NAME(fl_unary);
typedef FL_NAME(fl_unary) fl_unary;

/* What a cell of FL_LSTM_OPTIONS needs of its layer: fl_options, and vectors of the parameters. */
typedef struct {
    int coupled;
    real preact_clip, cell_clip, norm_eps;
    fl_unary of_gates, of_candidate, of_cell;
    const real *peephole;     /* [blocks][4][VL], zeros for g; or NULL */
    const real *gain, *shift; /* [blocks][4][VL]: layer norm; or NULL */
    ptrdiff_t hidden;
} FL_NAME(fl_cell_options);
typedef FL_NAME(fl_cell_options) fl_cell_options;

/* The element-wise part of a step, forward. */
typedef struct {
    const real *z; /* [rows][groups][4][VL], rows z_row apart: pre-activations */
    ptrdiff_t z_row;
    ptrdiff_t width; /* how far apart the gates of the last group come in */
    real *gates;     /* [rows][groups][4][VL], rows gates_row apart; may be the same as z */
    ptrdiff_t gates_row;
    ptrdiff_t block, units; /* the first block of the tile; units of a whole row */
    /* States but h, in and out, by FL_STATE_C and so on: a pointer for each whole row. */
    const real *const *before[FL_MAX_STATES];
    real *const *after[FL_MAX_STATES]; /* may be the same rows */
    real *const *h;                    /* hidden state out */
    real *const *y;                    /* a second copy of it, or NULL */
    /* Of FL_LSTM_OPTIONS.  With a layer norm, groups are all there are. */
    const fl_cell_options *options;
    const real *const *zoneout_keep; /* zoneout of c: how much of c_before stays; or NULL */
    real *preacts;                   /* like gates, kept for backward, or NULL */
    real *scale;                     /* [rows][4], rows scale_row apart, or NULL */
    ptrdiff_t scale_row;
    real *const *second_input; /* of FL_GRU_BEFORE: r * h_before */
    real *forget_slope; /* of FL_SLSTM: as on the tape, rows forget_slope_row apart; or NULL */
    ptrdiff_t forget_slope_row;
} FL_NAME(fl_tile);
typedef FL_NAME(fl_tile) fl_tile;

/* The element-wise part of a step, backward, for the 4*VL units of one group. */
typedef struct {
    const real *dh; /* [rows][4*VL], rows dh_row apart */
    ptrdiff_t dh_row;
    const real *gates; /* [rows][4][4][VL], rows gates_row apart: four unit blocks of the tape */
    ptrdiff_t gates_row;
    const real *const *before[FL_MAX_STATES]; /* a pointer for each row, and so on */
    const real *const *after[FL_MAX_STATES];
    real *const *d_states[FL_MAX_STATES]; /* gradient of those after in, of those before out */
    real *dz; /* gradient of the pre-activations: gate q at dz + q*gate_step */
    ptrdiff_t dz_row, gate_step;
    ptrdiff_t units;
    /* Of FL_LSTM_OPTIONS, as in fl_tile.  Terms of gradients of single units' parameters lie where
     * these are, laid out as dz. */
    const fl_cell_options *options;
    ptrdiff_t block, blocks; /* 4, or all with a layer norm */
    const real *const *zoneout_keep;
    const real *preacts, *scale;
    ptrdiff_t scale_row;
    real *d_shift, *d_gain, *d_peephole;
    const real *forget_slope; /* of FL_SLSTM, as in fl_tile, from the first unit of the group on */
    ptrdiff_t forget_slope_row;
} FL_NAME(fl_gradient);
typedef FL_NAME(fl_gradient) fl_gradient;

/* Softmax of some rows of logits l, and what their cross-entropy with the targets needs. */
typedef struct {
    real *logits;  /* rows `row` apart; out: (softmax - one-hot target) * its scale */
    ptrdiff_t row; /* n and row are multiples of FL_SUM_LANES; beyond the classes is -inf */
    ptrdiff_t n;
    const ptrdiff_t *targets; /* [rows], a class each */
    const real *scales;       /* [rows], or NULL: the logits out mean nothing */
    real *sum;                /* [rows]: sum of e^(l - largest l) */
    real *margin;             /* [rows]: largest l - l of the target */
} FL_NAME(fl_softmax);
typedef FL_NAME(fl_softmax) fl_softmax;

/* A step of the forward recursion of CTC, in logarithms, and the same step backward.  A state is
 * entered from itself, from the one before it, and from the one before that where `skip` is 0 and
 * not FL_LOG_ZERO.  All are aligned, n whole lines; two elements before a[0] and after g[n - 1],
 * lse[n - 1] and skip[n - 1] are read too. */
typedef struct {
    ptrdiff_t n;
    const real *a;    /* before the step, FL_LOG_ZERO in front of it */
    const real *skip; /* [n] */
    real *lse;        /* log(sum e^a of where a state is entered from); backward it is given */
    const real *emit; /* forward: log p of the states' symbols */
    real shift;
    real *out;     /* lse + (emit - shift) */
    const real *g; /* backward: probabilities of the states after the step, 0 behind them */
    real *g_out;   /* and before it */
} FL_NAME(fl_ctc_step);
typedef FL_NAME(fl_ctc_step) fl_ctc_step;

/* The logarithm of 0, for differences: those of infinities are not numbers. */
#define FL_LOG_ZERO ((real) - 1e30)
enum { FL_CTC_EDGE = FL_SUM_LANES }; /* room for these two */

/* What `activate` computes. */
enum { FL_OF_SIGMOID, FL_OF_TANH, FL_EXP, FL_LOG, FL_LOG_SIGMOID };

typedef struct FL_NAME(fl_kernels) {
    ptrdiff_t lanes;  /* VL */
    ptrdiff_t rows;   /* most rows of a tile */
    ptrdiff_t groups; /* most groups of a tile of one row; tiles of more rows have one */

    /* z = init + terms[0] + terms[1] + ..., added in this order; each term in blocks of
     * FL_SUM_BLOCK, from its own start.  init has a pointer for each row, and z may be one of its
     * rows.  `vectors` of each row are computed: 4 for every group but the last, which need not be
     * full. */
    void (*product[FL_WEIGHT_TYPES])(ptrdiff_t rows, ptrdiff_t vectors, const real *const *init,
                                     const fl_term *terms, int n_terms, real *z, ptrdiff_t z_row);
    /* Rows of n elements to bytes, padded to whole vectors: a * 127 / the largest magnitude,
     * rounded to nearest even; the scale is that over 127, 0 for a row of zeros, and not finite
     * for one that is not.  Float only. */
    void (*quantize)(ptrdiff_t rows, ptrdiff_t n, const real *const *a, const fl_bytes *to);
    /* z = init + row `row` of a panel of FL_INT8: the product with a row of the unit matrix. */
    void (*unit_of_bytes)(ptrdiff_t vectors, const real *init, const void *panel, ptrdiff_t row,
                          real *z);
    int byte_offset; /* what bytes have added to them */
    int int8_rate;   /* products of bytes in the time of one multiply-add, about */
    /* By fl_cell. */
    void (*tile[FL_CELLS])(ptrdiff_t rows, ptrdiff_t groups, const fl_tile *tile);
    void (*gradient[FL_CELLS])(ptrdiff_t rows, const fl_gradient *tile);
    /* The ends of a step of a cell with slots that U leads to only in a second product, such as
     * FL_GRU_BEFORE, for the 4*VL units of one group.  Forward: z is what U_n
     * and W_n lead to, gates are those of the tile.  Backward: dh is the gradient of r * h_before.
     */
    void (*next[FL_CELLS])(ptrdiff_t rows, const fl_tile *tile);
    void (*reset_gradient[FL_CELLS])(ptrdiff_t rows, const fl_gradient *tile);
    void (*softmax)(ptrdiff_t rows, const fl_softmax *block);
    /* out = e^(p - the largest of p), zeros if that is -inf; returns the sum.  As in a softmax, n
     * is a multiple of FL_SUM_LANES. */
    real (*exponentials)(ptrdiff_t n, const real *p, real *out, real *largest);
    /* out[j] = (the largest a[i] + table[i * row + j]) + add[j] for i < k, j < n; all are aligned,
     * n and row as in a softmax.  Returns the largest of them. */
    real (*max_plus)(ptrdiff_t k, ptrdiff_t n, const real *a, const real *table, ptrdiff_t row,
                     const real *add, real *out);
    real (*ctc_forward)(const fl_ctc_step *step); /* returns the largest of what it leaves */
    void (*ctc_backward)(const fl_ctc_step *step);

    /* tile [rows][4*VL] = a (+ b unless NULL), zero beyond n columns. */
    void (*load)(ptrdiff_t rows, ptrdiff_t n, const real *const *a, const real *const *b,
                 real *tile);
    /* out = tile, for n columns. */
    void (*store)(ptrdiff_t rows, ptrdiff_t n, const real *tile, real *const *out);
    /* out += a for n columns, row after row: the same row may be in out again. */
    void (*add)(ptrdiff_t rows, ptrdiff_t n, const real *const *a, real *const *out);
    /* out = a * b, and out = keep * a + (1 - keep) * b, for n columns; out may be a or b. */
    void (*multiply)(ptrdiff_t rows, ptrdiff_t n, const real *const *a, const real *const *b,
                     real *const *out);
    void (*mix)(ptrdiff_t rows, ptrdiff_t n, const real *const *keep, const real *const *a,
                const real *const *b, real *const *out);
    /* out[i] = 1 where the draw of element first + i of a stream is below the threshold, else 0. */
    void (*draw)(ptrdiff_t n, uint64_t stream, ptrdiff_t first, uint64_t threshold, real *out);
    /* out[j] += sum over i < k of a[i][at + j], for j < n; the sum is one chain. */
    void (*add_columns)(ptrdiff_t k, ptrdiff_t n, const real *const *a, ptrdiff_t at, real *out);
    /* out[j * out_row + i] = a[i][first + j] for i < rows, j < n, and zero for i from there to the
     * next whole vector; out is aligned, out_row whole vectors. */
    void (*transpose)(ptrdiff_t rows, ptrdiff_t n, const real *const *a, ptrdiff_t first, real *out,
                      ptrdiff_t out_row);
    /* One of these functions of n elements. */
    void (*activate)(int which, const real *x, real *out, ptrdiff_t n);

    /* The machine's limits, for the benchmarks; what they return means nothing.
     * n multiply-adds of a vector, rounded up to a multiple of the chains in flight. */
    real (*probe_fma)(ptrdiff_t n);
    /* Reads p[0] to p[n - 1], aligned, so many times; n elements are a multiple of 4 KiB. */
    real (*probe_read)(const real *p, ptrdiff_t n, ptrdiff_t repeats);
} FL_NAME(fl_kernels);
typedef FL_NAME(fl_kernels) fl_kernels;

#endif
