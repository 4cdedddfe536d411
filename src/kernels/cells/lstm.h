/* The element-wise part of a step of a plain LSTM. */
#ifndef FL_KERNELS_CELLS_LSTM_H
#define FL_KERNELS_CELLS_LSTM_H

#include "kernels/tile.h"

static void lstm_tile(ptrdiff_t rows, ptrdiff_t groups, const fl_tile *t)
{
    for (ptrdiff_t j = 0; j < groups; j++) {
        const ptrdiff_t at = (t->block + j) * VL, n = t->units - at;
        const ptrdiff_t width = j == groups - 1 ? t->width : VL;
        /* All gates before any cell state: the chains of a row are long, those of different
         * gates are independent. */
        for (ptrdiff_t r = 0; r < rows; r++) {
            const real *z = t->z + r * t->z_row + j * GROUP;
            real *gates = t->gates + r * t->gates_row + j * GROUP;
            vec i = v_loadu(z), f = v_loadu(z + width);
            vec g = v_loadu(z + 2 * width), o = v_loadu(z + 3 * width);
            v_store(gates + 0 * VL, v_sigmoid(i));
            v_store(gates + 1 * VL, v_sigmoid(f));
            v_store(gates + 2 * VL, v_tanh(g));
            v_store(gates + 3 * VL, v_sigmoid(o));
        }
        for (ptrdiff_t r = 0; r < rows; r++) {
            const real *q = t->gates + r * t->gates_row + j * GROUP;
            vec i = v_load(q), f = v_load(q + VL), g = v_load(q + 2 * VL), o = v_load(q + 3 * VL);
            vec c = v_fma(f, load_part(t->before[FL_STATE_C][r] + at, n), v_mul(i, g));
            vec h = v_mul(o, v_tanh(c));
            store_part(t->after[FL_STATE_C][r] + at, c, n);
            store_part(t->h[r] + at, h, n);
            if (t->y) {
                store_part(t->y[r] + at, h, n);
            }
        }
    }
}

static void lstm_gradient(ptrdiff_t rows, const fl_gradient *t)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < 4 && j * VL < t->units; j++) {
            const ptrdiff_t at = j * VL, n = t->units - at;
            const real *z = t->gates + r * t->gates_row + j * GROUP;
            vec i = v_load(z), f = v_load(z + VL), g = v_load(z + 2 * VL), o = v_load(z + 3 * VL);
            vec dh = v_load(t->dh + r * t->dh_row + at);
            vec tanh_c = v_tanh(load_part(t->after[FL_STATE_C][r] + at, n));
            vec c_before = load_part(t->before[FL_STATE_C][r] + at, n);
            vec dc = v_add(load_part(t->d_states[FL_STATE_C][r] + at, n),
                           through_tanh(v_mul(dh, o), tanh_c));
            real *dz = t->dz + r * t->dz_row + at;
            store_part(dz, through_sigmoid(v_mul(dc, g), i), n);
            store_part(dz + t->gate_step, through_sigmoid(v_mul(dc, c_before), f), n);
            store_part(dz + 2 * t->gate_step, through_tanh(v_mul(dc, i), g), n);
            store_part(dz + 3 * t->gate_step, through_sigmoid(v_mul(dh, tanh_c), o), n);
            store_part(t->d_states[FL_STATE_C][r] + at, v_mul(dc, f), n);
        }
    }
}

#endif
