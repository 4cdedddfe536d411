/* Runs builds of the core in turns, in one process, against the rate of multiply-adds of the
 * moment: turns [options] NAME=BUILD.so ... -- LAYERS,INPUT,HIDDEN,BATCH,STEPS ... */
#include "measured.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BUILDS = 8, CALLS = 20000 };

typedef struct {
    const char *name;
    const bench_build *build;
    void *layer;
    double *ns[BENCH_PARTS];
} contestant;

typedef struct {
    contestant builds[BUILDS];
    int count, calls;
    double seconds, *fma;
} contest;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *values, int n, double q)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
    return values[(int)(q * (n - 1))];
}

static void fail(const char *what, const char *which)
{
    fprintf(stderr, "turns: %s: %s\n", what, which);
    exit(2);
}

static void load(contestant *c, char *argument)
{
    char *path = strchr(argument, '=');
    if (!path) {
        fail("expected NAME=BUILD.so, got", argument);
    }
    *path++ = 0;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    c->name = argument;
    c->build = library ? dlsym(library, "build") : NULL;
    if (!c->build) {
        fail("cannot load", dlerror());
    }
    for (int i = 0; i < BENCH_PARTS; i++) {
        c->ns[i] = malloc(CALLS * sizeof(double));
    }
}

/* Every build once in a turn, each turn another one first. */
static void run_turns(contest *all, const bench_size *size)
{
    const double end = now() + all->seconds * all->count;
    for (all->calls = 0; all->calls < CALLS && (all->calls < 5 || now() < end); all->calls++) {
        all->fma[all->calls] = all->builds[0].build->fma(size);
        for (int i = 0; i < all->count; i++) {
            contestant *c = &all->builds[(i + all->calls) % all->count];
            double ns[BENCH_PARTS] = {0};
            c->build->run(c->layer, ns);
            for (int part = 0; part < c->build->parts; part++) {
                c->ns[part][all->calls] = ns[part];
            }
        }
    }
}

static void report(contest *all, const bench_size *n)
{
    const double rate = quantile(all->fma, all->calls, 0.5);
    printf("%td x %td -> %td, %td rows, %td steps, %s, %d threads: %.0f GFLOP/s of multiply-adds, "
           "%d calls\n",
           n->layers, n->input, n->hidden, n->batch, n->steps,
           n->training ? "training" : "inference", n->threads, 2 * rate, all->calls);
    double whole = 0; /* which the next parts, with a space before their names, are of */
    for (int part = 0; part < all->builds[0].build->parts; part++) {
        const contestant *first = &all->builds[0];
        const double work = first->build->work[part] ? first->build->work[part](n) : 0;
        const double reference = quantile(first->ns[part], all->calls, 0.5);
        whole = first->build->names[part][0] == ' ' ? whole : reference;
        for (int i = 0; i < all->count && reference > 0; i++) {
            const contestant *c = &all->builds[i];
            const double median = quantile(c->ns[part], all->calls, 0.5);
            printf("  %-11s %-14s %10.1f us %4.0f%%", first->build->names[part], c->name,
                   median / 1e3, 100 * median / whole);
            if (work > 0) {
                printf("  %5.1f%% (best %5.1f%%)", 100 * work / median / rate,
                       100 * work / quantile(c->ns[part], all->calls, 0.1) / rate);
            }
            printf("  %5.3f of %s\n", median / reference, first->name);
        }
    }
    for (int i = 1; i < all->count; i++) {
        const double a = all->builds[0].build->sum(all->builds[0].layer);
        const double b = all->builds[i].build->sum(all->builds[i].layer);
        if (memcmp(&a, &b, sizeof a) != 0) {
            printf("  %s: OTHER BITS than %s\n", all->builds[i].name, all->builds[0].name);
        }
    }
    fflush(stdout);
}

static void compare(contest *all, const bench_size *size)
{
    for (int i = 0; i < all->count; i++) {
        contestant *c = &all->builds[i];
        c->layer = c->build->open(size);
        if (!c->layer) {
            fail("no memory, or no such instruction set", c->name);
        }
    }
    run_turns(all, size);
    report(all, size);
    for (int i = 0; i < all->count; i++) {
        all->builds[i].build->close(all->builds[i].layer);
    }
}

int main(int argc, char **argv)
{
    contest all = {.seconds = 0.5, .fma = malloc(CALLS * sizeof(double))};
    bench_size size = {.threads = 1};
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--training") == 0) {
            size.training = 1;
        } else if (strncmp(argv[i], "--threads=", 10) == 0) {
            size.threads = atoi(argv[i] + 10);
        } else if (strncmp(argv[i], "--seconds=", 10) == 0) {
            all.seconds = atof(argv[i] + 10);
        } else if (strncmp(argv[i], "--isa=", 6) == 0) {
            size.isa = argv[i] + 6;
        } else if (all.count < BUILDS) {
            load(&all.builds[all.count++], argv[i]);
        }
    }
    for (i++; i < argc; i++) {
        if (sscanf(argv[i], "%td,%td,%td,%td,%td", &size.layers, &size.input, &size.hidden,
                   &size.batch, &size.steps) != 5) {
            fail("expected LAYERS,INPUT,HIDDEN,BATCH,STEPS, got", argv[i]);
        }
        compare(&all, &size);
    }
    return 0;
}
