/* The instruction sets this build has kernels for, and the choice among them. */
#include "cpu/cpu.h"
#include "fastlstm.h"

#if FL_X86_64
#define FL_ON_X86_64(...) __VA_ARGS__
#else
#define FL_ON_X86_64(...)
#endif
#if FL_ARM64
#define FL_ON_ARM64(...) __VA_ARGS__
#else
#define FL_ON_ARM64(...)
#endif
#define FL_ON_ANY(...) __VA_ARGS__

#define FL_DECLARE(name, of_double)                             \
    extern const struct fl_kernels_f32 fl_kernels_##name##_f32; \
    extern const struct fl_kernels_f64 fl_kernels_##of_double##_f64;
#define FL_ISA(name, platform, needs, bytes, flags, flags_msvc, of_double) \
    FL_ON_##platform(FL_DECLARE(name, of_double))
#include "cpu/isas.def"
#undef FL_ISA

static const struct {
    fl_isa isa;
    unsigned needs;
} table[] = {
#define FL_ENTRY(name, needs, of_double) \
    {{#name, &fl_kernels_##name##_f32, &fl_kernels_##of_double##_f64}, needs},
#define FL_ISA(name, platform, needs, bytes, flags, flags_msvc, of_double) \
    FL_ON_##platform(FL_ENTRY(name, needs, of_double))
#include "cpu/isas.def"
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
