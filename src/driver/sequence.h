/* Sequences in memory: what a pass reads and writes. */
#ifndef FL_DRIVER_SEQUENCE_H
#define FL_DRIVER_SEQUENCE_H

#include "base/align.h"
#include "base/real.h"
#include "base/team.h"

/* A sequence in memory: step t, row b starts at data + t*step + b*row, features adjacent.  With
 * tokens, data is a table, and tokens[t*step + b] the number of a row of it. */
typedef struct {
    const real *data;
    ptrdiff_t step, row;
    const ptrdiff_t *tokens;
} source;

typedef struct {
    real *data;
    ptrdiff_t step, row;
} sink;

static inline const real *source_at(const source *s, ptrdiff_t t, ptrdiff_t b)
{
    if (s->tokens) {
        return s->data + s->tokens[t * s->step + b] * s->row;
    }
    return s->data + t * s->step + b * s->row;
}

static inline real *sink_at(const sink *s, ptrdiff_t t, ptrdiff_t b)
{
    return s->data + t * s->step + b * s->row;
}

/* Asks for the lines of n elements that a product will leave its results in. */
static inline void fetch_to_write(const real *p, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += FL_ALIGN / (ptrdiff_t)sizeof(real)) {
        FL_PREFETCH_WRITE(p + i);
    }
}

#endif
