/* How a long call ends early: a signal, such as Ctrl-C, arrives in the thread that made it. */
#ifndef FL_BASE_INTERRUPT_H
#define FL_BASE_INTERRUPT_H

#include <stdatomic.h>

/* Multiply-adds between two questions: about a tenth of a millisecond, 2 where weights come from
 * memory.  A question takes 20 ns; beside busy processes a meeting can take 4 ms, and there are up
 * to 50 of them between two questions. */
#define FL_WORK_TO_ASK 5e6

/* Of a call. */
typedef struct {
    int (*ask)(void *context); /* whether to end; worker 0 alone calls it */
    void *context;
    atomic_long stop; /* the turn at which worker 0 was told to end; 0: go on */
} fl_interrupt;

/* Of a worker.  Workers count their turns alike: those who meet must leave at the same one, or the
 * others would wait for them for ever. */
typedef struct {
    fl_interrupt *call; /* NULL: the call is too short */
    int worker;
    int meets; /* other workers at each step */
    long turn;
    double work; /* until the next turn */
} fl_watch;

static inline fl_watch fl_watch_of(fl_interrupt *call, int worker, int meets)
{
    return (fl_watch){call, worker, meets, 0, 0};
}

/* Before `work` more multiply-adds, the same number for all workers: whether to leave.
 *
 * Worker 0 asks at turn n, and then meets the others; so all know the answer at turn n + 1. */
static inline int fl_leaves(fl_watch *w, double work)
{
    if (!w->call || (w->work -= work) > 0) {
        return 0;
    }
    w->work = FL_WORK_TO_ASK;
    w->turn++;
    const long stop = atomic_load_explicit(&w->call->stop, memory_order_relaxed);
    if (stop) {
        return !w->meets || w->turn > stop;
    }
    if (w->worker == 0 && w->call->ask(w->call->context)) {
        atomic_store_explicit(&w->call->stop, w->turn, memory_order_relaxed);
        return !w->meets;
    }
    return 0;
}

#endif
