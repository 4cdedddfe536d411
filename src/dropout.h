/* Dropout between layers with a counter-based generator: whether an element is kept depends on the
 * key, the layer and the element's number alone, so masks are the same whatever the threads. */
#ifndef FL_DROPOUT_H
#define FL_DROPOUT_H

#include "layout.h"

/* The finalizer of splitmix64 (Steele, Lea, Flood 2014): a bijection that passes BigCrush on
 * consecutive counters. */
static inline uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* out[n] = kept ? in[n] / (1 - rate) : 0 for elements first .. first + n - 1 of a layer's output.
 * in and out may be the same. */
static void dropout_apply(const fl_dropout *dropout, ptrdiff_t layer, ptrdiff_t first, ptrdiff_t n,
                          const real *in, real *out)
{
    const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);
    const uint64_t key = mix64(dropout->key + golden * (uint64_t)(layer + 1));
    const uint64_t threshold = (uint64_t)(dropout->rate * 9007199254740992.0); /* 2^53 */
    const real scale = dropout->rate < 1 ? (real)(1 / (1 - dropout->rate)) : 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint64_t draw = mix64(key + golden * (uint64_t)(first + i)) >> 11;
        out[i] = draw < threshold ? 0 : in[i] * scale;
    }
}

#endif
