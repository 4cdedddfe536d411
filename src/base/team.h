/* A team of workers: its barrier, how work is shared out, and the floating-point mode inside. */
#ifndef FL_BASE_TEAM_H
#define FL_BASE_TEAM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

#include "base/openmp.h"

/* How many threads the calling one can have a team of, itself among them: `wanted`, or what the
 * system granted when so many were first asked for. */
int fl_threads_for(int wanted);

#if defined(_WIN32)
#include <windows.h>
static inline void fl_yield(void) { SwitchToThread(); }
#else
#include <sched.h>
static inline void fl_yield(void) { sched_yield(); }
#endif

static inline void fl_pause(void)
{
#if defined(__SSE2__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Asks for the cache line of p, to write it. */
#if defined(__GNUC__)
#define FL_PREFETCH_WRITE(p) __builtin_prefetch(p, 1)
#else
#define FL_PREFETCH_WRITE(p) ((void)(p))
#endif

/* The two words are written by different threads: one cache line each. */
typedef struct {
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_int generation;
} fl_barrier;

/* Waiting spins for about a microsecond, as long as workers of a step are apart, and then yields:
 * on a machine with more threads than cores the one waited for must get its turn (H = 512, one row,
 * 4 threads on 2 cores: yielding after 20 us instead took 2.6 times as long as 2 threads). */
enum { FL_SPINS = 100 };

static inline void fl_barrier_wait(fl_barrier *b, int workers)
{
    if (workers == 1) {
        return;
    }
    int generation = atomic_load_explicit(&b->generation, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&b->arrived, 1, memory_order_acq_rel) + 1 == workers) {
        atomic_store_explicit(&b->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&b->generation, generation + 1, memory_order_release);
        return;
    }
    int spins = 0;
    while (atomic_load_explicit(&b->generation, memory_order_acquire) == generation) {
        if (spins < FL_SPINS) {
            spins++;
            fl_pause();
        } else {
            fl_yield();
        }
    }
}

/* Part `i` of `parts` of [0, n): sizes differ by at most one, larger ones first. */
typedef struct {
    ptrdiff_t begin, end;
} fl_range;

static inline fl_range fl_part(ptrdiff_t n, ptrdiff_t parts, ptrdiff_t i)
{
    ptrdiff_t size = n / parts, larger = n % parts;
    ptrdiff_t begin = i * size + (i < larger ? i : larger);
    return (fl_range){begin, begin + size + (i < larger)};
}

/* Flushes denormals to zero until restored: on them some units take twenty times as long. */
typedef uint64_t fl_fpu;

static inline fl_fpu fl_fpu_enter(void)
{
#if defined(__SSE2__) || defined(_M_X64)
    unsigned saved = _mm_getcsr();
    _mm_setcsr(saved | 0x8040u); /* FTZ | DAZ */
    return saved;
#elif defined(__aarch64__)
    fl_fpu saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"(saved | (1u << 24)));
    return saved;
#else
    return 0;
#endif
}

static inline void fl_fpu_leave(fl_fpu saved)
{
#if defined(__SSE2__) || defined(_M_X64)
    _mm_setcsr((unsigned)saved);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(saved));
#else
    (void)saved;
#endif
}

#endif
