/* Vector operations in plain C: 4 floats or 2 doubles.  Also the contract of every simd/<isa>.h.
 *
 * The headers define the same names in the same order; code above them knows neither ISA nor width.
 *
 *   vec, VL               a vector of VL elements of type real; VL is a power of two
 *   FL_VECTOR_REGISTERS   how many vectors the ISA keeps in registers
 *
 *   v_load, v_store       p is aligned to sizeof(vec)
 *   v_loadu, v_storeu     p is aligned to real only
 *   v_load_n, v_store_n   the first n lanes, 0 <= n <= VL; no memory beyond p[n-1] is touched;
 *                         lanes not loaded are 0
 *   v_set1(x)             x in every lane
 *   v_add ... v_div       correctly rounded, division too: no estimates
 *   v_fma(a, b, c)        a*b + c, rounded once; only this header rounds twice
 *   v_fnma(a, b, c)       c - a*b, rounded likewise
 *   v_min, v_max(a, b)    b may be data: NaN in b gives NaN.  a is a bound: not NaN; if
 *                         it is zero, the sign of a zero in the result is unspecified
 *   v_zip_low, v_zip_high(a, b)   the first, or last, VL lanes of a0 b0 a1 b1 ...
 *   v_sum(a)              of its lanes: i and i + VL/2 first, then the halves of these sums, ...
 *   v_where_greater(a, b, x)   x in the lanes where a > b, else 0
 *   v_select_greater(a, b, x, y)   x in the lanes where a > b, else y
 *   v_abs, v_copysign     on the bits, so also for NaN and zeros
 *   v_exp2_biased(t)      2^n, where t = n + FL_EXP2_BIAS was rounded to an integer and
 *                         -EXPONENT_BIAS <= n <= EXPONENT_BIAS + 1; the least n gives 0, the
 *                         greatest infinity: t's low bits, shifted up, are the exponent field
 *   v_log2_biased(a)      its inverse, t for the greatest 2^n <= a, where a is positive and normal
 *
 * Of float only, for weights of fewer bits:
 *
 *   v_load_bfloat16, v_load_float16(p)   VL elements of 16 bits, finite; p is aligned to them only
 *   ivec                  VL integers of 32 bits; sums are modulo 2^32
 *   i_load(p)             p is aligned to sizeof(ivec)
 *   i_set1(x)             x in every lane
 *   i_max(a, b)           as signed integers
 *   i_magnitude(a)        the bits of v_abs(a): in their order are those of finite numbers,
 *                         infinity, and NaN
 *   i_largest(a)          of its lanes
 *   v_of_ints(a)          rounded to nearest even
 *   v_store_bytes(p, a)   VL bytes: lanes of -127 to 127 rounded to nearest even, + FL_BYTE_OFFSET
 *   i_dot4(sum, q, w)     lane by lane, sum + four products of a byte of q, as v_store_bytes leaves
 *                         them, and a byte of w, -128 to 127: exact
 */
#ifndef FL_SIMD_BASELINE_H
#define FL_SIMD_BASELINE_H

#include <math.h>
#include <string.h>

#include "base/real.h"

#define FL_VECTOR_REGISTERS 16
#define FL_BYTE_OFFSET 0

enum { VL = 16 / sizeof(real) };
typedef struct {
    real lane[VL];
} vec;

FL_INLINE vec v_load(const real *p)
{
    vec r;
    memcpy(&r, p, sizeof r);
    return r;
}
FL_INLINE vec v_loadu(const real *p) { return v_load(p); }
FL_INLINE vec v_load_n(const real *p, ptrdiff_t n)
{
    vec r = {{0}};
    for (ptrdiff_t i = 0; i < n; i++) r.lane[i] = p[i];
    return r;
}
FL_INLINE void v_store(real *p, vec a) { memcpy(p, &a, sizeof a); }
FL_INLINE void v_storeu(real *p, vec a) { v_store(p, a); }
FL_INLINE void v_store_n(real *p, vec a, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) p[i] = a.lane[i];
}
FL_INLINE vec v_set1(real x)
{
    vec r;
    for (int i = 0; i < VL; i++) r.lane[i] = x;
    return r;
}
FL_INLINE vec v_add(vec a, vec b)
{
    for (int i = 0; i < VL; i++) a.lane[i] += b.lane[i];
    return a;
}
FL_INLINE vec v_sub(vec a, vec b)
{
    for (int i = 0; i < VL; i++) a.lane[i] -= b.lane[i];
    return a;
}
FL_INLINE vec v_mul(vec a, vec b)
{
    for (int i = 0; i < VL; i++) a.lane[i] *= b.lane[i];
    return a;
}
FL_INLINE vec v_div(vec a, vec b)
{
    for (int i = 0; i < VL; i++) a.lane[i] /= b.lane[i];
    return a;
}
FL_INLINE vec v_fma(vec a, vec b, vec c) { return v_add(v_mul(a, b), c); }
FL_INLINE vec v_fnma(vec a, vec b, vec c) { return v_sub(c, v_mul(a, b)); }
FL_INLINE vec v_min(vec a, vec b)
{
    for (int i = 0; i < VL; i++) a.lane[i] = a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
}
FL_INLINE vec v_max(vec a, vec b)
{
    for (int i = 0; i < VL; i++) a.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
}
FL_INLINE vec v_abs(vec a)
{
    for (int i = 0; i < VL; i++) a.lane[i] = (real)fabs(a.lane[i]);
    return a;
}
FL_INLINE vec v_zip_low(vec a, vec b)
{
    vec r;
    for (int i = 0; i < VL; i++) r.lane[i] = i % 2 ? b.lane[i / 2] : a.lane[i / 2];
    return r;
}
FL_INLINE vec v_zip_high(vec a, vec b)
{
    vec r;
    for (int i = 0; i < VL; i++) r.lane[i] = (i % 2 ? b : a).lane[(VL + i) / 2];
    return r;
}
FL_INLINE real v_sum(vec a)
{
    for (int width = VL / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) a.lane[i] += a.lane[i + width];
    return a.lane[0];
}
FL_INLINE vec v_where_greater(vec a, vec b, vec x)
{
    for (int i = 0; i < VL; i++) x.lane[i] = a.lane[i] > b.lane[i] ? x.lane[i] : 0;
    return x;
}
FL_INLINE vec v_select_greater(vec a, vec b, vec x, vec y)
{
    for (int i = 0; i < VL; i++) x.lane[i] = a.lane[i] > b.lane[i] ? x.lane[i] : y.lane[i];
    return x;
}
FL_INLINE vec v_copysign(vec magnitude, vec sign)
{
    for (int i = 0; i < VL; i++)
        magnitude.lane[i] = (real)copysign(magnitude.lane[i], sign.lane[i]);
    return magnitude;
}
FL_INLINE vec v_exp2_biased(vec t)
{
    ureal bits[VL];
    memcpy(bits, &t, sizeof t);
    for (int i = 0; i < VL; i++) bits[i] <<= MANTISSA_BITS;
    memcpy(&t, bits, sizeof t);
    return t;
}
FL_INLINE vec v_log2_biased(vec a)
{
    ureal bits[VL], integers[VL];
    const vec base = v_set1(FL_INTEGERS);
    memcpy(bits, &a, sizeof a);
    memcpy(integers, &base, sizeof base);
    for (int i = 0; i < VL; i++) bits[i] = bits[i] >> MANTISSA_BITS | integers[i];
    memcpy(&a, bits, sizeof a);
    return a;
}

#if !FL_DOUBLE

typedef struct {
    uint32_t lane[VL];
} ivec;

FL_INLINE vec v_load_bfloat16(const uint16_t *p)
{
    uint32_t bits[VL];
    for (int i = 0; i < VL; i++) bits[i] = (uint32_t)p[i] << 16;
    return v_load((const real *)bits);
}
FL_INLINE vec v_load_float16(const uint16_t *p)
{
    vec r;
    for (int i = 0; i < VL; i++) {
        const uint32_t fraction = p[i] & 0x3ff, exponent = p[i] >> 10 & 0x1f;
        const uint32_t bits = (exponent + 112) << MANTISSA_BITS | fraction << 13;
        real magnitude;
        memcpy(&magnitude, &bits, sizeof bits);
        magnitude = exponent ? magnitude : (real)fraction * 0x1p-24f;
        r.lane[i] = p[i] >> 15 ? -magnitude : magnitude;
    }
    return r;
}
FL_INLINE ivec i_load(const void *p)
{
    ivec r;
    memcpy(&r, p, sizeof r);
    return r;
}
FL_INLINE ivec i_set1(uint32_t x)
{
    ivec r;
    for (int i = 0; i < VL; i++) r.lane[i] = x;
    return r;
}
FL_INLINE ivec i_max(ivec a, ivec b)
{
    for (int i = 0; i < VL; i++)
        a.lane[i] = (int32_t)a.lane[i] > (int32_t)b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
}
FL_INLINE ivec i_magnitude(vec a)
{
    a = v_abs(a);
    return i_load(&a);
}
FL_INLINE uint32_t i_largest(ivec a)
{
    for (int i = 1; i < VL; i++) a.lane[0] = a.lane[i] > a.lane[0] ? a.lane[i] : a.lane[0];
    return a.lane[0];
}
FL_INLINE vec v_of_ints(ivec a)
{
    vec r;
    for (int i = 0; i < VL; i++) r.lane[i] = (real)(int32_t)a.lane[i];
    return r;
}
FL_INLINE void v_store_bytes(uint8_t *p, vec a)
{
    for (int i = 0; i < VL; i++) p[i] = (uint8_t)(int)rintf(a.lane[i]);
}
FL_INLINE ivec i_dot4(ivec sum, ivec q, ivec w)
{
    int8_t a[4 * VL], b[4 * VL];
    memcpy(a, &q, sizeof a);
    memcpy(b, &w, sizeof b);
    for (int i = 0; i < 4 * VL; i++) sum.lane[i / 4] += (uint32_t)(a[i] * b[i]);
    return sum;
}

#endif

#endif
