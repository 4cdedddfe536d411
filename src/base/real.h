/* Element type of a translation unit (FL_DOUBLE: 0 float32, 1 float64); compiler spellings.
 *
 * Headers that include this one are templates: they use `real`, all they define is static, and they
 * are compiled once for each element type, as driver/driver_<type>.c, or for each instruction set
 * too, as kernels/isa/<isa>_<type>.c.  All headers of simd/, kernels/, layout/ and driver/ are. */
#ifndef FL_BASE_REAL_H
#define FL_BASE_REAL_H

#include <stddef.h>
#include <stdint.h>

#ifndef FL_DOUBLE
#error "define FL_DOUBLE as 0 (float32) or 1 (float64) before the first include"
#endif

/* real                           element type
 * ureal                          unsigned integer of the same width
 * MANTISSA_BITS, EXPONENT_BIAS   of the IEEE 754 format
 * FL_INTEGERS                    added to a small integer, has it in its low bits
 * FL_EXP2_BIAS                   added to a number, rounds it to an integer n and leaves
 *                                n + EXPONENT_BIAS in the low bits: the input of v_exp2_biased
 * FL_NAME(base)                  base_f32 or base_f64 */
#define FL_PASTE_(a, b) a##b
#if FL_DOUBLE
typedef double real;
typedef uint64_t ureal;
enum { MANTISSA_BITS = 52, EXPONENT_BIAS = 1023 };
#define FL_INTEGERS 0x1.8p52
#define FL_EXP2_BIAS (FL_INTEGERS + EXPONENT_BIAS)
#define FL_NAME(base) FL_PASTE_(base, _f64)
#else
typedef float real;
typedef uint32_t ureal;
enum { MANTISSA_BITS = 23, EXPONENT_BIAS = 127 };
#define FL_INTEGERS 0x1.8p23f
#define FL_EXP2_BIAS (FL_INTEGERS + EXPONENT_BIAS)
#define FL_NAME(base) FL_PASTE_(base, _f32)
#endif

/* FL_INLINE     internal linkage and always inlined: no copy compiled for another ISA gets linked
 * FL_UNROLL     before a loop of constant length: its arrays of vectors stay in registers
 * FL_UNROLL_BY_4   before another one */
#if defined(__clang__)
#define FL_INLINE static inline __attribute__((always_inline))
#define FL_UNROLL _Pragma("clang loop unroll(full)")
#define FL_UNROLL_BY_4 _Pragma("clang loop unroll_count(4)")
#elif defined(__GNUC__)
#define FL_INLINE static inline __attribute__((always_inline))
#define FL_UNROLL _Pragma("GCC unroll 32")
#define FL_UNROLL_BY_4 _Pragma("GCC unroll 4")
#else /* MSVC */
#define FL_INLINE static __forceinline
#define FL_UNROLL
#define FL_UNROLL_BY_4
#endif

#endif
