/* Softmax of rows, the parts of its cross-entropy, and those of the logarithm of a sum. */
#ifndef FL_KERNELS_SOFTMAX_H
#define FL_KERNELS_SOFTMAX_H

#include "kernels/tile.h"

#include <math.h>

/* A NaN may be lost here, but it still reaches the sum of the exponentials. */
FL_INLINE real largest_of(const real *p, ptrdiff_t n)
{
    vec top = v_load(p);
    for (ptrdiff_t j = VL; j < n; j += VL) {
        top = v_max(top, v_load(p + j));
    }
    real lanes[VL];
    v_storeu(lanes, top);
    FL_UNROLL
    for (int width = VL / 2; width > 0; width /= 2) {
        FL_UNROLL
        for (int i = 0; i < width; i++) {
            lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
        }
    }
    return lanes[0];
}

/* out = e^(p - top); returns the sum. */
FL_INLINE real shifted_exponentials(const real *p, ptrdiff_t n, real top, real *out)
{
    vec sum[SUM_VECTORS];
    FL_UNROLL
    for (int i = 0; i < SUM_VECTORS; i++) {
        sum[i] = v_set1(0);
    }
    for (ptrdiff_t j = 0; j < n; j += FL_SUM_LANES) {
        FL_UNROLL
        for (int i = 0; i < SUM_VECTORS; i++) {
            vec e = v_exp(v_sub(v_load(p + j + i * VL), v_set1(top)));
            v_store(out + j + i * VL, e);
            sum[i] = v_add(sum[i], e);
        }
    }
    return total_of(sum);
}

static real exponentials(ptrdiff_t n, const real *p, real *out, real *largest)
{
    const real top = largest_of(p, n);
    *largest = top;
    return shifted_exponentials(p, n, top == -(real)INFINITY ? 0 : top, out);
}

static void softmax(ptrdiff_t rows, const fl_softmax *t)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        real *p = t->logits + r * t->row;
        const real top = largest_of(p, t->n);
        t->margin[r] = top - p[t->targets[r]];
        t->sum[r] = shifted_exponentials(p, t->n, top, p);
        if (t->scales) {
            const vec factor = v_set1(t->scales[r] / t->sum[r]);
            for (ptrdiff_t j = 0; j < t->n; j += VL) {
                v_store(p + j, v_mul(v_load(p + j), factor));
            }
            p[t->targets[r]] -= t->scales[r];
        }
    }
}

#endif
