/* What a build of the core offers the program that runs builds in turns (turns.c). */
#ifndef FL_BENCH_MEASURED_H
#define FL_BENCH_MEASURED_H

#include <stddef.h>

typedef struct {
    ptrdiff_t layers, input, hidden, batch, steps;
    int threads, training;
    const char *isa;
} bench_size;

enum { BENCH_PARTS = 9 };

/* One layer of one build, its data and its last results. */
typedef struct {
    void *(*open)(
        const bench_size *size);          /* NULL: there is no memory, or no such instruction set */
    void (*run)(void *layer, double *ns); /* nanoseconds of each part */
    double (*sum)(const void *layer);     /* of the results: equal where all bits are */
    void (*close)(void *layer);
    double (*fma)(const bench_size *size); /* multiply-adds a nanosecond, of all threads */
    int parts;
    const char *names[BENCH_PARTS];
    double (*work[BENCH_PARTS])(const bench_size *size); /* multiply-adds of a part; NULL: none */
} bench_build;

/* What a shared object exports. */
__attribute__((visibility("default"))) extern const bench_build build;

#endif
