/* A team: the workers that share a call, how they wait for each other, and how they share it.
 *
 * Between two meetings there is work in pieces, of which each worker has a share.  A worker that is
 * done with its own takes pieces of others that have not begun them: on a machine that other
 * processes use too, one that was put aside has then at most one piece left to do.  What a piece
 * computes does not depend on who does it. */
#ifndef FL_BASE_TEAM_H
#define FL_BASE_TEAM_H

#include "base/align.h"
#include "base/wait.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    _Alignas(FL_ALIGN) _Atomic uint64_t taken; /* pieces that are begun, below the meeting before */
} fl_share;

typedef struct {
    /* Twice the arrivals at all meetings so far, plus 1 while someone sleeps. */
    _Alignas(FL_ALIGN) _Atomic uint32_t arrivals;
    _Alignas(FL_ALIGN) int patience, grace; /* pauses before a worker sleeps; before it helps */
    _Atomic int64_t slept;                  /* nanoseconds, of all workers */
    void *memory;                           /* as malloc gave it */
    fl_share shares[];                      /* of the workers */
} fl_team;

/* A worker of a team. */
typedef struct {
    fl_team *team; /* NULL: it is alone */
    int number, workers;
    uint32_t met; /* arrivals of the last meeting, when all were there */
} fl_worker;

/* What each worker of a team runs, once. */
typedef void (*fl_job)(void *call, fl_worker *me);

static inline fl_worker fl_alone(void) { return (fl_worker){NULL, 0, 1, 0}; }

/* For so many workers; NULL: there is no memory for it. */
fl_team *fl_team_open(int workers);

void fl_team_close(fl_team *team);

/* A worker's part: the job, and then the last meeting, because OpenMP's own wait at the end of a
 * parallel region spins for milliseconds. */
void fl_work_in(fl_team *team, fl_job job, void *call, int number, int workers);

/* The rest of fl_meet for those who wait long. */
void fl_sleep_until_met(const fl_worker *me);
void fl_wake_sleepers(fl_team *team);

static inline int fl_have_met(const fl_worker *me)
{
    const uint32_t now = atomic_load_explicit(&me->team->arrivals, memory_order_acquire);
    return (int32_t)((now & ~1u) - me->met) >= 0;
}

/* Returns when all workers of the team have come here.  Waiting spins for as long as going to sleep
 * and being woken takes, and then sleeps: whoever computes may need this processor. */
static inline void fl_meet(fl_worker *me)
{
    if (me->workers == 1) {
        return;
    }
    fl_team *const team = me->team;
    me->met += 2 * (uint32_t)me->workers;
    const uint32_t now = atomic_fetch_add_explicit(&team->arrivals, 2, memory_order_acq_rel) + 2;
    if ((now & ~1u) == me->met) {
        if (now & 1u) {
            fl_wake_sleepers(team);
        }
        return;
    }
    for (int i = team->patience; i > 0; i--) {
        if (fl_have_met(me)) {
            return;
        }
        fl_pause();
    }
    fl_sleep_until_met(me);
}

/* Part `i` of `parts` of [0, n): sizes differ by at most one, larger ones first. */
typedef struct {
    ptrdiff_t begin, end;
} fl_range;

static inline fl_range fl_part(ptrdiff_t n, ptrdiff_t parts, ptrdiff_t i)
{
    ptrdiff_t size = n / parts, larger = n % parts;
    ptrdiff_t begin = i * size + (i < larger ? i : larger);
    return (fl_range){begin, begin + size + (i < larger)};
}

/* Work between two meetings: for each of `times`, one after the other, n units, up to `chunk` of
 * them in a piece. */
typedef struct {
    ptrdiff_t n, chunk, times;
} fl_kind;

typedef struct {
    int kind;
    ptrdiff_t time, begin, end; /* units */
    fl_range share;             /* the share they are of */
} fl_piece;

/* How a worker goes through some kinds of work. */
typedef struct {
    fl_worker *me;
    const fl_kind *kinds;
    int count;
    int helps;     /* its own share is done */
    fl_piece last; /* where a worker that is alone has come to */
} fl_work;

/* The only work of all workers until the next meeting. */
static inline fl_work fl_begin(fl_worker *me, const fl_kind *kinds, int count)
{
    return (fl_work){.me = me, .kinds = kinds, .count = count};
}

/* The next piece of a worker with a team; 0: all are begun. */
int fl_team_take(fl_work *work, fl_piece *piece);

/* The next piece that this worker is to do; 0: there is none. */
static inline int fl_next(fl_work *work, fl_piece *piece)
{
    if (work->me->workers > 1) {
        return fl_team_take(work, piece);
    }
    fl_piece *at = &work->last;
    for (; at->kind < work->count; at->kind++, at->time = at->end = 0) {
        const fl_kind *kind = &work->kinds[at->kind];
        for (; at->time < kind->times; at->time++, at->end = 0) {
            if (at->end < kind->n) {
                at->share = (fl_range){0, kind->n};
                at->begin = at->end;
                at->end = kind->n - at->begin < kind->chunk ? kind->n : at->begin + kind->chunk;
                *piece = *at;
                return 1;
            }
        }
    }
    return 0;
}

#endif
