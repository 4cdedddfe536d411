/* kernels.h for any processor, float. */
#define FL_DOUBLE 0
#define FL_TABLE fl_kernels_baseline_f32
#include "simd/baseline.h"

#include "kernels/kernels.h"
