/* The plan of a call forward: how its steps are cut, and its work space. */
#ifndef FL_DRIVER_FORWARD_PLAN_H
#define FL_DRIVER_FORWARD_PLAN_H

#include "driver/dropout.h"
#include "driver/forward/row_bytes.h"
#include "driver/team_plan.h"
#include "layout/packed_weights.h"

/* Projections ahead of the recurrence should fit L2 beside the weights they are made with: an
 * eighth of it, like the outputs between layers.  But where W itself does not fit, it should serve
 * four tiles each time it is read. */
enum { FL_L2_SHARE = 8, FL_AHEAD_STEPS = 24 };
/* Of batches, whose projections are large. */
enum { FL_AHEAD_OF_BATCH = 8 };

/* Elements of a row of the projected table. */
static inline ptrdiff_t table_row_of(const fl_plan *plan, const fl_kernels *k)
{
    return plan->blocks * 4 * k->lanes;
}

/* What one of so many workers computes in a step of a layer.  The widest input counts: that of the
 * first layer, or of those above it. */
static step_cost step_of(const fl_forward_call *call, int workers, int split)
{
    const fl_stack *s = &call->stack;
    const fl_kernels *k = call->kernels;
    const ptrdiff_t above = s->layers > 1 ? input_size(s, 1) : 0, blocks = blocks_of(s, k);
    const ptrdiff_t most = split ? divide_up(blocks, workers) * k->lanes : s->hidden;
    const ptrdiff_t units = minimum(most, s->hidden);
    return (step_cost){
        .lanes = k->lanes,
        .rows = split ? call->batch : divide_up(call->batch, workers),
        .columns = gate_slot_count(s) * units,
        .inputs = s->input > above ? s->input : above,
        .outputs = head_size(s),
        .weight_bytes = weight_bytes(s->weights),
        .rate = s->weights == FL_INT8 ? k->int8_rate : 1,
        .written = split ? call->batch * (s->hidden - units) : 0,
        .meets = split,
    };
}

/* Steps whose input is projected ahead, or 0: for less than a tile of rows always, because W is
 * read that much less often, and for batches where it costs less. */
static ptrdiff_t steps_ahead(const fl_forward_call *call, step_cost step, const fl_caches *caches)
{
    const ptrdiff_t row = step.rows * step.columns * (ptrdiff_t)sizeof(real);
    const ptrdiff_t most = caches->l2 / caches->l2_sharers / FL_L2_SHARE / row + 1;
    if (call->steps == 1) {
        return 0;
    }
    if (step.rows < ((const fl_kernels *)call->kernels)->rows) {
        return most > FL_AHEAD_STEPS ? most : FL_AHEAD_STEPS;
    }
    const double fused = cycles_of(&step, caches);
    step.ahead = FL_AHEAD_OF_BATCH;
    return cycles_of(&step, caches) < fused ? step.ahead : 0;
}

static double forward_cycles(const team_work *work, const fl_team_limits *limits, int workers,
                             int split)
{
    const fl_forward_call *call = work->of;
    step_cost step = step_of(call, workers, split);
    step.ahead = steps_ahead(call, step, limits->caches);
    return cycles_of(&step, limits->caches);
}

/* How the steps are cut: into chunks of a stack, and into pieces whose inputs are projected ahead.
 */
static void cut_steps(fl_forward_call *call, const fl_caches *caches, int training)
{
    const fl_stack *s = &call->stack;
    const fl_kernels *k = call->kernels;
    fl_plan *plan = &call->plan;
    const step_cost step = step_of(call, plan->team.workers, plan->split_units);
    const ptrdiff_t ahead = steps_ahead(call, step, caches);
    plan->chunk = call->steps;
    if (s->layers > 1 && s->directions == 1 && !training) {
        const ptrdiff_t outputs = call->batch * output_size(s) * (ptrdiff_t)sizeof(real);
        const ptrdiff_t most = caches->l2 / caches->l2_sharers / FL_L2_SHARE / outputs + 1;
        /* Batches go on with a layer for as long as they project ahead. */
        plan->chunk = minimum(step.rows < k->rows || most > ahead ? most : ahead, call->steps);
    }
    plan->ahead = plan->chunk > 1 ? minimum(ahead, plan->chunk) : 0;
    plan->z_rows = plan->ahead * step.rows;
    plan->z_worker = aligned(plan->z_rows * plan->blocks * 4 * k->lanes);
}

/* Pointers that a step looks up for each row: see step_rows. */
static inline ptrdiff_t row_pointer_count(const fl_stack *s)
{
    return 6 + 2 * (state_count(s) - 1);
}

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
    plan->row_pointers = a.used;
    plan->rows_worker = rows_of_worker(call);
    const ptrdiff_t pointers = plan->team.workers * plan->rows_worker * row_pointer_count(s);
    arena_take(&a, divide_up(pointers * (ptrdiff_t)sizeof(void *), sizeof(real)));
    plan->bytes = a.used;
    ptrdiff_t bytes;
    row_bytes_at(call, NULL, 0, &bytes);
    arena_take(&a, bytes);
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
    /* One row of bytes takes a third to a quarter of the time, but meetings take what they did (two
     * threads, 100 steps of H = 96, 128, 192: 0.77, 1.06, 1.41 times as fast as one). */
    const double gates = 4 * (double)s->hidden * (s->weights == FL_INT8 ? 0.6 : 1);
    const double inputs = (double)s->input + (double)(s->layers - 1) * (double)input_size(s, 1) +
                          (double)s->layers * (double)head_size(s);
    const double steps = (double)s->directions * (double)call->steps;
    call->plan.blocks = blocks_of(s, call->kernels);
    const team_work work = {
        .batch = call->batch,
        .unit_parts = has_norm(s) ? 1 : call->plan.blocks, /* a layer norm needs whole rows */
        .work = work_of(gates * inputs, call->batch) * steps,
        .step_work = work_of(gates * (double)(s->hidden / s->heads), call->batch),
        .of = call,
        .cycles = forward_cycles,
    };
    plan_team(&call->plan, &limits, &work);
    cut_steps(call, limits.caches, training);
    lay_out_scratch(call, training);
}

#endif
