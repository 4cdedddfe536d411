/* Asks the system for threads before OpenMP does, which ends the process when it is refused one. */
#include "base/threads.h"

#include "base/openmp.h"

#if defined(_OPENMP) && !defined(_WIN32)
#include <pthread.h>

static void *wait_for_others(void *all_are_there)
{
    pthread_mutex_lock(all_are_there);
    pthread_mutex_unlock(all_are_there);
    return NULL;
}

/* Of `wanted` threads of a team, the caller among them, how many there can be at a time. */
static int count_threads(int wanted)
{
    enum { MOST = 1024 };
    pthread_t threads[MOST];
    pthread_mutex_t all_are_there = PTHREAD_MUTEX_INITIALIZER;
    int made = 0;
    pthread_mutex_lock(&all_are_there);
    while (made < wanted - 1 && made < MOST &&
           pthread_create(&threads[made], NULL, wait_for_others, &all_are_there) == 0) {
        made++;
    }
    pthread_mutex_unlock(&all_are_there);
    for (int i = 0; i < made; i++) {
        pthread_join(threads[i], NULL);
    }
    return made + 1;
}

/* OpenMP keeps a team for each thread that calls it: asking takes 20 us, once. */
static _Thread_local int asked = 1, given = 1;

int fl_threads_for(int wanted)
{
    if (wanted > asked) {
        asked = wanted;
        given = count_threads(wanted);
    }
    return given < wanted ? given : wanted;
}
#else
int fl_threads_for(int wanted) { return wanted; }
#endif

#if defined(_OPENMP) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 9
void fl_dismiss_threads(void)
{
    if (omp_pause_resource(omp_pause_soft, omp_get_initial_device()) == 0) {
        asked = given = 1; /* the next ones may be refused */
    }
}
#else
void fl_dismiss_threads(void) {} /* no such call is known */
#endif
