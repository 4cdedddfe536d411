/* kernels.h for AVX-512 with VNNI, float. */
#ifdef _MSC_VER /* it has the instructions without asking */
#define __AVX512VNNI__ 1
#endif
#ifndef __AVX512VNNI__
#error "compile this file for AVX-512 with VNNI: see src/cpu/isas.def"
#endif
#define FL_DOUBLE 0
#define FL_TABLE fl_kernels_avx512vnni_f32
#include "simd/avx512.h"

#include "kernels/kernels.h"
