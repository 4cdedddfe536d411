/* The element-wise part of a step of an sLSTM: xLSTM's scalar cell.
 *
 * The input gate is exp(a_i), the forget gate sigmoid(a_f).  c and n are kept divided by e^m:
 *
 *     kept = m_before + log sigmoid(a_f)
 *     m = max(a_i, kept), or a_i where n_before is 0: nothing is kept there
 *     i = e^(a_i - m)     c = f c_before + i z      z = tanh(a_z)
 *     f = e^(kept - m)    n = f n_before + i        h = o c / n,  o = sigmoid(a_o)
 *
 * with f at most 1.  So one of i and f is 1, and the other needs the only exponential. */
#ifndef FL_KERNELS_CELLS_SLSTM_H
#define FL_KERNELS_CELLS_SLSTM_H

#include "kernels/tile.h"

enum { SLSTM_I, SLSTM_F, SLSTM_Z, SLSTM_O };

/* What needs no state: a_i, log sigmoid(a_f), z and o go to gates. */
FL_INLINE void open_slstm_gates(const fl_tile *t, ptrdiff_t r, ptrdiff_t j, ptrdiff_t width)
{
    const real *a = t->z + r * t->z_row + j * GROUP;
    real *gates = t->gates + r * t->gates_row + j * GROUP;
    const ptrdiff_t at = (t->block + j) * VL;
    vec i = v_loadu(a), f = v_loadu(a + width);
    vec z = v_loadu(a + 2 * width), o = v_loadu(a + 3 * width);
    v_store(gates + SLSTM_I * VL, i);
    v_store(gates + SLSTM_F * VL, v_log_sigmoid(f));
    v_store(gates + SLSTM_Z * VL, v_tanh(z));
    v_store(gates + SLSTM_O * VL, v_sigmoid(o));
    if (t->forget_slope) {
        real *slope = t->forget_slope + r * t->forget_slope_row + at;
        store_part(slope, v_sigmoid(v_sub(v_set1(0), f)), t->units - at);
    }
}

FL_INLINE void put_slstm_states(const fl_tile *t, ptrdiff_t r, ptrdiff_t j)
{
    const ptrdiff_t at = (t->block + j) * VL, n = t->units - at;
    const vec zero = v_set1(0), one = v_set1(1);
    real *gates = t->gates + r * t->gates_row + j * GROUP;
    vec a_i = v_load(gates + SLSTM_I * VL);
    vec kept = v_add(load_part(t->before[FL_STATE_M][r] + at, n), v_load(gates + SLSTM_F * VL));
    vec n_before = load_part(t->before[FL_STATE_N][r] + at, n);
    vec more = v_sub(kept, a_i), less = v_exp(v_sub(zero, v_abs(more)));
    vec f = v_select_greater(more, zero, one, less);
    more = v_where_greater(v_abs(n_before), zero, more);
    vec i = v_select_greater(more, zero, less, one);
    vec m = v_select_greater(more, zero, kept, a_i);
    vec c = v_fma(f, load_part(t->before[FL_STATE_C][r] + at, n),
                  v_mul(i, v_load(gates + SLSTM_Z * VL)));
    vec normalizer = v_fma(f, n_before, i);
    vec h = v_mul(v_load(gates + SLSTM_O * VL), v_div(c, normalizer));
    v_store(gates + SLSTM_I * VL, i);
    v_store(gates + SLSTM_F * VL, f);
    store_part(t->after[FL_STATE_C][r] + at, c, n);
    store_part(t->after[FL_STATE_N][r] + at, normalizer, n);
    store_part(t->after[FL_STATE_M][r] + at, m, n);
    store_part(t->h[r] + at, h, n);
    if (t->y) {
        store_part(t->y[r] + at, h, n);
    }
}

static void slstm_tile(ptrdiff_t rows, ptrdiff_t groups, const fl_tile *t)
{
    for (ptrdiff_t j = 0; j < groups; j++) {
        for (ptrdiff_t r = 0; r < rows; r++) {
            open_slstm_gates(t, r, j, j == groups - 1 ? t->width : VL);
        }
        for (ptrdiff_t r = 0; r < rows; r++) {
            put_slstm_states(t, r, j);
        }
    }
}

/* m is a_i where i is 1, else what is kept: then f is 1.  Where n_before is 0, f has no gradient at
 * its bound. */
FL_INLINE void slstm_gradient_of(const fl_gradient *t, ptrdiff_t r, ptrdiff_t j)
{
    const ptrdiff_t at = j * VL, units = t->units - at;
    const vec zero = v_set1(0), one = v_set1(1);
    const real *gates = t->gates + r * t->gates_row + j * GROUP;
    vec i = v_load(gates + SLSTM_I * VL), f = v_load(gates + SLSTM_F * VL);
    vec z = v_load(gates + SLSTM_Z * VL), o = v_load(gates + SLSTM_O * VL);
    vec c_before = load_part(t->before[FL_STATE_C][r] + at, units);
    vec n_before = load_part(t->before[FL_STATE_N][r] + at, units);
    vec over_n = v_div(one, load_part(t->after[FL_STATE_N][r] + at, units));
    vec mean = v_mul(load_part(t->after[FL_STATE_C][r] + at, units), over_n);
    vec dh = v_load(t->dh + r * t->dh_row + at), through_h = v_mul(v_mul(dh, o), over_n);
    vec dc = v_add(load_part(t->d_states[FL_STATE_C][r] + at, units), through_h);
    vec dn = v_fnma(through_h, mean, load_part(t->d_states[FL_STATE_N][r] + at, units));
    vec dm = load_part(t->d_states[FL_STATE_M][r] + at, units);
    vec d_log_i = v_mul(v_fma(dc, z, dn), i);
    vec d_log_f = v_mul(v_fma(dc, c_before, v_mul(dn, n_before)), f);
    d_log_f = v_select_greater(v_abs(n_before), zero, d_log_f, v_where_greater(one, f, d_log_f));
    vec d_input = v_select_greater(one, i, d_log_i, v_sub(dm, d_log_f));
    vec d_kept = v_select_greater(one, i, v_sub(dm, d_log_i), d_log_f);
    vec slope = load_part(t->forget_slope + r * t->forget_slope_row + at, units);
    real *da = t->dz + r * t->dz_row + at;
    store_part(da + SLSTM_I * t->gate_step, d_input, units);
    store_part(da + SLSTM_F * t->gate_step, v_mul(d_kept, slope), units);
    store_part(da + SLSTM_Z * t->gate_step, through_tanh(v_mul(dc, i), z), units);
    store_part(da + SLSTM_O * t->gate_step, through_sigmoid(v_mul(dh, mean), o), units);
    store_part(t->d_states[FL_STATE_C][r] + at, v_mul(dc, f), units);
    store_part(t->d_states[FL_STATE_N][r] + at, v_mul(dn, f), units);
    store_part(t->d_states[FL_STATE_M][r] + at, d_kept, units);
}

static void slstm_gradient(ptrdiff_t rows, const fl_gradient *t)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < 4 && j * VL < t->units; j++) {
            slstm_gradient_of(t, r, j);
        }
    }
}

#endif
