/* The element-wise part of a step of a GRU. */
#ifndef FL_KERNELS_CELLS_GRU_H
#define FL_KERNELS_CELLS_GRU_H

#include "kernels/tile.h"

/* h = (1 - z) n + z h_before, n = tanh(x's part + r h's part): slots r, z, and the two parts of n;
 * out go r, z, n and h's part.  c is h. */
static void gru_tile(ptrdiff_t rows, ptrdiff_t groups, const fl_tile *t)
{
    for (ptrdiff_t j = 0; j < groups; j++) {
        const ptrdiff_t at = (t->block + j) * VL, n = t->units - at;
        const ptrdiff_t width = j == groups - 1 ? t->width : VL;
        for (ptrdiff_t r = 0; r < rows; r++) {
            const real *pre = t->z + r * t->z_row + j * GROUP;
            real *gates = t->gates + r * t->gates_row + j * GROUP;
            vec of_x = v_loadu(pre + 2 * width), of_h = v_loadu(pre + 3 * width);
            vec reset = v_loadu(pre), update = v_loadu(pre + width);
            reset = v_sigmoid(reset);
            update = v_sigmoid(update);
            vec next = v_tanh(v_fma(reset, of_h, of_x));
            v_store(gates, reset);
            v_store(gates + VL, update);
            v_store(gates + 2 * VL, next);
            v_store(gates + 3 * VL, of_h);
            vec h = v_fma(update, v_sub(load_part(t->before[FL_STATE_C][r] + at, n), next), next);
            store_part(t->after[FL_STATE_C][r] + at, h, n);
            store_part(t->h[r] + at, h, n);
            if (t->y) {
                store_part(t->y[r] + at, h, n);
            }
        }
    }
}

/* dc is the part of the gradient of h that does not go through U: z times that of the step after.
 */
static void gru_gradient(ptrdiff_t rows, const fl_gradient *t)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < 4 && j * VL < t->units; j++) {
            const ptrdiff_t at = j * VL, n = t->units - at;
            const real *q = t->gates + r * t->gates_row + j * GROUP;
            vec reset = v_load(q), update = v_load(q + VL), next = v_load(q + 2 * VL);
            vec of_h = v_load(q + 3 * VL);
            vec dh = v_add(v_load(t->dh + r * t->dh_row + at),
                           load_part(t->d_states[FL_STATE_C][r] + at, n));
            vec before = load_part(t->before[FL_STATE_C][r] + at, n);
            vec dn = through_tanh(v_fnma(dh, update, dh), next);
            real *dz = t->dz + r * t->dz_row + at;
            store_part(dz, through_sigmoid(v_mul(dn, of_h), reset), n);
            store_part(dz + t->gate_step, through_sigmoid(v_mul(dh, v_sub(before, next)), update),
                       n);
            store_part(dz + 2 * t->gate_step, dn, n);
            store_part(dz + 3 * t->gate_step, v_mul(dn, reset), n);
            store_part(t->d_states[FL_STATE_C][r] + at, v_mul(dh, update), n);
        }
    }
}

/* The start of a step if r multiplies h before U_n: r and z are gates, h is what comes from x. */
static void gru_before_tile(ptrdiff_t rows, ptrdiff_t groups, const fl_tile *t)
{
    for (ptrdiff_t j = 0; j < groups; j++) {
        const ptrdiff_t at = (t->block + j) * VL, n = t->units - at;
        const ptrdiff_t width = j == groups - 1 ? t->width : VL;
        for (ptrdiff_t r = 0; r < rows; r++) {
            const real *pre = t->z + r * t->z_row + j * GROUP;
            real *gates = t->gates + r * t->gates_row + j * GROUP;
            vec reset = v_loadu(pre), update = v_loadu(pre + width);
            vec of_x = v_loadu(pre + 2 * width);
            reset = v_sigmoid(reset);
            v_store(gates, reset);
            v_store(gates + VL, v_sigmoid(update));
            store_part(t->second_input[r] + at,
                       v_mul(reset, load_part(t->before[FL_STATE_C][r] + at, n)), n);
            store_part(t->h[r] + at, of_x, n);
        }
    }
}

static void gru_next(ptrdiff_t rows, const fl_tile *t)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < 4; j++) {
            const ptrdiff_t at = (t->block + j) * VL, n = t->units - at;
            if (n <= 0) {
                break;
            }
            real *gates = t->gates + r * t->gates_row + j * GROUP;
            vec update = v_load(gates + VL), next = v_tanh(v_load(t->z + r * t->z_row + j * VL));
            v_store(gates + 2 * VL, next);
            vec h = v_fma(update, v_sub(load_part(t->before[FL_STATE_C][r] + at, n), next), next);
            store_part(t->after[FL_STATE_C][r] + at, h, n);
            store_part(t->h[r] + at, h, n);
            if (t->y) {
                store_part(t->y[r] + at, h, n);
            }
        }
    }
}

/* dc is as in gru_gradient; what comes through r * h_before follows in gru_reset_gradient. */
static void gru_before_gradient(ptrdiff_t rows, const fl_gradient *t)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < 4 && j * VL < t->units; j++) {
            const ptrdiff_t at = j * VL, n = t->units - at;
            const real *q = t->gates + r * t->gates_row + j * GROUP;
            vec update = v_load(q + VL), next = v_load(q + 2 * VL);
            vec dh = v_add(v_load(t->dh + r * t->dh_row + at),
                           load_part(t->d_states[FL_STATE_C][r] + at, n));
            vec before = load_part(t->before[FL_STATE_C][r] + at, n);
            real *dz = t->dz + r * t->dz_row + at;
            store_part(dz + t->gate_step, through_sigmoid(v_mul(dh, v_sub(before, next)), update),
                       n);
            store_part(dz + 2 * t->gate_step, through_tanh(v_fnma(dh, update, dh), next), n);
            store_part(t->d_states[FL_STATE_C][r] + at, v_mul(dh, update), n);
        }
    }
}

static void gru_reset_gradient(ptrdiff_t rows, const fl_gradient *t)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < 4 && j * VL < t->units; j++) {
            const ptrdiff_t at = j * VL, n = t->units - at;
            vec reset = v_load(t->gates + r * t->gates_row + j * GROUP);
            vec d = v_load(t->dh + r * t->dh_row + at),
                before = load_part(t->before[FL_STATE_C][r] + at, n);
            store_part(t->dz + r * t->dz_row + at, through_sigmoid(v_mul(d, before), reset), n);
            store_part(t->d_states[FL_STATE_C][r] + at,
                       v_fma(d, reset, load_part(t->d_states[FL_STATE_C][r] + at, n)), n);
        }
    }
}

#endif
