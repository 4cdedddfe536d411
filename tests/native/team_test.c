/* Teams without the driver: thousands of meetings with workers that are delayed at random, awake
 * and asleep, and work that is taken by whoever comes.  No timing is asserted: a lost wake-up
 * hangs, and each piece must be done exactly once, between the right meetings.
 *
 *     team_test ROUNDS SEED
 */
#define _DEFAULT_SOURCE

#include "base/team.h"
#include "base/team_size.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST = 9, KINDS = 3, PIECES = 64 };

typedef struct {
    unsigned seed;
    int rounds, workers;
    fl_kind kinds[KINDS];
    _Atomic int done[KINDS][PIECES][PIECES]; /* how often, by time and unit */
    _Atomic int arrived;                     /* at meetings, in all */
    _Atomic int units;                       /* done since the last meeting */
    _Atomic int wrong;
} game;

static unsigned draw(unsigned *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Nothing, a turn for others, a moment in a loop, or a sleep: longer than a worker waits awake. */
static void delay(unsigned *state)
{
    switch (draw(state) % 64) {
    case 0: usleep(draw(state) % 300); break;
    case 1: sched_yield(); break;
    case 2:
        for (unsigned i = draw(state) % 5000; i > 0; i--) {
            fl_pause();
        }
        break;
    default: break;
    }
}

static void expect(game *g, int condition)
{
    if (!condition) {
        atomic_fetch_add(&g->wrong, 1);
    }
}

static void do_pieces(game *g, fl_worker *me, unsigned *state)
{
    fl_work work = fl_begin(me, g->kinds, KINDS);
    for (fl_piece at; fl_next(&work, &at);) {
        const fl_range units = at.units;
        const ptrdiff_t most = g->workers > 1 ? g->kinds[at.kind].chunk : g->kinds[at.kind].n;
        expect(g, units.begin < units.end && units.end - units.begin <= most);
        expect(g, at.share.begin <= units.begin && units.end <= at.share.end);
        for (ptrdiff_t unit = units.begin; unit < units.end; unit++) {
            atomic_fetch_add(&g->done[at.kind][at.time][unit], 1);
            atomic_fetch_add(&g->units, 1);
        }
        delay(state);
    }
}

/* Between two meetings, one worker: each unit was done once, and is forgotten. */
static void count_pieces(game *g)
{
    for (int kind = 0; kind < KINDS; kind++) {
        for (ptrdiff_t time = 0; time < PIECES; time++) {
            for (ptrdiff_t unit = 0; unit < PIECES; unit++) {
                const int there = time < g->kinds[kind].times && unit < g->kinds[kind].n;
                expect(g, atomic_exchange(&g->done[kind][time][unit], 0) == there);
            }
        }
    }
}

/* As if put aside: until the others have done this worker's share too. */
static void stay_away(game *g)
{
    ptrdiff_t all = 0;
    for (int kind = 0; kind < KINDS; kind++) {
        all += g->kinds[kind].n * g->kinds[kind].times;
    }
    while (atomic_load(&g->units) < all) {
        sched_yield();
    }
}

static void play(game *g, fl_worker *me)
{
    unsigned state = g->seed + 77u * (unsigned)me->number;
    for (int round = 0; round < g->rounds; round++) {
        delay(&state);
        if (me->workers > 1 && round % 16 == me->number) {
            stay_away(g);
        }
        do_pieces(g, me, &state);
        delay(&state);
        atomic_fetch_add(&g->arrived, 1);
        fl_meet(me);
        expect(g, atomic_load(&g->arrived) >= (round + 1) * g->workers);
        if (me->number == round % g->workers) {
            count_pieces(g);
            atomic_store(&g->units, 0);
        }
        fl_meet(me);
    }
}

typedef struct {
    fl_team *team;
    game *g;
    int number;
} player;

/* Arrivals are counted modulo 2^31, here from shortly before the end. */
static uint32_t first_arrival(const game *g) { return 0 - 200 * (uint32_t)g->workers; }

static void *run(void *argument)
{
    const player *p = argument;
    fl_worker me = {p->team, p->number, p->g->workers, first_arrival(p->g)};
    play(p->g, &me);
    return NULL;
}

static void play_with(game *g)
{
    pthread_t threads[MOST];
    player players[MOST];
    fl_team_space space;
    fl_team *team = fl_team_open(g->workers, &space);
    atomic_store(&team->arrivals, first_arrival(g));
    for (int i = 0; i < g->workers; i++) {
        players[i] = (player){team, g, i};
        if (i > 0 && pthread_create(&threads[i], NULL, run, &players[i])) {
            exit(2);
        }
    }
    run(&players[0]);
    for (int i = 1; i < g->workers; i++) {
        pthread_join(threads[i], NULL);
    }
    expect(g, (atomic_load(&team->arrivals) & 1u) == 0); /* nobody sleeps */
    fl_team_close(team);
}

/* What calls take with one, two and four workers, in ms, and what of it is lost. */
enum { SIZES_OF_TEAMS = 3 };

typedef struct {
    int wanted;
    double ms[SIZES_OF_TEAMS], lost[SIZES_OF_TEAMS];
    int size;           /* one of these ... */
    double least, most; /* ... is used for so much of the time, in percent */
} machine;

static int size_now(const machine *m)
{
    const int workers = fl_team_most() < m->wanted ? fl_team_most() : m->wanted;
    return workers < 2 ? 0 : workers < 4 ? 1 : 2;
}

/* A call of a loop of two kinds: the second takes three times as long for a unit of work. */
static int64_t call_once(const machine *m, int64_t now, int number)
{
    const double ns = number % 2 ? 3e6 : 1e6;
    const int size = size_now(m);
    const fl_team_plan plan = {m->wanted, 1 << size, 1e6};
    const int64_t ended = now + (int64_t)(ns * m->ms[size]);
    const uintptr_t job = (uintptr_t)(number % 2 * 64);
    fl_team_remember(&(fl_team_call){&plan, job, now, ended, (int64_t)(ns * m->lost[size])});
    return ended;
}

/* How much of ten seconds, in percent, passes in calls of the size that is asked for. */
static double share_of_size(const machine *m)
{
    static int64_t now = 0;
    const int64_t start = now;
    double of_size = 0;
    for (int number = 0; now - start < INT64_C(10000000000); number++) {
        const int size = size_now(m);
        const int64_t next = call_once(m, now, number);
        of_size += size == m->size ? (double)(next - now) : 0;
        now = next;
    }
    return of_size / 1e8;
}

/* The size follows what is faster: teams become smaller where they lose more than they save, not
 * where they lose, and are tried again. */
static int check_size(void)
{
    static const machine machines[] = {
        {2, {10, 5}, {0, 0.3}, 1, 100, 100},
        {2, {10, 20}, {0, 18}, 1, 1, 10}, /* busy */
        {2, {10, 5}, {0, 0.3}, 1, 85, 100},
        {2, {20, 12}, {0, 6}, 1, 90, 100}, /* busy, but one is slower still */
        {2, {0.2, 0.1}, {0, 0.01}, 1, 95, 100},
        {2, {0.2, 0.4}, {0, 0.2}, 1, 1, 20},
        {2, {0.2, 0.1}, {0, 0.01}, 1, 85, 100},
        {4, {10, 5, 2.5}, {0, 0.1, 0.1}, 2, 90, 100},
        {4, {10, 5, 20}, {0, 0.1, 18}, 1, 70, 100}, /* two find a processor each */
        {4, {10, 30, 20}, {0, 25, 18}, 0, 20, 100}, /* none does */
        {4, {10, 5, 2.5}, {0, 0.1, 0.1}, 2, 50, 100},
    };
    int right = 1;
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        const machine *m = &machines[i];
        const double share = share_of_size(m);
        printf("%.1f, %.1f, %.1f ms with 1, 2, 4 workers: %d for %.1f%%\n", m->ms[0], m->ms[1],
               m->ms[2], 1 << m->size, share);
        right = right && m->least <= share && share <= m->most;
    }
    return right;
}

/* Requests of one call, and then of three and of two: whether a pause is expected after a call, for
 * each of them. */
static int check_pauses(void)
{
    static const char *const requests[] = {"0", "1", "1", "100", "001", "001", "00", "01", "010"};
    const fl_team_plan plan = {2, 2, 1e6};
    int64_t now = INT64_C(1000000000000);
    int right = 1;
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++, now += 6000000) {
        for (const char *expected = requests[i]; *expected; expected++, now += 1000000) {
            right = right && fl_pause_is_likely(now) == (*expected == '1');
            fl_team_remember(&(fl_team_call){&plan, 16, now, now + 500000, 0});
        }
    }
    return right;
}

int main(int count, char **arguments)
{
    static game g;
    const int rounds = count > 1 ? atoi(arguments[1]) : 1000;
    unsigned state = count > 2 ? (unsigned)atoi(arguments[2]) : 1;
    if (!check_size()) {
        printf("the size of teams does not follow their losses\n");
        return 1;
    }
    if (!check_pauses()) {
        printf("pauses are expected after other calls\n");
        return 1;
    }
    for (int workers = 1; workers <= MOST; workers++) {
        g.seed = draw(&state);
        g.rounds = rounds / workers;
        g.workers = workers;
        atomic_store(&g.arrived, 0);
        for (int kind = 0; kind < KINDS; kind++) {
            const ptrdiff_t n = draw(&state) % PIECES, times = draw(&state) % 4;
            g.kinds[kind] = (fl_kind){n, 1 + draw(&state) % 7, times};
        }
        play_with(&g);
    }
    if (g.wrong) {
        printf("%d times wrong\n", g.wrong);
        return 1;
    }
    printf("all met, and every piece was done once\n");
    return 0;
}
