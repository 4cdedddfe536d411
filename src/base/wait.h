/* Waiting: for a moment in a loop, for longer asleep; and the time it took. */
#ifndef FL_BASE_WAIT_H
#define FL_BASE_WAIT_H

#include <stdatomic.h>
#include <stdint.h>

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

static inline void fl_pause(void)
{
#if defined(__SSE2__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Pauses that take so long: one takes 10 ns on some processors and 50 on others. */
int fl_pauses(int ns);

/* Nanoseconds since some moment. */
int64_t fl_now(void);

/* Sleeps while *word is `value`, or for a shorter time. */
void fl_sleep(_Atomic uint32_t *word, uint32_t value);

/* Wakes all who sleep on the word. */
void fl_wake(_Atomic uint32_t *word);

#endif
