/* kernels.h for AVX2 with AVX-VNNI, float. */
#ifdef _MSC_VER /* it has the instructions without asking */
#define __AVXVNNI__ 1
#endif
#ifndef __AVXVNNI__
#error "compile this file for AVX2 with AVX-VNNI: see src/cpu/isas.def"
#endif
#define FL_DOUBLE 0
#define FL_TABLE fl_kernels_avxvnni_f32
#include "simd/avx2.h"

#include "kernels/kernels.h"
