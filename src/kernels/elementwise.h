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

static void activate(int which, const real *x, real *out, ptrdiff_t n)
{
    for (ptrdiff_t j = 0; j < n; j += VL) {
        vec v = load_part(x + j, n - j);
        store_part(out + j, which == 2 ? v_exp(v) : which ? v_tanh(v) : v_sigmoid(v), n - j);
    }
}

#endif
