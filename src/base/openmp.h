/* The OpenMP runtime, or what stands for it in a build without. */
#ifndef FL_BASE_OPENMP_H
#define FL_BASE_OPENMP_H

#ifdef _OPENMP
#include <omp.h>
static inline int fl_team_size(void) { return omp_get_num_threads(); }
static inline int fl_has_openmp(void) { return 1; }
#else
static inline int fl_team_size(void) { return 1; }
static inline int fl_has_openmp(void) { return 0; }
#endif

#endif
