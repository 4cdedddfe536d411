/* Counts what a real-time thread must not do: allocate, lock, ask the system for memory.  Loaded
 * with LD_PRELOAD before everything else; test_realtime.py reads the counters. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/types.h>

static long counted, locks;

long interposed_calls(void) { return counted + locks; }
long interposed_allocations(void) { return counted; }

/* glibc's own allocator under its internal names: dlsym allocates, so it cannot be asked. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
void __libc_free(void *p);

void *malloc(size_t n)
{
    counted++;
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    counted++;
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    counted++;
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    counted++;
    return __libc_memalign(align, n);
}

void free(void *p)
{
    counted++;
    __libc_free(p);
}

void *mmap(void *p, size_t n, int protection, int flags, int fd, off_t offset)
{
    static void *(*next)(void *, size_t, int, int, int, off_t);
    counted++;
    if (!next) {
        *(void **)&next = dlsym(RTLD_NEXT, "mmap");
    }
    return next(p, n, protection, flags, fd, offset);
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    static int (*next)(pthread_mutex_t *);
    locks++;
    if (!next) {
        *(void **)&next = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    }
    return next(mutex);
}
