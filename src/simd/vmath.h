/* sigmoid, tanh, exp, log and log sigmoid of a vector, the same bits on every ISA with FMA.
 *
 * Include after a simd/<isa>.h; nothing here depends on ISA or width.  Every step is a correctly
 * rounded operation, in a fixed order, with one true division in sigmoid and in tanh.
 *
 * Algorithm.  sigmoid and tanh are quotients in e^(-2u), and with u = z - n*ln2/2
 *
 *     e^(-2u) = 2^n * (E - z) / (E + z),    E = z*coth(z) = 1 + z^2/3 - z^4/45 + ...
 *
 * E is even and nearly 1: a short polynomial in z^2 is enough, and its rounding error reaches the
 * quotient only times z.  2^n comes from the bits of t = n + FL_EXP2_BIAS.  With A = k*(E - z)
 * and B = k*(E + z) the only division is the last one:
 *
 *     sigmoid(x) = 1 / (1 + e^-x)             = B / (B + 2^n*A)               u = x/2, k = 1.54
 *     tanh|x|    = (1 - e^-2u) / (1 + e^-2u)  = M / (M + 2^n*A)               u = |x|, k = 1
 *     where M = (1 - 2^n)/2 * A + z: exactly z if n = 0, so small x lose nothing
 *
 * Choices that keep the error below 2 ulp and cost nothing, or one subtraction (TANH_SKEW):
 * - sigmoid: k = 1.54 keeps A and B in [1, 2), mostly in its dense upper half.  B is computed
 *   from the rounded A, so that the error they share cancels in A/B.
 * - tanh: just above |x| = ln2/4, where n would become -1, the terms of M nearly cancel.
 *   n = round((TANH_SKEW - |x|) * 2/ln2) stays 0 a little longer instead.
 * - The error of n*ln2 with ln2 in one piece matters to sigmoid(-80), not to tanh.
 *
 * Coefficients: weighted minimax fit (Remez exchange in 180-bit arithmetic) of E in powers of
 * z^2, the constant term held at 1; weight = relative change of the result per change of E.
 * For sigmoid they are scaled to k*E as a polynomial in (2z)^2.
 *
 * exp is for x <= 0: e^x = 2^n * P(z) with z = x - n*ln2, and P a polynomial of degree 6 (11),
 * fitted to e^z likewise.  Its first two coefficients are held at 1, so that e^0 is exactly 1 and
 * the rounding of the rest reaches the result only times z.
 *
 * log is for positive normal numbers up to 2^126 (2^1022): x = 2^n * (1 + f) with 1 + f between
 * sqrt(1/2) and sqrt(2), and with s = f / (2 + f), h = f^2/2
 *
 *     log(1 + f) = 2*atanh(s) = f - h + s*(h + 2/3 s^2 + 2/5 s^4 + ...)
 *
 * f is exact, so that the rounding of s counts in small terms only.  Neglected terms are below
 * 1e-9 (2e-18) of the result.
 *
 *                float32                         float64
 *                sigmoid    tanh       exp       sigmoid    tanh       exp
 *   |z| up to    0.174      0.254      0.347     0.174      0.274      0.347
 *   fit error    5.2e-10    2.1e-8     3.8e-9    1.8e-19    3.7e-19    1.1e-17   relative
 *   max error    1.81 ulp   1.87 ulp   0.89 ulp  1.89 ulp   1.83 ulp   0.93 ulp  measured
 *
 * Measured on every float and on 7e8 doubles (exp: 1e8); the baseline has up to 2.1 ulp.  pytest
 * tests/numerics/test_vmath.py checks a sample.
 *
 * log sigmoid is min(0, x) - log(1 + u), u = e^-|x|.  With s = u / (2 + u) <= 1/3, log(1 + u) is
 * 2 atanh(s) = u - s*(u - s^2*R(s^2)): u has no rounding but its own, and s weighs a third of it.
 * R is fitted in the nodes of Chebyshev to 3.9e-10 (1.3e-19) of the logarithm; max error 1.74 ulp
 * (1.74), measured on a third of all floats and on 4e7 doubles.
 *
 *   x              sigmoid(x)    tanh(x)     exp(x)    log sigmoid(x)
 *   NaN            NaN           NaN         NaN       NaN
 *   inf, large     1             1                     0            exactly
 *   -inf, -large   0             -1          0         x            exactly
 *   0, -0          0.5           0, -0       1         -log 2
 *   denormal       0.5           x           1         -log 2       (x: 0 if the FPU flushes
 *                                                                   denormals)
 *
 * sigmoid is 0 where n = 128 (1024), x < -88.38 (-709.44), and exp where n = -127 (-1023),
 * x < -87.68 (-708.75): the true value is denormal there.  tanh(-x) = -tanh(x), bit by bit.
 */
#ifndef FL_SIMD_VMATH_H
#define FL_SIMD_VMATH_H

#include "base/real.h"

#if FL_DOUBLE
enum { SIGMOID_DEGREE = 5, TANH_DEGREE = 6 };
static const real SIGMOID_E[] = {1.54,
                                 0.12833333333333247,
                                 -0.0021388888888056626,
                                 5.0925923127078737e-05,
                                 -1.2731054727493992e-06,
                                 3.1847606059393821e-08};
static const real TANH_E[] = {1.0,
                              0.33333333333333303,
                              -0.022222222222142916,
                              0.002116402109505776,
                              -0.00021163993591139212,
                              2.1372221575249737e-05,
                              -2.1087692312508613e-06};
static const real LOG2E = 0x1.71547652b82fep0, SQRT2 = 0x1.6a09e667f3bcdp0;
static const real LN2_HIGH = 0x1.62e42fefa38p-1; /* few bits: n * LN2_HIGH is exact */
static const real LN2_LOW = 0x1.ef35793c7673p-45;
static const real HALF_LN2 = 0x1.62e42fefa39efp-2;
static const real SIGMOID_MIN = -710.0, SIGMOID_MAX = 40.0; /* beyond, the result is constant */
static const real TANH_MAX = 20.0;
static const real TANH_SKEW = 0.1;
enum { EXP_DEGREE = 11 };
static const real EXP_P[] = {1.0,
                             1.0,
                             0.5000000000000011,
                             0.16666666666666413,
                             0.04166666666653023,
                             0.008333333333494373,
                             0.0013888888943607372,
                             0.0001984126950671712,
                             2.4801493125051672e-05,
                             2.7557586300758107e-06,
                             2.76302382411541e-07,
                             2.500006840460184e-08};
static const real EXP_MIN = -709.0; /* beyond, the result is 0 */
enum { LOG1P_DEGREE = 10 };
static const real LOG1P_R[] = {0.6666666666666666,  0.39999999999999525, 0.285714285716001,
                               0.2222222219823677,  0.18181819897962714, 0.1538454396486055,
                               0.13335178631449257, 0.11734279061303197, 0.10845178394880015,
                               0.07492143795550767, 0.1563057780092285};
#else
enum { SIGMOID_DEGREE = 2, TANH_DEGREE = 2 };
static const real SIGMOID_E[] = {1.54f, 0.12833296f, -0.00212981f};
static const real TANH_E[] = {1.0f, 0.33332965f, -0.022034872f};
static const real LOG2E = 0x1.715476p0f, SQRT2 = 0x1.6a09e6p0f;
static const real LN2_HIGH = 0x1.62e4p-1f;
static const real LN2_LOW = 0x1.7f7d1cp-20f;
static const real HALF_LN2 = 0x1.62e43p-2f;
static const real SIGMOID_MIN = -88.75f, SIGMOID_MAX = 20.0f;
static const real TANH_MAX = 10.0f;
static const real TANH_SKEW = 0.08f;
enum { EXP_DEGREE = 6 };
static const real EXP_P[] = {1.0f,         1.0f,         0.49999994f,  0.16666521f,
                             0.041668388f, 0.008368712f, 0.0013814618f};
static const real EXP_MIN = -88.0f;
enum { LOG1P_DEGREE = 4 };
static const real LOG1P_R[] = {0.6666667f, 0.39999706f, 0.28592357f, 0.21706575f, 0.2322433f};
#endif

/* c[0] + c[1]*w + ... + c[degree]*w^degree */
FL_INLINE vec v_polynomial(vec w, const real *c, int degree)
{
    vec sum = v_set1(c[degree]);
    FL_UNROLL
    for (int k = degree - 1; k >= 0; k--) sum = v_fma(sum, w, v_set1(c[k]));
    return sum;
}

/* 1 / (1 + e^-x) */
FL_INLINE vec v_sigmoid(vec x)
{
    x = v_min(v_set1(SIGMOID_MAX), v_max(v_set1(SIGMOID_MIN), x));
    vec t = v_fma(x, v_set1(-LOG2E), v_set1(FL_EXP2_BIAS));
    vec n = v_sub(t, v_set1(FL_EXP2_BIAS));
    vec z2 = v_fma(n, v_set1(LN2_LOW), v_fma(n, v_set1(LN2_HIGH), x)); /* 2z */
    vec ke = v_polynomial(v_mul(z2, z2), SIGMOID_E, SIGMOID_DEGREE);
    vec a = v_fnma(v_set1(SIGMOID_E[0] / 2), z2, ke); /* k*(E - z), where k = SIGMOID_E[0] */
    vec b = v_fma(v_set1(SIGMOID_E[0]), z2, a);       /* k*(E + z) */
    return v_div(b, v_fma(v_exp2_biased(t), a, b));
}

/* Hyperbolic tangent of x. */
FL_INLINE vec v_tanh(vec x)
{
    vec u = v_min(v_set1(TANH_MAX), v_abs(x));
    vec t = v_fma(v_sub(u, v_set1(TANH_SKEW)), v_set1(-2 * LOG2E), v_set1(FL_EXP2_BIAS));
    vec n = v_sub(t, v_set1(FL_EXP2_BIAS));
    vec z = v_fma(n, v_set1(HALF_LN2), u);
    vec a = v_sub(v_polynomial(v_mul(z, z), TANH_E, TANH_DEGREE), z);
    vec s = v_exp2_biased(t);
    vec half = v_set1((real)0.5);
    vec m = v_fma(v_fnma(half, s, half), a, z); /* (1 - 2^n)/2 * A + z */
    return v_copysign(v_div(m, v_fma(s, a, m)), x);
}

/* The natural logarithm of x; of 0, some number below all others. */
FL_INLINE vec v_log(vec x)
{
    enum { DEGREE = FL_DOUBLE ? 9 : 3 };
    vec n = v_sub(v_log2_biased(v_mul(v_set1(SQRT2), x)), v_set1(FL_EXP2_BIAS));
    vec f = v_sub(v_mul(x, v_exp2_biased(v_sub(v_set1(FL_EXP2_BIAS), n))), v_set1(1));
    vec s = v_div(f, v_add(v_set1(2), f)), s2 = v_mul(s, s);
    vec sum = v_set1((real)2 / (2 * DEGREE + 3));
    FL_UNROLL
    for (int k = DEGREE - 1; k >= 0; k--) {
        sum = v_fma(sum, s2, v_set1((real)2 / (real)(2 * k + 3)));
    }
    vec h = v_mul(v_mul(v_set1((real)0.5), f), f);
    vec rest = v_fma(s, v_fma(sum, s2, h), v_mul(n, v_set1(LN2_LOW)));
    return v_fma(n, v_set1(LN2_HIGH), v_sub(f, v_sub(h, rest)));
}

/* e^x for x <= 0. */
FL_INLINE vec v_exp(vec x)
{
    x = v_max(v_set1(EXP_MIN), x);
    vec t = v_fma(x, v_set1(LOG2E), v_set1(FL_EXP2_BIAS));
    vec n = v_sub(t, v_set1(FL_EXP2_BIAS));
    vec z = v_fnma(n, v_set1(LN2_LOW), v_fnma(n, v_set1(LN2_HIGH), x));
    return v_mul(v_exp2_biased(t), v_polynomial(z, EXP_P, EXP_DEGREE));
}

/* log(1 + u) for u from 0 to 1. */
FL_INLINE vec v_log1p(vec u)
{
    vec s = v_div(u, v_add(v_set1(2), u)), s2 = v_mul(s, s);
    vec rest = v_mul(s2, v_polynomial(s2, LOG1P_R, LOG1P_DEGREE));
    return v_fnma(s, v_sub(u, rest), u);
}

/* log(1 / (1 + e^-x)) = min(0, x) - log(1 + e^-|x|). */
FL_INLINE vec v_log_sigmoid(vec x)
{
    vec u = v_exp(v_sub(v_set1(0), v_abs(x)));
    return v_sub(v_min(v_set1(0), x), v_log1p(u));
}

#endif
