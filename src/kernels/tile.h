/* Small pieces that the kernels of all cells are made of. */
#ifndef FL_KERNELS_TILE_H
#define FL_KERNELS_TILE_H

#include "kernels/table.h"
#include "simd/vmath.h"

enum { GROUP = 4 * VL };

/* Whole vectors are the rule; only the last one of a row can be short. */
FL_INLINE vec load_part(const real *p, ptrdiff_t n)
{
    return n >= VL ? v_loadu(p) : v_load_n(p, n);
}

FL_INLINE void store_part(real *p, vec v, ptrdiff_t n)
{
    if (n >= VL) {
        v_storeu(p, v);
    } else {
        v_store_n(p, v, n);
    }
}

/* With s the gate's own output: sigmoid' = s (1 - s), tanh' = 1 - s s. */
FL_INLINE vec through_sigmoid(vec d, vec s) { return v_mul(d, v_fnma(s, s, s)); }

FL_INLINE vec through_tanh(vec d, vec s) { return v_mul(d, v_fnma(s, s, v_set1(1))); }

/* max(0, x), and +0 for either zero, on every instruction set: the sum settles its sign. */
FL_INLINE vec rectified(vec x) { return v_add(v_max(v_set1(0), x), v_set1(0)); }

/* 1 for every positive number, 0 for 0. */
FL_INLINE vec positive(vec x)
{
    const real huge = FL_DOUBLE ? (real)0x1p1022 : (real)0x1p126f;
    return v_min(v_set1(1), v_mul(x, v_set1(huge)));
}

/* keep a + (1 - keep) b: exactly a or b where keep is 1 or 0. */
FL_INLINE vec mixed_of(vec keep, vec a, vec b) { return v_fma(keep, a, v_fnma(keep, b, b)); }

enum { SUM_VECTORS = FL_SUM_LANES / VL };

/* The sum of FL_SUM_LANES partial sums, in the same order for every vector length. */
FL_INLINE real total_of(const vec *sum)
{
    vec half[SUM_VECTORS];
    FL_UNROLL
    for (int i = 0; i < SUM_VECTORS; i++) {
        half[i] = sum[i];
    }
    FL_UNROLL
    for (int width = SUM_VECTORS / 2; width > 0; width /= 2) {
        FL_UNROLL
        for (int i = 0; i < width; i++) {
            half[i] = v_add(half[i], half[i + width]);
        }
    }
    return v_sum(half[0]);
}

#endif
