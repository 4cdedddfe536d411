/* The product: a tile of rows and vectors, held in registers.
 *
 * A sum is cut into blocks of FL_SUM_BLOCK: each is a chain of fused multiply-adds from zero, and
 * they are added in order.  That is 1.3 to 3 times as accurate as one chain (I = H = 64 to 1024),
 * and the chains of two blocks overlap.  Blocks of 64 would be another 20% more accurate where K is
 * 256 and more, for 2 to 3% of the time. */
#ifndef FL_KERNELS_PRODUCT_H
#define FL_KERNELS_PRODUCT_H

#include "base/align.h"
#include "kernels/tile.h"

/* The register tile: 4*ROWS accumulators, one weight vector and ROWS broadcast elements fill the
 * register file: 24 + 1 + 6 of 32, or 12 + 1 + 3 of 16.  One row takes several groups at once,
 * so that enough chains are in flight to hide the latency of the multiply-add. */
#if FL_VECTOR_REGISTERS == 32
enum { ROWS = 6, GROUPS = 4 };
#else
enum { ROWS = 3, GROUPS = 2 };
#endif

/* A vector of weights of a type, from the i-th on. */
FL_INLINE vec weights_at(const int type, const void *panel, ptrdiff_t i)
{
#if !FL_DOUBLE
    if (type == FL_BFLOAT16) {
        return v_load_bfloat16((const uint16_t *)panel + i);
    }
    if (type == FL_FLOAT16) {
        return v_load_float16((const uint16_t *)panel + i);
    }
#else
    (void)type;
#endif
    return v_load((const real *)panel + i);
}

/* rows and vectors are constants where these are inlined, so that acc lives in registers; so are
 * the type of the weights and `fetches`, whether the term has lines to ask for. */
FL_INLINE void multiply_add(const int type, const int fetches, const int rows, const int vectors,
                            const fl_term *term, ptrdiff_t begin, ptrdiff_t k,
                            vec acc[ROWS][4 * GROUPS])
{
    const ptrdiff_t step = term->a_step, group = term->k * GROUP;
    const char *next = fetches ? (const char *)term->next + begin * FL_ALIGN : NULL;
    ptrdiff_t at = begin * GROUP; /* in the panel of the first group */
    const real *a[ROWS];
    FL_UNROLL
    for (int r = 0; r < rows; r++) {
        a[r] = term->a[r] + begin * step;
    }
    /* By four: a loop of 32 rounds is left without a mispredicted branch (H = 256: 3 to 4%). */
    FL_UNROLL_BY_4
    for (ptrdiff_t n = 0; n < k; n++) {
        vec x[ROWS];
        if (fetches) {
            FL_PREFETCH_L2(next + n * FL_ALIGN);
        }
        FL_UNROLL
        for (int r = 0; r < rows; r++) {
            x[r] = v_set1(a[r][n * step]);
        }
        FL_UNROLL
        for (int j = 0; j < vectors; j++) {
            vec w = weights_at(type, term->panel, at + (j / 4) * group + (j % 4) * VL);
            FL_UNROLL
            for (int r = 0; r < rows; r++) {
                acc[r][j] = v_fma(x[r], w, acc[r][j]);
            }
        }
        at += GROUP;
    }
}

FL_INLINE void sums_tile(const int type, const int rows, const int vectors, const real *const *init,
                         const fl_term *terms, int n_terms, real *z, ptrdiff_t z_row)
{
    const real *sums[ROWS];
    FL_UNROLL
    for (int r = 0; r < rows; r++) {
        sums[r] = init[r];
    }
    for (int i = 0; i < n_terms; i++) {
        for (ptrdiff_t k = 0; k < terms[i].k; k += FL_SUM_BLOCK) {
            const ptrdiff_t left = terms[i].k - k;
            vec acc[ROWS][4 * GROUPS];
            FL_UNROLL
            for (int r = 0; r < rows; r++) {
                FL_UNROLL
                for (int j = 0; j < vectors; j++) {
                    acc[r][j] = v_set1(0);
                }
            }
            const ptrdiff_t n = left < FL_SUM_BLOCK ? left : FL_SUM_BLOCK;
            /* Asking takes a load for each k: 1% of a weight gradient, which has nothing to ask
             * for, and 1 to 4% of a sequence of one row (H = 32 to 128), which uses sixteen lines
             * a k. */
            if (2 * rows > ROWS && vectors == 4 && terms[i].next) {
                multiply_add(type, 1, rows, vectors, &terms[i], k, n, acc);
            } else {
                multiply_add(type, 0, rows, vectors, &terms[i], k, n, acc);
            }
            FL_UNROLL
            for (int r = 0; r < rows; r++) {
                FL_UNROLL
                for (int j = 0; j < vectors; j++) {
                    vec sum = v_add(v_load(sums[r] + j * VL), acc[r][j]);
                    v_store(z + r * z_row + j * VL, sum);
                }
                sums[r] = z + r * z_row;
            }
        }
    }
}

/* The function of tiles, for constants rows and vectors. */
#define FL_TILE_CASE(r, v, tile, ...) \
    case r * 32 + v: tile(r, v, __VA_ARGS__); break;
#define FL_ROW_CASES(r, ...)        \
    FL_TILE_CASE(r, 1, __VA_ARGS__) \
    FL_TILE_CASE(r, 2, __VA_ARGS__) \
    FL_TILE_CASE(r, 3, __VA_ARGS__) \
    FL_TILE_CASE(r, 4, __VA_ARGS__)
#if FL_VECTOR_REGISTERS == 32
#define FL_LARGE_CASES(...)          \
    FL_ROW_CASES(4, __VA_ARGS__)     \
    FL_ROW_CASES(5, __VA_ARGS__)     \
    FL_ROW_CASES(6, __VA_ARGS__)     \
    FL_TILE_CASE(1, 9, __VA_ARGS__)  \
    FL_TILE_CASE(1, 10, __VA_ARGS__) \
    FL_TILE_CASE(1, 12, __VA_ARGS__) \
    FL_TILE_CASE(1, 13, __VA_ARGS__) \
    FL_TILE_CASE(1, 14, __VA_ARGS__) \
    FL_TILE_CASE(1, 16, __VA_ARGS__)
#else
#define FL_LARGE_CASES(...)
#endif
#define FL_FOR_TILE(rows, vectors, ...) \
    switch (rows * 32 + vectors) {      \
        FL_ROW_CASES(1, __VA_ARGS__)    \
        FL_ROW_CASES(2, __VA_ARGS__)    \
        FL_ROW_CASES(3, __VA_ARGS__)    \
        FL_TILE_CASE(1, 5, __VA_ARGS__) \
        FL_TILE_CASE(1, 6, __VA_ARGS__) \
        FL_TILE_CASE(1, 8, __VA_ARGS__) \
        FL_LARGE_CASES(__VA_ARGS__)     \
    }

#define FL_PRODUCT(name, type)                                                              \
    FL_INLINE void name##_tile(const int rows, const int vectors, const real *const *init,  \
                               const fl_term *terms, int n_terms, real *z, ptrdiff_t z_row) \
    {                                                                                       \
        sums_tile(type, rows, vectors, init, terms, n_terms, z, z_row);                     \
    }                                                                                       \
    static void name(ptrdiff_t rows, ptrdiff_t vectors, const real *const *init,            \
                     const fl_term *terms, int n_terms, real *z, ptrdiff_t z_row)           \
    {                                                                                       \
        FL_FOR_TILE(rows, vectors, name##_tile, init, terms, n_terms, z, z_row)             \
    }

FL_PRODUCT(product, FL_SAME)
#if !FL_DOUBLE
FL_PRODUCT(product_bfloat16, FL_BFLOAT16)
FL_PRODUCT(product_float16, FL_FLOAT16)
#endif

#endif
