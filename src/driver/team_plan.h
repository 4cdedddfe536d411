/* How many workers share a call, and what they share. */
#ifndef FL_DRIVER_TEAM_PLAN_H
#define FL_DRIVER_TEAM_PLAN_H

#include "base/arena.h"
#include "fastlstm.h"

/* Work that pays for waking a second worker (10 microseconds of one), and work between two meetings
 * of the team that pays for them.  The unit is a multiply-add; reading the weights takes as long as
 * computing one row more, so batches count for batch + 1 rows. */
enum { FL_CALL_WORK = 500000, FL_STEP_WORK = 15000 };

static inline double work_of(double weights, ptrdiff_t batch)
{
    return weights * (double)(batch + 1);
}

/* Multiply-adds of a step: what all workers of a team make of it, together. */
static inline double step_work(ptrdiff_t slots, ptrdiff_t hidden, ptrdiff_t inputs, ptrdiff_t batch)
{
    return (double)(slots * hidden) * (double)(inputs * batch);
}

/* Enough rows are shared out, and workers never meet.  Else they share the hidden units and meet
 * after each step: then no more than there are processors, because a worker that waits for its turn
 * keeps all others waiting (H = 256, one row, 4 threads on 2 processors: twice the time of 2). */
static void plan_team(fl_plan *plan, const fl_team_limits *limits, ptrdiff_t batch,
                      ptrdiff_t unit_parts, double work, double step_work)
{
    double most = work / FL_CALL_WORK + 1;
    int workers = most < limits->threads ? (int)most : limits->threads;
    plan->split_units = 0;
    if (batch < 4 * workers) {
        workers = (int)minimum(workers, limits->processors);
    }
    if (batch < 4 * workers) {
        double shared = step_work / FL_STEP_WORK + 1;
        workers = shared < workers ? (int)shared : workers;
        workers = (int)minimum(workers, unit_parts);
        plan->split_units = workers > 1;
    }
    workers = workers > 1 ? fl_threads_for(workers) : 1;
    plan->split_units = plan->split_units && workers > 1;
    plan->workers = workers;
}

#endif
