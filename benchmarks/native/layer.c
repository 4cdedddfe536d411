/* A layer forward, and backward where it is trained: linked with the core into a shared object,
 * which turns.c runs.  It uses nothing but the C API, so that older trees can be compared. */
#include "layer.h"

static void run_layer(void *opened, double *ns)
{
    layer *l = opened;
    zero_states(l, l->forward.states);
    const int64_t begin = fl_now();
    run_team(fl_driver_f32.forward, &l->forward, &l->forward.plan.team);
    const int64_t middle = fl_now();
    ns[0] = (double)(middle - begin);
    if (l->size.training) {
        zero_states(l, l->backward.dstates);
        memset(l->backward.grads, 0, (size_t)l->grads * sizeof(real));
        const int64_t then = fl_now();
        run_team(fl_driver_f32.backward, &l->backward, &l->backward.plan.team);
        ns[1] = (double)(fl_now() - then);
    }
}

const bench_build build = {
    .open = open_layer,
    .run = run_layer,
    .sum = sum_of,
    .close = close_layer,
    .fma = fma_rate,
    .parts = 2,
    .names = {"forward", "backward"},
    .work = {forward_work, backward_work},
};
