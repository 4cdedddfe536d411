/* What is asked of OpenMP, and what a build without it answers. */
#ifndef FL_BASE_OPENMP_H
#define FL_BASE_OPENMP_H

#ifdef _OPENMP
#include <omp.h>
static inline int fl_team_size(void) { return omp_get_num_threads(); }
static inline int fl_has_openmp(void) { return 1; }
/* Threads that a team of the calling one has where the program asks for no number.  It is a setting
 * of that thread: omp_set_num_threads changes it, and so do threadpoolctl and torch.  (An
 * OMP_NUM_THREADS of 3000000000 is a negative number to GNU OpenMP.) */
static inline int fl_most_threads(void)
{
    int most = omp_get_max_threads();
    return most > 1 ? most : 1;
}
#else
static inline int fl_team_size(void) { return 1; }
static inline int fl_has_openmp(void) { return 0; }
static inline int fl_most_threads(void) { return 1; }
#endif

/* The same for a thread in which nobody has changed it: a new one. */
int fl_usual_threads(void);

#endif
