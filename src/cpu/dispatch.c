/* The instruction sets this build has kernels for, and the choice among them. */
#include "cpu/cpu.h"
#include "fastlstm.h"

#define FL_DECLARE(isa)                                        \
    extern const struct fl_kernels_f32 fl_kernels_##isa##_f32; \
    extern const struct fl_kernels_f64 fl_kernels_##isa##_f64;
#define FL_ENTRY(isa, needs) {{#isa, &fl_kernels_##isa##_f32, &fl_kernels_##isa##_f64}, needs}

#if FL_X86_64
FL_DECLARE(avx512)
FL_DECLARE(avx2)
#elif FL_ARM64
FL_DECLARE(neon)
#endif
FL_DECLARE(baseline)

static const struct {
    fl_isa isa;
    unsigned needs;
} table[] = {
/* best first */
#if FL_X86_64
    FL_ENTRY(avx512, FL_CPU_AVX512),
    FL_ENTRY(avx2, FL_CPU_AVX2_FMA),
#elif FL_ARM64
    FL_ENTRY(neon, 0),
#endif
    FL_ENTRY(baseline, 0),
};

const fl_isa *fl_isa_at(int i)
{
    const unsigned features = fl_cpu_features();
    for (size_t n = 0; n < sizeof table / sizeof *table; n++) {
        if ((table[n].needs & ~features) == 0 && i-- == 0) {
            return &table[n].isa;
        }
    }
    return NULL;
}
