/* cpu/cpu.h: what the processor and the operating system allow. */
#ifndef KH_CPU_CPU_H
#define KH_CPU_CPU_H

#include <stdint.h>

/* Levels of the instruction set for which kernels exist, each including the ones before it. */
typedef enum kh_isa {
    KH_ISA_REF,        /* plain C: any processor */
    KH_ISA_AVX2,       /* AVX2, FMA, F16C, BMI2 */
    KH_ISA_AVX512,     /* AVX-512 F, BW, DQ, VL */
    KH_ISA_AVX512VNNI, /* the same with 8-bit dot products */
    KH_ISA_COUNT
} kh_isa;

/* The best level that processor and system support; KEYHOLE_ISA=ref|avx2|avx512|avx512vnni in the
 * environment lowers it (never raises it). Read once. */
kh_isa kh_cpu_isa(void);
const char *kh_isa_name(kh_isa isa);

/* Physical memory in bytes, and what is available now without swapping. */
uint64_t kh_cpu_memory(void);
uint64_t kh_cpu_memory_available(void);
/* Processors that this process may run on (affinity respected). */
int kh_cpu_count(void);
/* Peak resident set of this process in bytes, and the present one. */
uint64_t kh_cpu_peak_rss(void);
uint64_t kh_cpu_rss(void);
/* The processor's name as the system gives it, copied into `name`. */
void kh_cpu_name(char *name, int size);
/* Seconds of a monotonic clock. */
double kh_cpu_seconds(void);

#endif
