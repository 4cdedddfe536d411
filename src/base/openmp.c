#include "base/openmp.h"

#if defined(_OPENMP) && !defined(_WIN32)
#include <pthread.h>

static void *ask(void *most)
{
    *(int *)most = fl_most_threads();
    return NULL;
}

int fl_usual_threads(void)
{
    pthread_t thread;
    int most = 1;
    if (pthread_create(&thread, NULL, ask, &most) != 0) {
        return fl_most_threads();
    }
    pthread_join(thread, NULL);
    return most;
}
#else
int fl_usual_threads(void) { return fl_most_threads(); }
#endif
