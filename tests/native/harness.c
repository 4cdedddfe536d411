/* Runs the driver and the kernels without Python, on heap buffers of exactly the promised size, so
 * that a sanitizer sees every access beyond them; prints a hash of every result, so that two
 * instruction sets can be compared.
 *
 *     harness ISA        (as in FASTLSTM_ISA)
 */
#define _POSIX_C_SOURCE 200809L

#include "fastlstm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const fl_driver *driver;
    const char *type;
    const void *kernels;
    ptrdiff_t size; /* of an element */
} backend;

typedef struct {
    ptrdiff_t layers, directions, input, hidden, batch, steps;
    double dropout;
    ptrdiff_t tokens; /* rows of the table they are from; -1: of the unit matrix; 0: none */
    int ragged;       /* rows of different lengths, states that are reset */
    int cell;         /* fl_cell */
    ptrdiff_t projection;
    int options; /* 1: of FL_LSTM_OPTIONS all but the layer norm; 2: that too */
} test_case;

typedef struct {
    ptrdiff_t n, hidden, classes;
} head_case;

/* Sizes around the edges of tiles, vectors and groups. */
static const test_case cases[] = {
    {1, 1, 1, 1, 1, 1, 0, 0, 0, FL_LSTM, 0, 0},
    {1, 1, 3, 5, 2, 4, 0, 0, 0, FL_LSTM, 0, 0},
    {1, 1, 16, 16, 6, 3, 0, 0, 0, FL_LSTM, 0, 0},
    {1, 1, 17, 15, 7, 5, 0, 0, 0, FL_LSTM, 0, 0},
    {2, 2, 9, 33, 5, 7, 0, 0, 0, FL_LSTM, 0, 0},
    {3, 1, 20, 64, 1, 40, 0, 0, 0, FL_LSTM, 0, 0},
    {2, 1, 8, 65, 13, 9, 0.3, 0, 0, FL_LSTM, 0, 0},
    {2, 2, 31, 24, 3, 100, 0.5, 0, 0, FL_LSTM, 0, 0},
    {1, 1, 5, 100, 300, 2, 0, 0, 0, FL_LSTM, 0, 0},
    {1, 2, 70, 130, 4, 6, 0, 0, 0, FL_LSTM, 0, 0},
    {1, 1, 2, 260, 2, 9, 0, 0, 0, FL_LSTM, 0, 0},
    {1, 1, 9, 33, 4, 20, 0, 11, 0, FL_LSTM, 0, 0},
    {2, 2, 9, 17, 3, 100, 0.3, 7, 0, FL_LSTM, 0, 0},
    {1, 1, 9, 33, 2, 4, 0, 300, 0, FL_LSTM, 0, 0},
    {1, 2, 11, 40, 5, 70, 0, -1, 0, FL_LSTM, 0, 0},
    {1, 1, 9, 33, 6, 20, 0, 0, 1, FL_LSTM, 0, 0},
    {2, 2, 9, 17, 13, 60, 0.3, 0, 1, FL_LSTM, 0, 0},
    {1, 1, 4, 40, 300, 3, 0, 7, 1, FL_LSTM, 0, 0},
    {2, 1, 5, 70, 2, 300, 0, -1, 1, FL_LSTM, 0, 0},
    {2, 2, 9, 33, 5, 7, 0, 0, 0, FL_GRU, 0, 0},
    {2, 1, 8, 65, 13, 9, 0.3, 0, 1, FL_GRU, 0, 0},
    {1, 1, 5, 100, 300, 2, 0, 7, 0, FL_GRU, 0, 0},
    {1, 1, 3, 5, 1, 40, 0, -1, 0, FL_GRU, 0, 0},
    {2, 2, 9, 33, 5, 7, 0, 0, 0, FL_RNN_TANH, 0, 0},
    {2, 1, 8, 65, 13, 9, 0.3, 0, 1, FL_RNN_RELU, 0, 0},
    {1, 1, 5, 100, 1, 60, 0, 7, 0, FL_RNN_TANH, 0, 0},
    {2, 2, 9, 33, 5, 7, 0, 0, 0, FL_GRU_BEFORE, 0, 0},
    {2, 1, 8, 65, 13, 9, 0.3, 0, 1, FL_GRU_BEFORE, 0, 0},
    {1, 1, 5, 100, 300, 2, 0, 7, 0, FL_GRU_BEFORE, 0, 0},
    {2, 2, 9, 33, 5, 7, 0.2, 0, 0, FL_LSTM, 17, 0},
    {2, 1, 8, 65, 13, 60, 0.3, 0, 1, FL_LSTM, 64, 0},
    {1, 1, 5, 100, 300, 2, 0, 7, 0, FL_LSTM, 1, 0},
    {2, 2, 9, 33, 5, 7, 0.2, 0, 0, FL_LSTM_OPTIONS, 17, 1},
    {1, 1, 5, 5, 13, 60, 0.3, 0, 1, FL_LSTM_OPTIONS, 0, 1},
    {1, 2, 5, 70, 1, 40, 0.3, -1, 1, FL_LSTM_OPTIONS, 3, 1},
    {2, 2, 9, 33, 5, 7, 0.2, 0, 0, FL_LSTM_OPTIONS, 0, 2},
    {2, 1, 8, 65, 13, 60, 0.3, 0, 1, FL_LSTM_OPTIONS, 40, 2},
    {1, 1, 5, 100, 300, 2, 0, 7, 0, FL_LSTM_OPTIONS, 0, 2},
    {1, 1, 5, 145, 7, 40, 0.3, 0, 1, FL_LSTM, 70, 0},
    {1, 1, 5, 145, 7, 40, 0, 0, 0, FL_GRU_BEFORE, 0, 0},
    {1, 1, 5, 145, 7, 40, 0.3, 7, 1, FL_LSTM_OPTIONS, 33, 1},
};
static const head_case head_cases[] = {
    {1, 1, 1}, {7, 3, 1}, {6, 64, 64}, {13, 65, 17}, {300, 31, 100}, {515, 7, 130},
};

static void *exact(ptrdiff_t n, ptrdiff_t size)
{
    void *p = malloc((size_t)(n * size));
    if (!p && n > 0) {
        exit(2);
    }
    return p;
}

/* Aligned at its start, exact at its end. */
static void *exact_aligned(ptrdiff_t n, ptrdiff_t size)
{
    void *p = NULL;
    if (posix_memalign(&p, FL_ALIGN, (size_t)(n * size))) {
        exit(2);
    }
    memset(p, 0xff, (size_t)(n * size)); /* not-a-numbers: reading what was not written shows */
    return p;
}

static void fill(const backend *b, void *data, ptrdiff_t n, unsigned seed, double scale)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        const double value = scale * ((double)(seed >> 8) / 8388608.0 - 1);
        if (b->size == 4) {
            ((float *)data)[i] = (float)value;
        } else {
            ((double *)data)[i] = value;
        }
    }
}

static void *filled(const backend *b, ptrdiff_t n, unsigned seed, double scale)
{
    void *p = exact(n, b->size);
    fill(b, p, n, seed, scale);
    return p;
}

static uint64_t hash(const backend *b, const void *data, ptrdiff_t n, uint64_t h)
{
    const unsigned char *bytes = data;
    for (ptrdiff_t i = 0; i < n * b->size; i++) {
        h = (h ^ bytes[i]) * UINT64_C(1099511628211);
    }
    return h;
}

typedef struct {
    fl_team *team;
    fl_job run;
    void *call;
    int number, workers;
} worker;

static void *work(void *argument)
{
    const worker *w = argument;
    fl_work_in(w->team, w->run, w->call, w->number, w->workers);
    return NULL;
}

static void run_team(fl_job run, void *call, int workers)
{
    enum { MOST = 8 };
    pthread_t threads[MOST];
    worker all[MOST];
    fl_team_space space;
    fl_team *team = fl_team_open(workers, &space);
    for (int i = 0; i < workers; i++) {
        all[i] = (worker){team, run, call, i, workers};
        if (i > 0 && pthread_create(&threads[i], NULL, work, &all[i])) {
            exit(2);
        }
    }
    work(&all[0]);
    for (int i = 1; i < workers; i++) {
        pthread_join(threads[i], NULL);
    }
    fl_team_close(team);
}

/* A call of forward as the plan would have it for this many workers. */
static void plan_for(const backend *b, fl_forward_call *f, int workers, int split_units)
{
    b->driver->plan_forward(f, (fl_team_limits){1, 1, 1, 1, fl_machine_caches()}, f->tape != NULL);
    /* As much for each worker: more than is needed. */
    const ptrdiff_t bytes = (workers - 1) * (f->plan.bytes - f->plan.row_pointers);
    const ptrdiff_t rows = (workers - 1) * (f->plan.z - f->plan.row_pointers);
    const ptrdiff_t z = rows + (workers - 1) * f->plan.z_worker;
    const ptrdiff_t zeros = z + (workers - 1) * f->plan.zeros_worker;
    const ptrdiff_t more = zeros + (workers - 1) * f->plan.zoneout_keep_worker;
    f->plan.team.workers = workers;
    f->plan.split_units = split_units;
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

/* For each state of a stack an array of its size, or a copy of those in `from`. */
static void new_states(const backend *b, const fl_stack *s, ptrdiff_t batch, void *const *from,
                       unsigned seed, void **states)
{
    for (int i = 0; i < fl_cells[s->cell].state_count; i++) {
        const ptrdiff_t n = s->layers * s->directions * batch * b->driver->state_size(s, i);
        states[i] = from ? exact(n, b->size) : filled(b, n, seed + (unsigned)i, 1);
        if (from) {
            memcpy(states[i], from[i], (size_t)(n * b->size));
        }
    }
}

/* Adds the states to a hash, the last first, and frees them. */
static uint64_t end_states(const backend *b, const fl_stack *s, ptrdiff_t batch, void **states,
                           uint64_t h)
{
    for (int i = fl_cells[s->cell].state_count - 1; i >= 0; i--) {
        const ptrdiff_t n = s->layers * s->directions * batch * b->driver->state_size(s, i);
        h = hash(b, states[i], n, h);
        free(states[i]);
    }
    return h;
}

/* Four shards, the first of them of no row; or none: one case in two has them. */
static fl_shards some_shards(const test_case *t)
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

static uint64_t run(const backend *b, const test_case *t, int workers, int split_units)
{
    const fl_stack stack = {
        .layers = t->layers,
        .directions = t->directions,
        .input = t->input,
        .hidden = t->hidden,
        .projection = t->projection,
        .bias = 1,
        .cell = t->cell,
        .options = t->options ? some_options(t->options == 2) : (fl_options){0},
    };
    const ptrdiff_t out = t->projection ? t->projection : t->hidden;
    /* What has options drops what U reads too. */
    const fl_dropout dropout = {42, t->dropout, t->projection || t->options ? t->dropout : 0,
                                1,  0,          0};
    const ptrdiff_t size = b->size, rows = t->steps * t->batch;
    const ptrdiff_t parameters = b->driver->parameters_size(&stack);
    const ptrdiff_t outputs = rows * t->directions * out;
    const ptrdiff_t count = t->tokens < 0 ? t->input : t->tokens;
    const ptrdiff_t inputs = (t->tokens ? count : rows) * t->input;
    const fl_shards shards = some_shards(t);
    const ptrdiff_t parts = shards.count ? shards.count : 1;
    const ptrdiff_t all_dx = (t->tokens ? parts : 1) * inputs, all_grads = parts * parameters;
    ptrdiff_t *token = t->tokens ? token_rows(rows, count) : NULL;
    const fl_tokens tokens = {token, count};
    const fl_rows ragged = t->ragged ? some_rows(t->steps, t->batch) : (fl_rows){0};
    void *flat = filled(b, parameters, 1, 0.4), *x = t->tokens < 0 ? NULL : filled(b, inputs, 2, 2);
    void *initial[FL_MAX_STATES];
    new_states(b, &stack, t->batch, NULL, 3, initial);
    void *dy = filled(b, outputs, 5, 1), *y = filled(b, outputs, 0, 0);
    void *dx = filled(b, all_dx, 0, 0), *grads = filled(b, all_grads, 0, 0);
    const ptrdiff_t sums_size = t->tokens ? parts * b->driver->sums_size(&stack, count) : 0;
    void *sums = exact_aligned(sums_size, size);
    memset(sums, 0, (size_t)(sums_size * size));
    void *forward = exact_aligned(b->driver->forward_size(&stack, b->kernels), size);
    void *backward = exact_aligned(b->driver->backward_size(&stack, b->kernels), size);
    const ptrdiff_t tape_size =
        b->driver->tape_size(&stack, b->kernels, t->steps, t->batch, &dropout);
    void *tape = exact_aligned(tape_size, size);
    fl_pack_call pack = {&stack, b->kernels, flat, NULL, forward};
    run_team(b->driver->pack_forward, &pack, workers);
    pack.packed = backward;
    run_team(b->driver->pack_backward, &pack, workers);

    uint64_t result = 0;
    for (int training = 0; training < 2; training++) {
        const ptrdiff_t width = t->directions * out;
        fl_forward_call f = {
            .stack = stack,
            .kernels = b->kernels,
            .packed = forward,
            .steps = t->steps,
            .batch = t->batch,
            .x = x,
            .x_step = t->batch * t->input,
            .x_row = t->input,
            .tokens = tokens,
            .rows = ragged,
            .y = y,
            .y_step = t->batch * width,
            .y_row = width,
            .tape = training ? tape : NULL,
            .dropout = training ? dropout : (fl_dropout){0},
        };
        new_states(b, &stack, t->batch, initial, 0, f.states);
        plan_for(b, &f, workers, split_units);
        f.scratch = exact_aligned(f.plan.scratch, size);
        run_team(b->driver->forward, &f, workers);
        result = hash(b, y, outputs, end_states(b, &stack, t->batch, f.states, result));
        free(f.scratch);
    }
    const ptrdiff_t width = t->directions * out;
    fl_backward_call call = {
        .stack = stack,
        .kernels = b->kernels,
        .packed = backward,
        .steps = t->steps,
        .batch = t->batch,
        .x = x,
        .x_step = t->batch * t->input,
        .x_row = t->input,
        .tokens = tokens,
        .rows = ragged,
        .shards = shards,
        .sums = sums,
        .tape = tape,
        .dropout = dropout,
        .dy = dy,
        .dy_step = t->batch * width,
        .dy_row = width,
        .dx = dx,
        .dx_step = t->batch * t->input,
        .dx_row = t->input,
        .grads = grads,
    };
    new_states(b, &stack, t->batch, NULL, 6, call.dstates);
    b->driver->plan_backward(&call, (fl_team_limits){1, 1, 1, 1, fl_machine_caches()});
    call.plan.team.workers = workers;
    call.plan.split_units = split_units;
    call.plan.scratch += (workers - 1) * call.plan.zoneout_keep_worker;
    call.scratch = exact_aligned(call.plan.scratch, size);
    run_team(b->driver->backward, &call, workers);
    result = hash(b, dx, all_dx, hash(b, grads, all_grads, result));
    result = end_states(b, &stack, t->batch, call.dstates, result);
    for (int i = 0; i < fl_cells[stack.cell].state_count; i++) {
        free(initial[i]);
    }

    void *all[] = {flat,
                   x,
                   dy,
                   y,
                   dx,
                   grads,
                   forward,
                   backward,
                   tape,
                   call.scratch,
                   sums,
                   (void *)shards.starts,
                   token,
                   (void *)ragged.order,
                   (void *)ragged.lengths,
                   (void *)ragged.starts,
                   (void *)ragged.reset};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
    return result;
}

/* Values that need no more bits than the type has. */
static void *weights_of(const backend *b, ptrdiff_t n, int weights)
{
    float *flat = filled(b, n, 1, 0.4);
    for (ptrdiff_t i = 0; i < n; i++) {
        flat[i] =
            weights == FL_INT8 ? (float)(int)(flat[i] * 300) : (float)(int)(flat[i] * 64) / 64;
    }
    return flat;
}

/* Inference with weights of fewer bits, of float. */
static uint64_t run_small(const backend *b, const test_case *t, int weights, int workers,
                          int split_units)
{
    const fl_stack stack = {
        .layers = t->layers,
        .directions = t->directions,
        .input = t->input,
        .hidden = t->hidden,
        .projection = t->projection,
        .bias = 1,
        .cell = t->cell,
        .weights = weights,
        .options = t->options ? some_options(t->options == 2) : (fl_options){0},
    };
    const ptrdiff_t rows = t->steps * t->batch, count = t->tokens < 0 ? t->input : t->tokens;
    const ptrdiff_t width = t->directions * (t->projection ? t->projection : t->hidden);
    const fl_tokens tokens = {t->tokens ? token_rows(rows, count) : NULL, count};
    const fl_rows ragged = t->ragged ? some_rows(t->steps, t->batch) : (fl_rows){0};
    void *flat = weights_of(b, b->driver->parameters_size(&stack), weights);
    void *x = t->tokens < 0 ? NULL : filled(b, (t->tokens ? count : rows) * t->input, 2, 2);
    void *y = filled(b, rows * width, 0, 0);
    void *scales = filled(b, b->driver->scales_size(&stack), 7, 0.01);
    void *packed = exact_aligned(b->driver->forward_size(&stack, b->kernels), b->size);
    fl_pack_call pack = {&stack, b->kernels, flat, weights == FL_INT8 ? scales : NULL, packed};
    run_team(b->driver->pack_forward, &pack, workers);
    fl_forward_call f = {
        .stack = stack,
        .kernels = b->kernels,
        .packed = packed,
        .steps = t->steps,
        .batch = t->batch,
        .x = x,
        .x_step = t->batch * t->input,
        .x_row = t->input,
        .tokens = tokens,
        .rows = ragged,
        .y = y,
        .y_step = t->batch * width,
        .y_row = width,
    };
    new_states(b, &stack, t->batch, NULL, 3, f.states);
    plan_for(b, &f, workers, split_units);
    f.scratch = exact_aligned(f.plan.scratch, b->size);
    run_team(b->driver->forward, &f, workers);
    const uint64_t states = end_states(b, &stack, t->batch, f.states, 0);
    const uint64_t result = hash(b, y, rows * width, states);
    void *all[] = {flat,
                   x,
                   y,
                   scales,
                   packed,
                   f.scratch,
                   (void *)tokens.rows,
                   (void *)ragged.order,
                   (void *)ragged.lengths,
                   (void *)ragged.starts,
                   (void *)ragged.reset};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
    return result;
}

static uint64_t run_head(const backend *b, const head_case *t, int workers)
{
    const ptrdiff_t size = b->size, weights = t->classes * t->hidden, outputs = t->n * t->hidden;
    void *y = filled(b, outputs, 1, 1), *weight = filled(b, weights, 2, 1);
    void *bias = filled(b, t->classes, 3, 1), *nll = exact(t->n, size), *dy = exact(outputs, size);
    void *dweight = filled(b, weights, 0, 0), *dbias = filled(b, t->classes, 0, 0);
    ptrdiff_t *targets = exact(t->n, sizeof *targets);
    for (ptrdiff_t i = 0; i < t->n; i++) {
        targets[i] = (i + 1) * 7919 % t->classes;
    }
    uint64_t result = 0;
    for (int training = 0; training < 2; training++) {
        fl_head_call call = {
            .kernels = b->kernels,
            .n = t->n,
            .hidden = t->hidden,
            .classes = t->classes,
            .y = y,
            .y_row = t->hidden,
            .weight = weight,
            .bias = bias,
            .targets = targets,
            .losses = nll,
            .dy = training ? dy : NULL,
            .dy_row = t->hidden,
            .scale = 1 / (double)t->n,
            .batch = t->n,
            .dweight = dweight,
            .dbias = dbias,
        };
        b->driver->plan_head(&call, (fl_team_limits){1, 1, 1, 1, fl_machine_caches()});
        call.scratch = exact_aligned(call.scratch_size, size);
        call.team.workers = workers;
        run_team(b->driver->head, &call, workers);
        result = hash(b, nll, t->n, result);
        free(call.scratch);
    }
    result = hash(b, dy, outputs, hash(b, dweight, weights, hash(b, dbias, t->classes, result)));
    void *all[] = {y, weight, bias, nll, dy, dweight, dbias, targets};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
    return result;
}

static int check_heads(const backend *b)
{
    int failures = 0;
    for (size_t i = 0; i < sizeof head_cases / sizeof *head_cases; i++) {
        const head_case *t = &head_cases[i];
        const uint64_t one = run_head(b, t, 1);
        printf("%s head N%td H%td V%td %016llx\n", b->type, t->n, t->hidden, t->classes,
               (unsigned long long)one);
        for (int workers = 2; workers <= 3 && workers <= t->n; workers++) {
            if (run_head(b, t, workers) != one) {
                printf("  differs with %d workers\n", workers);
                failures++;
            }
        }
    }
    return failures;
}

static uint64_t run_case(const backend *b, const test_case *t, int weights, int workers,
                         int split_units)
{
    return weights ? run_small(b, t, weights, workers, split_units)
                   : run(b, t, workers, split_units);
}

/* How often the result is another one with more workers. */
static int check_case(const backend *b, const test_case *t, int weights)
{
    static const char *const types[] = {"", " bfloat16", " float16", " int8"};
    const uint64_t one = run_case(b, t, weights, 1, 0);
    int failures = 0;
    printf("%s%s cell %d options %d P%td L%td D%td I%td H%td B%td T%td V%td%s %016llx\n", b->type,
           types[weights], t->cell, t->options, t->projection, t->layers, t->directions, t->input,
           t->hidden, t->batch, t->steps, t->tokens, t->ragged ? " ragged" : "",
           (unsigned long long)one);
    for (int workers = 2; workers <= 3; workers++) {
        const int most = t->options == 2 ? 1 : 2; /* a layer norm needs whole rows */
        for (int split_units = 0; split_units < most; split_units++) {
            if (run_case(b, t, weights, workers, split_units) != one) {
                printf("  differs with %d workers sharing %s\n", workers,
                       split_units ? "units" : "rows");
                failures++;
            }
        }
    }
    return failures;
}

/* All but products of bytes; each case with one of the two types of 16 bits, in turn. */
static int check_floats(const backend *f32, const backend *f64)
{
    int failures = check_heads(f32) + check_heads(f64);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        failures += check_case(f32, &cases[i], FL_SAME);
        failures += check_case(f64, &cases[i], FL_SAME);
        failures += check_case(f32, &cases[i], i % 2 ? FL_FLOAT16 : FL_BFLOAT16);
    }
    return failures;
}

/* Whether products of bytes are all it has of its own, so that the rest is another one's run. */
static int only_of_bytes(const fl_isa *isa)
{
    static const struct {
        const char *name, *of_double;
    } rows[] = {
#define FL_ISA(name, platform, needs, bytes, flags, flags_msvc, of_double) {#name, #of_double},
#include "cpu/isas.def"
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].name, isa->name) == 0) {
            return strcmp(rows[i].name, rows[i].of_double) != 0;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    const fl_isa *isa = NULL;
    for (int i = 0; argc == 2 && fl_isa_at(i); i++) {
        if (strcmp(fl_isa_at(i)->name, argv[1]) == 0) {
            isa = fl_isa_at(i);
        }
    }
    if (!isa) {
        fprintf(stderr, "usage: harness ISA, where this CPU can run:");
        for (int i = 0; fl_isa_at(i); i++) {
            fprintf(stderr, " %s", fl_isa_at(i)->name);
        }
        fprintf(stderr, "\n");
        return 2;
    }
    const backend f32 = {&fl_driver_f32, "float32", isa->f32, 4};
    const backend f64 = {&fl_driver_f64, "float64", isa->f64, 8};
    int failures = only_of_bytes(isa) ? 0 : check_floats(&f32, &f64);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        failures += check_case(&f32, &cases[i], FL_INT8);
    }
    return failures ? 1 : 0;
}
