/* kernels.h for any processor, double. */
#define FL_DOUBLE 1
#define FL_TABLE fl_kernels_baseline_f64
#include "simd/baseline.h"

#include "kernels/kernels.h"
