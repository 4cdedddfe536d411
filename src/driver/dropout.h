/* Dropout and zoneout with a counter-based generator: whether an element is kept depends on the
 * key, the layer and the element's number alone, so masks are the same whatever the threads.
 *
 * Each purpose draws from a stream of its own: layer l's output from stream l; zoneout of h,
 * zoneout of c, and recurrent dropout of a layer and direction from L + 3 (l D + d) + 0, 1, 2.  An
 * element's number counts units, rows and steps, in this order; recurrent dropout has no steps. */
#ifndef FL_DRIVER_DROPOUT_H
#define FL_DRIVER_DROPOUT_H

#include "base/arena.h"
#include "base/random.h"
#include "kernels/table.h"
#include "layout/stack.h"

/* The number of a row at a step: what is drawn for it does not depend on the other rows of a call.
 */
static inline ptrdiff_t number_of_row(const fl_dropout *dropout, ptrdiff_t batch, ptrdiff_t step,
                                      ptrdiff_t b)
{
    return step * (dropout->batch ? dropout->batch : batch) + dropout->first_row + b;
}

static inline uint64_t threshold_of(double rate) { return (uint64_t)(rate * 9007199254740992.0); }

static inline real scale_of(double rate) { return rate < 1 ? (real)(1 / (1 - rate)) : 0; }

/* out[n] = kept ? in[n] / (1 - rate) : 0 for elements first .. first + n - 1 of a layer's output.
 * in and out may be the same. */
static void dropout_apply(const fl_dropout *dropout, ptrdiff_t layer, ptrdiff_t first, ptrdiff_t n,
                          const real *in, real *out)
{
    const uint64_t stream = stream_key(dropout->key, layer);
    const uint64_t threshold = threshold_of(dropout->rate);
    const real scale = scale_of(dropout->rate);
    for (ptrdiff_t i = 0; i < n; i++) {
        out[i] = draw_of(stream, first + i) < threshold ? 0 : in[i] * scale;
    }
}

static inline ptrdiff_t stream_of(const fl_stack *s, ptrdiff_t l, ptrdiff_t d, int purpose)
{
    return s->layers + 3 * (l * s->directions + d) + purpose;
}

/* What the n units of row b are multiplied by before U: 0 or 1 / (1 - rate). */
static void draw_recurrent_mask(const fl_stack *s, const fl_dropout *dropout, ptrdiff_t l,
                                ptrdiff_t d, ptrdiff_t b, ptrdiff_t n, real *out)
{
    const uint64_t stream = stream_key(dropout->key, stream_of(s, l, d, 2));
    const uint64_t threshold = threshold_of(dropout->recurrent);
    for (ptrdiff_t i = 0; i < n; i++) {
        out[i] = draw_of(stream, (dropout->first_row + b) * n + i) < threshold
                     ? 0
                     : scale_of(dropout->recurrent);
    }
}

/* Zoneout of a state: how much of it stays as it was. */
typedef struct {
    double rate;
    int random; /* 0 or 1, 1 with that rate; else the rate itself */
    uint64_t stream;
    const fl_dropout *dropout;
    ptrdiff_t batch, width, first_step;
} zoneout;

static inline zoneout zoneout_of(const fl_stack *s, const fl_dropout *dropout, ptrdiff_t l,
                                 ptrdiff_t d, int of_c, ptrdiff_t batch)
{
    return (zoneout){
        .rate = of_c ? s->options.zoneout_c : s->options.zoneout_h,
        .random = dropout->zoneout,
        .stream = stream_key(dropout->key, stream_of(s, l, d, of_c)),
        .dropout = dropout,
        .batch = batch,
        .width = of_c ? s->hidden : output_size(s),
    };
}

/* Factors of n units of row b at a time, from `unit` on: into out, which is returned. */
static const real *draw_zoneout_keep(const fl_kernels *k, const zoneout *z, ptrdiff_t time,
                                     ptrdiff_t b, ptrdiff_t unit, ptrdiff_t n, real *out)
{
    if (z->random) {
        const ptrdiff_t row = number_of_row(z->dropout, z->batch, z->first_step + time, b);
        const ptrdiff_t first = row * z->width + unit;
        k->draw(n, z->stream, first, threshold_of(z->rate), out);
        return out;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        out[i] = (real)z->rate;
    }
    return out;
}

/* Factors of zoneout for a tile of rows. */
static inline ptrdiff_t zoneout_keep_size(const fl_stack *s)
{
    return has_zoneout(s) ? aligned(FL_MAX_ROWS * s->hidden) : 0;
}

#endif
