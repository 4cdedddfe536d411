/* The product: a tile of rows and vectors, held in registers. */
#ifndef FL_KERNELS_PRODUCT_H
#define FL_KERNELS_PRODUCT_H

#include "kernels/tile.h"

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

#endif
