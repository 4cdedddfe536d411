/* Cache lines: vectors may be loaded at whole ones, and words of different workers have one each.
 */
#ifndef FL_BASE_ALIGN_H
#define FL_BASE_ALIGN_H

#define FL_ALIGN 64

/* Asks for the cache line of p: to write it, or into the second level, to be read later. */
#if defined(__GNUC__)
#define FL_PREFETCH_WRITE(p) __builtin_prefetch(p, 1)
#define FL_PREFETCH_L2(p) __builtin_prefetch(p, 0, 2)
#else
#define FL_PREFETCH_WRITE(p) ((void)(p))
#define FL_PREFETCH_L2(p) ((void)(p))
#endif

#endif
