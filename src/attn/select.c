/* kh_select_topk: the k largest scores of a row that lies in memory.
 *
 *     scores [n]   ||.||....||.||....||.||....     a sample of every s-th group of 16 tells a threshold,
 *         |  filter: only what exceeds it
 *     candidates   <= 3k + 1024, then a block      tightened by counting when full
 *         |  narrow to exactly k
 *     indices, values [k]                          ascending positions
 *
 * The sample aims at a little more than k scores: with an expectation of e sampled ones among the k best,
 * the one of rank e + 3 sqrt(e) + 1 is exceeded by fewer than k scores about once in a thousand rows. That
 * guess is verified: where fewer than k passed, the row is filtered again with nothing assumed. Where more
 * passed than expected (a row that is sorted in strides, ties), the list is tightened as it fills, which
 * is also how a row without a sample starts. So every row costs one or two passes and a bounded list.
 *
 * Rejected: a heap (one mispredicted branch for each score that enters), nth_element on a copy (moves the
 * row several times), a histogram of the floats' upper bits (a second pass over all scores where their
 * values are close). */
#include <keyhole/attention.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "ops/narrow.h"

#include <math.h>
#include <string.h>

enum {
    BLOCK = 1024, /* scores between two looks at the list */
    GROUP = 16,   /* neighbours in the sample: a cache line */
    SAMPLE_LEAST = 512,
    SAMPLE_MOST = 4096
};

typedef struct list {
    float *values;
    uint32_t *indices;
    uint32_t count;
    size_t limit; /* entries, a block of more always fits behind them */
    float threshold;
} list;

static void collect(const kh_kern *kern, list *l, const float *scores, size_t n, size_t k)
{
    l->count = 0;
    for (size_t first = 0, m; first < n; first += m) {
        m = n - first < BLOCK ? n - first : BLOCK;
        kern->filter_rows(l->values, l->indices, 0, &l->count, scores + first, 0, &l->threshold, 1,
                          m, (uint32_t)first);
        if (l->count > l->limit)
            l->count = (uint32_t)kh_narrow(kern, l->values, l->indices, l->count, k, k + k / 4,
                                           &l->threshold);
    }
}

/* A score that somewhat more than k of the row should reach; -INFINITY where a sample would not pay. */
static float guess(const kh_kern *kern, const float *scores, size_t n, size_t k)
{
    float sample[SAMPLE_MOST];
    size_t size = n / 16 < SAMPLE_LEAST  ? SAMPLE_LEAST
                  : n / 16 > SAMPLE_MOST ? SAMPLE_MOST
                                         : n / 16 / GROUP * GROUP;
    if (n < 4 * size || k > n / 4) return -INFINITY;
    size_t groups = size / GROUP;
    for (size_t i = 0; i < groups; i++)
        memcpy(sample + i * GROUP, scores + i * (n - GROUP) / (groups - 1), sizeof(float[GROUP]));
    float expected = (float)k * (float)size / (float)n;
    size_t rank = (size_t)(expected + 3 * sqrtf(expected)) + 1;
    float t = kh_narrow_search(kern, sample, size, rank, rank + rank / 8, -INFINITY).value;
    return t > -INFINITY ? nextafterf(t, -INFINITY) : t;
}

static size_t select_row(const kh_kern *kern, list *l, const float *scores, size_t n, size_t k)
{
    l->threshold = guess(kern, scores, n, k);
    int guessed = l->threshold > -INFINITY;
    collect(kern, l, scores, n, k);
    if (l->count < k && guessed) {
        l->threshold = -INFINITY;
        collect(kern, l, scores, n, k);
    }
    return kh_narrow(kern, l->values, l->indices, l->count, k, k, &l->threshold);
}

kh_status kh_select_topk(const float *scores, size_t n, size_t k, uint32_t *indices, float *values,
                         size_t *count)
{
    *count = 0;
    if (n > UINT32_MAX - BLOCK)
        KH_FAIL(KH_ERR_ARGUMENT, "select: %zu scores: at most 2^32 - 1,025", n);
    if (k > n) k = n;
    if (k == 0) return KH_OK;
    if (!scores || !indices)
        KH_FAIL(KH_ERR_ARGUMENT, "select: %s is NULL", scores ? "indices" : "scores");
    list l = {.limit = 3 * k + BLOCK < n ? 3 * k + BLOCK : n};
    size_t room = l.limit + BLOCK + GROUP;
    l.values = kh_alloc(room * (sizeof *l.values + sizeof *l.indices));
    if (!l.values) KH_FAIL(KH_ERR_MEMORY, "select: no memory for %zu candidates", room);
    l.indices = (uint32_t *)(void *)(l.values + room);
    *count = select_row(kh_kern_get(kh_cpu_isa()), &l, scores, n, k);
    memcpy(indices, l.indices, *count * sizeof *indices);
    if (values) memcpy(values, l.values, *count * sizeof *values);
    kh_free(l.values);
    return KH_OK;
}
