#if defined(__linux__)
#define _GNU_SOURCE /* syscall */
#else
#define _POSIX_C_SOURCE 200809L
#endif
#include "base/wait.h"

#include <time.h>

#if defined(_WIN32)
#include <windows.h>

int64_t fl_now(void)
{
    LARGE_INTEGER ticks, per_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&per_second);
    return (int64_t)((double)ticks.QuadPart * 1e9 / (double)per_second.QuadPart);
}
#else
int64_t fl_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}
#endif

int fl_pauses(int ns)
{
    enum { TIMED = 256 };
    static _Atomic int picoseconds; /* of a pause; 0: not measured yet */
    int of_one = atomic_load_explicit(&picoseconds, memory_order_relaxed);
    if (of_one == 0) {
        int64_t least = INT64_MAX;
        for (int attempt = 0; attempt < 3; attempt++) { /* one may have been put aside */
            const int64_t start = fl_now();
            for (int i = 0; i < TIMED; i++) {
                fl_pause();
            }
            const int64_t taken = fl_now() - start;
            least = taken < least ? taken : least;
        }
        of_one = (int)(least * 1000 / TIMED) + 1;
        atomic_store_explicit(&picoseconds, of_one, memory_order_relaxed);
    }
    return (int)(ns * INT64_C(1000) / of_one) + 1;
}

#if defined(__linux__) && !defined(FL_PORTABLE_WAIT) /* tests want the other one too */
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

void fl_sleep(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

void fl_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

#elif defined(_WIN32)

#if defined(_MSC_VER)
#pragma comment(lib, "synchronization.lib")
#endif

void fl_sleep(_Atomic uint32_t *word, uint32_t value)
{
    WaitOnAddress((volatile void *)word, &value, sizeof value, INFINITE);
}

void fl_wake(_Atomic uint32_t *word) { WakeByAddressAll((void *)word); }

#elif defined(__unix__) || defined(__APPLE__)
#include <pthread.h>

/* One for all words: a wake is for those who look at theirs and sleep again. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken = PTHREAD_COND_INITIALIZER;

void fl_sleep(_Atomic uint32_t *word, uint32_t value)
{
    pthread_mutex_lock(&lock);
    if (atomic_load(word) == value) {
        pthread_cond_wait(&woken, &lock);
    }
    pthread_mutex_unlock(&lock);
}

void fl_wake(_Atomic uint32_t *word)
{
    (void)word;
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&woken);
    pthread_mutex_unlock(&lock);
}

#else

void fl_sleep(_Atomic uint32_t *word, uint32_t value)
{
    (void)word;
    (void)value;
    fl_pause(); /* no way of sleeping is known here */
}

void fl_wake(_Atomic uint32_t *word) { (void)word; }
#endif
