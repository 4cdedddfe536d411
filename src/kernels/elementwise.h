/* What is done with single elements: copies, sums, masks, functions. */
#ifndef FL_KERNELS_ELEMENTWISE_H
#define FL_KERNELS_ELEMENTWISE_H

#include "base/random.h"
#include "kernels/tile.h"

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

static void mix(ptrdiff_t rows, ptrdiff_t n, const real *const *keep, const real *const *a,
                const real *const *b, real *const *out)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < n; j += VL) {
            vec mixed = mixed_of(load_part(keep[r] + j, n - j), load_part(a[r] + j, n - j),
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

/* The vectors become their columns: log2(VL) times, the first half of them zipped with the second.
 */
FL_INLINE void transpose_vectors(vec *v)
{
    FL_UNROLL
    for (int width = 1; width < VL; width *= 2) {
        vec zipped[VL];
        FL_UNROLL
        for (int i = 0; i < VL / 2; i++) {
            zipped[2 * i] = v_zip_low(v[i], v[i + VL / 2]);
            zipped[2 * i + 1] = v_zip_high(v[i], v[i + VL / 2]);
        }
        FL_UNROLL
        for (int i = 0; i < VL; i++) {
            v[i] = zipped[i];
        }
    }
}

static void transpose(ptrdiff_t rows, ptrdiff_t n, const real *const *a, ptrdiff_t first, real *out,
                      ptrdiff_t out_row)
{
    for (ptrdiff_t i = 0; i < rows; i += VL) {
        for (ptrdiff_t j = 0; j < n; j += VL) {
            vec v[VL];
            FL_UNROLL
            for (int r = 0; r < VL; r++) {
                v[r] = i + r < rows ? load_part(a[i + r] + first + j, n - j) : v_set1(0);
            }
            transpose_vectors(v);
            FL_UNROLL
            for (int c = 0; c < VL; c++) {
                if (j + c < n) {
                    v_store(out + (j + c) * out_row + i, v[c]);
                }
            }
        }
    }
}

static vec activated(int which, vec v)
{
    switch (which) {
    case FL_OF_SIGMOID: return v_sigmoid(v);
    case FL_OF_TANH: return v_tanh(v);
    case FL_EXP: return v_exp(v);
    case FL_LOG: return v_log(v);
    default: return v_log_sigmoid(v);
    }
}

static void activate(int which, const real *x, real *out, ptrdiff_t n)
{
    for (ptrdiff_t j = 0; j < n; j += VL) {
        store_part(out + j, activated(which, load_part(x + j, n - j)), n - j);
    }
}

#endif
