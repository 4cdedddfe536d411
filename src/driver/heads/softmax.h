/* The head of a language model: linear layer, softmax and cross-entropy, forward and backward.
 *
 * Predictions are taken FL_TERMS at a time: logits, their gradients and packed outputs of the LSTM
 * are in cache for all three products.  Workers share the rows of a block for logits and dy, and
 * tiles of dW, each over all rows, so that no sum depends on the number of workers. */
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
    const double most = row * (double)call->n / price_of(&limits).call + 1;
    const ptrdiff_t rows = ((const fl_kernels *)call->kernels)->rows;
    const ptrdiff_t tiles = divide_up(minimum(FL_TERMS, call->n), rows);
    const ptrdiff_t workers = minimum(minimum(limits.threads, limits.processors), tiles);
    call->team.wanted = most < (double)workers ? (int)most : (int)workers;
    call->team.workers = fl_threads_for((int)minimum(call->team.wanted, limits.most));
    call->team.work = row * (double)call->n;
    call->scratch_size = head_space_at(call).size;
}

/* Groups of classes and, for dy, of hidden units. */
static void pack_head(const fl_head_call *call, const head_space *space, fl_worker *team)
{
    const ptrdiff_t size = group_of(call), hidden = call->hidden, classes = call->classes;
    const fl_kind groups[2] = {{divide_up(classes, size), 1, 1},
                               {call->dy ? divide_up(hidden, size) : 0, 1, 1}};
    const real *bias = call->bias;
    const matrix weight = {call->weight, NULL, hidden};
    fl_work work = fl_begin(team, groups, 2);
    for (fl_piece at; fl_next(&work, &at);) {
        if (at.kind == 1) {
            pack_columns(call->weight, classes, hidden, size, at.units, space->backward);
            continue;
        }
        for (ptrdiff_t v = at.units.begin * size; v < at.units.end * size; v++) {
            space->bias[v] = v < classes ? bias[v] : -(real)INFINITY;
        }
        pack_rows(FL_SAME, call->kernels, &weight, classes, at.units, (char *)space->forward);
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
            const fl_term term = {y, 1, space->forward + v * hidden, hidden, NULL, {0}};
            real *z = logits + (i - rows.begin) * row + v;
            k->product[FL_SAME](tile, vectors, bias, &term, 1, z, row);
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
            const fl_term term = {a, 1, space->backward + h * classes, classes, NULL, {0}};
            _Alignas(FL_ALIGN) real sums[FL_MAX_TILE];
            k->product[FL_SAME](tile, divide_up(n, k->lanes), init, &term, 1, sums, size);
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

/* Adds dlogits^T y of a block of n rows to some tiles of a group of columns of dW. */
static void head_weights(const fl_head_call *call, const head_space *space, ptrdiff_t n,
                         ptrdiff_t group, fl_range tiles)
{
    const fl_kernels *k = call->kernels;
    const ptrdiff_t size = group_of(call), h = group * size;
    const ptrdiff_t columns = minimum(size, call->hidden - h);
    for (ptrdiff_t tile = tiles.begin; tile < tiles.end; tile++) {
        const ptrdiff_t v = tile * k->rows, rows = minimum(k->rows, call->classes - v);
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
        const fl_term term = {a, logits_row_of(call), space->panels + h * FL_TERMS, n, NULL, {0}};
        k->product[FL_SAME](rows, divide_up(columns, k->lanes), init, &term, 1, tile_sums, size);
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

/* Rows of a piece of work, of which each worker should have four: a block is shared evenly then. */
static ptrdiff_t rows_of_piece(const fl_head_call *call, const fl_worker *team)
{
    const ptrdiff_t rows = ((const fl_kernels *)call->kernels)->rows;
    return divide_up(FL_TERMS, 4 * team->workers * rows) * rows;
}

/* The losses of a block and, if dy is wanted, what the gradients of its weights are made of. */
static void head_rows(const fl_head_call *call, const head_space *space, fl_range block,
                      fl_worker *team)
{
    const real scale = call->dy ? (real)(1 / (double)call->n) : 0;
    const fl_kind kinds[2] = {{block.end - block.begin, rows_of_piece(call, team), 1},
                              {call->dy ? divide_up(call->hidden, group_of(call)) : 0, 1, 1}};
    fl_work work = fl_begin(team, kinds, 2);
    for (fl_piece at; fl_next(&work, &at);) {
        if (at.kind == 1) {
            head_panels(call, space, block, at.units);
            continue;
        }
        const fl_range rows = {block.begin + at.units.begin, block.begin + at.units.end};
        real *logits = space->logits + at.units.begin * logits_row_of(call);
        head_loss(call, space, rows, logits, scale);
        if (call->dy) {
            head_inputs(call, space, rows, logits);
        }
    }
}

/* Gradients of the weights from a block of n rows. */
static void head_gradients(const fl_head_call *call, const head_space *space, ptrdiff_t n,
                           fl_worker *team)
{
    const ptrdiff_t rows = ((const fl_kernels *)call->kernels)->rows, size = group_of(call);
    const fl_kind kinds[2] = {
        {divide_up(call->classes, rows), FL_TILES_AT_ONCE, divide_up(call->hidden, size)},
        {call->classes, size, 1}};
    fl_work work = fl_begin(team, kinds, 2);
    for (fl_piece at; fl_next(&work, &at);) {
        if (at.kind == 1) {
            head_bias(call, space, n, at.units);
        } else {
            head_weights(call, space, n, at.time, at.units);
        }
    }
}

static void head(void *argument, fl_worker *team)
{
    fl_head_call *call = argument;
    fl_worker alone = fl_alone();
    if (team->workers != call->team.workers) { /* the system gave fewer threads */
        if (team->number > 0) {
            return;
        }
        team = &alone;
    }
    const head_space space = head_space_at(call);
    const fl_fpu saved = fl_fpu_enter();
    pack_head(call, &space, team);
    for (ptrdiff_t first = 0; first < call->n; first += FL_TERMS) {
        const fl_range block = {first, minimum(first + FL_TERMS, call->n)};
        head_rows(call, &space, block, team);
        if (call->dy) {
            head_gradients(call, &space, block.end - block.begin, team);
        }
    }
    fl_fpu_leave(saved);
}

#endif
