/* The losses of a head's outputs, and their gradients. */
#ifndef FL_DRIVER_HEADS_LOSSES_H
#define FL_DRIVER_HEADS_LOSSES_H

#include "driver/tiles.h"

#include <math.h>

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

#endif
