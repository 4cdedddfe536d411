/* Which instruction sets this CPU and this operating system support. */
#include "cpu/cpu.h"

#include "cpu/cpuid.h"

#if FL_X86_64

#ifdef _MSC_VER
static unsigned long long xcr0(void) { return _xgetbv(0); }
#else
static unsigned long long xcr0(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((unsigned long long)high << 32) | low;
}
#endif

enum {
    OSXSAVE = 1 << 27,
    AVX = 1 << 28,
    FMA = 1 << 12,
    F16C = 1 << 29, /* leaf 1, ecx */
    AVX2 = 1 << 5,
    AVX512F = 1 << 16,
    AVX512DQ = 1 << 17,
    AVX512BW = 1 << 30,    /* leaf 7, ebx */
    AVX512_VNNI = 1 << 11, /* leaf 7, ecx */
    AVX_VNNI = 1 << 4,     /* leaf 7, subleaf 1, eax */
};
static const unsigned AVX512VL = 1u << 31;
/* Registers that the operating system saves when it switches tasks: a CPU may have AVX-512 while
 * the system, or a virtual machine, does not allow its use. */
enum { XCR0_AVX = 0x06, XCR0_AVX512 = 0xe6 };

unsigned fl_cpu_features(void)
{
    unsigned r[4], features = 0;
    cpuid(0, 0, r);
    const unsigned leaves = r[EAX];
    cpuid(1, 0, r);
    const unsigned ecx = r[ECX];
    if (leaves < 7 || !(ecx & OSXSAVE) || !(ecx & AVX) || !(ecx & FMA) || !(ecx & F16C)) {
        return 0;
    }
    cpuid(7, 0, r);
    const unsigned ebx = r[EBX], vnni = r[ECX] & AVX512_VNNI, subleaves = r[EAX];
    cpuid(7, 1, r);
    const unsigned avx_vnni = subleaves >= 1 ? r[EAX] & AVX_VNNI : 0;
    const unsigned long long saved = xcr0();
    if ((saved & XCR0_AVX) == XCR0_AVX && (ebx & AVX2)) {
        features |= FL_CPU_AVX2_FMA | (avx_vnni ? FL_CPU_AVX_VNNI : 0);
    }
    const unsigned avx512 = AVX512F | AVX512DQ | AVX512BW | AVX512VL;
    if ((saved & XCR0_AVX512) == XCR0_AVX512 && (ebx & avx512) == avx512) {
        features |= FL_CPU_AVX512 | (vnni ? FL_CPU_AVX512_VNNI : 0);
    }
    return features;
}

#elif FL_ARM64 && defined(__APPLE__)

unsigned fl_cpu_features(void) { return FL_CPU_NEON_DOT; } /* since the first of these */

#elif FL_ARM64 && defined(__linux__)
#include <sys/auxv.h>

unsigned fl_cpu_features(void)
{
    const unsigned long dot_products = 1ul << 20; /* HWCAP_ASIMDDP */
    return getauxval(AT_HWCAP) & dot_products ? FL_CPU_NEON_DOT : 0;
}

#elif FL_ARM64 && defined(_WIN32)
#include <windows.h>

unsigned fl_cpu_features(void)
{
    enum { DOT_PRODUCTS = 43 }; /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */
    return IsProcessorFeaturePresent(DOT_PRODUCTS) ? FL_CPU_NEON_DOT : 0;
}

#else

unsigned fl_cpu_features(void) { return 0; }

#endif
