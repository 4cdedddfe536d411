/* Vector operations on NEON (AArch64): 4 floats or 2 doubles.  See baseline.h. */
#ifndef FL_SIMD_NEON_H
#define FL_SIMD_NEON_H

#include <arm_neon.h>

#include "base/real.h"

#define FL_VECTOR_REGISTERS 32

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
FL_INLINE vec v_copysign(vec magnitude, vec sign)
{
    return vbslq_f64(vdupq_n_u64((ureal)1 << 63), sign, magnitude);
}
FL_INLINE vec v_exp2_biased(vec t)
{
    return vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(t), MANTISSA_BITS));
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
FL_INLINE vec v_copysign(vec magnitude, vec sign)
{
    return vbslq_f32(vdupq_n_u32((ureal)1 << 31), sign, magnitude);
}
FL_INLINE vec v_exp2_biased(vec t)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(t), MANTISSA_BITS));
}

#endif

#endif
