/* kernels.h for NEON with dot products, float. */
#ifndef __aarch64__
#error "this file is for 64-bit Arm"
#endif
#define FL_DOUBLE 0
#define FL_TABLE fl_kernels_neondot_f32
#include "simd/neon.h"

#include "kernels/kernels.h"
