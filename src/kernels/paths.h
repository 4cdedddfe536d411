/* Steps of recursions over the paths through a sequence: Viterbi's, and those of CTC. */
#ifndef FL_KERNELS_PATHS_H
#define FL_KERNELS_PATHS_H

#include "kernels/softmax.h"

static real max_plus(ptrdiff_t k, ptrdiff_t n, const real *a, const real *table, ptrdiff_t row,
                     const real *add, real *out)
{
    enum { CHAINS = 4 }; /* in one, each maximum would wait for the last */
    for (ptrdiff_t j = 0; j < n; j += VL) {
        vec best[CHAINS];
        FL_UNROLL
        for (int c = 0; c < CHAINS; c++) {
            best[c] = v_add(v_set1(a[0]), v_load(table + j));
        }
        for (ptrdiff_t i = 1; i < k; i += CHAINS) {
            FL_UNROLL
            for (int c = 0; c < CHAINS; c++) {
                const ptrdiff_t from = i + c < k ? i + c : k - 1;
                vec path = v_add(v_set1(a[from]), v_load(table + from * row + j));
                best[c] = v_max(best[c], path);
            }
        }
        vec of_all = v_max(v_max(best[0], best[1]), v_max(best[2], best[3]));
        v_store(out + j, v_add(of_all, v_load(add + j)));
    }
    return largest_of(out, n);
}

/* The logarithm of a sum of three: that of 1 and of the smaller two, beside the largest. */
static real ctc_forward(const fl_ctc_step *t)
{
    for (ptrdiff_t s = 0; s < t->n; s += VL) {
        const vec a = v_load(t->a + s), b = v_loadu(t->a + s - 1);
        const vec c = v_add(v_loadu(t->a + s - 2), v_load(t->skip + s));
        const vec larger = v_max(a, b), top = v_max(larger, c), other = v_min(larger, c);
        vec sum = v_add(v_set1(1), v_exp(v_sub(v_min(a, b), top)));
        sum = v_add(sum, v_exp(v_sub(other, top)));
        const vec lse = v_add(top, v_log(sum));
        v_store(t->lse + s, lse);
        v_store(t->out + s, v_add(lse, v_sub(v_load(t->emit + s), v_set1(t->shift))));
    }
    return largest_of(t->out, t->n);
}

/* What of a state's probability came from `a`. */
FL_INLINE vec part_from(vec a, const real *lse, const real *g)
{
    return v_mul(v_loadu(g), v_exp(v_sub(a, v_loadu(lse))));
}

static void ctc_backward(const fl_ctc_step *t)
{
    for (ptrdiff_t s = 0; s < t->n; s += VL) {
        const vec a = v_load(t->a + s), skipping = v_add(a, v_loadu(t->skip + s + 2));
        vec sum = part_from(a, t->lse + s, t->g + s);
        sum = v_add(sum, part_from(a, t->lse + s + 1, t->g + s + 1));
        sum = v_add(sum, part_from(skipping, t->lse + s + 2, t->g + s + 2));
        v_store(t->g_out + s, sum);
    }
}

#endif
