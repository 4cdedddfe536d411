/* Pieces of a block of memory, each aligned. */
#ifndef FL_BASE_ARENA_H
#define FL_BASE_ARENA_H

#include "base/align.h"
#include "base/real.h"

static inline ptrdiff_t divide_up(ptrdiff_t n, ptrdiff_t by) { return (n + by - 1) / by; }

static inline ptrdiff_t minimum(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* Rounded up to whole cache lines, so that what follows is aligned. */
static inline ptrdiff_t aligned(ptrdiff_t elements)
{
    const ptrdiff_t line = FL_ALIGN / (ptrdiff_t)sizeof(real);
    return divide_up(elements, line) * line;
}

/* Hands out pieces of a block one after the other; with a NULL base it measures. */
typedef struct {
    real *base;
    ptrdiff_t used;
} arena;

static inline real *arena_take(arena *a, ptrdiff_t elements)
{
    real *piece = a->base ? a->base + a->used : NULL;
    a->used += aligned(elements);
    return piece;
}

static inline real *arena_take_if(arena *a, int condition, ptrdiff_t elements)
{
    return condition ? arena_take(a, elements) : NULL;
}

#endif
