/* Vector operations on AVX-512 (F, BW, DQ, VL): 16 floats or 8 doubles.  See baseline.h. */
#ifndef FL_SIMD_AVX512_H
#define FL_SIMD_AVX512_H

#include <immintrin.h>

#include "base/real.h"

#define FL_VECTOR_REGISTERS 32
#ifdef __AVX512VNNI__
#define FL_BYTE_OFFSET 128
#else
#define FL_BYTE_OFFSET 0
#endif

#if FL_DOUBLE

typedef __m512d vec;
enum { VL = 8 };

FL_INLINE __mmask8 first_lanes(ptrdiff_t n) { return (__mmask8)((1u << n) - 1); }

FL_INLINE vec v_load(const real *p) { return _mm512_load_pd(p); }
FL_INLINE vec v_loadu(const real *p) { return _mm512_loadu_pd(p); }
FL_INLINE vec v_load_n(const real *p, ptrdiff_t n)
{
    return _mm512_maskz_loadu_pd(first_lanes(n), p);
}
FL_INLINE void v_store(real *p, vec a) { _mm512_store_pd(p, a); }
FL_INLINE void v_storeu(real *p, vec a) { _mm512_storeu_pd(p, a); }
FL_INLINE void v_store_n(real *p, vec a, ptrdiff_t n)
{
    _mm512_mask_storeu_pd(p, first_lanes(n), a);
}
FL_INLINE vec v_set1(real x) { return _mm512_set1_pd(x); }
FL_INLINE vec v_add(vec a, vec b) { return _mm512_add_pd(a, b); }
FL_INLINE vec v_sub(vec a, vec b) { return _mm512_sub_pd(a, b); }
FL_INLINE vec v_mul(vec a, vec b) { return _mm512_mul_pd(a, b); }
FL_INLINE vec v_div(vec a, vec b) { return _mm512_div_pd(a, b); }
FL_INLINE vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_pd(a, b, c); }
FL_INLINE vec v_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_pd(a, b, c); }
FL_INLINE vec v_min(vec a, vec b) { return _mm512_min_pd(a, b); }
FL_INLINE vec v_max(vec a, vec b) { return _mm512_max_pd(a, b); }
FL_INLINE vec v_abs(vec a) { return _mm512_andnot_pd(v_set1(-0.0), a); }
FL_INLINE vec v_zip_low(vec a, vec b)
{
    return _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b);
}
FL_INLINE vec v_zip_high(vec a, vec b)
{
    return _mm512_permutex2var_pd(a, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b);
}
FL_INLINE real v_sum(vec a)
{
    __m256d half = _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1));
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(half), _mm256_extractf128_pd(half, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}
FL_INLINE vec v_where_greater(vec a, vec b, vec x)
{
    return _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(a, b, _CMP_GT_OQ), x);
}
FL_INLINE vec v_select_greater(vec a, vec b, vec x, vec y)
{
    return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(a, b, _CMP_GT_OQ), y, x);
}
FL_INLINE vec v_copysign(vec magnitude, vec sign)
{
    return _mm512_or_pd(v_abs(magnitude), _mm512_and_pd(v_set1(-0.0), sign));
}
FL_INLINE vec v_exp2_biased(vec t)
{
    return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(t), MANTISSA_BITS));
}
FL_INLINE vec v_log2_biased(vec a)
{
    const __m512i n = _mm512_srli_epi64(_mm512_castpd_si512(a), MANTISSA_BITS);
    return _mm512_or_pd(_mm512_castsi512_pd(n), v_set1(FL_INTEGERS));
}

#else

typedef __m512 vec;
enum { VL = 16 };

FL_INLINE __mmask16 first_lanes(ptrdiff_t n) { return (__mmask16)((1u << n) - 1); }

FL_INLINE vec v_load(const real *p) { return _mm512_load_ps(p); }
FL_INLINE vec v_loadu(const real *p) { return _mm512_loadu_ps(p); }
FL_INLINE vec v_load_n(const real *p, ptrdiff_t n)
{
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
FL_INLINE void v_store(real *p, vec a) { _mm512_store_ps(p, a); }
FL_INLINE void v_storeu(real *p, vec a) { _mm512_storeu_ps(p, a); }
FL_INLINE void v_store_n(real *p, vec a, ptrdiff_t n)
{
    _mm512_mask_storeu_ps(p, first_lanes(n), a);
}
FL_INLINE vec v_set1(real x) { return _mm512_set1_ps(x); }
FL_INLINE vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
FL_INLINE vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
FL_INLINE vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
FL_INLINE vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
FL_INLINE vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
FL_INLINE vec v_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
FL_INLINE vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
FL_INLINE vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
FL_INLINE vec v_abs(vec a) { return _mm512_andnot_ps(v_set1(-0.0f), a); }
FL_INLINE vec v_zip_low(vec a, vec b)
{
    return _mm512_permutex2var_ps(
        a, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), b);
}
FL_INLINE vec v_zip_high(vec a, vec b)
{
    return _mm512_permutex2var_ps(
        a, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), b);
}
FL_INLINE real v_sum(vec a)
{
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
FL_INLINE vec v_where_greater(vec a, vec b, vec x)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), x);
}
FL_INLINE vec v_select_greater(vec a, vec b, vec x, vec y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}
FL_INLINE vec v_copysign(vec magnitude, vec sign)
{
    return _mm512_or_ps(v_abs(magnitude), _mm512_and_ps(v_set1(-0.0f), sign));
}
FL_INLINE vec v_exp2_biased(vec t)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t), MANTISSA_BITS));
}
FL_INLINE vec v_log2_biased(vec a)
{
    const __m512i n = _mm512_srli_epi32(_mm512_castps_si512(a), MANTISSA_BITS);
    return _mm512_or_ps(_mm512_castsi512_ps(n), v_set1(FL_INTEGERS));
}

typedef __m512i ivec;

FL_INLINE vec v_load_bfloat16(const uint16_t *p)
{
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
FL_INLINE vec v_load_float16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
FL_INLINE ivec i_load(const void *p) { return _mm512_load_si512(p); }
FL_INLINE ivec i_set1(uint32_t x) { return _mm512_set1_epi32((int)x); }
FL_INLINE ivec i_max(ivec a, ivec b) { return _mm512_max_epi32(a, b); }
FL_INLINE ivec i_magnitude(vec a) { return _mm512_castps_si512(v_abs(a)); }
FL_INLINE uint32_t i_largest(ivec a) { return (uint32_t)_mm512_reduce_max_epi32(a); }
FL_INLINE vec v_of_ints(ivec a) { return _mm512_cvtepi32_ps(a); }
FL_INLINE void v_store_bytes(uint8_t *p, vec a)
{
    const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a));
    _mm_storeu_si128((__m128i *)p, _mm_xor_si128(bytes, _mm_set1_epi8((char)FL_BYTE_OFFSET)));
}
#ifdef __AVX512VNNI__
FL_INLINE ivec i_dot4(ivec sum, ivec q, ivec w) { return _mm512_dpbusd_epi32(sum, q, w); }
#else
/* |w| times q with the sign of w: two products are at most 2 * 128 * 127, and fit 16 bits. */
FL_INLINE ivec i_dot4(ivec sum, ivec q, ivec w)
{
    const __m512i negated = _mm512_mask_sub_epi8(q, _mm512_movepi8_mask(w), i_set1(0), q);
    const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w), negated);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
#endif

#endif

#endif
