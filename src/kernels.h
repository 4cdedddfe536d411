/* The kernels, written once.  A wrapper (kernels_<isa>_<type>.c) includes simd_<isa>.h before
 * this file and is compiled for that instruction set; contracts are in kernels_api.h.
 *
 * The numerics contract: an output element is one chain of fused multiply-adds whose order depends
 * on nothing but the sizes of the layer.  So no kernel may split a sum, and lanes never mix (except
 * in softmax: see FL_SUM_LANES). */
#include "kernels_api.h"
#include "probe.h"
#include "vmath.h"

/* The register tile: 4*ROWS accumulators, one weight vector and ROWS broadcast elements fill the
 * register file: 24 + 1 + 6 of 32, or 12 + 1 + 3 of 16.  One row takes several groups at once,
 * so that enough chains are in flight to hide the latency of the multiply-add. */
#if FL_VECTOR_REGISTERS == 32
enum { ROWS = 6, GROUPS = 4 };
#else
enum { ROWS = 3, GROUPS = 2 };
#endif
enum { GROUP = 4 * VL };

/* rows and vectors are constants where this is inlined, so that acc lives in registers. */
FL_INLINE void product_tile(const int rows, const int vectors, const real *const *init,
                            const fl_term *terms, int n_terms, real *z, ptrdiff_t z_row)
{
    vec acc[ROWS][4 * GROUPS];
    FL_UNROLL
    for (int r = 0; r < rows; r++) {
        FL_UNROLL
        for (int j = 0; j < vectors; j++) {
            acc[r][j] = v_load(init[r] + j * VL);
        }
    }
    for (int i = 0; i < n_terms; i++) {
        const ptrdiff_t k = terms[i].k, step = terms[i].a_step;
        const real *panel = terms[i].panel;
        const real *a[ROWS];
        FL_UNROLL
        for (int r = 0; r < rows; r++) {
            a[r] = terms[i].a[r];
        }
        for (ptrdiff_t n = 0, at = 0; n < k; n++, at += step) {
            vec x[ROWS];
            FL_UNROLL
            for (int r = 0; r < rows; r++) {
                x[r] = v_set1(a[r][at]);
            }
            FL_UNROLL
            for (int j = 0; j < vectors; j++) {
                vec w = v_load(panel + (j / 4) * k * GROUP + (j % 4) * VL);
                FL_UNROLL
                for (int r = 0; r < rows; r++) {
                    acc[r][j] = v_fma(x[r], w, acc[r][j]);
                }
            }
            panel += GROUP;
        }
    }
    FL_UNROLL
    for (int r = 0; r < rows; r++) {
        FL_UNROLL
        for (int j = 0; j < vectors; j++) {
            v_store(z + r * z_row + j * VL, acc[r][j]);
        }
    }
}

static void product(ptrdiff_t rows, ptrdiff_t vectors, const real *const *init,
                    const fl_term *terms, int n_terms, real *z, ptrdiff_t z_row)
{
#define TILE(r, v) \
    case r * 32 + v: product_tile(r, v, init, terms, n_terms, z, z_row); break;
#define ROW_TILES(r) TILE(r, 1) TILE(r, 2) TILE(r, 3) TILE(r, 4)
    switch (rows * 32 + vectors) {
        ROW_TILES(1)
        ROW_TILES(2)
        ROW_TILES(3)
        TILE(1, 5)
        TILE(1, 6)
        TILE(1, 8)
#if FL_VECTOR_REGISTERS == 32
        ROW_TILES(4)
        ROW_TILES(5)
        ROW_TILES(6)
        TILE(1, 9)
        TILE(1, 10)
        TILE(1, 12)
        TILE(1, 13)
        TILE(1, 14)
        TILE(1, 16)
#endif
    }
#undef ROW_TILES
#undef TILE
}

/* Whole vectors are the rule; only the last one of a row can be short. */
FL_INLINE vec load_part(const real *p, ptrdiff_t n)
{
    return n >= VL ? v_loadu(p) : v_load_n(p, n);
}

FL_INLINE void store_part(real *p, vec v, ptrdiff_t n)
{
    if (n >= VL) {
        v_storeu(p, v);
    } else {
        v_store_n(p, v, n);
    }
}

static void lstm_tile(ptrdiff_t rows, ptrdiff_t groups, const fl_tile *t)
{
    for (ptrdiff_t j = 0; j < groups; j++) {
        const ptrdiff_t at = j * VL, n = t->units - at;
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
            vec c = v_fma(f, load_part(t->c_before[r] + at, n), v_mul(i, g));
            vec h = v_mul(o, v_tanh(c));
            store_part(t->c[r] + at, c, n);
            store_part(t->h[r] + at, h, n);
            if (t->y) {
                store_part(t->y[r] + at, h, n);
            }
        }
    }
}

/* With s the gate's own output: sigmoid' = s (1 - s), tanh' = 1 - s s. */
FL_INLINE vec through_sigmoid(vec d, vec s) { return v_mul(d, v_fnma(s, s, s)); }

FL_INLINE vec through_tanh(vec d, vec s) { return v_mul(d, v_fnma(s, s, v_set1(1))); }

static void lstm_gradient(ptrdiff_t rows, const fl_gradient *t)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < 4 && j * VL < t->units; j++) {
            const ptrdiff_t at = j * VL, n = t->units - at;
            const real *z = t->gates + r * t->gates_row + j * GROUP;
            vec i = v_load(z), f = v_load(z + VL), g = v_load(z + 2 * VL), o = v_load(z + 3 * VL);
            vec dh = v_load(t->dh + r * GROUP + at);
            vec tanh_c = v_tanh(load_part(t->c[r] + at, n));
            vec c_before = load_part(t->c_before[r] + at, n);
            vec dc = v_add(load_part(t->dc[r] + at, n), through_tanh(v_mul(dh, o), tanh_c));
            real *dz = t->dz + r * t->dz_row + at;
            store_part(dz, through_sigmoid(v_mul(dc, g), i), n);
            store_part(dz + t->gate_step, through_sigmoid(v_mul(dc, c_before), f), n);
            store_part(dz + 2 * t->gate_step, through_tanh(v_mul(dc, i), g), n);
            store_part(dz + 3 * t->gate_step, through_sigmoid(v_mul(dh, tanh_c), o), n);
            store_part(t->dc[r] + at, v_mul(dc, f), n);
        }
    }
}

enum { SUM_VECTORS = FL_SUM_LANES / VL };

/* NaN may get lost: then it is in the sum of the exponentials still. */
FL_INLINE real largest_of(const real *p, ptrdiff_t n)
{
    vec top = v_load(p);
    for (ptrdiff_t j = VL; j < n; j += VL) {
        top = v_max(top, v_load(p + j));
    }
    real lanes[VL];
    v_storeu(lanes, top);
    FL_UNROLL
    for (int width = VL / 2; width > 0; width /= 2) {
        FL_UNROLL
        for (int i = 0; i < width; i++) {
            lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
        }
    }
    return lanes[0];
}

/* p = e^(p - top); returns the sum. */
FL_INLINE real exponentials(real *p, ptrdiff_t n, real top)
{
    vec sum[SUM_VECTORS];
    FL_UNROLL
    for (int i = 0; i < SUM_VECTORS; i++) {
        sum[i] = v_set1(0);
    }
    for (ptrdiff_t j = 0; j < n; j += FL_SUM_LANES) {
        FL_UNROLL
        for (int i = 0; i < SUM_VECTORS; i++) {
            vec e = v_exp(v_sub(v_load(p + j + i * VL), v_set1(top)));
            v_store(p + j + i * VL, e);
            sum[i] = v_add(sum[i], e);
        }
    }
    real lanes[FL_SUM_LANES];
    FL_UNROLL
    for (int i = 0; i < SUM_VECTORS; i++) {
        v_storeu(lanes + i * VL, sum[i]);
    }
    FL_UNROLL
    for (int width = FL_SUM_LANES / 2; width > 0; width /= 2) {
        FL_UNROLL
        for (int i = 0; i < width; i++) {
            lanes[i] += lanes[i + width];
        }
    }
    return lanes[0];
}

static void softmax(ptrdiff_t rows, const fl_softmax *t)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        real *p = t->logits + r * t->row;
        const real top = largest_of(p, t->n);
        t->margin[r] = top - p[t->targets[r]];
        t->sum[r] = exponentials(p, t->n, top);
        if (t->scale != 0) {
            const vec factor = v_set1(t->scale / t->sum[r]);
            for (ptrdiff_t j = 0; j < t->n; j += VL) {
                v_store(p + j, v_mul(v_load(p + j), factor));
            }
            p[t->targets[r]] -= t->scale;
        }
    }
}

/* h = (1 - z) n + z h_before, n = tanh(x's part + r h's part): slots r, z, and the two parts of n;
 * out go r, z, n and h's part.  c is h. */
static void gru_tile(ptrdiff_t rows, ptrdiff_t groups, const fl_tile *t)
{
    for (ptrdiff_t j = 0; j < groups; j++) {
        const ptrdiff_t at = j * VL, n = t->units - at;
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
            vec h = v_fma(update, v_sub(load_part(t->c_before[r] + at, n), next), next);
            store_part(t->c[r] + at, h, n);
            store_part(t->h[r] + at, h, n);
            if (t->y) {
                store_part(t->y[r] + at, h, n);
            }
        }
    }
}

/* max(0, x), and +0 for either zero, on every instruction set. */
FL_INLINE vec rectified(vec x) { return v_mul(v_set1((real)0.5), v_add(x, v_abs(x))); }

/* 1 for every positive number, 0 for 0. */
FL_INLINE vec positive(vec x)
{
    const real huge = FL_DOUBLE ? (real)0x1p1022 : (real)0x1p126f;
    return v_min(v_set1(1), v_mul(x, v_set1(huge)));
}

/* h = tanh or max(0, .) of the one slot; out goes h. */
FL_INLINE void rnn_tile(const int relu, ptrdiff_t rows, ptrdiff_t groups, const fl_tile *t)
{
    for (ptrdiff_t j = 0; j < groups; j++) {
        const ptrdiff_t at = j * VL, n = t->units - at;
        for (ptrdiff_t r = 0; r < rows; r++) {
            vec z = v_load(t->z + r * t->z_row + j * GROUP);
            vec h = relu ? rectified(z) : v_tanh(z);
            v_store(t->gates + r * t->gates_row + j * GROUP, h);
            store_part(t->c[r] + at, h, n);
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
            vec dh = v_add(v_load(t->dh + r * GROUP + at), load_part(t->dc[r] + at, n));
            vec before = load_part(t->c_before[r] + at, n);
            vec dn = through_tanh(v_fnma(dh, update, dh), next);
            real *dz = t->dz + r * t->dz_row + at;
            store_part(dz, through_sigmoid(v_mul(dn, of_h), reset), n);
            store_part(dz + t->gate_step, through_sigmoid(v_mul(dh, v_sub(before, next)), update),
                       n);
            store_part(dz + 2 * t->gate_step, dn, n);
            store_part(dz + 3 * t->gate_step, v_mul(dn, reset), n);
            store_part(t->dc[r] + at, v_mul(dh, update), n);
        }
    }
}

FL_INLINE void rnn_gradient(const int relu, ptrdiff_t rows, const fl_gradient *t)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < 4 && j * VL < t->units; j++) {
            const ptrdiff_t at = j * VL, n = t->units - at;
            vec h = v_load(t->gates + r * t->gates_row + j * GROUP);
            vec dh = v_add(v_load(t->dh + r * GROUP + at), load_part(t->dc[r] + at, n));
            vec dz = relu ? v_mul(dh, positive(h)) : through_tanh(dh, h);
            store_part(t->dz + r * t->dz_row + at, dz, n);
            store_part(t->dc[r] + at, v_set1(0), n);
        }
    }
}

static void rnn_tanh_gradient(ptrdiff_t rows, const fl_gradient *t) { rnn_gradient(0, rows, t); }

static void rnn_relu_gradient(ptrdiff_t rows, const fl_gradient *t) { rnn_gradient(1, rows, t); }

static void load(ptrdiff_t rows, ptrdiff_t n, const real *const *a, const real *const *b,
                 real *tile)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < GROUP; j += VL) {
            vec v = v_set1(0);
            if (j < n) {
                v = load_part(a[r] + j, n - j);
                v = b ? v_add(v, load_part(b[r] + j, n - j)) : v;
            }
            v_store(tile + r * GROUP + j, v);
        }
    }
}

static void store(ptrdiff_t rows, ptrdiff_t n, const real *tile, real *const *out)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < GROUP && j < n; j += VL) {
            store_part(out[r] + j, v_load(tile + r * GROUP + j), n - j);
        }
    }
}

static void add(ptrdiff_t rows, ptrdiff_t n, const real *const *a, real *const *out)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < n; j += VL) {
            vec sum = v_add(load_part(out[r] + j, n - j), load_part(a[r] + j, n - j));
            store_part(out[r] + j, sum, n - j);
        }
    }
}

static void add_columns(ptrdiff_t k, ptrdiff_t n, const real *const *a, ptrdiff_t at, real *out)
{
    for (ptrdiff_t j = 0; j < n; j += VL) {
        vec sum = v_set1(0);
        for (ptrdiff_t i = 0; i < k; i++) {
            sum = v_add(sum, load_part(a[i] + at + j, n - j));
        }
        store_part(out + j, v_add(load_part(out + j, n - j), sum), n - j);
    }
}

static void activate(int which, const real *x, real *out, ptrdiff_t n)
{
    for (ptrdiff_t j = 0; j < n; j += VL) {
        vec v = load_part(x + j, n - j);
        store_part(out + j, which == 2 ? v_exp(v) : which ? v_tanh(v) : v_sigmoid(v), n - j);
    }
}

/* The wrapper names the table: FL_TABLE is fl_kernels_<isa>_<type>. */
const fl_kernels FL_TABLE = {
    .lanes = VL,
    .rows = ROWS,
    .groups = GROUPS,
    .product = product,
    .tile = {lstm_tile, gru_tile, rnn_tanh_tile, rnn_relu_tile},
    .gradient = {lstm_gradient, gru_gradient, rnn_tanh_gradient, rnn_relu_gradient},
    .softmax = softmax,
    .load = load,
    .store = store,
    .add = add,
    .add_columns = add_columns,
    .activate = activate,
    .probe_fma = probe_fma,
    .probe_read = probe_read,
};
