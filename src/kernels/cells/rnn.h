/* The element-wise part of a step of a plain RNN. */
#ifndef FL_KERNELS_CELLS_RNN_H
#define FL_KERNELS_CELLS_RNN_H

#include "kernels/tile.h"

/* h = tanh or max(0, .) of the one slot; out goes h. */
FL_INLINE void rnn_tile(const int relu, ptrdiff_t rows, ptrdiff_t groups, const fl_tile *t)
{
    for (ptrdiff_t j = 0; j < groups; j++) {
        const ptrdiff_t at = (t->block + j) * VL, n = t->units - at;
        for (ptrdiff_t r = 0; r < rows; r++) {
            vec z = v_load(t->z + r * t->z_row + j * GROUP);
            vec h = relu ? rectified(z) : v_tanh(z);
            v_store(t->gates + r * t->gates_row + j * GROUP, h);
            store_part(t->after[FL_STATE_C][r] + at, h, n);
            store_part(t->h[r] + at, h, n);
            if (t->y) {
                store_part(t->y[r] + at, h, n);
            }
        }
    }
}

static void rnn_tanh_tile(ptrdiff_t rows, ptrdiff_t groups, const fl_tile *t)
{
    rnn_tile(0, rows, groups, t);
}

static void rnn_relu_tile(ptrdiff_t rows, ptrdiff_t groups, const fl_tile *t)
{
    rnn_tile(1, rows, groups, t);
}

FL_INLINE void rnn_gradient(const int relu, ptrdiff_t rows, const fl_gradient *t)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < 4 && j * VL < t->units; j++) {
            const ptrdiff_t at = j * VL, n = t->units - at;
            vec h = v_load(t->gates + r * t->gates_row + j * GROUP);
            vec dh = v_add(v_load(t->dh + r * t->dh_row + at),
                           load_part(t->d_states[FL_STATE_C][r] + at, n));
            vec dz = relu ? v_mul(dh, positive(h)) : through_tanh(dh, h);
            store_part(t->dz + r * t->dz_row + at, dz, n);
            store_part(t->d_states[FL_STATE_C][r] + at, v_set1(0), n);
        }
    }
}

static void rnn_tanh_gradient(ptrdiff_t rows, const fl_gradient *t) { rnn_gradient(0, rows, t); }

static void rnn_relu_gradient(ptrdiff_t rows, const fl_gradient *t) { rnn_gradient(1, rows, t); }

#endif
