/* kernels.h for AVX-512, double. */
#ifndef __AVX512F__
#error "compile this file for AVX-512: see src/cpu/isas.def"
#endif
#define FL_DOUBLE 1
#define FL_TABLE fl_kernels_avx512_f64
#include "simd/avx512.h"

#include "kernels/kernels.h"
