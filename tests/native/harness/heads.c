/* A head, with and without gradients; a conditional random field, and CTC. */
#include "harness.h"

#include <stdlib.h>

uint64_t run_head(const backend *b, const head_case *t, int workers)
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
        b->driver->plan_head(&call, one_thread());
        call.scratch = exact_aligned(call.scratch_size, size);
        call.team.workers = workers;
        run_team(b->driver->head, &call, workers);
        result = hash(b, nll, t->n, result);
        free(call.scratch);
    }
    result = hash(b, dy, outputs, hash(b, dweight, weights, hash(b, dbias, t->classes, result)));
    FREE_ALL(y, weight, bias, nll, dy, dweight, dbias, targets);
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
