/* Weights of 8 bits: rows of x or h to bytes, and the product of bytes (float only). */
#ifndef FL_KERNELS_BYTES_H
#define FL_KERNELS_BYTES_H

#include "kernels/product.h"

#include <string.h>

#if !FL_DOUBLE

/* The largest magnitude becomes 127.  Rows below 2^-100 count as zeros: 127 over their largest
 * would be infinite, or nearly so.  In one that is not finite all bytes are zeros: sums are zeros
 * times its scale, NaN. */
static const real LEAST = 0x1p-100f;

static void quantize(ptrdiff_t rows, ptrdiff_t n, const real *const *a, const fl_bytes *to)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *from = a[r];
        uint8_t *bytes = to->bytes + r * to->row;
        ivec most = i_set1(0);
        for (ptrdiff_t j = 0; j < n; j += VL) {
            most = i_max(most, i_magnitude(load_part(from + j, n - j)));
        }
        const uint32_t bits = i_largest(most);
        real largest;
        memcpy(&largest, &bits, sizeof bits);
        const int is_finite = bits < 0x7f800000u, is_zero = is_finite && largest < LEAST;
        to->scales[r] = is_zero ? 0 : largest / 127;
        const vec factor = v_set1(is_zero || !is_finite ? 0 : 127 / largest);
        for (ptrdiff_t j = 0; j < n; j += VL) {
            const vec x = is_finite ? load_part(from + j, n - j) : v_set1(0);
            v_store_bytes(bytes + j, v_mul(x, factor));
        }
    }
}

/* Four weights of a column are adjacent, so that one instruction takes four products of a lane. */
FL_INLINE void bytes_tile(const int rows, const int vectors, const real *const *init,
                          const fl_term *terms, int n_terms, real *z, ptrdiff_t z_row)
{
    const real *sums[ROWS];
    FL_UNROLL
    for (int r = 0; r < rows; r++) {
        sums[r] = init[r];
    }
    for (int i = 0; i < n_terms; i++) {
        const fl_term *term = &terms[i];
        const ptrdiff_t fours = (term->k + 3) / 4;
        const ptrdiff_t group =
            (FL_INT8_HEAD + fours) * GROUP; /* from group to group, in 32 bits */
        const real *of_w = term->panel;
        const int32_t *begin = (const int32_t *)term->panel + GROUP;
        const int32_t *panel = (const int32_t *)term->panel + FL_INT8_HEAD * GROUP;
        const char *next = term->next;
        const ptrdiff_t line = next ? FL_ALIGN : 0;
        ivec acc[ROWS][4 * GROUPS];
        const uint8_t *q[ROWS];
        FL_UNROLL
        for (int r = 0; r < rows; r++) {
            q[r] = term->q.bytes + r * term->q.row;
            FL_UNROLL
            for (int j = 0; j < vectors; j++) {
                acc[r][j] = i_load(begin + (j / 4) * group + (j % 4) * VL);
            }
        }
        FL_UNROLL_BY_4
        for (ptrdiff_t n = 0; n < fours; n++) {
            ivec x[ROWS];
            FL_PREFETCH_L2(next + n * line);
            FL_UNROLL
            for (int r = 0; r < rows; r++) {
                uint32_t four;
                memcpy(&four, q[r] + 4 * n, sizeof four);
                x[r] = i_set1(four);
            }
            FL_UNROLL
            for (int j = 0; j < vectors; j++) {
                ivec w = i_load(panel + (j / 4) * group + (j % 4) * VL);
                FL_UNROLL
                for (int r = 0; r < rows; r++) {
                    acc[r][j] = i_dot4(acc[r][j], x[r], w);
                }
            }
            panel += GROUP;
        }
        FL_UNROLL
        for (int r = 0; r < rows; r++) {
            const vec scale = v_set1(term->q.scales[r]);
            FL_UNROLL
            for (int j = 0; j < vectors; j++) {
                const vec factor = v_mul(scale, v_load(of_w + (j / 4) * group + (j % 4) * VL));
                vec sum = v_fma(v_of_ints(acc[r][j]), factor, v_load(sums[r] + j * VL));
                v_store(z + r * z_row + j * VL, sum);
            }
            sums[r] = z + r * z_row;
        }
    }
}

static void unit_of_bytes(ptrdiff_t vectors, const real *init, const void *panel, ptrdiff_t row,
                          real *z)
{
    const real *scales = panel;
    const int8_t *w = (const int8_t *)panel + (FL_INT8_HEAD + row / 4) * 4 * GROUP + row % 4;
    for (ptrdiff_t j = 0; j < vectors * VL; j += VL) {
        real product[VL];
        for (int i = 0; i < VL; i++) {
            product[i] = 127 * (real)w[4 * (j + i)];
        }
        const vec factor = v_mul(v_set1((real)1 / 127), v_load(scales + j));
        v_store(z + j, v_fma(v_loadu(product), factor, v_load(init + j)));
    }
}

static void product_int8(ptrdiff_t rows, ptrdiff_t vectors, const real *const *init,
                         const fl_term *terms, int n_terms, real *z, ptrdiff_t z_row)
{
    FL_FOR_TILE(rows, vectors, bytes_tile, init, terms, n_terms, z, z_row)
}

#endif

#endif
