/* The logarithm of a single number. */
#ifndef FL_DRIVER_HEADS_LOG_OF_SUM_H
#define FL_DRIVER_HEADS_LOG_OF_SUM_H

#include <stdint.h>
#include <string.h>

/* log(x) for x >= 1 within 3 ulp, and with the same bits on every machine, unlike libm's.
 * With x = 2^n * m, m in [sqrt(1/2), sqrt(2)], and s = (m - 1)/(m + 1), which is at most 0.172,
 * log(m) = 2*atanh(s) = 2*(s + s^3/3 + s^5/5 + ...): 11 terms reach the precision of double. */
static double log_of_sum(double x)
{
    static const double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
    const uint64_t mantissa = UINT64_MAX >> 12, one = (uint64_t)1023 << 52;
    uint64_t bits;
    double m;
    memcpy(&bits, &x, sizeof bits);
    int n = (int)(bits >> 52) - 1023;
    bits = (bits & mantissa) | one;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.41421356) {
        m /= 2;
        n++;
    }
    const double s = (m - 1) / (m + 1);
    double series = 0;
    for (int k = 21; k > 0; k -= 2) {
        series = series * (s * s) + 1.0 / k;
    }
    return x != x ? x : n * ln2_high + (n * ln2_low + 2 * s * series);
}

#endif
