/* Vector operations on AVX2 with FMA: 8 floats or 4 doubles.  See baseline.h. */
#ifndef FL_SIMD_AVX2_H
#define FL_SIMD_AVX2_H

#include <immintrin.h>

#include "base/real.h"

#define FL_VECTOR_REGISTERS 16
#ifdef __AVXVNNI__
#define FL_BYTE_OFFSET 128
#else
#define FL_BYTE_OFFSET 0
#endif

#if FL_DOUBLE

typedef __m256d vec;
enum { VL = 4 };

FL_INLINE __m256i first_lanes(ptrdiff_t n)
{
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}

FL_INLINE vec v_load(const real *p) { return _mm256_load_pd(p); }
FL_INLINE vec v_loadu(const real *p) { return _mm256_loadu_pd(p); }
FL_INLINE vec v_load_n(const real *p, ptrdiff_t n) { return _mm256_maskload_pd(p, first_lanes(n)); }
FL_INLINE void v_store(real *p, vec a) { _mm256_store_pd(p, a); }
FL_INLINE void v_storeu(real *p, vec a) { _mm256_storeu_pd(p, a); }
FL_INLINE void v_store_n(real *p, vec a, ptrdiff_t n) { _mm256_maskstore_pd(p, first_lanes(n), a); }
FL_INLINE vec v_set1(real x) { return _mm256_set1_pd(x); }
FL_INLINE vec v_add(vec a, vec b) { return _mm256_add_pd(a, b); }
FL_INLINE vec v_sub(vec a, vec b) { return _mm256_sub_pd(a, b); }
FL_INLINE vec v_mul(vec a, vec b) { return _mm256_mul_pd(a, b); }
FL_INLINE vec v_div(vec a, vec b) { return _mm256_div_pd(a, b); }
FL_INLINE vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_pd(a, b, c); }
FL_INLINE vec v_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_pd(a, b, c); }
FL_INLINE vec v_min(vec a, vec b) { return _mm256_min_pd(a, b); }
FL_INLINE vec v_max(vec a, vec b) { return _mm256_max_pd(a, b); }
FL_INLINE vec v_abs(vec a) { return _mm256_andnot_pd(v_set1(-0.0), a); }
FL_INLINE vec v_zip_low(vec a, vec b)
{
    return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x20);
}
FL_INLINE vec v_zip_high(vec a, vec b)
{
    return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x31);
}
FL_INLINE real v_sum(vec a)
{
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}
FL_INLINE vec v_where_greater(vec a, vec b, vec x)
{
    return _mm256_and_pd(_mm256_cmp_pd(a, b, _CMP_GT_OQ), x);
}
FL_INLINE vec v_select_greater(vec a, vec b, vec x, vec y)
{
    return _mm256_blendv_pd(y, x, _mm256_cmp_pd(a, b, _CMP_GT_OQ));
}
FL_INLINE vec v_copysign(vec magnitude, vec sign)
{
    return _mm256_or_pd(v_abs(magnitude), _mm256_and_pd(v_set1(-0.0), sign));
}
FL_INLINE vec v_exp2_biased(vec t)
{
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(t), MANTISSA_BITS));
}
FL_INLINE vec v_log2_biased(vec a)
{
    const __m256i n = _mm256_srli_epi64(_mm256_castpd_si256(a), MANTISSA_BITS);
    return _mm256_or_pd(_mm256_castsi256_pd(n), v_set1(FL_INTEGERS));
}

#else

typedef __m256 vec;
enum { VL = 8 };

FL_INLINE __m256i first_lanes(ptrdiff_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

FL_INLINE vec v_load(const real *p) { return _mm256_load_ps(p); }
FL_INLINE vec v_loadu(const real *p) { return _mm256_loadu_ps(p); }
FL_INLINE vec v_load_n(const real *p, ptrdiff_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
FL_INLINE void v_store(real *p, vec a) { _mm256_store_ps(p, a); }
FL_INLINE void v_storeu(real *p, vec a) { _mm256_storeu_ps(p, a); }
FL_INLINE void v_store_n(real *p, vec a, ptrdiff_t n) { _mm256_maskstore_ps(p, first_lanes(n), a); }
FL_INLINE vec v_set1(real x) { return _mm256_set1_ps(x); }
FL_INLINE vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
FL_INLINE vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
FL_INLINE vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
FL_INLINE vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
FL_INLINE vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
FL_INLINE vec v_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); }
FL_INLINE vec v_min(vec a, vec b) { return _mm256_min_ps(a, b); }
FL_INLINE vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
FL_INLINE vec v_abs(vec a) { return _mm256_andnot_ps(v_set1(-0.0f), a); }
FL_INLINE vec v_zip_low(vec a, vec b)
{
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
}
FL_INLINE vec v_zip_high(vec a, vec b)
{
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
}
FL_INLINE real v_sum(vec a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
FL_INLINE vec v_where_greater(vec a, vec b, vec x)
{
    return _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ), x);
}
FL_INLINE vec v_select_greater(vec a, vec b, vec x, vec y)
{
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
FL_INLINE vec v_copysign(vec magnitude, vec sign)
{
    return _mm256_or_ps(v_abs(magnitude), _mm256_and_ps(v_set1(-0.0f), sign));
}
FL_INLINE vec v_exp2_biased(vec t)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), MANTISSA_BITS));
}
FL_INLINE vec v_log2_biased(vec a)
{
    const __m256i n = _mm256_srli_epi32(_mm256_castps_si256(a), MANTISSA_BITS);
    return _mm256_or_ps(_mm256_castsi256_ps(n), v_set1(FL_INTEGERS));
}

typedef __m256i ivec;

FL_INLINE vec v_load_bfloat16(const uint16_t *p)
{
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
FL_INLINE vec v_load_float16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
FL_INLINE ivec i_load(const void *p) { return _mm256_load_si256((const __m256i *)p); }
FL_INLINE ivec i_set1(uint32_t x) { return _mm256_set1_epi32((int)x); }
FL_INLINE ivec i_max(ivec a, ivec b) { return _mm256_max_epi32(a, b); }
FL_INLINE ivec i_magnitude(vec a) { return _mm256_castps_si256(v_abs(a)); }
FL_INLINE uint32_t i_largest(ivec a)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_max_epi32(m, _mm_unpackhi_epi64(m, m));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}
FL_INLINE vec v_of_ints(ivec a) { return _mm256_cvtepi32_ps(a); }
FL_INLINE void v_store_bytes(uint8_t *p, vec a)
{
    const __m256i n = _mm256_cvtps_epi32(a);
    __m128i bytes = _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
    bytes = _mm_packs_epi16(bytes, bytes);
    _mm_storel_epi64((__m128i *)p, _mm_xor_si128(bytes, _mm_set1_epi8((char)FL_BYTE_OFFSET)));
}
#ifdef __AVXVNNI__
FL_INLINE ivec i_dot4(ivec sum, ivec q, ivec w) { return _mm256_dpbusd_avx_epi32(sum, q, w); }
#else
/* |w| times q with the sign of w: two products are at most 2 * 128 * 127, and fit 16 bits. */
FL_INLINE ivec i_dot4(ivec sum, ivec q, ivec w)
{
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif

#endif

#endif
