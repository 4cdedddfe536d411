/* Teams of threads, without OpenMP. */
#include "harness.h"

#include <pthread.h>
#include <stdlib.h>

typedef struct {
    fl_team *team;
    fl_job run;
    void *call;
    int number, workers;
} worker;

static void *work(void *argument)
{
    const worker *w = argument;
    fl_work_in(w->team, w->run, w->call, w->number, w->workers);
    return NULL;
}

void run_team(fl_job run, void *call, int workers)
{
    enum { MOST = 8 };
    pthread_t threads[MOST];
    worker all[MOST];
    fl_team_space space;
    fl_team *team = fl_team_open(workers, &space);
    for (int i = 0; i < workers; i++) {
        all[i] = (worker){team, run, call, i, workers};
        if (i > 0 && pthread_create(&threads[i], NULL, work, &all[i])) {
            exit(2);
        }
    }
    work(&all[0]);
    for (int i = 1; i < workers; i++) {
        pthread_join(threads[i], NULL);
    }
    fl_team_close(team);
}

fl_team_limits one_thread(void) { return (fl_team_limits){1, 1, 1, 1, fl_machine_caches()}; }
