/* Vector operations on NEON (AArch64): 4 floats or 2 doubles.  See baseline.h. */
#ifndef FL_SIMD_NEON_H
#define FL_SIMD_NEON_H

#include <arm_neon.h>
#include <string.h>

#include "base/real.h"

#define FL_VECTOR_REGISTERS 32
#define FL_BYTE_OFFSET 0

#if FL_DOUBLE

typedef float64x2_t vec;
enum { VL = 2 };

FL_INLINE vec v_load(const real *p) { return vld1q_f64(p); }
FL_INLINE vec v_loadu(const real *p) { return vld1q_f64(p); }
FL_INLINE vec v_load_n(const real *p, ptrdiff_t n)
{
    real lanes[VL] = {0};
    for (ptrdiff_t i = 0; i < n; i++) lanes[i] = p[i];
    return vld1q_f64(lanes);
}
FL_INLINE void v_store(real *p, vec a) { vst1q_f64(p, a); }
FL_INLINE void v_storeu(real *p, vec a) { vst1q_f64(p, a); }
FL_INLINE void v_store_n(real *p, vec a, ptrdiff_t n)
{
    real lanes[VL];
    vst1q_f64(lanes, a);
    for (ptrdiff_t i = 0; i < n; i++) p[i] = lanes[i];
}
FL_INLINE vec v_set1(real x) { return vdupq_n_f64(x); }
FL_INLINE vec v_add(vec a, vec b) { return vaddq_f64(a, b); }
FL_INLINE vec v_sub(vec a, vec b) { return vsubq_f64(a, b); }
FL_INLINE vec v_mul(vec a, vec b) { return vmulq_f64(a, b); }
FL_INLINE vec v_div(vec a, vec b) { return vdivq_f64(a, b); }
FL_INLINE vec v_fma(vec a, vec b, vec c) { return vfmaq_f64(c, a, b); }
FL_INLINE vec v_fnma(vec a, vec b, vec c) { return vfmsq_f64(c, a, b); }
FL_INLINE vec v_min(vec a, vec b) { return vminq_f64(a, b); }
FL_INLINE vec v_max(vec a, vec b) { return vmaxq_f64(a, b); }
FL_INLINE vec v_abs(vec a) { return vabsq_f64(a); }
FL_INLINE vec v_zip_low(vec a, vec b) { return vzip1q_f64(a, b); }
FL_INLINE vec v_zip_high(vec a, vec b) { return vzip2q_f64(a, b); }
FL_INLINE real v_sum(vec a) { return vgetq_lane_f64(a, 0) + vgetq_lane_f64(a, 1); }
FL_INLINE vec v_where_greater(vec a, vec b, vec x)
{
    return vreinterpretq_f64_u64(vandq_u64(vcgtq_f64(a, b), vreinterpretq_u64_f64(x)));
}
FL_INLINE vec v_select_greater(vec a, vec b, vec x, vec y)
{
    return vbslq_f64(vcgtq_f64(a, b), x, y);
}
FL_INLINE vec v_copysign(vec magnitude, vec sign)
{
    return vbslq_f64(vdupq_n_u64((ureal)1 << 63), sign, magnitude);
}
FL_INLINE vec v_exp2_biased(vec t)
{
    return vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(t), MANTISSA_BITS));
}
FL_INLINE vec v_log2_biased(vec a)
{
    const uint64x2_t n = vshrq_n_u64(vreinterpretq_u64_f64(a), MANTISSA_BITS);
    return vreinterpretq_f64_u64(vorrq_u64(n, vreinterpretq_u64_f64(v_set1(FL_INTEGERS))));
}

#else

typedef float32x4_t vec;
enum { VL = 4 };

FL_INLINE vec v_load(const real *p) { return vld1q_f32(p); }
FL_INLINE vec v_loadu(const real *p) { return vld1q_f32(p); }
FL_INLINE vec v_load_n(const real *p, ptrdiff_t n)
{
    real lanes[VL] = {0};
    for (ptrdiff_t i = 0; i < n; i++) lanes[i] = p[i];
    return vld1q_f32(lanes);
}
FL_INLINE void v_store(real *p, vec a) { vst1q_f32(p, a); }
FL_INLINE void v_storeu(real *p, vec a) { vst1q_f32(p, a); }
FL_INLINE void v_store_n(real *p, vec a, ptrdiff_t n)
{
    real lanes[VL];
    vst1q_f32(lanes, a);
    for (ptrdiff_t i = 0; i < n; i++) p[i] = lanes[i];
}
FL_INLINE vec v_set1(real x) { return vdupq_n_f32(x); }
FL_INLINE vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
FL_INLINE vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
FL_INLINE vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
FL_INLINE vec v_div(vec a, vec b) { return vdivq_f32(a, b); }
FL_INLINE vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
FL_INLINE vec v_fnma(vec a, vec b, vec c) { return vfmsq_f32(c, a, b); }
FL_INLINE vec v_min(vec a, vec b) { return vminq_f32(a, b); }
FL_INLINE vec v_max(vec a, vec b) { return vmaxq_f32(a, b); }
FL_INLINE vec v_abs(vec a) { return vabsq_f32(a); }
FL_INLINE vec v_zip_low(vec a, vec b) { return vzip1q_f32(a, b); }
FL_INLINE vec v_zip_high(vec a, vec b) { return vzip2q_f32(a, b); }
FL_INLINE real v_sum(vec a)
{
    float32x2_t s = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(s, 0) + vget_lane_f32(s, 1);
}
FL_INLINE vec v_where_greater(vec a, vec b, vec x)
{
    return vreinterpretq_f32_u32(vandq_u32(vcgtq_f32(a, b), vreinterpretq_u32_f32(x)));
}
FL_INLINE vec v_select_greater(vec a, vec b, vec x, vec y)
{
    return vbslq_f32(vcgtq_f32(a, b), x, y);
}
FL_INLINE vec v_copysign(vec magnitude, vec sign)
{
    return vbslq_f32(vdupq_n_u32((ureal)1 << 31), sign, magnitude);
}
FL_INLINE vec v_exp2_biased(vec t)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(t), MANTISSA_BITS));
}
FL_INLINE vec v_log2_biased(vec a)
{
    const uint32x4_t n = vshrq_n_u32(vreinterpretq_u32_f32(a), MANTISSA_BITS);
    return vreinterpretq_f32_u32(vorrq_u32(n, vreinterpretq_u32_f32(v_set1(FL_INTEGERS))));
}

typedef int32x4_t ivec;

FL_INLINE vec v_load_bfloat16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
FL_INLINE vec v_load_float16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
FL_INLINE ivec i_load(const void *p) { return vld1q_s32((const int32_t *)p); }
FL_INLINE ivec i_set1(uint32_t x) { return vdupq_n_s32((int32_t)x); }
FL_INLINE ivec i_max(ivec a, ivec b) { return vmaxq_s32(a, b); }
FL_INLINE ivec i_magnitude(vec a) { return vreinterpretq_s32_f32(v_abs(a)); }
FL_INLINE uint32_t i_largest(ivec a) { return (uint32_t)vmaxvq_s32(a); }
FL_INLINE vec v_of_ints(ivec a) { return vcvtq_f32_s32(a); }
FL_INLINE void v_store_bytes(uint8_t *p, vec a)
{
    const int16x4_t half = vmovn_s32(vcvtnq_s32_f32(a));
    const int8x8_t bytes = vmovn_s16(vcombine_s16(half, half));
    const uint32_t four = vget_lane_u32(vreinterpret_u32_s8(bytes), 0);
    memcpy(p, &four, sizeof four);
}
FL_INLINE ivec i_dot4(ivec sum, ivec q, ivec w)
{
    const int8x16_t a = vreinterpretq_s8_s32(q), b = vreinterpretq_s8_s32(w);
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sum, a, b);
#else
    /* Two products are at most 2 * 128 * 127, and fit 16 bits. */
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
#endif
}

#endif

#endif
