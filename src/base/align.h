/* Cache lines: vectors may be loaded at whole ones, and words of different workers have one each.
 */
#ifndef FL_BASE_ALIGN_H
#define FL_BASE_ALIGN_H

#define FL_ALIGN 64

/* Asks for the cache line of p, to write it. */
#if defined(__GNUC__)
#define FL_PREFETCH_WRITE(p) __builtin_prefetch(p, 1)
#else
#define FL_PREFETCH_WRITE(p) ((void)(p))
#endif

#endif
