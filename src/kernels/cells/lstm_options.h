/* The element-wise part of a step of an LSTM with options (fl_options).
 *
 * A row is taken in sweeps over its units, because the output gate may see the cell state
 * (peephole), and a layer norm all units of a gate. */
#ifndef FL_KERNELS_CELLS_LSTM_OPTIONS_H
#define FL_KERNELS_CELLS_LSTM_OPTIONS_H

#include "kernels/activations.h"
#include "kernels/tile.h"

#include <math.h>

enum { IN, FORGET, CANDIDATE, OUT, SLOTS };

FL_INLINE vec clipped(vec x, real bound) { return v_min(v_set1(bound), v_max(v_set1(-bound), x)); }

/* d where the clip let x through. */
FL_INLINE vec through_clip(vec d, vec x, real bound)
{
    return v_where_greater(v_set1(bound), v_abs(x), d);
}

/* Sums over the units of a row, in FL_SUM_LANES lanes, of some slots at once: their chains are long
 * and independent. */
typedef struct {
    vec of[SLOTS][SUM_VECTORS];
} slot_sums;

FL_INLINE slot_sums no_sums(void)
{
    slot_sums s;
    FL_UNROLL
    for (int slot = 0; slot < SLOTS; slot++) {
        FL_UNROLL
        for (int i = 0; i < SUM_VECTORS; i++) {
            s.of[slot][i] = v_set1(0);
        }
    }
    return s;
}

/* Layer norm of the slots from `first` to `last`, without gain and shift: in place.  scale: 1 /
 * standard deviation, slot by slot. */
FL_INLINE void normalize(const int first, const int last, const fl_cell_options *p, real *gates,
                         real *scale)
{
    const ptrdiff_t hidden = p->hidden;
    slot_sums sums = no_sums(), squares = no_sums();
    vec mean[SLOTS];
    for (ptrdiff_t u = 0; u < hidden; u += VL) {
        const ptrdiff_t i = u / VL % SUM_VECTORS;
        FL_UNROLL
        for (int slot = first; slot <= last; slot++) {
            vec x = load_part(gates + u * SLOTS + slot * VL, hidden - u);
            sums.of[slot][i] = v_add(sums.of[slot][i], x);
        }
    }
    for (int slot = first; slot <= last; slot++) {
        mean[slot] = v_set1(total_of(sums.of[slot]) / (real)hidden);
    }
    for (ptrdiff_t u = 0; u < hidden; u += VL) {
        const ptrdiff_t i = u / VL % SUM_VECTORS, n = hidden - u;
        FL_UNROLL
        for (int slot = first; slot <= last; slot++) {
            real *x = gates + u * SLOTS + slot * VL;
            store_part(x, v_sub(load_part(x, n), mean[slot]), n);
            vec d = load_part(x, n);
            squares.of[slot][i] = v_fma(d, d, squares.of[slot][i]);
        }
    }
    for (int slot = first; slot <= last; slot++) {
        const real variance = total_of(squares.of[slot]) / (real)hidden;
        scale[slot] = 1 / (real)sqrt(variance + p->norm_eps);
    }
    for (ptrdiff_t u = 0; u < hidden; u += VL) {
        FL_UNROLL
        for (int slot = first; slot <= last; slot++) {
            real *x = gates + u * SLOTS + slot * VL;
            store_part(x, v_mul(load_part(x, hidden - u), v_set1(scale[slot])), hidden - u);
        }
    }
}

/* What the function of a slot is given, from what the sums (or their norm) are. */
FL_INLINE vec scaled(const fl_cell_options *p, ptrdiff_t group, int slot, vec sum)
{
    const ptrdiff_t at = group * GROUP + slot * VL;
    return p->gain ? v_fma(v_load(p->gain + at), sum, v_load(p->shift + at)) : sum;
}

FL_INLINE vec cell_of(const fl_cell_options *p, vec i, vec f, vec g, vec c_before)
{
    return clipped(v_fma(f, c_before, v_mul(i, g)), p->cell_clip);
}

/* Sums of the j-th group, with the peepholes that see c_before, from where they lie in z. */
FL_INLINE void gather_preacts(const fl_tile *t, ptrdiff_t r, ptrdiff_t j, ptrdiff_t width)
{
    const real *z = t->z + r * t->z_row + j * GROUP;
    real *gates = t->gates + r * t->gates_row + j * GROUP;
    vec i = v_loadu(z), f = v_loadu(z + width);
    vec g = v_loadu(z + 2 * width), o = v_loadu(z + 3 * width);
    if (t->options->peephole) {
        const real *peephole = t->options->peephole + (t->block + j) * GROUP;
        const ptrdiff_t at = (t->block + j) * VL;
        vec before = load_part(t->before[FL_STATE_C][r] + at, t->units - at);
        i = v_fma(v_load(peephole + IN * VL), before, i);
        f = v_fma(v_load(peephole + FORGET * VL), before, f);
    }
    v_store(gates + IN * VL, i);
    v_store(gates + FORGET * VL, f);
    v_store(gates + CANDIDATE * VL, g);
    v_store(gates + OUT * VL, o);
}

/* A slot goes through its function, in place. */
static vec open_gate(const fl_tile *t, ptrdiff_t r, ptrdiff_t j, int slot)
{
    const fl_cell_options *p = t->options;
    real *gate = t->gates + r * t->gates_row + j * GROUP + slot * VL;
    vec sum = v_load(gate);
    if (t->preacts) {
        v_store(t->preacts + r * t->gates_row + j * GROUP + slot * VL, sum);
    }
    vec x = clipped(scaled(p, t->block + j, slot, sum), p->preact_clip);
    vec y = function_of(slot == CANDIDATE ? &p->of_candidate : &p->of_gates, x);
    v_store(gate, y);
    return y;
}

/* Gates i, f and g, and what the output gate sees of the cell state. */
FL_INLINE void open_first_gates(const fl_tile *t, ptrdiff_t r, ptrdiff_t j)
{
    const fl_cell_options *p = t->options;
    real *gates = t->gates + r * t->gates_row + j * GROUP;
    vec i = open_gate(t, r, j, IN), g = open_gate(t, r, j, CANDIDATE), f;
    if (p->coupled) {
        f = v_sub(v_set1(1), i);
        v_store(gates + FORGET * VL, f);
        if (t->preacts) {
            v_store(t->preacts + r * t->gates_row + j * GROUP + FORGET * VL, v_set1(0));
        }
    } else {
        f = open_gate(t, r, j, FORGET);
    }
    if (p->peephole) {
        const real *peephole = p->peephole + (t->block + j) * GROUP + OUT * VL;
        const ptrdiff_t at = (t->block + j) * VL;
        vec c = cell_of(p, i, f, g, load_part(t->before[FL_STATE_C][r] + at, t->units - at));
        v_store(gates + OUT * VL, v_fma(v_load(peephole), c, v_load(gates + OUT * VL)));
    }
}

FL_INLINE void put_out(const fl_tile *t, ptrdiff_t r, ptrdiff_t j)
{
    const fl_cell_options *p = t->options;
    const real *gates = t->gates + r * t->gates_row + j * GROUP;
    const ptrdiff_t at = (t->block + j) * VL, n = t->units - at;
    vec before = load_part(t->before[FL_STATE_C][r] + at, n);
    vec c = cell_of(p, v_load(gates + IN * VL), v_load(gates + FORGET * VL),
                    v_load(gates + CANDIDATE * VL), before);
    vec h = v_mul(open_gate(t, r, j, OUT), function_of(&p->of_cell, c));
    store_part(t->after[FL_STATE_C][r] + at,
               t->zoneout_keep ? mixed_of(load_part(t->zoneout_keep[r] + at, n), before, c) : c, n);
    store_part(t->h[r] + at, h, n);
    if (t->y) {
        store_part(t->y[r] + at, h, n);
    }
}

static void lstm_options_tile(ptrdiff_t rows, ptrdiff_t groups, const fl_tile *t)
{
    const fl_cell_options *p = t->options;
    for (ptrdiff_t r = 0; r < rows; r++) {
        real *gates = t->gates + r * t->gates_row;
        real scale[SLOTS] = {0, 0, 0, 0};
        for (ptrdiff_t j = 0; j < groups; j++) {
            gather_preacts(t, r, j, j == groups - 1 ? t->width : VL);
        }
        if (p->gain) {
            normalize(IN, CANDIDATE, p, gates, scale);
        }
        for (ptrdiff_t j = 0; j < groups; j++) {
            open_first_gates(t, r, j);
        }
        if (p->gain) {
            normalize(OUT, OUT, p, gates, scale);
        }
        for (ptrdiff_t j = 0; j < groups; j++) {
            put_out(t, r, j);
        }
        for (int slot = 0; t->scale && slot < SLOTS; slot++) {
            t->scale[r * t->scale_row + slot] = scale[slot];
        }
    }
}

/* One group of a row, backward: what is known of it. */
typedef struct {
    vec i, f, g, o, c_before, c, of_c; /* c before zoneout; of_c: its function */
} known;

FL_INLINE known known_of(const fl_gradient *t, ptrdiff_t r, ptrdiff_t j)
{
    const real *gates = t->gates + r * t->gates_row + j * GROUP;
    known k;
    k.i = v_load(gates + IN * VL);
    k.f = v_load(gates + FORGET * VL);
    k.g = v_load(gates + CANDIDATE * VL);
    k.o = v_load(gates + OUT * VL);
    k.c_before = load_part(t->before[FL_STATE_C][r] + j * VL, t->units - j * VL);
    k.c = cell_of(t->options, k.i, k.f, k.g, k.c_before);
    k.of_c = function_of(&t->options->of_cell, k.c);
    return k;
}

/* From the gradient d of a gate, which is y, to that of its sums (or their norm): into dz. */
static void close_gate(const fl_gradient *t, ptrdiff_t r, ptrdiff_t j, int slot, vec d, vec y)
{
    const fl_cell_options *p = t->options;
    const ptrdiff_t at = r * t->dz_row + slot * t->gate_step + j * VL, n = t->units - j * VL;
    const fl_unary *f = slot == CANDIDATE ? &p->of_candidate : &p->of_gates;
    if (!t->preacts) {
        store_part(t->dz + at, v_mul(d, slope_of(f, y, y)), n);
        return;
    }
    vec sum = v_load(t->preacts + r * t->gates_row + j * GROUP + slot * VL);
    vec x = scaled(p, t->block + j, slot, sum);
    d = through_clip(v_mul(d, slope_of(f, x, y)), x, p->preact_clip);
    if (p->gain) {
        store_part(t->d_shift + at, d, n);
        store_part(t->d_gain + at, v_mul(d, sum), n);
        d = v_mul(d, v_load(p->gain + (t->block + j) * GROUP + slot * VL));
    }
    store_part(t->dz + at, d, n);
}

/* Through the layer norm of the slots from `first` to `last`, in place:
 * dz = scale * (d - mean(d) - norm * mean(d * norm)). */
FL_INLINE void through_norm(const int first, const int last, const fl_gradient *t, ptrdiff_t r)
{
    const ptrdiff_t hidden = t->options->hidden;
    const real *norm = t->preacts + r * t->gates_row;
    real *dz = t->dz + r * t->dz_row;
    slot_sums sums = no_sums(), products = no_sums();
    vec mean[SLOTS], along[SLOTS];
    for (ptrdiff_t u = 0; u < hidden; u += VL) {
        const ptrdiff_t i = u / VL % SUM_VECTORS, n = hidden - u;
        FL_UNROLL
        for (int slot = first; slot <= last; slot++) {
            vec d = load_part(dz + slot * t->gate_step + u, n);
            vec normed = load_part(norm + u * SLOTS + slot * VL, n);
            sums.of[slot][i] = v_add(sums.of[slot][i], d);
            products.of[slot][i] = v_fma(d, normed, products.of[slot][i]);
        }
    }
    for (int slot = first; slot <= last; slot++) {
        mean[slot] = v_set1(total_of(sums.of[slot]) / (real)hidden);
        along[slot] = v_set1(total_of(products.of[slot]) / (real)hidden);
    }
    for (ptrdiff_t u = 0; u < hidden; u += VL) {
        const ptrdiff_t n = hidden - u;
        FL_UNROLL
        for (int slot = first; slot <= last; slot++) {
            real *d = dz + slot * t->gate_step + u;
            vec normed = load_part(norm + u * SLOTS + slot * VL, n);
            vec rest = v_fnma(normed, along[slot], v_sub(load_part(d, n), mean[slot]));
            store_part(d, v_mul(v_set1(t->scale[r * t->scale_row + slot]), rest), n);
        }
    }
}

/* The gradient of the cell state and, through it, of the gates but the output gate; dc becomes
 * that of c_before, except what comes through peepholes. */
FL_INLINE void close_first_gates(const fl_gradient *t, ptrdiff_t r, ptrdiff_t j)
{
    const fl_cell_options *p = t->options;
    const ptrdiff_t at = j * VL, n = t->units - at;
    const known k = known_of(t, r, j);
    vec dh = v_load(t->dh + r * t->dh_row + at);
    vec later = load_part(t->d_states[FL_STATE_C][r] + at, n), stays = v_set1(0);
    if (t->zoneout_keep) {
        stays = v_mul(load_part(t->zoneout_keep[r] + at, n), later);
        later = v_sub(later, stays);
    }
    vec dc = v_fma(v_mul(dh, k.o), slope_of(&p->of_cell, k.c, k.of_c), later);
    if (p->peephole) {
        const real *peephole = p->peephole + (t->block + j) * GROUP + OUT * VL;
        const real *dz = t->dz + r * t->dz_row + OUT * t->gate_step + at;
        dc = v_fma(v_load(peephole), load_part(dz, n), dc);
    }
    dc = through_clip(dc, k.c, p->cell_clip);
    if (p->coupled) {
        close_gate(t, r, j, IN, v_mul(dc, v_sub(k.g, k.c_before)), k.i);
        store_part(t->dz + r * t->dz_row + FORGET * t->gate_step + at, v_set1(0), n);
    } else {
        close_gate(t, r, j, IN, v_mul(dc, k.g), k.i);
        close_gate(t, r, j, FORGET, v_mul(dc, k.c_before), k.f);
    }
    close_gate(t, r, j, CANDIDATE, v_mul(dc, k.i), k.g);
    store_part(t->d_states[FL_STATE_C][r] + at, v_fma(dc, k.f, stays), n);
}

/* What came through the peepholes: to c_before, and to their weights. */
FL_INLINE void through_peepholes(const fl_gradient *t, ptrdiff_t r, ptrdiff_t j)
{
    const real *peephole = t->options->peephole + (t->block + j) * GROUP;
    const ptrdiff_t at = j * VL, n = t->units - at;
    const real *dz = t->dz + r * t->dz_row + at;
    real *d_peephole = t->d_peephole + r * t->dz_row + at;
    const known k = known_of(t, r, j);
    vec dc = load_part(t->d_states[FL_STATE_C][r] + at, n);
    for (int slot = IN; slot <= FORGET; slot++) {
        vec d = load_part(dz + slot * t->gate_step, n);
        dc = v_fma(v_load(peephole + slot * VL), d, dc);
        store_part(d_peephole + slot * t->gate_step, v_mul(d, k.c_before), n);
    }
    vec d = load_part(dz + OUT * t->gate_step, n);
    store_part(d_peephole + OUT * t->gate_step, v_mul(d, k.c), n);
    store_part(t->d_states[FL_STATE_C][r] + at, dc, n);
}

static void lstm_options_gradient(ptrdiff_t rows, const fl_gradient *t)
{
    const fl_cell_options *p = t->options;
    const ptrdiff_t left = (t->units + VL - 1) / VL, groups = left < t->blocks ? left : t->blocks;
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < groups; j++) {
            const known k = known_of(t, r, j);
            close_gate(t, r, j, OUT, v_mul(v_load(t->dh + r * t->dh_row + j * VL), k.of_c), k.o);
        }
        if (p->gain) {
            through_norm(OUT, OUT, t, r);
        }
        for (ptrdiff_t j = 0; j < groups; j++) {
            close_first_gates(t, r, j);
        }
        if (p->gain) { /* coupled, the forget gate has no sums, and its part of dz remains 0 */
            through_norm(IN, CANDIDATE, t, r);
        }
        for (ptrdiff_t j = 0; p->peephole && j < groups; j++) {
            through_peepholes(t, r, j);
        }
    }
}

#endif
