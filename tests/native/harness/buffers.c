/* Buffers of exactly the promised size, what is in them, and its hash. */
#define _POSIX_C_SOURCE 200809L

#include "harness.h"

#include <stdlib.h>
#include <string.h>

void *exact(ptrdiff_t n, ptrdiff_t size)
{
    void *p = malloc((size_t)(n * size));
    if (!p && n > 0) {
        exit(2);
    }
    return p;
}

void *exact_aligned(ptrdiff_t n, ptrdiff_t size)
{
    void *p = NULL;
    if (posix_memalign(&p, FL_ALIGN, (size_t)(n * size))) {
        exit(2);
    }
    memset(p, 0xff, (size_t)(n * size)); /* not-a-numbers: reading what was not written shows */
    return p;
}

void *filled(const backend *b, ptrdiff_t n, unsigned seed, double scale)
{
    void *p = exact(n, b->size);
    for (ptrdiff_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        const double value = scale * ((double)(seed >> 8) / 8388608.0 - 1);
        if (b->size == 4) {
            ((float *)p)[i] = (float)value;
        } else {
            ((double *)p)[i] = value;
        }
    }
    return p;
}

void free_all(const void *const *buffers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free((void *)buffers[i]);
    }
}

uint64_t hash(const backend *b, const void *data, ptrdiff_t n, uint64_t h)
{
    const unsigned char *bytes = data;
    for (ptrdiff_t i = 0; i < n * b->size; i++) {
        h = (h ^ bytes[i]) * UINT64_C(1099511628211);
    }
    return h;
}
