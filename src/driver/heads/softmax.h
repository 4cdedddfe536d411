/* The head of a language model: linear layer, softmax and cross-entropy, forward and backward.
 *
 * Predictions are taken FL_TERMS at a time: logits, their gradients and packed outputs of the LSTM
 * are in cache for all three products.  Workers share the rows of a block for logits and dy; of dW
 * each has tiles of its own, over all rows, so that no sum depends on the number of workers. */
#ifndef FL_DRIVER_HEADS_SOFTMAX_H
#define FL_DRIVER_HEADS_SOFTMAX_H

#include "driver/sequence.h"
#include "driver/team_plan.h"
#include "driver/tiles.h"
#include "layout/pack.h"

#include <math.h>

/* The weights change with every step of training, so they are packed for each call: 1% of it (2048
 * predictions, H = 256, V = 100). */
typedef struct {
    real *bias;     /* [groups of V][4*VL], -inf beyond V: those columns add nothing to a sum */
    real *forward;  /* [groups of V][H][4*VL] */
    real *logits;   /* [FL_TERMS, or N if that is less] rows, logits_row_of apart */
    real *backward; /* [groups of H][V][4*VL]: this and the next only if dy is wanted */
    real *panels;   /* [groups of H][FL_TERMS][4*VL]: y of a block */
    ptrdiff_t size;
} head_space;

static inline ptrdiff_t group_of(const fl_head_call *call)
{
    return 4 * ((const fl_kernels *)call->kernels)->lanes;
}

/* Whole cache lines of classes are computed; rows are a line further apart (see dz_columns_of). */
static inline ptrdiff_t logits_row_of(const fl_head_call *call)
{
    return aligned(call->classes) + FL_SUM_LANES;
}

static head_space head_space_at(const fl_head_call *call)
{
    const ptrdiff_t size = group_of(call);
    const ptrdiff_t classes = divide_up(call->classes, size) * size;
    const ptrdiff_t hidden = divide_up(call->hidden, size) * size;
    arena a = {call->scratch, 0};
    head_space space = {0};
    space.bias = arena_take(&a, classes);
    space.forward = arena_take(&a, classes * call->hidden);
    space.logits = arena_take(&a, minimum(FL_TERMS, call->n) * logits_row_of(call));
    if (call->dy) {
        space.backward = arena_take(&a, hidden * call->classes);
        space.panels = arena_take(&a, hidden * FL_TERMS);
    }
    space.size = a.used;
    return space;
}

/* Workers meet twice in a block: no more of them than processors (see plan_team), nor than tiles of
 * rows. */
static void plan_head(fl_head_call *call, fl_team_limits limits)
{
    const double row = (double)call->hidden * (double)call->classes * (call->dy ? 3 : 1);
    const double most = row * (double)call->n / FL_CALL_WORK + 1;
    const ptrdiff_t rows = ((const fl_kernels *)call->kernels)->rows;
    const ptrdiff_t tiles = divide_up(minimum(FL_TERMS, call->n), rows);
    const ptrdiff_t workers = minimum(minimum(limits.threads, limits.processors), tiles);
    call->workers = fl_threads_for(most < (double)workers ? (int)most : (int)workers);
    call->scratch_size = head_space_at(call).size;
}

/* A worker's groups of classes and, for dy, of hidden units. */
static void pack_head(const fl_head_call *call, const head_space *space, int worker, int workers)
{
    const ptrdiff_t size = group_of(call), hidden = call->hidden, classes = call->classes;
    const fl_range groups = fl_part(divide_up(classes, size), workers, worker);
    const real *bias = call->bias;
    for (ptrdiff_t v = groups.begin * size; v < groups.end * size; v++) {
        space->bias[v] = v < classes ? bias[v] : -(real)INFINITY;
    }
    pack_rows(call->weight, classes, hidden, size, groups, space->forward);
    if (call->dy) {
        const fl_range columns = fl_part(divide_up(hidden, size), workers, worker);
        pack_columns(call->weight, classes, hidden, size, columns, space->backward);
    }
}

static inline const real *prediction_at(const fl_head_call *call, ptrdiff_t i)
{
    return (const real *)call->y + i * call->y_row;
}

/* Logits of some rows, the first of them at `logits`. */
static void head_logits(const fl_head_call *call, const head_space *space, fl_range rows,
                        real *logits)
{
    const fl_kernels *k = call->kernels;
    const ptrdiff_t size = group_of(call), hidden = call->hidden, row = logits_row_of(call);
    for (ptrdiff_t v = 0; v < call->classes; v += size) {
        const ptrdiff_t vectors = minimum(4, (aligned(call->classes) - v) / k->lanes);
        tiling tiles = tile_rows(k, rows.end - rows.begin);
        for (ptrdiff_t i = rows.begin, tile; i < rows.end; i += tile) {
            tile = next_tile(&tiles);
            const real *y[FL_MAX_ROWS], *bias[FL_MAX_ROWS];
            for (ptrdiff_t r = 0; r < tile; r++) {
                y[r] = prediction_at(call, i + r);
                bias[r] = space->bias + v;
            }
            const fl_term term = {y, 1, space->forward + v * hidden, hidden};
            real *z = logits + (i - rows.begin) * row + v;
            k->product(tile, vectors, bias, &term, 1, z, row);
        }
    }
}

/* log(x) for x >= 1 within 3 ulp, and with the same bits on every machine, unlike libm's.
 * With x = 2^n * m, m in [sqrt(1/2), sqrt(2)], and s = (m - 1)/(m + 1), which is at most 0.172,
 * log(m) = 2*atanh(s) = 2*(s + s^3/3 + s^5/5 + ...): 11 terms reach the precision of double. */
static double log_of_sum(double x)
{
    static const double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
    const uint64_t mantissa = UINT64_MAX >> 12, one = (uint64_t)1023 << 52;
    uint64_t bits;
    double m;
    memcpy(&bits, &x, sizeof bits);
    int n = (int)(bits >> 52) - 1023;
    bits = (bits & mantissa) | one;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.41421356) {
        m /= 2;
        n++;
    }
    const double s = (m - 1) / (m + 1);
    double series = 0;
    for (int k = 21; k > 0; k -= 2) {
        series = series * (s * s) + 1.0 / k;
    }
    return x != x ? x : n * ln2_high + (n * ln2_low + 2 * s * series);
}

/* nll of up to FL_TERMS rows; unless `scale` is 0, `logits` get the gradients of scale * nll. */
static void head_loss(const fl_head_call *call, const head_space *space, fl_range rows,
                      real *logits, real scale)
{
    const fl_kernels *k = call->kernels;
    real sum[FL_TERMS], margin[FL_TERMS], *nll = call->nll;
    const fl_softmax block = {
        .logits = logits,
        .row = logits_row_of(call),
        .n = aligned(call->classes),
        .targets = call->targets + rows.begin,
        .scale = scale,
        .sum = sum,
        .margin = margin,
    };
    head_logits(call, space, rows, logits);
    k->softmax(rows.end - rows.begin, &block);
    for (ptrdiff_t i = 0; i < rows.end - rows.begin; i++) {
        nll[rows.begin + i] = (real)(log_of_sum((double)sum[i]) + (double)margin[i]);
    }
}

/* dy = dlogits W for some rows. */
static void head_inputs(const fl_head_call *call, const head_space *space, fl_range rows,
                        const real *dlogits)
{
    const fl_kernels *k = call->kernels;
    const ptrdiff_t size = group_of(call), classes = call->classes, row = logits_row_of(call);
    for (ptrdiff_t h = 0; h < call->hidden; h += size) {
        const ptrdiff_t n = minimum(size, call->hidden - h);
        tiling tiles = tile_rows(k, rows.end - rows.begin);
        for (ptrdiff_t i = rows.begin, tile; i < rows.end; i += tile) {
            tile = next_tile(&tiles);
            const real *a[FL_MAX_ROWS], *init[FL_MAX_ROWS];
            real *dy[FL_MAX_ROWS];
            for (ptrdiff_t r = 0; r < tile; r++) {
                init[r] = zeros;
                a[r] = dlogits + (i - rows.begin + r) * row;
                dy[r] = (real *)call->dy + (i + r) * call->dy_row + h;
                fetch_to_write(dy[r], n); /* 3% where dy is not in cache (H = 256, V = 100) */
            }
            const fl_term term = {a, 1, space->backward + h * classes, classes};
            _Alignas(FL_ALIGN) real sums[FL_MAX_TILE];
            k->product(tile, divide_up(n, k->lanes), init, &term, 1, sums, size);
            k->store(tile, n, sums, dy);
        }
    }
}

/* y of a block, some groups of hidden units. */
static void head_panels(const fl_head_call *call, const head_space *space, fl_range block,
                        fl_range groups)
{
    const fl_kernels *k = call->kernels;
    const ptrdiff_t size = group_of(call), n = block.end - block.begin;
    const real *y[FL_TERMS];
    for (ptrdiff_t h = groups.begin * size; h < groups.end * size; h += size) {
        for (ptrdiff_t i = 0; i < n; i++) {
            y[i] = prediction_at(call, block.begin + i) + h;
        }
        k->load(n, call->hidden - h, y, NULL, space->panels + h * FL_TERMS);
    }
}

/* Adds dlogits^T y of a block of n rows to some tiles of dW, numbered group after group. */
static void head_weights(const fl_head_call *call, const head_space *space, ptrdiff_t n,
                         fl_range tiles)
{
    const fl_kernels *k = call->kernels;
    const ptrdiff_t size = group_of(call), in_group = divide_up(call->classes, k->rows);
    for (ptrdiff_t tile = tiles.begin; tile < tiles.end; tile++) {
        const ptrdiff_t h = tile / in_group * size, v = tile % in_group * k->rows;
        const ptrdiff_t rows = minimum(k->rows, call->classes - v);
        const ptrdiff_t columns = minimum(size, call->hidden - h);
        _Alignas(FL_ALIGN) real tile_sums[FL_MAX_TILE];
        const real *a[FL_MAX_ROWS], *init[FL_MAX_ROWS], *sums[FL_MAX_ROWS];
        real *to[FL_MAX_ROWS];
        for (ptrdiff_t r = 0; r < rows; r++) {
            init[r] = zeros;
            sums[r] = tile_sums + r * size;
            a[r] = space->logits + v + r;
            to[r] = (real *)call->dweight + (v + r) * call->hidden + h;
            fetch_to_write(to[r], columns); /* 2% (H = 512, V = 1000) */
        }
        const fl_term term = {a, logits_row_of(call), space->panels + h * FL_TERMS, n};
        k->product(rows, divide_up(columns, k->lanes), init, &term, 1, tile_sums, size);
        k->add(rows, columns, sums, to);
    }
}

static void head_bias(const fl_head_call *call, const head_space *space, ptrdiff_t n,
                      fl_range classes)
{
    const fl_kernels *k = call->kernels;
    const real *rows[FL_TERMS];
    for (ptrdiff_t i = 0; i < n; i++) {
        rows[i] = space->logits + i * logits_row_of(call);
    }
    k->add_columns(n, classes.end - classes.begin, rows, classes.begin,
                   (real *)call->dbias + classes.begin);
}

/* A worker's rows, as many at a time as its part of the space for logits has. */
static void head_forward(const fl_head_call *call, const head_space *space, int worker, int workers)
{
    const fl_range mine = fl_part(call->n, workers, worker);
    const fl_range part = fl_part(minimum(FL_TERMS, call->n), workers, worker);
    const ptrdiff_t size = part.end - part.begin;
    for (ptrdiff_t i = mine.begin; i < mine.end; i += size) {
        const fl_range rows = {i, minimum(i + size, mine.end)};
        head_loss(call, space, rows, space->logits + part.begin * logits_row_of(call), 0);
    }
}

static void head_backward(fl_head_call *call, const head_space *space, int worker, int workers)
{
    const ptrdiff_t most_rows = ((const fl_kernels *)call->kernels)->rows;
    const ptrdiff_t groups = divide_up(call->hidden, group_of(call));
    const fl_range panels = fl_part(groups, workers, worker);
    const fl_range tiles = fl_part(groups * divide_up(call->classes, most_rows), workers, worker);
    const fl_range classes = fl_part(call->classes, workers, worker);
    const real scale = (real)(1 / (double)call->n);
    for (ptrdiff_t first = 0; first < call->n; first += FL_TERMS) {
        const fl_range block = {first, minimum(first + FL_TERMS, call->n)};
        const ptrdiff_t n = block.end - block.begin;
        const fl_range part = fl_part(n, workers, worker);
        const fl_range rows = {first + part.begin, first + part.end};
        real *logits = space->logits + part.begin * logits_row_of(call);
        head_loss(call, space, rows, logits, scale);
        head_inputs(call, space, rows, logits);
        head_panels(call, space, block, panels);
        fl_barrier_wait(&call->barrier, workers);
        head_weights(call, space, n, tiles);
        head_bias(call, space, n, classes);
        fl_barrier_wait(&call->barrier, workers);
    }
}

static void head(fl_head_call *call, int worker, int workers)
{
    const head_space space = head_space_at(call);
    const fl_fpu saved = fl_fpu_enter();
    pack_head(call, &space, worker, workers);
    fl_barrier_wait(&call->barrier, workers);
    if (call->dy) {
        head_backward(call, &space, worker, workers);
    } else {
        head_forward(call, &space, worker, workers);
    }
    fl_fpu_leave(saved);
}

#endif
