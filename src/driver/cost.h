/* What a step costs, in cycles of a core: products, weights that are read, and meetings.
 *
 * The model only has to put plans in order.  Its rates are those of an Intel Xeon (Emerald and
 * Granite Rapids, 2.5 to 3.5 GHz), where plans differ most:
 *
 *   two vectors of multiply-adds a cycle                               190 to 240 GFLOP/s, float32
 *   40 bytes a cycle from L2                                           90 to 137 GB/s
 *   10 bytes a cycle from L3, on AMD 22 (see cpu/caches.c)             30 and 83 GB/s
 *   half of what is read from L3 hides behind the products, more if it is little
 *   4000 cycles for a meeting after a step, with the wait for the slower one, and 2 bytes a cycle
 *   of what the others have written since                              3.2 us at H = 128, 32 rows
 *
 * Zen 4 computes one vector a cycle: with that, plans for two workers cost up to 3% more than the
 * best would, for eight up to 18% (by the model). */
#ifndef FL_DRIVER_COST_H
#define FL_DRIVER_COST_H

#include "base/arena.h"
#include "fastlstm.h"

/* What one worker computes of a step: W x + U h, columns being those of the pre-activations. */
typedef struct {
    ptrdiff_t lanes, rows, columns;
    ptrdiff_t inputs, outputs; /* of x and of h */
    ptrdiff_t ahead;           /* steps whose W x precedes the recurrence, or 0 */
    double weight_bytes;       /* of one weight */
    int rate;                  /* products in the time of a multiply-add */
    ptrdiff_t written;         /* elements that the others have written since, and this one reads */
    int meets;                 /* with others, after the step */
} step_cost;

/* Cycles of a product of k terms with weights that are used for so many steps. */
static double product_cycles(const step_cost *s, ptrdiff_t k, ptrdiff_t steps)
{
    const double weights = (double)s->columns * (double)k;
    const double products = weights * (double)s->rows / (2.0 * (double)s->lanes * s->rate);
    const double read = weights * s->weight_bytes / (40.0 * (double)steps);
    return products > read ? products : read;
}

/* The part of L2 that weights have for themselves. */
static inline double weights_in_l2(const fl_caches *caches)
{
    return 0.75 * (double)caches->l2 / caches->l2_sharers;
}

static inline double beyond(double bytes, double cache)
{
    return bytes > cache ? bytes - cache : 0;
}

static double cycles_of(const step_cost *s, const fl_caches *caches)
{
    const double row = (double)s->columns * s->weight_bytes, l2 = weights_in_l2(caches);
    const double w = row * (double)s->inputs, u = row * (double)s->outputs;
    const double z = (double)(s->columns * s->rows) * (double)sizeof(real),
                 ahead = (double)s->ahead;
    double cycles, from_l3 = beyond(w + u, l2);
    if (s->ahead == 0) {
        cycles = product_cycles(s, s->inputs + s->outputs, 1);
    } else {
        cycles = product_cycles(s, s->outputs, 1) + product_cycles(s, s->inputs, s->ahead);
        cycles *= 1.01; /* pre-activations are written, and read again */
        cycles += z * ahead > l2 / 3 ? 3 * z / caches->l3_rate : 0;
        from_l3 = beyond(u, l2) + (from_l3 > 0 ? w / ahead : 0);
    }
    const double reading = from_l3 / caches->l3_rate;
    cycles += reading * (reading < cycles ? reading / cycles : 1) / 2;
    if (s->meets) {
        cycles += 4000 + (double)s->written * (double)sizeof(real) / 2;
    }
    return cycles;
}

#endif
