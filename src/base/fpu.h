/* The floating-point mode inside of a call. */
#ifndef FL_BASE_FPU_H
#define FL_BASE_FPU_H

#include <stdint.h>

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

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
