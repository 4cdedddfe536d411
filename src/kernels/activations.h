/* The functions that gates and states can go through, and their slopes: ONNX's eleven. */
#ifndef FL_KERNELS_ACTIVATIONS_H
#define FL_KERNELS_ACTIVATIONS_H

#include "kernels/tile.h"

/* The part of x below 0, else 0. */
FL_INLINE vec below_zero(vec x) { return v_add(v_min(v_set1(0), x), v_set1(0)); }

/* e^x - 1 for x <= 0: 2 t / (1 - t) with t = tanh(x / 2), which keeps what small x have. */
FL_INLINE vec expm1_of(vec x)
{
    vec t = v_tanh(v_mul(v_set1((real)0.5), x));
    return v_div(v_add(t, t), v_sub(v_set1(1), t));
}

FL_INLINE vec softplus_of(vec x)
{
    return v_add(rectified(x), v_log1p(v_exp(v_sub(v_set1(0), v_abs(x)))));
}

static vec function_of(const fl_unary *f, vec x)
{
    const vec alpha = v_set1(f->alpha), beta = v_set1(f->beta), one = v_set1(1);
    switch (f->kind) {
    case FL_SIGMOID: return v_sigmoid(x);
    case FL_TANH: return v_tanh(x);
    case FL_RELU: return rectified(x);
    case FL_AFFINE: return v_fma(alpha, x, beta);
    case FL_LEAKY_RELU: return v_fma(alpha, below_zero(x), rectified(x));
    case FL_THRESHOLDED_RELU: return v_where_greater(x, alpha, x);
    case FL_SCALED_TANH: return v_mul(alpha, v_tanh(v_mul(beta, x)));
    case FL_HARD_SIGMOID: return v_min(one, rectified(v_fma(alpha, x, beta)));
    case FL_ELU: return v_fma(alpha, expm1_of(below_zero(x)), rectified(x));
    case FL_SOFTSIGN: {
        vec u = v_min(v_set1((real)0x1p100), v_abs(x)); /* beyond, it is 1 */
        return v_copysign(v_div(u, v_add(one, u)), x);
    }
    default: return softplus_of(x);
    }
}

/* 1 above 0, else that slope. */
FL_INLINE vec slope_below(vec x, vec slope)
{
    const vec zero = v_set1(0);
    return v_add(v_where_greater(x, zero, v_set1(1)),
                 v_sub(slope, v_where_greater(x, zero, slope)));
}

/* The derivative at x, where y is the function; sigmoid and tanh need y alone.  Kinks as in torch:
 * 0 where one side is flat, else the slope below. */
static vec slope_of(const fl_unary *f, vec x, vec y)
{
    const vec alpha = v_set1(f->alpha), one = v_set1(1), zero = v_set1(0);
    switch (f->kind) {
    case FL_SIGMOID: return through_sigmoid(one, y);
    case FL_TANH: return through_tanh(one, y);
    case FL_RELU: return v_where_greater(x, zero, one);
    case FL_AFFINE: return alpha;
    case FL_LEAKY_RELU: return slope_below(x, alpha);
    case FL_THRESHOLDED_RELU: return v_where_greater(x, alpha, one);
    case FL_SCALED_TANH: {
        vec t = v_tanh(v_mul(v_set1(f->beta), x));
        return through_tanh(v_set1(f->alpha * f->beta), t);
    }
    case FL_HARD_SIGMOID: {
        vec z = v_fma(alpha, x, v_set1(f->beta));
        return v_where_greater(z, zero, v_where_greater(one, z, alpha));
    }
    case FL_ELU: return slope_below(x, v_add(y, alpha));
    case FL_SOFTSIGN: {
        vec d = v_add(one, v_abs(x));
        return v_div(one, v_mul(d, d));
    }
    default: return v_sigmoid(x);
    }
}

#endif
