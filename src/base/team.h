/* A team: the workers that share a call, how they wait for each other, and how they share its work.
 *
 * Work comes in pieces.  Each worker has a share of them, and the work ends when all workers have
 * met.  One that has finished its share takes pieces that others have not begun: a worker that was
 * put aside, because other processes use the machine too, then has at most one piece left to do.
 * What a piece computes depends neither on who does it nor on any other piece. */
#ifndef FL_BASE_TEAM_H
#define FL_BASE_TEAM_H

#include "base/align.h"
#include "base/wait.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    _Alignas(2 *
             FL_ALIGN) _Atomic uint64_t taken; /* pieces that are begun, below the last meeting */
} fl_share;

typedef struct {
    /* Twice the arrivals at all meetings so far, plus 1 while someone sleeps. */
    _Alignas(2 * FL_ALIGN) _Atomic uint32_t arrivals;
    _Alignas(2 * FL_ALIGN) int patience, grace; /* pauses before a worker sleeps; before it helps */
    _Atomic int64_t slept;                      /* nanoseconds, of all workers */
    void *memory;                               /* as malloc gave it */
    fl_share *shares;                           /* of the workers */
} fl_team;

/* For teams of the usual sizes: allocating one would be 1% of a short call. */
enum { FL_SMALL_TEAM = 8 };

typedef struct {
    fl_team team;
    fl_share shares[FL_SMALL_TEAM];
} fl_team_space;

/* A worker of a team. */
typedef struct {
    fl_team *team; /* NULL: it is alone */
    int number, workers;
    uint32_t met; /* arrivals at the last meeting, when all were there */
} fl_worker;

/* What each worker of a team runs, once. */
typedef void (*fl_job)(void *call, fl_worker *me);

static inline fl_worker fl_alone(void) { return (fl_worker){NULL, 0, 1, 0}; }

/* A team of so many workers, in the space if it is large enough; NULL: there is no memory. */
fl_team *fl_team_open(int workers, fl_team_space *space);

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
    ptrdiff_t size = n / parts, larger = n % parts;
    ptrdiff_t begin = i * size + (i < larger ? i : larger);
    return (fl_range){begin, begin + size + (i < larger)};
}

/* Work of one kind: `times` rounds over n units.  A worker of a team takes up to `chunk` units of a
 * round at a time, one that is alone takes all n.  Each goes through its share round by round;
 * others may be in another round. */
typedef struct {
    ptrdiff_t n, chunk, times;
} fl_kind;

typedef struct {
    int kind;
    ptrdiff_t time;        /* which round */
    fl_range units, share; /* what is to be done, and the share it is of */
} fl_piece;

/* How a worker goes through its share of some kinds of work, and then through what is left of
 * others'. */
typedef struct {
    fl_worker *me;
    const fl_kind *kinds;
    int count;
    int helps;       /* its own share is done: it takes pieces of others */
    ptrdiff_t begun; /* pieces of its own, by itself or by others */
    fl_piece last;   /* of these */
} fl_work;

/* What all workers do next.  Each goes on until fl_next is 0: the others wait for it.  The units of
 * `last` are not set: that would be 3% of a small step. */
static inline fl_work fl_begin(fl_worker *me, const fl_kind *kinds, int count)
{
    fl_work work;
    work.me = me;
    work.kinds = kinds;
    work.count = count;
    work.helps = 0;
    work.begun = 0;
    work.last.kind = 0;
    work.last.time = 0;
    return work;
}

int fl_team_next(fl_work *work, fl_piece *piece);

/* The next piece that this worker is to do; 0: all are done, and the workers have met. */
static inline int fl_next(fl_work *work, fl_piece *piece)
{
    if (work->me->workers > 1) {
        return fl_team_next(work, piece);
    }
    for (; work->last.kind < work->count; work->last.kind++, work->last.time = 0) {
        const fl_kind *kind = &work->kinds[work->last.kind];
        if (kind->n > 0 && work->last.time < kind->times) {
            const fl_range all = {0, kind->n};
            *piece = (fl_piece){work->last.kind, work->last.time++, all, all};
            return 1;
        }
    }
    return 0;
}

#endif
