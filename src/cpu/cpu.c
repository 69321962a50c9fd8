/* What the processor and the operating system allow.
 *
 * Instruction sets are asked of the compiler's run-time support, which also checks that the system
 * saves the wide registers (XCR0). The answer is computed once. KEYHOLE_ISA lowers the level, so that
 * every level that a machine has can be tested on it. */
#include "cpu/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static const char *const names[KH_ISA_COUNT] = {"ref", "avx2", "avx512", "avx512vnni"};

static kh_isa detect(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("bmi2"))
        return KH_ISA_REF;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return KH_ISA_AVX2;
    return __builtin_cpu_supports("avx512vnni") ? KH_ISA_AVX512VNNI : KH_ISA_AVX512;
#else
    return KH_ISA_REF;
#endif
}

kh_isa kh_cpu_isa(void)
{
    static int known = -1;
    int isa = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (isa >= 0) return (kh_isa)isa;
    isa = (int)detect();
    const char *wish = getenv("KEYHOLE_ISA");
    for (int i = 0; wish && i < isa; i++)
        if (strcmp(wish, names[i]) == 0) isa = i;
    __atomic_store_n(&known, isa, __ATOMIC_RELAXED);
    return (kh_isa)isa;
}

const char *kh_isa_name(kh_isa isa)
{
    return isa < KH_ISA_COUNT ? names[isa] : "?";
}

uint64_t kh_cpu_memory(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t proc_field(const char *file, const char *field, uint64_t unit)
{
    FILE *f = fopen(file, "re");
    if (!f) return 0;
    char line[256];
    uint64_t value = 0;
    size_t n = strlen(field);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, field, n) == 0) value = strtoull(line + n, NULL, 10) * unit;
    fclose(f);
    return value;
}

uint64_t kh_cpu_memory_available(void)
{
    uint64_t value = proc_field("/proc/meminfo", "MemAvailable:", 1024);
    return value ? value : kh_cpu_memory();
}

int kh_cpu_count(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

uint64_t kh_cpu_peak_rss(void)
{
    uint64_t value = proc_field("/proc/self/status", "VmHWM:", 1024);
    if (value) return value;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_maxrss * 1024;
}

uint64_t kh_cpu_rss(void)
{
    return proc_field("/proc/self/status", "VmRSS:", 1024);
}

void kh_cpu_name(char *name, int size)
{
    snprintf(name, (size_t)size, "unknown processor");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (!f) return;
    char line[256];
    while (fgets(line, sizeof line, f)) {
        char *colon = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (!colon) continue;
        colon[strcspn(colon, "\n")] = 0;
        snprintf(name, (size_t)size, "%s", colon + 2);
        break;
    }
    fclose(f);
}

double kh_cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
