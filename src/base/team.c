#include "base/team.h"

#include <stdlib.h>
#include <string.h>

/* Going to sleep and being woken takes 60 us in a virtual machine, where the processor must be
 * woken too, and 5 to 10 elsewhere. */
enum { FL_PATIENCE = 20000, FL_GRACE = 1000 }; /* ns */

fl_team *fl_team_open(int workers)
{
    const size_t size = sizeof(fl_team) + (size_t)workers * sizeof(fl_share);
    void *memory = malloc(size + FL_ALIGN);
    if (!memory) {
        return NULL;
    }
    const uintptr_t start = ((uintptr_t)memory + FL_ALIGN) / FL_ALIGN * FL_ALIGN;
    fl_team *team = (fl_team *)start;
    memset(team, 0, size);
    team->memory = memory;
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

void fl_sleep_until_met(const fl_worker *me)
{
    fl_team *const team = me->team;
    const int64_t start = fl_now();
    while (!fl_have_met(me)) {
        uint32_t now = atomic_load_explicit(&team->arrivals, memory_order_relaxed);
        if ((int32_t)((now & ~1u) - me->met) >= 0) {
            continue;
        }
        /* The last to arrive sees the mark, or changes the word before it is set. */
        if ((now & 1u) || atomic_compare_exchange_weak(&team->arrivals, &now, now | 1u)) {
            fl_sleep(&team->arrivals, now | 1u);
        }
    }
    atomic_fetch_add_explicit(&team->slept, fl_now() - start, memory_order_relaxed);
}

/* Who set the mark for the meeting after this one is woken too, and sets it again. */
void fl_wake_sleepers(fl_team *team)
{
    atomic_fetch_and(&team->arrivals, ~1u);
    fl_wake(&team->arrivals);
}

/* The piece with this number in a worker's share; 0: it has fewer. */
static int find_piece(const fl_work *work, int owner, ptrdiff_t number, fl_piece *piece)
{
    for (int i = 0; i < work->count; i++) {
        const fl_kind *kind = &work->kinds[i];
        const fl_range share = fl_part(kind->n, work->me->workers, owner);
        const ptrdiff_t pieces = (share.end - share.begin + kind->chunk - 1) / kind->chunk;
        if (number < pieces * kind->times) {
            const ptrdiff_t begin = share.begin + number % pieces * kind->chunk;
            const ptrdiff_t end = begin + kind->chunk < share.end ? begin + kind->chunk : share.end;
            *piece = (fl_piece){i, number / pieces, begin, end, share};
            return 1;
        }
        number -= pieces * kind->times;
    }
    return 0;
}

/* Begins a piece of a worker's share, if there is one that nobody has begun. */
static int take_of(fl_work *work, int owner, fl_piece *piece)
{
    const fl_worker *me = work->me;
    _Atomic uint64_t *taken = &me->team->shares[owner].taken;
    const uint64_t phase = (uint64_t)me->met << 32;
    uint64_t seen = atomic_load_explicit(taken, memory_order_relaxed);
    for (;;) {
        const uint64_t number = seen >> 32 == me->met ? seen & UINT32_MAX : 0;
        if (!find_piece(work, owner, (ptrdiff_t)number, piece)) {
            return 0;
        }
        if (atomic_compare_exchange_weak_explicit(taken, &seen, phase | (number + 1),
                                                  memory_order_relaxed, memory_order_relaxed)) {
            return 1;
        }
    }
}

/* Looking at another's share takes the cache line from it: those who are about to be done are left
 * alone.  Whether all are, and wait in the next meeting. */
static int others_are_done(const fl_worker *me)
{
    const uint32_t then = me->met + 2 * (uint32_t)(me->workers - 1);
    for (int i = me->team->grace; i > 0; i--) {
        if ((atomic_load_explicit(&me->team->arrivals, memory_order_relaxed) & ~1u) == then) {
            return 1;
        }
        fl_pause();
    }
    return 0;
}

int fl_team_take(fl_work *work, fl_piece *piece)
{
    const fl_worker *me = work->me;
    if (!work->helps) {
        if (take_of(work, me->number, piece)) {
            return 1;
        }
        if (others_are_done(me)) {
            return 0;
        }
        work->helps = 1;
    }
    for (int i = 1; i < me->workers; i++) {
        if (take_of(work, (me->number + i) % me->workers, piece)) {
            return 1;
        }
    }
    return 0;
}
