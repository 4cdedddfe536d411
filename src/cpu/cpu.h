/* Which architecture this is compiled for, and what the CPU can do beyond its baseline. */
#ifndef FL_CPU_CPU_H
#define FL_CPU_CPU_H

#if defined(__x86_64__) || defined(_M_X64)
#define FL_X86_64 1
#elif defined(__aarch64__) || defined(_M_ARM64)
#define FL_ARM64 1
#endif

enum {
    FL_CPU_AVX2_FMA = 1,
    FL_CPU_AVX512 = 2,
    FL_CPU_AVX512_VNNI = 4,
    FL_CPU_AVX_VNNI = 8,
    FL_CPU_NEON_DOT = 16
};

/* A sum of the above. */
unsigned fl_cpu_features(void);

#endif
