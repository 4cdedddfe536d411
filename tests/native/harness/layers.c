/* A stack of layers, forward and backward. */
#include "harness.h"

#include <stdlib.h>
#include <string.h>

/* A case as it is run: what forward and backward read alike, and y. */
typedef struct {
    const backend *b;
    const layer_case *t;
    int workers, split_units;
    fl_stack stack;
    ptrdiff_t outputs, y_row; /* elements of y, and of a row of it */
    ptrdiff_t inputs;         /* elements of x */
    fl_tokens tokens;
    fl_rows rows;
    void *x, *y;
} layer_run;

/* All options, with bounds that some values are beyond. */
static fl_options some_options(int norm)
{
    return (fl_options){
        .peephole = 1,
        .coupled = 1,
        .layer_norm = norm,
        .layer_norm_eps = 1e-5,
        .preact_clip = 1.5,
        .cell_clip = 0.6,
        .zoneout_h = 0.2,
        .zoneout_c = 0.3,
        .functions = {{{FL_HARD_SIGMOID, 0.2, 0.5}, {FL_SOFTPLUS, 0, 0}, {FL_ELU, 0.7, 0}},
                      {{FL_SIGMOID, 0, 0}, {FL_LEAKY_RELU, 0.1, 0}, {FL_SCALED_TANH, 1.1, 0.8}}},
    };
}

/* Lengths that fall from T to 0 in the opposite order of the rows, and a reset now and then. */
static fl_rows some_rows(ptrdiff_t steps, ptrdiff_t batch)
{
    ptrdiff_t *order = exact(batch, sizeof *order), *lengths = exact(batch, sizeof *lengths);
    ptrdiff_t *starts = exact(steps + 1, sizeof *starts);
    unsigned char *reset = exact(steps * batch, 1);
    for (ptrdiff_t i = 0; i < batch; i++) {
        order[i] = batch - 1 - i;
        lengths[i] = steps - steps * i / (batch > 1 ? batch - 1 : 1);
    }
    starts[0] = 0;
    for (ptrdiff_t s = 0; s < steps; s++) {
        starts[s + 1] = starts[s];
        for (ptrdiff_t i = 0; i < batch; i++) {
            starts[s + 1] += lengths[i] > s;
            reset[s * batch + i] = (s + 3 * i) % 5 == 0;
        }
    }
    return (fl_rows){order, lengths, starts, reset};
}

/* Numbers of rows of a table, the last one among them. */
static ptrdiff_t *token_rows(ptrdiff_t n, ptrdiff_t count)
{
    ptrdiff_t *rows = exact(n, sizeof *rows);
    for (ptrdiff_t i = 0; i < n; i++) {
        rows[i] = (i * i + i + count - 1) % count;
    }
    return rows;
}

static layer_run begin_run(const backend *b, const layer_case *t, int weights, int workers,
                           int split_units)
{
    const ptrdiff_t rows = t->steps * t->batch, count = t->tokens < 0 ? t->input : t->tokens;
    layer_run r = {
        .b = b,
        .t = t,
        .workers = workers,
        .split_units = split_units,
        .stack =
            {
                .layers = t->layers,
                .directions = t->directions,
                .input = t->input,
                .hidden = t->hidden,
                .projection = t->projection,
                .heads = t->heads ? t->heads : 1,
                .bias = 1,
                .cell = t->cell,
                .weights = weights,
                .options = t->options ? some_options(t->options == 2) : (fl_options){0},
            },
        .inputs = (t->tokens ? count : rows) * t->input,
        .tokens = {t->tokens ? token_rows(rows, count) : NULL, count},
        .rows = t->ragged ? some_rows(t->steps, t->batch) : (fl_rows){0},
    };
    r.y_row = t->directions * (t->projection ? t->projection : t->hidden);
    r.outputs = rows * r.y_row;
    r.x = t->tokens < 0 ? NULL : filled(b, r.inputs, 2, 2);
    r.y = filled(b, r.outputs, 0, 0);
    return r;
}

static void end_run(const layer_run *r)
{
    FREE_ALL(r->x, r->y, r->tokens.rows, r->rows.order, r->rows.lengths, r->rows.starts,
             r->rows.reset);
}

/* Four shards, the first of them of no row; or none: one case in two has them. */
static fl_shards some_shards(const layer_case *t)
{
    if (t->hidden % 2 == 0) {
        return (fl_shards){0, NULL, 0};
    }
    ptrdiff_t *starts = exact(5, sizeof *starts);
    for (ptrdiff_t i = 0; i < 5; i++) {
        starts[i] = i < 2 ? 0 : t->batch * (i - 1) / 3;
    }
    return (fl_shards){4, starts, (t->batch + 2) / 3};
}

static ptrdiff_t state_elements(const layer_run *r, int i)
{
    const fl_stack *s = &r->stack;
    return s->layers * s->directions * r->t->batch * r->b->driver->state_size(s, i);
}

/* An array for each state. */
static void new_states(const layer_run *r, unsigned seed, void **states)
{
    for (int i = 0; i < fl_cells[r->stack.cell].state_count; i++) {
        states[i] = filled(r->b, state_elements(r, i), seed + (unsigned)i, 1);
    }
}

/* Adds the states to a hash, the last first, and frees them. */
static uint64_t end_states(const layer_run *r, void **states, uint64_t h)
{
    for (int i = fl_cells[r->stack.cell].state_count - 1; i >= 0; i--) {
        h = hash(r->b, states[i], state_elements(r, i), h);
        free(states[i]);
    }
    return h;
}

/* Weights of fewer bits, which only float has, are values that need no more than these. */
static void *weights_of(const layer_run *r)
{
    const ptrdiff_t n = r->b->driver->parameters_size(&r->stack);
    const int type = r->stack.weights;
    void *weights = filled(r->b, n, 1, 0.4);
    float *flat = weights;
    for (ptrdiff_t i = 0; type != FL_SAME && i < n; i++) {
        flat[i] = type == FL_INT8 ? (float)(int)(flat[i] * 300) : (float)(int)(flat[i] * 64) / 64;
    }
    return weights;
}

/* The weights as pack_forward or pack_backward lays them out, in `size` elements. */
static void *packed_weights(const layer_run *r, fl_job pack, ptrdiff_t size)
{
    const fl_stack *s = &r->stack;
    const int scaled = s->weights == FL_INT8;
    void *flat = weights_of(r), *packed = exact_aligned(size, r->b->size);
    void *scales = scaled ? filled(r->b, r->b->driver->scales_size(s), 7, 0.01) : NULL;
    fl_pack_call call = {s, r->b->kernels, flat, scales, packed};
    run_team(pack, &call, r->workers);
    FREE_ALL(flat, scales);
    return packed;
}

/* Plans a call of forward for the workers of the run. */
static void plan_for(const layer_run *r, fl_forward_call *f)
{
    const int workers = r->workers;
    r->b->driver->plan_forward(f, one_thread(), f->tape != NULL);
    /* As much for each worker: more than is needed. */
    const ptrdiff_t bytes = (workers - 1) * (f->plan.bytes - f->plan.row_pointers);
    const ptrdiff_t rows = (workers - 1) * (f->plan.z - f->plan.row_pointers);
    const ptrdiff_t z = rows + (workers - 1) * f->plan.z_worker;
    const ptrdiff_t zeros = z + (workers - 1) * f->plan.zeros_worker;
    const ptrdiff_t more = zeros + (workers - 1) * f->plan.zoneout_keep_worker;
    f->plan.team.workers = workers;
    f->plan.split_units = r->split_units;
    f->plan.bytes += bytes;
    f->plan.z += rows;
    f->plan.zeros += z;
    f->plan.zoneout_keep += zeros;
    f->plan.gates += more;
    f->plan.second_input += more;
    f->plan.masked_h += more;
    f->plan.table += more;
    f->plan.scratch += more;
}

/* Adds y and the final states to a hash. */
static uint64_t run_forward(const layer_run *r, const void *packed, void *tape,
                            const fl_dropout *dropout, uint64_t h)
{
    const backend *b = r->b;
    const layer_case *t = r->t;
    fl_forward_call call = {
        .stack = r->stack,
        .kernels = b->kernels,
        .packed = packed,
        .steps = t->steps,
        .batch = t->batch,
        .x = r->x,
        .x_step = t->batch * t->input,
        .x_row = t->input,
        .tokens = r->tokens,
        .rows = r->rows,
        .y = r->y,
        .y_step = t->batch * r->y_row,
        .y_row = r->y_row,
        .tape = tape,
        .dropout = tape ? *dropout : (fl_dropout){0},
    };
    new_states(r, 3, call.states);
    plan_for(r, &call);
    call.scratch = exact_aligned(call.plan.scratch, b->size);
    run_team(b->driver->forward, &call, r->workers);
    free(call.scratch);
    h = end_states(r, call.states, h);
    return hash(b, r->y, r->outputs, h);
}

/* Adds all gradients to a hash. */
static uint64_t run_backward(const layer_run *r, const void *packed, const void *tape,
                             const fl_dropout *dropout, uint64_t h)
{
    const backend *b = r->b;
    const layer_case *t = r->t;
    const fl_shards shards = some_shards(t);
    const ptrdiff_t parts = shards.count ? shards.count : 1;
    const ptrdiff_t all_dx = (t->tokens ? parts : 1) * r->inputs;
    const ptrdiff_t all_grads = parts * b->driver->parameters_size(&r->stack);
    const ptrdiff_t sums_size =
        t->tokens ? parts * b->driver->sums_size(&r->stack, r->tokens.count) : 0;
    void *dy = filled(b, r->outputs, 5, 1), *dx = filled(b, all_dx, 0, 0);
    void *grads = filled(b, all_grads, 0, 0), *sums = exact_aligned(sums_size, b->size);
    memset(sums, 0, (size_t)(sums_size * b->size));
    fl_backward_call call = {
        .stack = r->stack,
        .kernels = b->kernels,
        .packed = packed,
        .steps = t->steps,
        .batch = t->batch,
        .x = r->x,
        .x_step = t->batch * t->input,
        .x_row = t->input,
        .tokens = r->tokens,
        .rows = r->rows,
        .shards = shards,
        .sums = sums,
        .tape = tape,
        .dropout = *dropout,
        .dy = dy,
        .dy_step = t->batch * r->y_row,
        .dy_row = r->y_row,
        .dx = dx,
        .dx_step = t->batch * t->input,
        .dx_row = t->input,
        .grads = grads,
    };
    new_states(r, 6, call.dstates);
    b->driver->plan_backward(&call, one_thread());
    call.plan.team.workers = r->workers;
    call.plan.split_units = r->split_units;
    call.plan.scratch += (r->workers - 1) * call.plan.zoneout_keep_worker;
    call.scratch = exact_aligned(call.plan.scratch, b->size);
    run_team(b->driver->backward, &call, r->workers);
    h = hash(b, dx, all_dx, hash(b, grads, all_grads, h));
    h = end_states(r, call.dstates, h);
    FREE_ALL(dy, dx, grads, sums, shards.starts, call.scratch);
    return h;
}

/* Forward with a tape, and backward; adds all results to a hash. */
static uint64_t run_training(const layer_run *r, const void *forward, uint64_t h)
{
    const fl_driver *driver = r->b->driver;
    const layer_case *t = r->t;
    /* What has options drops what U reads too. */
    const double recurrent = t->projection || t->options ? t->dropout : 0;
    const fl_dropout dropout = {42, t->dropout, recurrent, 1, 0, 0};
    const ptrdiff_t tape_size =
        driver->tape_size(&r->stack, r->b->kernels, t->steps, t->batch, &dropout);
    void *tape = exact_aligned(tape_size, r->b->size);
    void *backward =
        packed_weights(r, driver->pack_backward, driver->backward_size(&r->stack, r->b->kernels));
    h = run_forward(r, forward, tape, &dropout, h);
    h = run_backward(r, backward, tape, &dropout, h);
    FREE_ALL(tape, backward);
    return h;
}

uint64_t run_layer(const backend *b, const layer_case *t, int weights, int workers, int split_units)
{
    const layer_run r = begin_run(b, t, weights, workers, split_units);
    void *packed =
        packed_weights(&r, b->driver->pack_forward, b->driver->forward_size(&r.stack, b->kernels));
    uint64_t h = run_forward(&r, packed, NULL, NULL, 0);
    if (weights == FL_SAME) {
        h = run_training(&r, packed, h);
    }
    free(packed);
    end_run(&r);
    return h;
}
