/* The forward driver: what one worker of a team does, from the plan to the last step. */
#ifndef FL_FORWARD_H
#define FL_FORWARD_H

#include "dropout.h"
#include "layout.h"
#include "plan.h"

#include <string.h>

/* The part of each step that is one worker's: some rows of the batch, some blocks of units. */
typedef struct {
    fl_range rows, blocks;
    fl_barrier *barrier;
    int workers; /* that share a row, and so must meet after each step; 1: none */
} share;

/* One layer and direction over the steps of a chunk. */
typedef struct {
    const fl_kernels *k;
    forward_cell cell;
    ptrdiff_t input, hidden, blocks, steps;
    int reverse;
    ptrdiff_t first; /* the time that step 0 of x, out and y stands for */
    source x;
    sink out, y;      /* y.data may be NULL */
    real *h;          /* [B][H]: hidden state before the chunk in, after it out */
    real *c;          /* [B][H], step s reads c + s*c_step and writes c + (s+1)*c_step */
    ptrdiff_t c_step; /* 0: in place */
    real *gates;      /* [T][B][blocks][4][VL], or NULL if they are not kept */
    ptrdiff_t gates_step;
    ptrdiff_t ahead;
    real *z;     /* [ahead * rows][blocks][4][VL]: projections, of this worker's share */
    real *table; /* [count][blocks][4][VL]: projections of a table's rows, or NULL */
} pass;

static inline ptrdiff_t time_of(const pass *p, ptrdiff_t s)
{
    return (p->reverse ? p->steps - 1 - s : s) - p->first;
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
    return 4 * (groups - 1) + 4 * gate_width(p->hidden, lanes, last) / lanes;
}

/* z = bias + W x for the steps from s0 to s1: independent of the recurrence, so that the rows of a
 * tile may be of different steps. */
static void project_ahead(const pass *p, const share *me, ptrdiff_t s0, ptrdiff_t s1, real *to,
                          ptrdiff_t z_row)
{
    const ptrdiff_t vectors = 4 * p->k->lanes, rows = me->rows.end - me->rows.begin;
    const ptrdiff_t n = (s1 - s0) * rows;
    const tiling cut = tile_rows(p->k, n);
    for (ptrdiff_t block = me->blocks.begin; block < me->blocks.end; block++) {
        const real *bias = p->cell.bias + block * vectors;
        tiling tiles = cut;
        for (ptrdiff_t i = 0, tile; i < n; i += tile) {
            const real *x[FL_MAX_ROWS], *init[FL_MAX_ROWS];
            tile = next_tile(&tiles);
            for (ptrdiff_t r = 0; r < tile; r++) {
                const ptrdiff_t s = s0 + (i + r) / rows, b = me->rows.begin + (i + r) % rows;
                x[r] = source_at(&p->x, time_of(p, s), b);
                init[r] = bias;
            }
            const fl_term term = {x, 1, p->cell.w + block * p->input * vectors, p->input};
            real *z = to + i * z_row + (block - me->blocks.begin) * vectors;
            p->k->product(tile, vectors_of_blocks(p, block, 1), init, &term, 1, z, z_row);
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

/* One step of `rows` rows and `groups` blocks.  z: projections of these rows, or NULL. */
static void run_tile(const pass *p, ptrdiff_t s, int first, ptrdiff_t row, ptrdiff_t rows,
                     ptrdiff_t block, ptrdiff_t groups, const real *z, ptrdiff_t z_row)
{
    const ptrdiff_t vectors = 4 * p->k->lanes, unit = block * p->k->lanes;
    const ptrdiff_t t = time_of(p, s), before = p->reverse ? t + 1 : t - 1;
    const ptrdiff_t local_row = groups * vectors;
    const int projected = z || p->table || !p->x.data;
    _Alignas(FL_ALIGN) real local[FL_MAX_TILE];
    const real *x[FL_MAX_ROWS], *h_before[FL_MAX_ROWS], *init[FL_MAX_ROWS];
    real *h[FL_MAX_ROWS], *y[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t b = row + r;
        init[r] = z ? z + r * z_row : start_of(p, t, b, block, groups, local + r * local_row);
        x[r] = projected ? NULL : source_at(&p->x, t, b);
        h_before[r] = first ? p->h + b * p->hidden : sink_at(&p->out, before, b);
        h[r] = sink_at(&p->out, t, b) + unit;
        y[r] = p->y.data ? sink_at(&p->y, t, b) + unit : NULL;
        FL_PREFETCH_WRITE(h[r]); /* cold lines make stores wait: 1% (H = 128, B = 32) */
    }
    const fl_term terms[2] = {
        {x, 1, p->cell.w + block * p->input * vectors, p->input},
        {h_before, 1, p->cell.u + block * p->hidden * vectors, p->hidden},
    };
    fl_lstm_tile tile = {
        .z = local,
        .z_row = local_row,
        .gates = local,
        .gates_row = local_row,
        .width = gate_width(p->hidden, p->k->lanes, block + groups - 1),
        .c_before = p->c + s * p->c_step + row * p->hidden + unit,
        .c = p->c + s * p->c_step + p->c_step + row * p->hidden + unit,
        .c_row = p->hidden,
        .h = h,
        .y = p->y.data ? y : NULL,
        .units = p->hidden - unit,
    };
    if (p->gates) {
        tile.gates_row = p->blocks * vectors;
        tile.gates = p->gates + s * p->gates_step + row * tile.gates_row + block * vectors;
    }
    p->k->product(rows, vectors_of_blocks(p, block, groups), init, terms + projected, 2 - projected,
                  local, local_row);
    p->k->lstm_tile(rows, groups, &tile);
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
static void run_step(const pass *p, const share *me, ptrdiff_t s, int first, const real *z)
{
    const ptrdiff_t vectors = 4 * p->k->lanes, rows = me->rows.end - me->rows.begin;
    const ptrdiff_t blocks = me->blocks.end - me->blocks.begin, z_row = blocks * vectors;
    const ptrdiff_t most = rows > 1 ? 1 : groups_of_row(p->k, blocks);
    const tiling cut = tile_rows(p->k, rows);
    for (ptrdiff_t done = 0; done < blocks; done += most) {
        const ptrdiff_t groups = minimum(most, blocks - done);
        const ptrdiff_t at = s % 2 ? blocks - done - groups : done;
        tiling tiles = cut;
        for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
            tile = next_tile(&tiles);
            run_tile(p, s, first, me->rows.begin + i, tile, me->blocks.begin + at, groups,
                     z ? z + i * z_row + at * vectors : NULL, z_row);
        }
    }
    fl_barrier_wait(me->barrier, me->workers);
}

/* The hidden state after step `s` into p->h, which nobody reads until the next chunk. */
static void keep_state(const pass *p, const share *me, ptrdiff_t s)
{
    const ptrdiff_t unit = me->blocks.begin * p->k->lanes;
    const ptrdiff_t units = minimum(me->blocks.end * p->k->lanes, p->hidden) - unit;
    for (ptrdiff_t b = me->rows.begin; units > 0 && b < me->rows.end; b++) {
        memcpy(p->h + b * p->hidden + unit, sink_at(&p->out, time_of(p, s), b) + unit,
               (size_t)units * sizeof(real));
    }
}

static void run_pass(const pass *p, const share *me, ptrdiff_t s0, ptrdiff_t s1)
{
    const ptrdiff_t rows = me->rows.end - me->rows.begin;
    const ptrdiff_t z_row = (me->blocks.end - me->blocks.begin) * 4 * p->k->lanes;
    const ptrdiff_t stride = p->ahead ? p->ahead : s1 - s0;
    for (ptrdiff_t a = s0; a < s1; a += stride) {
        const ptrdiff_t end = minimum(a + stride, s1);
        if (p->ahead) {
            project_ahead(p, me, a, end, p->z, z_row);
        }
        for (ptrdiff_t s = a; s < end; s++) {
            run_step(p, me, s, s == s0, p->ahead ? p->z + (s - a) * rows * z_row : NULL);
        }
    }
    keep_state(p, me, s1 - 1);
    fl_barrier_wait(me->barrier, me->workers);
}

/* The pass of layer l, direction d over the chunk that begins at step `begin`. */
static pass make_pass(const fl_forward_call *call, int worker, ptrdiff_t l, ptrdiff_t d,
                      ptrdiff_t begin)
{
    const fl_shape *s = &call->shape;
    const fl_kernels *k = call->kernels;
    const ptrdiff_t width = s->directions * s->hidden, states = call->batch * s->hidden;
    const int top = l == s->layers - 1, dropout = call->dropout.rate > 0;
    real *const between[2] = {(real *)call->scratch + call->plan.between[0],
                              (real *)call->scratch + call->plan.between[1]};
    ptrdiff_t size;
    pass p = {
        .k = k,
        .cell = forward_cell_at(s, k, (real *)call->packed, l, d, &size),
        .input = input_of(s, l),
        .hidden = s->hidden,
        .blocks = call->plan.blocks,
        .steps = call->steps,
        .reverse = d == 1,
        .h = (real *)call->h + (l * s->directions + d) * states,
        .c = (real *)call->c + (l * s->directions + d) * states,
        .ahead = call->plan.ahead,
        .z = (real *)call->scratch + call->plan.z + worker * call->plan.z_worker,
    };
    const sink y = {(real *)call->y + begin * call->y_step + d * s->hidden, call->y_step,
                    call->y_row};
    p.first = begin;
    if (call->tape) {
        const tape_cell t =
            tape_cell_at(s, k, call->tape, call->steps, call->batch, dropout, l, d, &size);
        p.out =
            (sink){t.out + begin * call->batch * width + d * s->hidden, call->batch * width, width};
        p.y = top ? y : (sink){0};
        p.c = t.c;
        p.c_step = states;
        p.gates = t.gates;
        p.gates_step = call->batch * p.blocks * 4 * k->lanes;
    } else {
        p.out = top ? y : (sink){between[l % 2] + d * s->hidden, call->batch * width, width};
    }
    if (l == 0 && call->tokens.rows) {
        p.x = (source){call->x, call->batch, call->x_row, call->tokens.rows + begin * call->batch};
        if (call->plan.project_table) {
            p.table = (real *)call->scratch + call->plan.table +
                      d * call->tokens.count * table_row_of(&call->plan, k);
        }
        p.ahead = call->x && !p.table ? p.ahead : 0;
    } else if (l == 0) {
        p.x =
            (source){(const real *)call->x + begin * call->x_step, call->x_step, call->x_row, NULL};
    } else if (call->tape) {
        const tape_cell t =
            tape_cell_at(s, k, call->tape, call->steps, call->batch, dropout, l - 1, 0, &size);
        p.x = (source){t.passed + begin * call->batch * width, call->batch * width, width, NULL};
    } else {
        p.x = (source){between[(l - 1) % 2], call->batch * width, width, NULL};
    }
    return p;
}

/* Initial states into the tape, this worker's rows of them. */
static void tape_states(const fl_forward_call *call, fl_range rows, ptrdiff_t l, ptrdiff_t d,
                        int final)
{
    const fl_shape *s = &call->shape;
    const ptrdiff_t at = ((l * s->directions + d) * call->batch + rows.begin) * s->hidden;
    const size_t bytes = (size_t)((rows.end - rows.begin) * s->hidden) * sizeof(real);
    ptrdiff_t size;
    const tape_cell t = tape_cell_at(s, call->kernels, call->tape, call->steps, call->batch,
                                     call->dropout.rate > 0, l, d, &size);
    real *c = (real *)call->c + at;
    const ptrdiff_t row = rows.begin * s->hidden;
    if (final) {
        memcpy(c, t.c + call->steps * call->batch * s->hidden + row, bytes);
    } else {
        memcpy(t.h0 + row, (real *)call->h + at, bytes);
        memcpy(t.c + row, c, bytes);
    }
}

/* What the next layer reads, after dropout. */
static void tape_dropout(const fl_forward_call *call, fl_range rows, ptrdiff_t l)
{
    const fl_shape *s = &call->shape;
    const ptrdiff_t width = s->directions * s->hidden, n = (rows.end - rows.begin) * width;
    ptrdiff_t size;
    const tape_cell t =
        tape_cell_at(s, call->kernels, call->tape, call->steps, call->batch, 1, l, 0, &size);
    for (ptrdiff_t i = 0; i < call->steps; i++) {
        const ptrdiff_t at = (i * call->batch + rows.begin) * width;
        const ptrdiff_t number = call->first_step * call->batch * width + at;
        dropout_apply(&call->dropout, l, number, n, t.out + at, t.passed + at);
    }
}

static void forward_chunk(const fl_forward_call *call, const share *me, int worker, ptrdiff_t begin)
{
    const fl_shape *s = &call->shape;
    const ptrdiff_t end = minimum(begin + call->plan.chunk, call->steps);
    /* Where workers share rows, one of them does what is done row by row. */
    const fl_range all = {0, worker == 0 ? call->batch : 0};
    const fl_range rows = me->workers > 1 ? all : me->rows;
    for (ptrdiff_t l = 0; l < s->layers; l++) {
        for (ptrdiff_t d = 0; d < s->directions; d++) {
            const pass p = make_pass(call, worker, l, d, begin);
            if (call->tape) {
                tape_states(call, rows, l, d, 0);
                fl_barrier_wait(me->barrier, me->workers);
            }
            run_pass(&p, me, begin, end);
            if (call->tape) {
                tape_states(call, rows, l, d, 1);
            }
        }
        if (call->tape && call->dropout.rate > 0 && l < s->layers - 1) {
            tape_dropout(call, rows, l);
            fl_barrier_wait(me->barrier, me->workers);
        }
    }
}

/* The rows of the table take the places of steps. */
static void project_table(fl_forward_call *call, int worker, int workers)
{
    const ptrdiff_t vectors = 4 * ((const fl_kernels *)call->kernels)->lanes;
    for (ptrdiff_t d = 0; d < call->shape.directions; d++) {
        pass p = make_pass(call, worker, 0, d, 0);
        p.x = (source){call->x, call->x_row, 0, NULL};
        p.reverse = 0;
        const share me = {{0, 1}, fl_part(p.blocks, workers, worker), NULL, 1};
        project_ahead(&p, &me, 0, call->tokens.count, p.table + me.blocks.begin * vectors,
                      p.blocks * vectors);
    }
    fl_barrier_wait(&call->barrier, workers);
}

static void forward(fl_forward_call *call, int worker, int workers)
{
    if (workers != call->plan.workers) { /* the system gave fewer threads: one does it all */
        if (worker > 0) {
            return;
        }
        workers = 1;
    }
    share me = {{0, call->batch}, {0, call->plan.blocks}, &call->barrier, 1};
    if (call->plan.split_units) {
        me.blocks = fl_part(call->plan.blocks, workers, worker);
        me.workers = workers;
    } else if (workers > 1) {
        me.rows = fl_part(call->batch, workers, worker);
    }
    const fl_fpu saved = fl_fpu_enter();
    if (call->plan.project_table) {
        project_table(call, worker, workers);
    }
    for (ptrdiff_t begin = 0; begin < call->steps; begin += call->plan.chunk) {
        forward_chunk(call, &me, worker, begin);
    }
    fl_fpu_leave(saved);
}

#endif
