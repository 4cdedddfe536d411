/* The machine's limits, in the vector operations of one instruction set: included by kernels.h.
 *
 * Both results only keep the compiler from leaving the work out. */
#ifndef FL_KERNELS_PROBE_H
#define FL_KERNELS_PROBE_H

#include "kernels/tile.h"

/* Chains in flight: multiply-adds take 4 to 5 cycles on 1 to 2 units (4 units on some Arm cores),
 * additions no longer, so that 12 are enough for 16 registers and 24 fit in 32. */
enum { FMA_CHAINS = FL_VECTOR_REGISTERS * 3 / 4, READ_CHAINS = FL_VECTOR_REGISTERS / 2 };

FL_INLINE real sum_of(const vec *acc, int n)
{
    real lanes[VL], sum = 0;
    for (int j = 0; j < n; j++) {
        v_storeu(lanes, acc[j]);
        for (int i = 0; i < VL; i++) {
            sum += lanes[i];
        }
    }
    return sum;
}

static real probe_fma(ptrdiff_t n)
{
    vec acc[FMA_CHAINS];
    /* Unequal chains cannot be merged, and a product with the chain itself cannot be moved out of
     * the loop.  The values go to about 1, far from denormal. */
    const vec x = v_set1((real)1 / (real)(n + 2)), y = v_set1((real)1);
    FL_UNROLL
    for (int j = 0; j < FMA_CHAINS; j++) {
        acc[j] = v_set1((real)(j + 1));
    }
    for (ptrdiff_t i = 0; i < n; i += FMA_CHAINS) {
        FL_UNROLL
        for (int j = 0; j < FMA_CHAINS; j++) {
            acc[j] = v_fma(acc[j], x, y);
        }
    }
    return sum_of(acc, FMA_CHAINS);
}

static real probe_read(const real *p, ptrdiff_t n, ptrdiff_t repeats)
{
    vec acc[READ_CHAINS];
    FL_UNROLL
    for (int j = 0; j < READ_CHAINS; j++) {
        acc[j] = v_set1((real)j);
    }
    for (ptrdiff_t repeat = 0; repeat < repeats; repeat++) {
        for (ptrdiff_t i = 0; i < n; i += READ_CHAINS * VL) {
            FL_UNROLL
            for (int j = 0; j < READ_CHAINS; j++) {
                acc[j] = v_add(acc[j], v_load(p + i + j * VL));
            }
        }
    }
    return sum_of(acc, READ_CHAINS);
}

#endif
