#include "base/team.h"

#include <stdlib.h>
#include <string.h>

/* Going to sleep and being woken takes 60 us in a virtual machine, where the processor must be
 * woken too, and 5 to 10 elsewhere. */
enum { FL_PATIENCE = 20000, FL_GRACE = 2000 }; /* ns */

fl_team *fl_team_open(int workers, fl_team_space *space)
{
    const size_t shares = (size_t)workers * sizeof(fl_share);
    fl_team *team = &space->team;
    void *memory = NULL;
    if (workers > FL_SMALL_TEAM) {
        memory = malloc(sizeof(fl_team) + shares + 2 * FL_ALIGN);
        if (!memory) {
            return NULL;
        }
        team = (fl_team *)(((uintptr_t)memory + 2 * FL_ALIGN) / (2 * FL_ALIGN) * (2 * FL_ALIGN));
    }
    memset(team, 0, sizeof(fl_team) + shares);
    team->memory = memory;
    team->shares = (fl_share *)(team + 1);
    team->patience = fl_pauses(FL_PATIENCE);
    team->grace = fl_pauses(FL_GRACE);
    return team;
}

void fl_team_close(fl_team *team) { free(team->memory); }

void fl_work_in(fl_team *team, fl_job job, void *call, int number, int workers)
{
    fl_worker me = {team, number, workers, 0};
    job(call, &me);
    fl_meet(&me);
}

/* Arrivals when all are at the next meeting. */
static uint32_t when_met(const fl_worker *me) { return me->met + 2 * (uint32_t)me->workers; }

static int is_met(const fl_worker *me, uint32_t arrivals)
{
    return (int32_t)((arrivals & ~1u) - when_met(me)) >= 0;
}

static uint32_t arrivals_of(const fl_worker *me)
{
    return atomic_load_explicit(&me->team->arrivals, memory_order_acquire);
}

/* The last one ends the meeting.  A mark that is set by now may also be of the next meeting: who
 * set that one is woken too, and sets it again. */
static void arrive(const fl_worker *me)
{
    _Atomic uint32_t *arrivals = &me->team->arrivals;
    const uint32_t now = atomic_fetch_add_explicit(arrivals, 2, memory_order_acq_rel) + 2;
    if (now == (when_met(me) | 1u)) {
        atomic_fetch_and(arrivals, ~1u);
        fl_wake(arrivals);
    }
}

/* To help others, before all have met; 0: it is too late. */
static int come_back(const fl_worker *me)
{
    uint32_t now = arrivals_of(me);
    while (!is_met(me, now)) {
        if (atomic_compare_exchange_weak(&me->team->arrivals, &now, now - 2)) {
            return 1;
        }
    }
    return 0;
}

/* 0: not yet. */
static int wait_awake(const fl_worker *me, int pauses)
{
    for (; pauses > 0; pauses--) {
        if (is_met(me, arrivals_of(me))) {
            return 1;
        }
        fl_pause();
    }
    return 0;
}

static void wait_asleep(const fl_worker *me)
{
    _Atomic uint32_t *arrivals = &me->team->arrivals;
    const int64_t start = fl_now();
    for (uint32_t now; !is_met(me, now = arrivals_of(me));) {
        /* The last to arrive sees the mark, or changes the word before it is set. */
        if ((now & 1u) || atomic_compare_exchange_weak(arrivals, &now, now | 1u)) {
            fl_sleep(arrivals, now | 1u);
        }
    }
    atomic_fetch_add_explicit(&me->team->slept, fl_now() - start, memory_order_relaxed);
}

static void wait_for_others(fl_worker *me)
{
    if (!wait_awake(me, me->team->patience)) {
        wait_asleep(me);
    }
    me->met = when_met(me);
}

void fl_team_meet(fl_worker *me)
{
    arrive(me);
    wait_for_others(me);
}

static ptrdiff_t least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* The piece with this number in a worker's share; 0: it has fewer. */
static int find_piece(const fl_work *work, int owner, ptrdiff_t number, fl_piece *piece)
{
    for (int i = 0; i < work->count; i++) {
        const fl_kind *kind = &work->kinds[i];
        const fl_range share = fl_part(kind->n, work->me->workers, owner);
        const ptrdiff_t pieces = (share.end - share.begin + kind->chunk - 1) / kind->chunk;
        if (number < pieces * kind->times) {
            const ptrdiff_t begin = share.begin + number % pieces * kind->chunk;
            const fl_range units = {begin, least(begin + kind->chunk, share.end)};
            *piece = (fl_piece){i, number / pieces, units, share};
            return 1;
        }
        number -= pieces * kind->times;
    }
    return 0;
}

/* How many pieces of a share are begun, by what its counter says. */
static ptrdiff_t begun_of(const fl_worker *me, uint64_t seen)
{
    return seen >> 32 == me->met ? (ptrdiff_t)(seen & UINT32_MAX) : 0;
}

/* Begins the next piece, if nobody else has; else `seen` is what the counter says now. */
static int claim(const fl_worker *me, int owner, uint64_t *seen)
{
    const uint64_t next = (uint64_t)me->met << 32 | (uint64_t)(begun_of(me, *seen) + 1);
    return atomic_compare_exchange_strong_explicit(&me->team->shares[owner].taken, seen, next,
                                                   memory_order_relaxed, memory_order_relaxed);
}

static uint64_t look_at(const fl_worker *me, int owner)
{
    return atomic_load_explicit(&me->team->shares[owner].taken, memory_order_relaxed);
}

static fl_range share_of(const fl_work *work, int kind)
{
    return fl_part(work->kinds[kind].n, work->me->workers, work->me->number);
}

/* The piece of a worker's own share after the last: find_piece without its divisions, which would
 * take a tenth of a small step. */
static int advance(fl_work *work)
{
    fl_piece *at = &work->last;
    if (work->begun == 0) {
        at->share = share_of(work, 0);
        at->units.end = at->share.begin;
    }
    for (;;) {
        const fl_kind *kind = &work->kinds[at->kind];
        if (at->units.end < at->share.end && at->time < kind->times) {
            at->units.begin = at->units.end;
            at->units.end = least(at->units.begin + kind->chunk, at->share.end);
            return 1;
        }
        if (++at->time >= kind->times) {
            if (++at->kind == work->count) {
                at->kind--; /* and stays at its end */
                return 0;
            }
            at->time = 0;
            at->share = share_of(work, at->kind);
        }
        at->units.end = at->share.begin;
    }
}

static int take_own(fl_work *work, fl_piece *piece)
{
    const fl_worker *me = work->me;
    for (uint64_t seen = look_at(me, me->number);;) {
        for (; work->begun <= begun_of(me, seen); work->begun++) { /* others may have begun some */
            if (!advance(work)) {
                return 0;
            }
        }
        if (claim(me, me->number, &seen)) {
            *piece = work->last;
            return 1;
        }
    }
}

static int take_of_others(const fl_work *work, fl_piece *piece)
{
    const fl_worker *me = work->me;
    for (int i = 1; i < me->workers; i++) {
        const int owner = (me->number + i) % me->workers;
        uint64_t seen = look_at(me, owner);
        while (find_piece(work, owner, begun_of(me, seen), piece)) {
            if (claim(me, owner, &seen)) {
                return 1;
            }
        }
    }
    return 0;
}

static int all_is_begun(const fl_work *work)
{
    const fl_worker *me = work->me;
    fl_piece piece;
    for (int i = 1; i < me->workers; i++) {
        const int owner = (me->number + i) % me->workers;
        if (find_piece(work, owner, begun_of(me, look_at(me, owner)), &piece)) {
            return 0;
        }
    }
    return 1;
}

/* Those who are about to be done are left alone: looking at a share takes its cache line from the
 * owner, and a piece that another does has its weights in the owner's cache. */
int fl_team_next(fl_work *work, fl_piece *piece)
{
    fl_worker *me = work->me;
    for (;;) {
        if (work->helps ? take_of_others(work, piece) : take_own(work, piece)) {
            return 1;
        }
        arrive(me);
        if (wait_awake(me, me->team->grace) || all_is_begun(work) || !come_back(me)) {
            wait_for_others(me);
            return 0;
        }
        work->helps = 1;
    }
}
