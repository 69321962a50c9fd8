/* What the machine can do at most: arithmetic of one core and reading from memory.
 *
 * Arithmetic: 192 independent chains of fused multiply-adds in registers (kernel fma_chain), which no
 * program can beat. Reading: counting over 256 MiB of floats, more than any cache keeps, in pieces that the
 * cores share. Each figure is the best of a tenth of a second or more, so a neighbour on the machine
 * lowers it only when it never pauses.
 *
 * All of it runs in a forked child: neither its memory nor its threads stay behind, and rows that are
 * measured later may fork in their turn. */
#include <keyhole/bench.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "bench/isolate.h"
#include "cpu/cpu.h"
#include "cpu/pool.h"
#include "kern/kern.h"

#include <string.h>

enum { CHAINS = 192, ROUNDS = 4096, CALLS = 64, PIECE = 1 << 18, PIECES = 256 };
#define LONG_ENOUGH 0.12

typedef struct figures {
    double gigaflops, gigabytes, gigabytes_all;
} figures;

typedef struct reading {
    const kh_kern *kern;
    const float *x;        /* [PIECES][PIECE] */
    size_t counts[PIECES]; /* so that the counting is not idle */
} reading;

static double best_flops(const kh_kern *kern)
{
    float y[CHAINS] = {0};
    double best = 0, begin = kh_cpu_seconds(), now = begin;
    while (now - begin < LONG_ENOUGH) {
        double start = now;
        for (int i = 0; i < CALLS; i++) kern->fma_chain(y, 0.5f, 0.25f, ROUNDS);
        now = kh_cpu_seconds();
        double rate = 2.0 * CHAINS * ROUNDS * CALLS / (now - start);
        if (rate > best) best = rate;
    }
    return best;
}

static void read_piece(void *context, size_t item, int worker)
{
    reading *r = context;
    (void)worker;
    r->counts[item] = r->kern->count_at_least(r->x + item * PIECE, PIECE, 0.5f);
}

static double best_reading(reading *r, int threads)
{
    kh_pool pool = {threads};
    kh_pool_warm(&pool);
    double best = 0, begin = kh_cpu_seconds(), now = begin;
    while (now - begin < LONG_ENOUGH) {
        double start = now;
        kh_parallel_for(&pool, PIECES, read_piece, r);
        now = kh_cpu_seconds();
        double rate = (double)PIECES * PIECE * sizeof(float) / (now - start);
        if (rate > best) best = rate;
    }
    return best;
}

static kh_status measure(void *context, void *result)
{
    figures *out = result;
    reading r = {.kern = kh_kern_get(kh_cpu_isa())};
    float *x = kh_alloc((size_t)PIECES * PIECE * sizeof *x);
    (void)context;
    if (!x)
        KH_FAIL(KH_ERR_MEMORY, "bench: no memory for the %zu MiB that the bandwidth is measured on",
                (size_t)PIECES * PIECE * sizeof *x >> 20);
    memset(x, 1, (size_t)PIECES * PIECE * sizeof *x);
    r.x = x;
    out->gigaflops = best_flops(r.kern) * 1e-9;
    out->gigabytes = best_reading(&r, 1) * 1e-9;
    out->gigabytes_all = best_reading(&r, kh_cpu_count()) * 1e-9;
    kh_free(x);
    return KH_OK;
}

kh_status kh_bench_machine_measure(kh_bench_machine *out)
{
    figures found = {0};
    *out = (kh_bench_machine){
        .isa = kh_isa_name(kh_cpu_isa()), .cores = kh_cpu_count(), .memory_bytes = kh_cpu_memory()};
    kh_cpu_name(out->cpu, sizeof out->cpu);
    KH_TRY(kh_isolate(1, measure, NULL, &found, sizeof found));
    out->gigaflops = found.gigaflops;
    out->gigabytes = found.gigabytes;
    out->gigabytes_all = found.gigabytes_all;
    return KH_OK;
}
