/* What an x86 CPU says of itself. */
#ifndef FL_CPU_CPUID_H
#define FL_CPU_CPUID_H

#include "cpu/cpu.h"

#if FL_X86_64
enum { EAX, EBX, ECX, EDX };

#ifdef _MSC_VER
#include <intrin.h>
static inline void cpuid(unsigned leaf, unsigned subleaf, unsigned r[4])
{
    int out[4];
    __cpuidex(out, (int)leaf, (int)subleaf);
    for (int i = 0; i < 4; i++) {
        r[i] = (unsigned)out[i];
    }
}
#else
#include <cpuid.h>
static inline void cpuid(unsigned leaf, unsigned subleaf, unsigned r[4])
{
    __cpuid_count(leaf, subleaf, r[EAX], r[EBX], r[ECX], r[EDX]);
}
#endif
#endif

#endif
