/* A head: linear layer and loss, forward and backward, together or each on its own.
 *
 * Predictions are taken FL_TERMS at a time: logits, their gradients and packed outputs of the LSTM
 * are in cache for all three products.  Workers share the rows of a block for logits and dy, and
 * tiles of dW, each over all rows, so that no sum depends on the number of workers. */
#ifndef FL_DRIVER_HEADS_LINEAR_H
#define FL_DRIVER_HEADS_LINEAR_H

#include "driver/heads/losses.h"
#include "driver/sequence.h"
#include "driver/team_plan.h"
#include "layout/pack.h"

/* The weights change with every step of training, so they are packed for each call: 1% of it (2048
 * predictions, H = 256, V = 100). */
typedef struct {
    real *bias;     /* [groups of V][4*VL], -inf beyond V: those columns add nothing to a sum */
    real *forward;  /* [groups of V][H][4*VL] */
    real *logits;   /* [FL_TERMS, or N if that is less] rows, logits_row_of apart */
    real *backward; /* [groups of H][V][4*VL] */
    real *panels;   /* [groups of H][FL_TERMS][4*VL]: y of a block */
    ptrdiff_t size;
} head_space;

static inline ptrdiff_t group_of(const fl_head_call *call)
{
    return 4 * ((const fl_kernels *)call->kernels)->lanes;
}

/* What a call leaves out takes no space and no time: see fl_head_call. */
static inline ptrdiff_t groups_forward(const fl_head_call *call)
{
    return call->z ? 0 : divide_up(call->classes, group_of(call));
}

static inline ptrdiff_t groups_of_dy(const fl_head_call *call)
{
    return call->dy ? divide_up(call->hidden, group_of(call)) : 0;
}

static inline ptrdiff_t groups_of_dweight(const fl_head_call *call)
{
    return call->dweight ? divide_up(call->hidden, group_of(call)) : 0;
}

/* Whole cache lines of classes are computed; rows are a line further apart (see dz_columns_of). */
static inline ptrdiff_t logits_row_of(const fl_head_call *call)
{
    return aligned(call->classes) + FL_SUM_LANES;
}

static head_space head_space_at(const fl_head_call *call)
{
    const ptrdiff_t size = group_of(call);
    const ptrdiff_t classes = groups_forward(call) * size;
    arena a = {call->scratch, 0};
    head_space space = {0};
    space.bias = arena_take(&a, classes);
    space.forward = arena_take(&a, classes * call->hidden);
    space.logits = arena_take(&a, minimum(FL_TERMS, call->n) * logits_row_of(call));
    space.backward = arena_take(&a, groups_of_dy(call) * size * call->classes);
    space.panels = arena_take(&a, groups_of_dweight(call) * size * FL_TERMS);
    space.size = a.used;
    return space;
}

/* Multiply-adds of a prediction; a loss without a linear layer takes as long as so many. */
static double row_work(const fl_head_call *call)
{
    const int products = !call->z + !!call->dy + !!call->dweight;
    return products ? (double)call->hidden * (double)call->classes * products
                    : 16.0 * (double)logits_row_of(call);
}

/* Workers share tiles of rows, and meet twice in a block. */
static void plan_head(fl_head_call *call, fl_team_limits limits)
{
    const ptrdiff_t rows = ((const fl_kernels *)call->kernels)->rows;
    const ptrdiff_t tiles = divide_up(minimum(FL_TERMS, call->n), rows);
    plan_shares(&call->team, &limits, row_work(call) * (double)call->n, tiles);
    call->scratch_size = head_space_at(call).size;
}

/* Groups of classes, for z, and of hidden units, for dy. */
static void pack_head(const fl_head_call *call, const head_space *space, fl_worker *team)
{
    const ptrdiff_t size = group_of(call), hidden = call->hidden, classes = call->classes;
    const fl_kind groups[2] = {{groups_forward(call), 1, 1}, {groups_of_dy(call), 1, 1}};
    const real *bias = call->bias;
    const matrix weight = {call->weight, NULL, hidden};
    fl_work work = fl_begin(team, groups, 2);
    for (fl_piece at; fl_next(&work, &at);) {
        if (at.kind == 1) {
            pack_columns(call->weight, classes, hidden, size, at.units, space->backward);
            continue;
        }
        for (ptrdiff_t v = at.units.begin * size; v < at.units.end * size; v++) {
            const real of_class = bias && v < classes ? bias[v] : 0;
            space->bias[v] = v < classes ? of_class : -(real)INFINITY;
        }
        pack_rows(FL_SAME, call->kernels, &weight, classes, at.units, (char *)space->forward);
    }
}

/* Predictions whose gradients of the weights are summed in one go: some of those of a shard, in
 * their order. */
typedef struct {
    ptrdiff_t n;
    ptrdiff_t row[FL_TERMS]; /* their numbers */
    real scale[FL_TERMS];
    real *dweight, *dbias; /* of the shard */
} head_block;

static void find_predictions(const fl_head_call *call, ptrdiff_t shard, ptrdiff_t first,
                             head_block *block)
{
    const fl_shards *s = &call->shards;
    const ptrdiff_t begin = s->count ? s->starts[shard] : 0;
    const ptrdiff_t rows = (s->count ? s->starts[shard + 1] : call->batch) - begin;
    const ptrdiff_t all = call->n / call->batch * rows;
    const real *weights = call->weights;
    block->n = minimum(FL_TERMS, all - first);
    for (ptrdiff_t i = 0; i < block->n; i++) {
        const ptrdiff_t row = (first + i) / rows * call->batch + begin + (first + i) % rows;
        block->row[i] = row;
        block->scale[i] = (real)(call->scale * (weights ? (double)weights[row] : 1));
    }
    block->dweight = (real *)call->dweight + shard * call->grads_step;
    block->dbias = (real *)call->dbias + shard * call->grads_step;
}

static inline const real *prediction_at(const fl_head_call *call, ptrdiff_t row)
{
    return (const real *)call->y + row * call->y_row;
}

/* Logits of some predictions, the first of them at `logits`. */
static void head_logits(const fl_head_call *call, const head_space *space, const ptrdiff_t *rows,
                        ptrdiff_t n, real *logits)
{
    const fl_kernels *k = call->kernels;
    const ptrdiff_t size = group_of(call), hidden = call->hidden, row = logits_row_of(call);
    for (ptrdiff_t v = 0; v < call->classes; v += size) {
        const ptrdiff_t vectors = minimum(4, (aligned(call->classes) - v) / k->lanes);
        tiling tiles = tile_rows(k, n);
        for (ptrdiff_t i = 0, tile; i < n; i += tile) {
            tile = next_tile(&tiles);
            const real *y[FL_MAX_ROWS], *bias[FL_MAX_ROWS];
            for (ptrdiff_t r = 0; r < tile; r++) {
                y[r] = prediction_at(call, rows[i + r]);
                bias[r] = space->bias + v;
            }
            const fl_term term = {y, 1, space->forward + v * hidden, hidden, NULL, {0}};
            k->product[FL_SAME](tile, vectors, bias, &term, 1, logits + i * row + v, row);
        }
    }
}

/* The same where they are given. */
static void given_logits(const fl_head_call *call, const ptrdiff_t *rows, ptrdiff_t n, real *logits)
{
    const ptrdiff_t classes = call->classes, row = logits_row_of(call);
    for (ptrdiff_t i = 0; i < n; i++) {
        const real *given = (const real *)call->z + rows[i] * classes;
        memcpy(logits + i * row, given, (size_t)classes * sizeof(real));
        for (ptrdiff_t v = classes; v < aligned(classes); v++) {
            logits[i * row + v] = -(real)INFINITY;
        }
    }
}

static void return_logits(const fl_head_call *call, const ptrdiff_t *rows, ptrdiff_t n,
                          const real *logits)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        memcpy((real *)call->z_out + rows[i] * call->classes, logits + i * logits_row_of(call),
               (size_t)call->classes * sizeof(real));
    }
}

/* Losses of some predictions; unless there are no scales, `logits` get their gradients. */
static void head_losses(const fl_head_call *call, const ptrdiff_t *rows, const real *scales,
                        ptrdiff_t n, real *logits)
{
    const head_outputs outputs = {
        .n = n,
        .classes = call->classes,
        .z = logits,
        .z_row = logits_row_of(call),
        .padded = aligned(call->classes),
        .rows = rows,
        .scales = scales,
    };
    if (call->targets) {
        cross_entropy(call->kernels, &outputs, call->targets, call->losses);
    } else {
        squared_errors(&outputs, call->values, call->losses);
    }
    clear_weightless(&outputs);
}

/* dy = dlogits W for some predictions. */
static void head_inputs(const fl_head_call *call, const head_space *space, const ptrdiff_t *rows,
                        ptrdiff_t count, const real *dlogits)
{
    const fl_kernels *k = call->kernels;
    const ptrdiff_t size = group_of(call), classes = call->classes, row = logits_row_of(call);
    for (ptrdiff_t h = 0; h < call->hidden; h += size) {
        const ptrdiff_t n = minimum(size, call->hidden - h);
        tiling tiles = tile_rows(k, count);
        for (ptrdiff_t i = 0, tile; i < count; i += tile) {
            tile = next_tile(&tiles);
            const real *a[FL_MAX_ROWS], *init[FL_MAX_ROWS];
            real *dy[FL_MAX_ROWS];
            for (ptrdiff_t r = 0; r < tile; r++) {
                init[r] = zeros;
                a[r] = dlogits + (i + r) * row;
                dy[r] = (real *)call->dy + rows[i + r] * call->dy_row + h;
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
static void head_panels(const fl_head_call *call, const head_space *space, const head_block *block,
                        fl_range groups)
{
    const fl_kernels *k = call->kernels;
    const ptrdiff_t size = group_of(call);
    const real *y[FL_TERMS];
    for (ptrdiff_t h = groups.begin * size; h < groups.end * size; h += size) {
        for (ptrdiff_t i = 0; i < block->n; i++) {
            y[i] = prediction_at(call, block->row[i]) + h;
        }
        k->load(block->n, call->hidden - h, y, NULL, space->panels + h * FL_TERMS);
    }
}

/* Adds dlogits^T y of a block to some tiles of a group of columns of dW. */
static void head_weights(const fl_head_call *call, const head_space *space, const head_block *block,
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
            to[r] = block->dweight + (v + r) * call->hidden + h;
            fetch_to_write(to[r], columns); /* 2% (H = 512, V = 1000) */
        }
        const fl_term term = {a,  logits_row_of(call), space->panels + h * FL_TERMS, block->n, NULL,
                              {0}};
        k->product[FL_SAME](rows, divide_up(columns, k->lanes), init, &term, 1, tile_sums, size);
        k->add(rows, columns, sums, to);
    }
}

static void head_bias(const fl_head_call *call, const head_space *space, const head_block *block,
                      fl_range classes)
{
    const fl_kernels *k = call->kernels;
    const real *rows[FL_TERMS];
    for (ptrdiff_t i = 0; i < block->n; i++) {
        rows[i] = space->logits + i * logits_row_of(call);
    }
    k->add_columns(block->n, classes.end - classes.begin, rows, classes.begin,
                   block->dbias + classes.begin);
}

/* Rows of a piece of work, of which each worker should have four: a block is shared evenly then. */
static ptrdiff_t rows_of_piece(const fl_head_call *call, const fl_worker *team)
{
    const ptrdiff_t rows = ((const fl_kernels *)call->kernels)->rows;
    return divide_up(FL_TERMS, 4 * team->workers * rows) * rows;
}

/* All that is done with the predictions of a block one by one, and what the gradients of the
 * weights are made of. */
static void head_rows(const fl_head_call *call, const head_space *space, const head_block *block,
                      fl_worker *team)
{
    const fl_kind kinds[2] = {{block->n, rows_of_piece(call, team), 1},
                              {groups_of_dweight(call), 1, 1}};
    const int differentiates = call->z_out || call->dy || call->dweight;
    fl_work work = fl_begin(team, kinds, 2);
    for (fl_piece at; fl_next(&work, &at);) {
        if (at.kind == 1) {
            head_panels(call, space, block, at.units);
            continue;
        }
        const ptrdiff_t first = at.units.begin, n = at.units.end - first;
        const ptrdiff_t *rows = block->row + first;
        real *logits = space->logits + first * logits_row_of(call);
        if (call->z) {
            given_logits(call, rows, n, logits);
        } else {
            head_logits(call, space, rows, n, logits);
        }
        if (call->losses) {
            head_losses(call, rows, differentiates ? block->scale + first : NULL, n, logits);
        }
        if (call->z_out) {
            return_logits(call, rows, n, logits);
        }
        if (call->dy) {
            head_inputs(call, space, rows, n, logits);
        }
    }
}

/* Gradients of the weights from a block. */
static void head_gradients(const fl_head_call *call, const head_space *space,
                           const head_block *block, fl_worker *team)
{
    const ptrdiff_t rows = ((const fl_kernels *)call->kernels)->rows, size = group_of(call);
    const fl_kind kinds[2] = {
        {divide_up(call->classes, rows), FL_TILES_AT_ONCE, divide_up(call->hidden, size)},
        {call->dbias ? call->classes : 0, size, 1}};
    fl_work work = fl_begin(team, kinds, 2);
    for (fl_piece at; fl_next(&work, &at);) {
        if (at.kind == 1) {
            head_bias(call, space, block, at.units);
        } else {
            head_weights(call, space, block, at.time, at.units);
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
    for (ptrdiff_t shard = 0; shard < (call->shards.count ? call->shards.count : 1); shard++) {
        head_block block;
        for (ptrdiff_t first = 0;; first += FL_TERMS) {
            find_predictions(call, shard, first, &block);
            if (block.n <= 0) {
                break;
            }
            head_rows(call, &space, &block, team);
            if (call->dweight) {
                head_gradients(call, &space, &block, team);
            }
        }
    }
    fl_fpu_leave(saved);
}

#endif
