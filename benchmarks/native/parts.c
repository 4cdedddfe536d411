/* The parts of a layer, one thread.  Forward they are found by leaving kernels out: products,
 * gates, and what remains without both.  Backward the driver's own functions are called one by one.
 */
#include "layer.h"

#include "driver/backward/backward.h"
#include "driver/forward/forward.h"

enum { FORWARD, PRODUCTS, GATES, REST, BACKWARD, RECURRENCE, OF_INPUT, PACKING, OF_WEIGHTS, PARTS };

static void no_product(ptrdiff_t rows, ptrdiff_t vectors, const real *const *init,
                       const fl_term *terms, int n_terms, real *z, ptrdiff_t z_row)
{
    (void)rows, (void)vectors, (void)init, (void)terms, (void)n_terms, (void)z, (void)z_row;
}

static void no_tile(ptrdiff_t rows, ptrdiff_t groups, const fl_tile *tile)
{
    (void)rows, (void)groups, (void)tile;
}

static double time_forward(layer *l, int products, int gates)
{
    const fl_kernels *all = l->forward.kernels;
    fl_kernels some = *all;
    fl_worker alone = fl_alone();
    some.product = products ? some.product : no_product;
    some.tile[FL_LSTM] = gates ? some.tile[FL_LSTM] : no_tile;
    zero_states(l, l->forward.states);
    l->forward.kernels = &some;
    const int64_t begin = fl_now();
    forward(&l->forward, &alone);
    const int64_t end = fl_now();
    l->forward.kernels = all;
    return (double)(end - begin);
}

static double since(int64_t *then)
{
    const int64_t before = *then;
    *then = fl_now();
    return (double)(*then - before);
}

/* As run_backward, for one worker and a plain layer. */
static void time_pass(const backward_pass *p, double *ns)
{
    fl_worker alone = fl_alone();
    const worker_share me = {all_ranks(p->when.batch), &alone};
    const ptrdiff_t rows = p->when.batch;
    backward_pass without_dx = *p;
    without_dx.dx.data = NULL;
    int64_t then = fl_now();
    for (ptrdiff_t s1 = p->when.steps, going_on = 0; s1 > 0;) {
        const ptrdiff_t s0 = (s1 - 1) / p->segment * p->segment, n = (s1 - s0) * rows;
        for (ptrdiff_t s = s1 - 1; s >= s0; s--, going_on = rows) {
            plain_step(p, &me, s, rows, going_on);
        }
        ns[RECURRENCE] += since(&then);
        const fl_range tiles = {0, divide_up(n, p->k->rows)};
        for (ptrdiff_t group = 0; group < divide_up(p->x_columns, 4 * p->k->lanes); group++) {
            input_gradients(p, s0, n, tiles, group);
        }
        ns[OF_INPUT] += since(&then);
        for (ptrdiff_t first = 0; first < n; first += FL_TERMS) {
            term_rows terms = {.n = minimum(FL_TERMS, n - first)};
            matrix_gradient matrices[FL_MATRICES];
            find_terms(p, s0, first, &terms);
            find_matrices(p, &terms, matrices);
            prepare_terms(&without_dx, &terms, matrices, &alone, s0, first, n);
            ns[PACKING] += since(&then);
            dz_block block = dz_block_at(p, &terms, 0);
            for (ptrdiff_t i = 1; columns_in(&block) > 0; i++) {
                const dz_block next = dz_block_at(p, &terms, i);
                weight_gradients(p, &terms, matrices, &block, &next, &alone);
                block = next;
            }
            ns[OF_WEIGHTS] += since(&then);
        }
        s1 = s0;
    }
}

static void run_parts(void *opened, double *ns)
{
    layer *l = opened;
    const double nothing = time_forward(l, 0, 0), products = time_forward(l, 1, 0);
    ns[FORWARD] = time_forward(l, 1, 1);
    ns[PRODUCTS] = products - nothing;
    ns[GATES] = ns[FORWARD] - products;
    ns[REST] = nothing;
    if (!l->size.training) {
        return;
    }
    const backward_space space = backward_space_at(&l->backward);
    zero_states(l, l->backward.dstates);
    memset(l->backward.grads, 0, (size_t)l->grads * sizeof(real));
    memset(space.zeros, 0, (size_t)(FL_GATE_SLOTS * l->size.hidden) * sizeof(real));
    for (ptrdiff_t i = l->size.layers - 1; i >= 0; i--) {
        const backward_pass p = make_backward_pass(&l->backward, &space, 0, i, 0);
        time_pass(&p, ns);
    }
    for (int part = BACKWARD + 1; part < PARTS; part++) {
        ns[BACKWARD] += ns[part];
    }
}

static double half_backward_work(const bench_size *n) { return backward_work(n) / 2; }

static double recurrent_work(const bench_size *n)
{
    const double hidden = (double)n->hidden;
    return n->training ? 4 * hidden * hidden * (double)(n->layers * n->batch * n->steps) : 0;
}

static double input_work(const bench_size *n) { return half_backward_work(n) - recurrent_work(n); }

const bench_build build = {
    .open = open_layer,
    .run = run_parts,
    .sum = sum_of,
    .close = close_layer,
    .fma = fma_rate,
    .parts = PARTS,
    .names = {"forward", " products", " gates", " rest", "backward", " recurrence", " dx",
              " packing", " dw"},
    .work = {forward_work, forward_work, NULL, NULL, backward_work, recurrent_work, input_work,
             NULL, half_backward_work},
};
