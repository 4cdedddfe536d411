/* The plan of a call forward: how its steps are cut, and its work space. */
#ifndef FL_DRIVER_FORWARD_PLAN_H
#define FL_DRIVER_FORWARD_PLAN_H

#include "driver/dropout.h"
#include "driver/team_plan.h"
#include "layout/packed_weights.h"

/* Projections ahead of the recurrence should fit L2 beside the weights they are made with; but
 * where W itself does not fit, it should serve four tiles each time it is read. */
enum { FL_AHEAD_BYTES = 1 << 17, FL_AHEAD_STEPS = 24 };
/* Between layers: as many steps as keep the outputs of a layer in L2. */
enum { FL_CHUNK_BYTES = 1 << 17 };

/* Elements of a row of the projected table. */
static inline ptrdiff_t table_row_of(const fl_plan *plan, const fl_kernels *k)
{
    return plan->blocks * 4 * k->lanes;
}

/* How the steps are cut: into chunks of a stack, and into pieces whose inputs are projected ahead.
 */
static void cut_steps(fl_forward_call *call, int training)
{
    const fl_stack *s = &call->stack;
    const fl_kernels *k = call->kernels;
    fl_plan *plan = &call->plan;
    const ptrdiff_t size = sizeof(real);
    plan->chunk = call->steps;
    if (s->layers > 1 && s->directions == 1 && !training) {
        const ptrdiff_t most = FL_CHUNK_BYTES / (call->batch * output_size(s) * size) + 1;
        plan->chunk = minimum(most, call->steps);
    }
    const ptrdiff_t rows = divide_up(call->batch, plan->split_units ? 1 : plan->team.workers);
    const ptrdiff_t blocks = divide_up(plan->blocks, plan->split_units ? plan->team.workers : 1);
    plan->ahead = 0;
    if (rows < k->rows && plan->chunk > 1) {
        const ptrdiff_t most = FL_AHEAD_BYTES / (rows * blocks * 4 * k->lanes * size) + 1;
        plan->ahead = minimum(most > FL_AHEAD_STEPS ? most : FL_AHEAD_STEPS, plan->chunk);
    }
    plan->z_rows = plan->ahead * rows;
    plan->z_worker = aligned(plan->z_rows * plan->blocks * 4 * k->lanes);
}

/* Pointers that a step looks up for each row: see step_rows. */
enum { FL_ROW_POINTERS = 8 };

/* How many rows a worker has at most, in whole cache lines of pointers. */
static ptrdiff_t rows_of_worker(const fl_forward_call *call)
{
    const fl_plan *plan = &call->plan;
    const ptrdiff_t line = FL_ALIGN / (ptrdiff_t)sizeof(void *);
    return divide_up(divide_up(call->batch, plan->split_units ? 1 : plan->team.workers), line) *
           line;
}

/* Where things lie in the work space.  Its base is not known yet: an arena without one measures
 * offsets. */
static void lay_out_scratch(fl_forward_call *call, int training)
{
    const fl_stack *s = &call->stack;
    const fl_kernels *k = call->kernels;
    const fl_tokens *tokens = &call->tokens;
    fl_plan *plan = &call->plan;
    arena a = {NULL, 0};
    for (ptrdiff_t l = 0; !training && l < minimum(s->layers - 1, 2); l++) {
        plan->between[l] = a.used;
        arena_take(&a, plan->chunk * call->batch * s->directions * output_size(s));
    }
    plan->rows = a.used;
    plan->rows_worker = rows_of_worker(call);
    arena_take(&a, plan->team.workers * plan->rows_worker * FL_ROW_POINTERS *
                       (ptrdiff_t)(sizeof(void *) / sizeof(real)));
    plan->z = a.used;
    plan->zeros = plan->z + (plan->split_units ? 1 : plan->team.workers) * plan->z_worker;
    plan->zeros_worker = call->rows.reset ? aligned(s->hidden) : 0;
    plan->zoneout_keep = plan->zeros + plan->team.workers * plan->zeros_worker;
    plan->zoneout_keep_worker = zoneout_keep_size(s);
    plan->gates = plan->zoneout_keep + plan->team.workers * plan->zoneout_keep_worker;
    plan->second_input = plan->gates;
    if (!training && (has_norm(s) || second_is_candidate(s))) {
        plan->second_input += call->batch * table_row_of(plan, k);
    }
    plan->masked_h = plan->second_input;
    if (!training && second_product_size(s)) {
        plan->masked_h += aligned(call->batch * s->hidden);
    }
    plan->table = plan->masked_h;
    if (call->dropout.recurrent > 0) {
        plan->table += aligned(2 * call->batch * output_size(s));
    }
    plan->scratch = plan->table;
    plan->project_table = tokens->rows && call->x && tokens->count <= call->steps * call->batch;
    if (plan->project_table) {
        plan->scratch += s->directions * tokens->count * table_row_of(plan, k);
    }
}

static void plan_forward(fl_forward_call *call, fl_team_limits limits, int training)
{
    const fl_stack *s = &call->stack;
    const double gates = 4 * (double)s->hidden;
    const double inputs = (double)s->input + (double)(s->layers - 1) * (double)input_size(s, 1) +
                          (double)s->layers * (double)output_size(s);
    const double steps = (double)s->directions * (double)call->steps;
    call->plan.blocks = blocks_of(s, call->kernels);
    const team_work work = {
        .batch = call->batch,
        .unit_parts = has_norm(s) ? 1 : call->plan.blocks, /* a layer norm needs whole rows */
        .work = work_of(gates * inputs, call->batch) * steps,
        .step_work = work_of(gates * (double)s->hidden, call->batch),
    };
    plan_team(&call->plan, &limits, &work);
    cut_steps(call, training);
    lay_out_scratch(call, training);
}

#endif
