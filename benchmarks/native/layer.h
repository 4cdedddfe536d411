/* A layer of the core and its data, through the C API alone. */
#ifndef FL_BENCH_LAYER_H
#define FL_BENCH_LAYER_H

#define FL_DOUBLE 0
#include "base/openmp.h"
#include "fastlstm.h"
#include "kernels/table.h"
#include "measured.h"

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#include <string.h>

#if __has_include("driver/cost.h")
#define OF_CACHES , fl_machine_caches()
#else /* trees whose plans know no caches */
#define OF_CACHES
#endif

typedef struct {
    fl_forward_call forward;
    fl_backward_call backward;
    bench_size size;
    real *memory[24];
    int count;
    ptrdiff_t grads;
} layer;

static const fl_isa *isa_of(const bench_size *size)
{
    for (int i = 0; fl_isa_at(i); i++) {
        if (!size->isa || strcmp(fl_isa_at(i)->name, size->isa) == 0) {
            return fl_isa_at(i);
        }
    }
    return NULL;
}

/* Random numbers within +-scale, the same in every build. */
static real *take(layer *l, ptrdiff_t n, double scale)
{
    static unsigned state;
    const size_t bytes = ((size_t)n * sizeof(real) / FL_ALIGN + 1) * FL_ALIGN;
    real *p = aligned_alloc(FL_ALIGN, bytes);
#ifdef MADV_HUGEPAGE
    if (p && bytes >= 4 << 20) { /* as the binding does */
        madvise((void *)(((uintptr_t)p + 4095) & ~(uintptr_t)4095), bytes - 4096, MADV_HUGEPAGE);
    }
#endif
    state = (unsigned)l->count;
    for (ptrdiff_t i = 0; p && i < n; i++) {
        state = state * 1664525u + 1013904223u;
        p[i] = (real)(scale * ((double)(state >> 8) / (1 << 23) - 1));
    }
    l->memory[l->count++] = p;
    return p;
}

static void run_team(fl_job job, void *call, const fl_team_plan *plan)
{
    fl_worker alone = fl_alone();
    fl_team_space space;
    fl_team *team = plan->workers > 1 ? fl_team_open(plan->workers, &space) : NULL;
    if (!team) {
        job(call, &alone);
        return;
    }
#ifdef _OPENMP
#pragma omp parallel num_threads(plan->workers)
    fl_work_in(team, job, call, omp_get_thread_num(), fl_team_size());
#endif
    fl_team_close(team);
}

static void close_layer(void *opened)
{
    layer *l = opened;
    for (int i = 0; i < l->count; i++) {
        free(l->memory[i]);
    }
    free(l);
}

static void open_forward(layer *l, const fl_isa *isa)
{
    const fl_driver *driver = &fl_driver_f32;
    const bench_size *n = &l->size;
    fl_forward_call *call = &l->forward;
    fl_stack *s = &call->stack;
    const fl_dropout none = {0};
    s->layers = n->layers, s->directions = 1, s->input = n->input, s->hidden = n->hidden;
    s->heads = 1, s->bias = 1, s->cell = FL_LSTM;
    l->grads = driver->parameters_size(s);
    const real *flat = take(l, l->grads, 1 / __builtin_sqrt((double)n->hidden));
    real *packed = take(l, driver->forward_size(s, isa->f32), 0);
    const fl_pack_call pack = {.stack = s, .kernels = isa->f32, .flat = flat, .packed = packed};
    fl_worker alone = fl_alone();
    driver->pack_forward((void *)&pack, &alone);
    call->kernels = isa->f32, call->packed = packed;
    call->steps = n->steps, call->batch = n->batch;
    call->x = take(l, n->steps * n->batch * n->input, 1);
    call->x_row = n->input, call->x_step = n->batch * n->input;
    call->y = take(l, n->steps * n->batch * n->hidden, 0);
    call->y_row = n->hidden, call->y_step = n->batch * n->hidden;
    call->states[0] = take(l, n->layers * n->batch * n->hidden, 0);
    call->states[1] = take(l, n->layers * n->batch * n->hidden, 0);
    if (n->training) {
        const ptrdiff_t size = driver->tape_size(s, isa->f32, n->steps, n->batch, &none);
        call->tape = take(l, size, 0);
    }
}

static void open_backward(layer *l, const fl_isa *isa)
{
    const fl_driver *driver = &fl_driver_f32;
    const fl_forward_call *from = &l->forward;
    const bench_size *n = &l->size;
    fl_backward_call *call = &l->backward;
    call->stack = from->stack, call->kernels = isa->f32;
    real *packed = take(l, driver->backward_size(&call->stack, isa->f32), 0);
    const fl_pack_call pack = {
        .stack = &call->stack, .kernels = isa->f32, .flat = l->memory[0], .packed = packed};
    fl_worker alone = fl_alone();
    driver->pack_backward((void *)&pack, &alone);
    call->packed = packed, call->tape = from->tape;
    call->steps = n->steps, call->batch = n->batch;
    call->x = from->x, call->x_row = from->x_row, call->x_step = from->x_step;
    call->dy = take(l, n->steps * n->batch * n->hidden, 1);
    call->dy_row = from->y_row, call->dy_step = from->y_step;
    call->dstates[0] = take(l, n->layers * n->batch * n->hidden, 0);
    call->dstates[1] = take(l, n->layers * n->batch * n->hidden, 0);
    call->dx = take(l, n->steps * n->batch * n->input, 0);
    call->dx_row = from->x_row, call->dx_step = from->x_step;
    call->grads = take(l, l->grads, 0);
}

static void *open_layer(const bench_size *size)
{
    const fl_isa *isa = isa_of(size);
    layer *l = calloc(1, sizeof *l);
    if (!l || !isa) {
        free(l);
        return NULL;
    }
    fl_team_limits limits = {size->threads, size->threads, size->threads, 0 OF_CACHES};
    l->size = *size;
    open_forward(l, isa);
    fl_driver_f32.plan_forward(&l->forward, limits, size->training);
    l->forward.scratch = take(l, l->forward.plan.scratch, 0);
    if (size->training) {
        open_backward(l, isa);
        fl_driver_f32.plan_backward(&l->backward, limits);
        l->backward.scratch = take(l, l->backward.plan.scratch, 0);
    }
    for (int i = 0; i < l->count; i++) {
        if (!l->memory[i]) {
            close_layer(l);
            return NULL;
        }
    }
    return l;
}

static void zero_states(layer *l, void *const *states)
{
    const size_t size = (size_t)(l->size.layers * l->size.batch * l->size.hidden);
    memset(states[0], 0, size * sizeof(real));
    memset(states[1], 0, size * sizeof(real));
}

static double sum_of(const void *opened)
{
    const layer *l = opened;
    const real *y = l->forward.y, *grads = l->backward.grads;
    double sum = 0;
    for (ptrdiff_t i = 0; i < l->size.steps * l->size.batch * l->size.hidden; i++) {
        sum += (double)y[i] * (double)(i % 7 + 1);
    }
    for (ptrdiff_t i = 0; grads && i < l->grads; i++) {
        sum += (double)grads[i] * (double)(i % 7 + 1);
    }
    return sum;
}

static double forward_work(const bench_size *n)
{
    const double inputs = (double)(n->input + (n->layers - 1) * n->hidden + n->layers * n->hidden);
    return 4 * (double)n->hidden * inputs * (double)(n->batch * n->steps);
}

static double backward_work(const bench_size *n) { return n->training ? 2 * forward_work(n) : 0; }

static double fma_rate(const bench_size *size)
{
    const ptrdiff_t n = 4000000; /* 0.7 ms: after other code the rate needs 0.1 ms to settle */
    const fl_kernels *k = isa_of(size)->f32;
    const int64_t begin = fl_now();
#ifdef _OPENMP
#pragma omp parallel num_threads(size->threads)
#endif
    k->probe_fma(n);
    return (double)(n * k->lanes * size->threads) / (double)(fl_now() - begin);
}

#endif
