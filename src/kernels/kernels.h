/* The kernels, written once.  A wrapper (isa/<isa>_<type>.c) includes simd/<isa>.h before this file
 * and is compiled for that instruction set; contracts are in table.h.
 *
 * The numerics contract: an output element is one chain of fused multiply-adds whose order depends
 * on nothing but the sizes of the layer.  So no kernel may split a sum, and lanes never mix (except
 * in softmax: see FL_SUM_LANES). */
#include "base/random.h"
#include "kernels/cells/gru.h"
#include "kernels/cells/lstm.h"
#include "kernels/cells/lstm_options.h"
#include "kernels/cells/rnn.h"
#include "kernels/probe.h"

/* The register tile: 4*ROWS accumulators, one weight vector and ROWS broadcast elements fill the
 * register file: 24 + 1 + 6 of 32, or 12 + 1 + 3 of 16.  One row takes several groups at once,
 * so that enough chains are in flight to hide the latency of the multiply-add. */
#if FL_VECTOR_REGISTERS == 32
enum { ROWS = 6, GROUPS = 4 };
#else
enum { ROWS = 3, GROUPS = 2 };
#endif

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
    return total_of(sum);
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

static void multiply(ptrdiff_t rows, ptrdiff_t n, const real *const *a, const real *const *b,
                     real *const *out)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < n; j += VL) {
            vec product = v_mul(load_part(a[r] + j, n - j), load_part(b[r] + j, n - j));
            store_part(out[r] + j, product, n - j);
        }
    }
}

static void mix(ptrdiff_t rows, ptrdiff_t n, const real *const *zone, const real *const *a,
                const real *const *b, real *const *out)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < n; j += VL) {
            vec mixed = mixed_of(load_part(zone[r] + j, n - j), load_part(a[r] + j, n - j),
                                 load_part(b[r] + j, n - j));
            store_part(out[r] + j, mixed, n - j);
        }
    }
}

/* Integers: the compiler makes vectors of it. */
static void draw(ptrdiff_t n, uint64_t stream, ptrdiff_t first, uint64_t threshold, real *out)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        out[i] = draw_of(stream, first + i) < threshold ? (real)1 : (real)0;
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
    .tile = {lstm_tile, gru_tile, rnn_tanh_tile, rnn_relu_tile, options_tile, gru_before_tile},
    .gradient = {lstm_gradient, gru_gradient, rnn_tanh_gradient, rnn_relu_gradient,
                 options_gradient, gru_before_gradient},
    .gru_next = gru_next,
    .gru_reset_gradient = gru_reset_gradient,
    .softmax = softmax,
    .load = load,
    .store = store,
    .add = add,
    .multiply = multiply,
    .mix = mix,
    .draw = draw,
    .add_columns = add_columns,
    .activate = activate,
    .probe_fma = probe_fma,
    .probe_read = probe_read,
};
