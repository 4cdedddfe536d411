/* How large the caches of this machine are.  The CPU tells or, where it does not, the system. */
#if defined(__linux__)
#define _POSIX_C_SOURCE 200809L /* sysconf */
#endif
#include "base/wait.h"
#include "cpu/cpuid.h"
#include "fastlstm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <unistd.h>
#endif
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#define CACHES_OF_LINUX "/sys/devices/system/cpu/cpu0/cache"

/* Measured: 83 GB/s on Zen 4, 30 GB/s on Emerald Rapids, whose L3 is shared by many cores. */
enum { OF_AMD = 22, OF_OTHERS = 10 };

static void add(fl_caches *caches, int level, ptrdiff_t size, int sharers)
{
    if (level == 1) {
        caches->l1d = size;
        caches->siblings = sharers;
    } else if (level == 2) {
        caches->l2 = size;
        caches->l2_sharers = sharers;
    } else if (level == 3) {
        caches->l3 = size;
        caches->l3_sharers = sharers;
    }
}

static int are_known(const fl_caches *caches) { return caches->l1d > 0 && caches->l2 > 0; }

/* CPUs and systems name hardware threads.  A call has one thread for each core. */
static int count_cores(fl_caches *caches)
{
    caches->l2_sharers = (caches->l2_sharers + caches->siblings - 1) / caches->siblings;
    caches->l3_sharers = (caches->l3_sharers + caches->siblings - 1) / caches->siblings;
    return are_known(caches);
}

#if FL_X86_64
static int is_from_amd(void)
{
    unsigned r[4];
    cpuid(0, 0, r);
    return r[EBX] == 0x68747541; /* "Auth", of AuthenticAMD */
}

/* The leaf that describes caches: Intel's, all zeros on AMD, and AMD's, of the same form. */
enum { CACHES_OF_INTEL = 4 };
static const unsigned EXTENDED = 0x80000000, FEATURES_OF_AMD = 0x80000001,
                      CACHES_OF_AMD = 0x8000001d;
enum { TOPOLOGY_EXTENSIONS = 1 << 22, DATA = 1, UNIFIED = 3, MOST_CACHES = 16 };

static void add_leaf(fl_caches *caches, unsigned leaf)
{
    for (unsigned i = 0; i < MOST_CACHES; i++) {
        unsigned r[4];
        cpuid(leaf, i, r);
        const unsigned kind = r[EAX] & 0x1f, level = r[EAX] >> 5 & 0x7;
        const ptrdiff_t ways = r[EBX] >> 22, partitions = r[EBX] >> 12 & 0x3ff;
        const ptrdiff_t line = r[EBX] & 0xfff, sets = r[ECX];
        if (kind == 0) { /* that was the last one */
            return;
        }
        if (kind == DATA || kind == UNIFIED) {
            const ptrdiff_t size = (ways + 1) * (partitions + 1) * (line + 1) * (sets + 1);
            add(caches, (int)level, size, (int)(r[EAX] >> 14 & 0xfff) + 1);
        }
    }
}

static int cpu_caches(fl_caches *caches)
{
    unsigned r[4];
    cpuid(0, 0, r);
    if (r[EAX] >= CACHES_OF_INTEL) {
        add_leaf(caches, CACHES_OF_INTEL);
    }
    cpuid(EXTENDED, 0, r);
    if (!are_known(caches) && r[EAX] >= CACHES_OF_AMD) {
        cpuid(FEATURES_OF_AMD, 0, r);
        if (r[ECX] & TOPOLOGY_EXTENSIONS) {
            add_leaf(caches, CACHES_OF_AMD);
        }
    }
    return count_cores(caches);
}
#else
static int is_from_amd(void) { return 0; }

static int cpu_caches(fl_caches *caches)
{
    (void)caches;
    return 0;
}
#endif

#if defined(__linux__)
/* The line of a file, or an empty one. */
static void read_line(const char *folder, int i, const char *name, char *line, int size)
{
    char path[512];
    line[0] = '\0';
    if (snprintf(path, sizeof path, "%s/index%d/%s", folder, i, name) >= (int)sizeof path) {
        return;
    }
    FILE *file = fopen(path, "r");
    if (file) {
        if (!fgets(line, size, file)) {
            line[0] = '\0';
        }
        fclose(file);
    }
}

/* Processors in a list such as 0-3,8: at least 1. */
static int count_processors(const char *list)
{
    const long most = 1 << 20;
    long count = 0;
    while (*list >= '0' && *list <= '9') {
        char *end;
        const long first = strtol(list, &end, 10);
        const long last = *end == '-' ? strtol(end + 1, &end, 10) : first;
        count += first <= last && last < most ? last - first + 1 : 0;
        list = *end == ',' ? end + 1 : end;
    }
    return count > 0 && count < most ? (int)count : 1;
}

/* On a CPU whose cores differ, those of processor 0: commonly a small core, and what fits its
 * caches fits the others too. */
int fl_linux_caches(const char *folder, fl_caches *caches)
{
    *caches = (fl_caches){0, 0, 0, 1, 1, 1, OF_OTHERS};
    for (int i = 0;; i++) {
        char level[16], kind[32], size[32], list[4096], *unit;
        read_line(folder, i, "level", level, sizeof level);
        read_line(folder, i, "type", kind, sizeof kind);
        read_line(folder, i, "size", size, sizeof size);
        read_line(folder, i, "shared_cpu_list", list, sizeof list);
        if (!level[0]) {
            return count_cores(caches);
        }
        const long long number = strtoll(size, &unit, 10);
        const int of_unit = *unit == 'M' ? 1 << 20 : *unit == 'K' ? 1 << 10 : 1;
        if (strncmp(kind, "Data", 4) == 0 || strncmp(kind, "Unified", 7) == 0) {
            add(caches, atoi(level), (ptrdiff_t)number * of_unit, count_processors(list));
        }
    }
}
#else
int fl_linux_caches(const char *folder, fl_caches *caches)
{
    (void)folder;
    *caches = (fl_caches){0, 0, 0, 1, 1, 1, OF_OTHERS};
    return 0;
}
#endif

#if defined(__APPLE__)
static int64_t system_value(const char *name)
{
    int64_t value = 0; /* some of the numbers have 4 bytes: then the lower half of this */
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 ? value : 0;
}

/* Of the fast cores, level 0.  Written by Apple's documentation, not run yet. */
static int system_caches(fl_caches *caches)
{
    const int64_t sharers = system_value("hw.perflevel0.cpusperl2");
    add(caches, 1, (ptrdiff_t)system_value("hw.perflevel0.l1dcachesize"), 1);
    add(caches, 2, (ptrdiff_t)system_value("hw.perflevel0.l2cachesize"), (int)sharers);
    if (!are_known(caches)) {
        add(caches, 1, (ptrdiff_t)system_value("hw.l1dcachesize"), 1);
        add(caches, 2, (ptrdiff_t)system_value("hw.l2cachesize"), 1);
    }
    add(caches, 3, (ptrdiff_t)system_value("hw.l3cachesize"), 1);
    return are_known(caches);
}
#else
static int system_caches(fl_caches *caches) { return fl_linux_caches(CACHES_OF_LINUX, caches); }
#endif

static int processors_of_system(void)
{
#if defined(_WIN32)
    return (int)GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
#else
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
#endif
}

/* CPUs count in powers of two, and virtual machines see the sharers of the host. */
static int sharers_here(int sharers)
{
    const int most = processors_of_system();
    const int fewer = sharers < most ? sharers : most;
    return fewer > 1 ? fewer : 1;
}

/* What nobody tells (Windows on ARM, many virtual machines on ARM) is taken to be what most servers
 * have at least; an L3 is not counted on. */
static fl_caches ask_for_caches(void)
{
    const fl_caches common = {32 << 10, 1 << 20, 0, 1, 1, 1, OF_OTHERS};
    fl_caches caches = {0, 0, 0, 1, 1, 1, OF_OTHERS};
    if (!cpu_caches(&caches) && !system_caches(&caches)) {
        caches = common;
    }
    caches.l3_rate = is_from_amd() ? OF_AMD : OF_OTHERS;
    caches.l2_sharers = sharers_here(caches.l2_sharers);
    caches.l3_sharers = sharers_here(caches.l3_sharers);
    return caches;
}

const fl_caches *fl_machine_caches(void)
{
    enum { NEW, ASKING, KNOWN };
    static fl_caches caches;
    static atomic_int state;
    int expected = NEW;
    if (atomic_compare_exchange_strong(&state, &expected, ASKING)) {
        caches = ask_for_caches();
        atomic_store(&state, KNOWN);
    }
    while (atomic_load(&state) != KNOWN) {
        fl_pause();
    }
    return &caches;
}
