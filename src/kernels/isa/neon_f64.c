/* kernels.h for NEON, double. */
#ifndef __aarch64__
#error "this file is for 64-bit Arm"
#endif
#define FL_DOUBLE 1
#define FL_TABLE fl_kernels_neon_f64
#include "simd/neon.h"

#include "kernels/kernels.h"
