/* Asks the system for threads before OpenMP does, which ends the process when it is refused one. */
#include "base/threads.h"

#include "base/openmp.h"

#if defined(_OPENMP) && !defined(_WIN32)
#include <limits.h>
#include <pthread.h>

static void *wait_for_others(void *all_are_there)
{
    pthread_mutex_lock(all_are_there);
    pthread_mutex_unlock(all_are_there);
    return NULL;
}

/* How many of `wanted` threads there can be at a time. */
static int count_threads(int wanted)
{
    enum { MOST = 1024 };
    pthread_t threads[MOST];
    pthread_mutex_t all_are_there = PTHREAD_MUTEX_INITIALIZER;
    int made = 0;
    pthread_mutex_lock(&all_are_there);
    while (made < wanted && made < MOST &&
           pthread_create(&threads[made], NULL, wait_for_others, &all_are_there) == 0) {
        made++;
    }
    pthread_mutex_unlock(&all_are_there);
    for (int i = 0; i < made; i++) {
        pthread_join(threads[i], NULL);
    }
    return made;
}

/* OpenMP keeps the threads of the last team of each thread that calls it, but no more: after a
 * smaller team it makes new ones. */
static _Thread_local int kept = 1, granted = INT_MAX;

int fl_threads_for(int wanted) { return wanted < granted ? wanted : granted; }

int fl_ask_for_threads(int wanted)
{
    if (omp_get_level() > 0) { /* a signal's handler, in the middle of a call: teams of one */
        return 1;
    }
    int threads = fl_threads_for(wanted);
    if (threads > kept) {
        const int found = kept + count_threads(threads - kept);
        if (found < threads) {
            threads = granted = found;
        }
    }
    if (threads > 1) { /* a team of one leaves the others where they are */
        kept = threads;
    }
    return threads;
}

void fl_dismiss_threads(void)
{
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 9
    /* Asked for this machine alone, GNU OpenMP would first look for GPUs: in 80 places, and with
     * drivers that do not survive a fork. */
    if (omp_pause_resource_all(omp_pause_soft) == 0) {
        kept = 1;
        granted = INT_MAX; /* the system may have more by then */
    }
#endif
}
#else
int fl_threads_for(int wanted) { return wanted; }
int fl_ask_for_threads(int wanted) { return wanted; }
void fl_dismiss_threads(void) {}
#endif
