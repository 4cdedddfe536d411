/* How many workers share a call, and what they share. */
#ifndef FL_DRIVER_TEAM_PLAN_H
#define FL_DRIVER_TEAM_PLAN_H

#include "driver/cost.h"

/* Work that pays for a second worker: 10 us of one in a call, to wake it, and 1 us in a step where
 * they meet after each (Xeon, AVX-512, one row, steps of H = 64, 80, 128: 1.08, 1.04, 1.30 times as
 * fast with two).  The unit is a multiply-add; reading the weights takes as long as computing one
 * row more, so batches count for batch + 1 rows.
 *
 * Live calls, a step or a block at a time, are waited for: a worker that comes late, because the
 * machine is busy, makes them miss a deadline, and one that waits for the next call burns a core.
 * They have a team where it saves a third of the time and more (H = 160: 1.4, H = 256: 1.7; one
 * step of that: 3.3). */
typedef struct {
    double call, step;
} team_price;

static inline team_price price_of(const fl_team_limits *limits)
{
    return limits->live ? (team_price){1e6, 2e5} : (team_price){5e5, 5e4};
}

static inline double work_of(double weights, ptrdiff_t batch)
{
    return weights * (double)(batch + 1);
}

/* Multiply-adds of a step: what all workers of a team make of it, together. */
static inline double step_work(ptrdiff_t slots, ptrdiff_t hidden, ptrdiff_t inputs, ptrdiff_t batch)
{
    return (double)(slots * hidden) * (double)(inputs * batch);
}

/* A call, for its team. */
typedef struct team_work {
    ptrdiff_t batch, unit_parts;
    double work, step_work; /* of the call, and between two meetings */
    const void *of;         /* the call itself */
    /* Cycles of a step of one of so many workers that share rows, or units. */
    double (*cycles)(const struct team_work *call, const fl_team_limits *limits, int workers,
                     int split);
} team_work;

/* Workers that meet after each step, as far as that pays. */
static double workers_that_meet(const team_work *call, const fl_team_limits *limits)
{
    return call->step_work / price_of(limits).step + 1;
}

/* Whether so many workers share the hidden units rather than the rows. */
static int shares_units(const team_work *call, const fl_team_limits *limits, int workers)
{
    if (call->batch < 2 * workers) {
        return 1;
    }
    if (call->unit_parts < workers || workers_that_meet(call, limits) < workers) {
        return 0;
    }
    return call->cycles(call, limits, workers, 1) < call->cycles(call, limits, workers, 0);
}

/* Workers that share rows never meet.  Those that share hidden units meet after each step: then no
 * more than there are processors, because a worker that waits for its turn keeps all others waiting
 * (H = 256, one row, 4 threads on 2 processors: twice the time of 2). */
static int workers_for(const team_work *call, const fl_team_limits *limits, int threads, int *split)
{
    const team_price price = price_of(limits);
    const double most = call->work / price.call + 1;
    int workers = most < threads ? (int)most : threads;
    const int at_a_time = (int)minimum(workers, limits->processors);
    *split = 0;
    if (call->batch < 4 * workers) {
        workers = at_a_time;
    }
    if (workers == at_a_time && shares_units(call, limits, workers)) {
        const double shared = workers_that_meet(call, limits);
        workers = shared < workers ? (int)shared : workers;
        workers = (int)minimum(workers, call->unit_parts);
        *split = workers > 1;
    }
    return workers;
}

/* Workers of a call whose work is cut into pieces: no more of them than there are processors, as
 * above. */
static void plan_shares(fl_team_plan *team, const fl_team_limits *limits, double work,
                        ptrdiff_t pieces)
{
    const double most = work / price_of(limits).call + 1;
    const ptrdiff_t workers = minimum(minimum(limits->threads, limits->processors), pieces);
    team->wanted = most < (double)workers ? (int)most : (int)workers;
    team->workers = fl_threads_for((int)minimum(team->wanted, limits->most));
    team->work = work;
}

static void plan_team(fl_plan *plan, const fl_team_limits *limits, const team_work *call)
{
    int workers = plan->team.wanted =
        workers_for(call, limits, limits->threads, &plan->split_units);
    if (workers > limits->most) {
        workers = workers_for(call, limits, limits->most, &plan->split_units);
    }
    plan->team.workers = workers > 1 ? fl_threads_for(workers) : 1;
    plan->split_units = plan->split_units && plan->team.workers > 1;
    plan->team.work = call->work;
}

#endif
