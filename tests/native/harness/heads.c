/* A head, with and without gradients. */
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
