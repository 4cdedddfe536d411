/* A team: the workers that share a call, how they wait for each other, and how they share it.
 *
 * Work comes in pieces, of which each worker has a share, and ends when all have met.  A worker
 * that is done with its own and has to wait takes pieces of others that have not begun them: one
 * that was put aside, because other processes use the machine too, has then at most one piece left
 * to do. What a piece computes does not depend on who does it. */
#ifndef FL_BASE_TEAM_H
#define FL_BASE_TEAM_H

#include "base/align.h"
#include "base/wait.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    _Alignas(FL_ALIGN) _Atomic uint64_t taken; /* pieces that are begun, below the last meeting */
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
    uint32_t met; /* arrivals at the last meeting, when all were there */
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

/* Returns when all workers of the team have come here.  Waiting spins for as long as going to sleep
 * and being woken takes, and then sleeps: whoever computes may need this processor. */
void fl_team_meet(fl_worker *me);

static inline void fl_meet(fl_worker *me)
{
    if (me->workers > 1) {
        fl_team_meet(me);
    }
}

/* Part `i` of `parts` of [0, n): sizes differ by at most one, larger ones first. */
typedef struct {
    ptrdiff_t begin, end;
} fl_range;

static inline fl_range fl_part(ptrdiff_t n, ptrdiff_t parts, ptrdiff_t i)
{
    if (parts == 1) { /* no division: 1% of a small layer */
        return (fl_range){0, n};
    }
    ptrdiff_t size = n / parts, larger = n % parts;
    ptrdiff_t begin = i * size + (i < larger ? i : larger);
    return (fl_range){begin, begin + size + (i < larger)};
}

/* For each of `times`, one after the other, n units, up to `chunk` of them in a piece. */
typedef struct {
    ptrdiff_t n, chunk, times;
} fl_kind;

typedef struct {
    int kind;
    ptrdiff_t time, begin, end; /* units */
    fl_range share;             /* the share they are of */
} fl_piece;

/* How a worker goes through its share of some kinds of work, and then through those of others. */
typedef struct {
    fl_worker *me;
    const fl_kind *kinds;
    int count;
    int helps;       /* with the shares of others; its own is done */
    ptrdiff_t begun; /* pieces of its own */
    fl_piece last;   /* of these */
} fl_work;

static inline fl_range fl_share_of(const fl_work *work, int kind)
{
    return fl_part(work->kinds[kind].n, work->me->workers, work->me->number);
}

/* What all workers do next. */
static inline fl_work fl_begin(fl_worker *me, const fl_kind *kinds, int count)
{
    fl_work work = {.me = me, .kinds = kinds, .count = count};
    work.last.share = fl_share_of(&work, 0);
    work.last.end = work.last.share.begin;
    return work;
}

/* The piece of a worker's own share after the last. */
static inline int fl_advance(fl_work *work)
{
    fl_piece *at = &work->last;
    for (;;) {
        const fl_kind *kind = &work->kinds[at->kind];
        if (at->end < at->share.end && at->time < kind->times) {
            at->begin = at->end;
            at->end =
                at->share.end - at->begin < kind->chunk ? at->share.end : at->begin + kind->chunk;
            return 1;
        }
        if (++at->time >= kind->times) {
            if (++at->kind == work->count) {
                at->kind--; /* and stays at its end */
                return 0;
            }
            at->time = 0;
            at->share = fl_share_of(work, at->kind);
        }
        at->end = at->share.begin;
    }
}

int fl_team_next(fl_work *work, fl_piece *piece);

/* The next piece that this worker is to do; 0: all are done, and the workers have met. */
static inline int fl_next(fl_work *work, fl_piece *piece)
{
    if (work->me->workers > 1) {
        return fl_team_next(work, piece);
    }
    if (!fl_advance(work)) {
        return 0;
    }
    *piece = work->last;
    return 1;
}

#endif
