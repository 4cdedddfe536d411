/* The losses of a head's outputs, and their gradients. */
#ifndef FL_DRIVER_HEADS_LOSSES_H
#define FL_DRIVER_HEADS_LOSSES_H

#include "driver/heads/log_of_sum.h"
#include "driver/tiles.h"

/* Some predictions of one block: their outputs z, in whose place the gradients of loss * scale are
 * left, and where the rest of them is. */
typedef struct {
    ptrdiff_t n, classes;
    real *z;               /* rows z_row apart; -inf from the last class to the next whole line */
    ptrdiff_t z_row;       /* a multiple of FL_SUM_LANES, as the next */
    ptrdiff_t padded;      /* classes, rounded up */
    const ptrdiff_t *rows; /* [n]: numbers of the predictions */
    const real *scales;    /* [n], or NULL: no gradients */
} head_outputs;

static void cross_entropy(const fl_kernels *k, const head_outputs *of, const ptrdiff_t *targets,
                          real *losses)
{
    real sum[FL_TERMS], margin[FL_TERMS];
    ptrdiff_t target[FL_TERMS];
    for (ptrdiff_t i = 0; i < of->n; i++) {
        target[i] = targets[of->rows[i]];
    }
    const fl_softmax block = {
        .logits = of->z,
        .row = of->z_row,
        .n = of->padded,
        .targets = target,
        .scales = of->scales,
        .sum = sum,
        .margin = margin,
    };
    k->softmax(of->n, &block);
    for (ptrdiff_t i = 0; i < of->n; i++) {
        losses[of->rows[i]] = (real)(log_of_sum((double)sum[i]) + (double)margin[i]);
    }
}

/* Half the sum of the squares of what differs from the values, [N][classes]. */
static void squared_errors(const head_outputs *of, const real *values, real *losses)
{
    for (ptrdiff_t i = 0; i < of->n; i++) {
        real *z = of->z + i * of->z_row, sum = 0;
        const real *value = values + of->rows[i] * of->classes;
        for (ptrdiff_t v = 0; v < of->padded; v++) {
            const real error = v < of->classes ? z[v] - value[v] : 0;
            sum += error * error;
            z[v] = of->scales ? of->scales[i] * error : 0;
        }
        losses[of->rows[i]] = sum / 2;
    }
}

/* A prediction that does not count may be of not-a-numbers. */
static void clear_weightless(const head_outputs *of)
{
    for (ptrdiff_t i = 0; of->scales && i < of->n; i++) {
        if (of->scales[i] == 0) {
            memset(of->z + i * of->z_row, 0, (size_t)of->padded * sizeof(real));
        }
    }
}

#endif
