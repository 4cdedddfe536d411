/* kernels.h for AVX2 and FMA, double. */
#ifndef __AVX2__
#error "compile this file for AVX2 and FMA: see src/cpu/isas.def"
#endif
#define FL_DOUBLE 1
#define FL_TABLE fl_kernels_avx2_f64
#include "simd/avx2.h"

#include "kernels/kernels.h"
