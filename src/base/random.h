/* A counter-based generator: a number is drawn by its key and its number alone. */
#ifndef FL_BASE_RANDOM_H
#define FL_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

#define FL_GOLDEN UINT64_C(0x9e3779b97f4a7c15) /* 2^64 / golden ratio */

/* The finalizer of splitmix64 (Steele, Lea, Flood 2014): a bijection that passes BigCrush on
 * consecutive counters. */
static inline uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Draws are uniform integers below 2^53. */
static inline uint64_t stream_key(uint64_t key, ptrdiff_t stream)
{
    return mix64(key + FL_GOLDEN * (uint64_t)(stream + 1));
}

static inline uint64_t draw_of(uint64_t stream, ptrdiff_t number)
{
    return mix64(stream + FL_GOLDEN * (uint64_t)number) >> 11;
}

#endif
