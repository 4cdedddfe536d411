#include "base/team_size.h"

#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#define MS INT64_C(1000000) /* ns */

/* A worker that is put aside returns after 3 to 4 ms on Linux.  One such loss now and then, of at
 * most an eighth of the time, is borne. */
enum { BORNE_SHARE = 8 };
static const int64_t LOSS_BORNE = 6 * MS, FIRST_REST = 50 * MS, LONGEST_REST = 1000 * MS;

/* Long enough for several turns of busy processes. */
static const int64_t WATCHED = 20 * MS, MOST_WATCHED = 100 * MS;

/* GNU OpenMP's threads spin for 3 to 16 ms after a call. */
static const int64_t PAUSE = 5 * MS;

/* How long some calls took, and how long they would have taken at their best. */
typedef struct {
    double ns, best_ns;
} pace;

enum { LARGER, SMALLER, SIZES, RATES = 64 };

typedef struct {
    int most;          /* 0: no bound */
    int sizes[SIZES];  /* `most` of two that are compared */
    int compares;      /* the smaller of them is watched, then it is decided */
    int retries;       /* the larger is used again, since the smaller was faster */
    pace paces[SIZES]; /* of these, while time is lost, the older the less */
    pace now;          /* of this size, since time was lost */
    int64_t lost;      /* beyond what is borne */
    int64_t clock;     /* time in calls: that between them says nothing */
    int64_t rest;      /* until a decision is thought over again */
    int64_t grow_at, shrink_at;
    int64_t ended;               /* the last call */
    int64_t calls, calls_before; /* of teams, since the last pause, and before it since another */
    double rates[RATES]; /* least ns for a unit of work, by kind and size of a call; 0: none yet */
} account;

static _Thread_local account mine = {.rest = FIRST_REST};
static atomic_int adapts = 1;

static int is_adapting(void) { return atomic_load_explicit(&adapts, memory_order_relaxed); }

void fl_team_adapts(int on) { atomic_store_explicit(&adapts, on, memory_order_relaxed); }

int fl_team_most(void) { return mine.most && is_adapting() ? mine.most : INT_MAX; }

static void fade(pace *p, double kept)
{
    p->ns *= kept;
    p->best_ns *= kept;
}

/* What was seen of one of the two sizes is added to what was seen before. */
static void learn(int size)
{
    fade(&mine.paces[size], 0.7);
    mine.paces[size].ns += mine.now.ns;
    mine.paces[size].best_ns += mine.now.best_ns;
    mine.now = (pace){0, 0};
}

static void go_on_with(int most)
{
    mine.most = most;
    mine.compares = mine.retries = 0;
    mine.lost = 0;
    mine.grow_at = mine.clock + mine.rest;
}

static void decide(void)
{
    const pace *larger = &mine.paces[LARGER], *smaller = &mine.paces[SMALLER];
    const int faster = smaller->ns * larger->best_ns < larger->ns * smaller->best_ns;
    go_on_with(mine.sizes[faster ? SMALLER : LARGER]);
    mine.shrink_at = mine.clock + mine.rest;
    mine.rest = mine.rest < LONGEST_REST / 2 ? 2 * mine.rest : LONGEST_REST;
}

/* Too much was lost: half the size is tried, or one worker, if half was tried last. */
static void try_smaller(int workers)
{
    const int half = workers / 2, last = mine.sizes[SMALLER];
    mine.retries = mine.retries && last < workers;
    const int smaller = mine.retries ? last : last == half ? 1 : half;
    if (smaller != last) {
        memset(mine.paces, 0, sizeof mine.paces);
    }
    mine.sizes[SMALLER] = smaller;
    mine.sizes[LARGER] = mine.most;
    learn(LARGER);
    if (mine.retries) {
        decide(); /* the smaller was watched until then */
    } else {
        mine.most = mine.sizes[SMALLER];
        mine.compares = 1;
    }
}

static void grow(int wanted)
{
    const int known = mine.most == mine.sizes[SMALLER];
    if (known) {
        learn(SMALLER);
    }
    go_on_with(2 * mine.most < wanted ? 2 * mine.most : 0);
    mine.retries = known;
}

/* What the call would have taken at its best.  A loop has calls of several kinds, and the two paces
 * that are compared have not the same number of each. */
static double best_of(const fl_team_call *call)
{
    int size;
    frexp(call->plan->work, &size);
    double *rate = &mine.rates[(call->job / 16 * 7 + (uintptr_t)(size < 0 ? 0 : size)) % RATES];
    const double now = (double)(call->ended - call->began) / (call->plan->work + 1);
    *rate = *rate == 0 || now < *rate ? now : *rate;
    return *rate * (call->plan->work + 1);
}

/* Time beyond what is borne: that workers slept, or that a call took beyond its best, because
 * threads were long in coming.  (Calls of one kind and size differ, so their best is known
 * roughly.) */
static void count_loss(const fl_team_call *call, double best)
{
    const int64_t ns = call->ended - call->began, late = ns - (int64_t)(1.5 * best);
    const int64_t loss = (late > call->slept ? late : call->slept) - ns / BORNE_SHARE;
    if (mine.lost == 0 && loss > 0) {
        mine.now = (pace){0, 0};
    }
    mine.lost = mine.lost + loss > 0 ? mine.lost + loss : 0;
    if (mine.now.ns > (double)MOST_WATCHED) {
        fade(&mine.now, 0.5);
    }
}

int fl_pause_is_likely(int64_t began)
{
    if (began - mine.ended > PAUSE) {
        mine.calls_before = mine.calls;
        mine.calls = 0;
    }
    mine.calls++;
    return mine.calls == mine.calls_before && is_adapting();
}

void fl_team_remember(const fl_team_call *call)
{
    const int64_t ns = call->ended - call->began;
    mine.ended = call->ended;
    if (!is_adapting()) {
        return;
    }
    mine.clock += ns;
    const double best = best_of(call);
    if (!mine.compares) {
        count_loss(call, best);
    }
    mine.now.ns += (double)ns;
    mine.now.best_ns += best;
    const int watched = mine.now.ns >= (double)WATCHED;
    const int too_much = mine.lost > LOSS_BORNE && (watched || mine.retries);
    if (mine.compares && watched) {
        learn(SMALLER);
        decide();
    } else if (mine.compares) {
        return;
    } else if (mine.most && mine.clock >= mine.grow_at) {
        grow(call->plan->wanted);
    } else if (too_much && call->plan->workers > 1 && mine.clock >= mine.shrink_at) {
        try_smaller(call->plan->workers);
    } else if (mine.lost == 0 && mine.clock > mine.shrink_at + LONGEST_REST) {
        mine.rest = FIRST_REST;
        mine.retries = mine.sizes[SMALLER] = 0; /* what was learned is of another time */
    }
}
