/* A head: linear layer and loss, together and each on its own; a conditional random field; CTC. */
#include "harness.h"

#include <stdlib.h>

/* Runs a call; returns the hash of what it has written, added to `result`. */
static uint64_t run(const backend *b, fl_head_call call, int workers, uint64_t result)
{
    const ptrdiff_t weights = call.classes * call.hidden, outputs = call.n * call.classes;
    call.kernels = b->kernels;
    call.batch = call.n;
    call.y_row = call.dy_row = call.hidden;
    call.scale = 1 / (double)call.n;
    call.losses = call.targets || call.values ? exact(call.n, b->size) : NULL;
    b->driver->plan_head(&call, one_thread());
    call.scratch = exact_aligned(call.scratch_size, b->size);
    call.team.workers = workers;
    run_team(b->driver->head, &call, workers);
    const struct {
        const void *data;
        ptrdiff_t n;
    } written[] = {
        {call.losses, call.n},   {call.z_out, outputs},      {call.dy, call.n * call.hidden},
        {call.dweight, weights}, {call.dbias, call.classes},
    };
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        if (written[i].data) {
            result = hash(b, written[i].data, written[i].n, result);
        }
    }
    FREE_ALL(call.losses, call.scratch);
    return result;
}

uint64_t run_head(const backend *b, const head_case *t, int workers)
{
    const ptrdiff_t weights = t->classes * t->hidden, inputs = t->n * t->hidden;
    const ptrdiff_t outputs = t->n * t->classes;
    void *y = filled(b, inputs, 1, 1), *weight = filled(b, weights, 2, 1);
    void *bias = filled(b, t->classes, 3, 1), *z = filled(b, outputs, 4, 1);
    void *of_rows = filled(b, t->n, 5, 1);
    void *dy = exact(inputs, b->size), *z_out = exact(outputs, b->size);
    void *dweight = filled(b, weights, 0, 0), *dbias = filled(b, t->classes, 0, 0);
    ptrdiff_t *targets = exact(t->n, sizeof *targets);
    for (ptrdiff_t i = 0; i < t->n; i++) {
        targets[i] = (i + 1) * 7919 % t->classes;
    }
    const fl_head_call size = {.n = t->n, .hidden = t->hidden, .classes = t->classes};
    fl_head_call loss = size, layer = size, back = size;
    layer.y = back.y = y;
    layer.weight = back.weight = weight;
    layer.bias = bias;
    fl_head_call fused = layer;
    fused.targets = targets;
    uint64_t result = run(b, fused, workers, 0);
    fused.dy = dy, fused.dweight = dweight, fused.dbias = dbias;
    result = run(b, fused, workers, result);
    layer.z_out = z_out;
    result = run(b, layer, workers, result);
    layer.bias = NULL;
    result = run(b, layer, workers, result);
    back.z = z;
    back.dweight = dweight;
    result = run(b, back, workers, result); /* no gradient of y, nor of a bias */
    back.dy = dy, back.dbias = dbias;
    result = run(b, back, workers, result);
    loss.z = z, loss.hidden = 0;
    loss.targets = targets;
    result = run(b, loss, workers, result);
    loss.z_out = z_out, loss.weights = of_rows;
    result = run(b, loss, workers, result);
    loss.targets = NULL, loss.values = z;
    result = run(b, loss, workers, result);
    FREE_ALL(y, weight, bias, z, of_rows, dy, z_out, dweight, dbias, targets);
    return result;
}

/* Whole numbers from 0 to below `below`, the same for every call. */
static ptrdiff_t *numbers(ptrdiff_t n, ptrdiff_t below)
{
    ptrdiff_t *found = exact(n, sizeof *found);
    for (ptrdiff_t i = 0; i < n; i++) {
        found[i] = (i + 3) * 7919 / 5 % below;
    }
    return found;
}

static void crf_job(const backend *b, fl_crf_call *call, fl_job job, int workers)
{
    b->driver->plan_crf(call, one_thread());
    call->scratch_size *= workers; /* of one: more than they need */
    call->scratch = exact_aligned(call->scratch_size, b->size);
    run_team(job, call, workers);
    free(call->scratch);
}

uint64_t run_crf(const backend *b, const rows_case *t, int workers)
{
    const ptrdiff_t tags = t->classes, pairs = tags * tags, rows = t->steps * t->batch;
    void *emissions = filled(b, rows * tags, 1, t->scale), *pair = filled(b, pairs, 2, t->scale);
    void *start = filled(b, tags, 3, 1), *end = filled(b, tags, 4, 1);
    void *nll = exact(t->batch, b->size), *marginals = exact(rows * tags, b->size);
    void *grads = exact(pairs + 2 * tags, b->size);
    ptrdiff_t *labels = numbers(rows, tags), *lengths = numbers(t->batch, t->steps + 1);
    ptrdiff_t *path = exact(rows, sizeof *path);
    lengths[0] = t->steps;
    for (ptrdiff_t i = 0; i < rows; i++) {
        path[i] = 0;
    }
    fl_crf_call call = {
        .kernels = b->kernels,
        .steps = t->steps,
        .batch = t->batch,
        .tags = tags,
        .emissions = emissions,
        .emissions_step = t->batch * tags,
        .emissions_row = tags,
        .transitions = pair,
        .start = start,
        .end = end,
        .lengths = lengths,
        .nll = nll,
        .marginals = marginals,
    };
    crf_job(b, &call, b->driver->crf, workers);
    uint64_t result = hash(b, nll, t->batch, hash(b, marginals, rows * tags, 0));
    call.labels = labels;
    call.grads = grads;
    crf_job(b, &call, b->driver->crf, workers);
    result = hash(b, nll, t->batch, hash(b, marginals, rows * tags, result));
    result = hash(b, grads, pairs + 2 * tags, result);
    call.labels = NULL;
    call.path = path;
    crf_job(b, &call, b->driver->crf_decode, workers);
    for (ptrdiff_t i = 0; i < rows; i++) {
        result = result * 31 + (uint64_t)path[i];
    }
    FREE_ALL(emissions, pair, start, end, nll, marginals, grads, labels, lengths, path);
    return result;
}

uint64_t run_ctc(const backend *b, const rows_case *t, int workers)
{
    const ptrdiff_t rows = t->steps * t->batch, blank = t->classes - 1;
    void *logits = filled(b, rows * t->classes, 1, t->scale), *nll = exact(t->batch, b->size);
    void *dlogits = exact(rows * t->classes, b->size);
    ptrdiff_t *targets = numbers(t->batch * t->targets, blank);
    ptrdiff_t *lengths = numbers(t->batch, t->steps + 1);
    ptrdiff_t *counts = numbers(t->batch, t->targets + 1);
    lengths[0] = t->steps;
    counts[0] = t->targets;
    fl_ctc_call call = {
        .kernels = b->kernels,
        .steps = t->steps,
        .batch = t->batch,
        .symbols = t->classes,
        .logits = logits,
        .logits_step = t->batch * t->classes,
        .logits_row = t->classes,
        .lengths = lengths,
        .targets = targets,
        .targets_row = t->targets,
        .target_lengths = counts,
        .most_targets = t->targets,
        .blank = blank,
        .nll = nll,
        .dlogits = dlogits,
    };
    b->driver->plan_ctc(&call, one_thread());
    call.scratch = exact_aligned(call.scratch_size * workers, b->size);
    run_team(b->driver->ctc, &call, workers);
    const uint64_t result = hash(b, nll, t->batch, hash(b, dlogits, rows * t->classes, 0));
    FREE_ALL(logits, nll, dlogits, targets, lengths, counts, call.scratch);
    return result;
}
