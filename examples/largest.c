/* The k largest of a row of scores: as a choice of words among a vocabulary, checked against a full sort;
 * ties go to the lower position, and what is NaN or minus infinity is never chosen. Only the public header is
 * used. */
// run:
#include <keyhole/attention.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCORES = 50000, MOST = 2048 };

static float scores[SCORES], values[MOST];
static uint32_t chosen[MOST], sorted[SCORES];

static float noise(void)
{
    static unsigned state = 1;
    float sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (float)((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24f;
    return sum;
}

static int better_first(const void *a, const void *b)
{
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    if (scores[i] != scores[j]) return scores[i] > scores[j] ? -1 : 1;
    return i < j ? -1 : i > j;
}

static int ascending(const void *a, const void *b)
{
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    return i < j ? -1 : i > j;
}

/* The first n of the full sort, positions ascending: what the selection must give. */
static int is_right(size_t n)
{
    static uint32_t best[MOST];
    memcpy(best, sorted, n * sizeof *best);
    qsort(best, n, sizeof *best, ascending);
    for (size_t i = 0; i < n; i++)
        if (chosen[i] != best[i] || values[i] != scores[best[i]]) return 0;
    return 1;
}

int main(void)
{
    for (int i = 0; i < SCORES; i++) scores[i] = roundf(noise() * 100) / 100; /* many ties */
    for (uint32_t i = 0; i < SCORES; i++) sorted[i] = i;
    qsort(sorted, SCORES, sizeof *sorted, better_first);
    int right = 1;
    for (size_t k = 1; k <= MOST; k = k == 1 ? 8 : k * 4) {
        size_t count;
        kh_status status = kh_select_topk(scores, SCORES, k, chosen, values, &count);
        if (status) {
            fprintf(stderr, "%s\n", kh_last_error());
            return kh_status_exit(status);
        }
        float least = values[0];
        for (size_t i = 1; i < count; i++)
            if (values[i] < least) least = values[i];
        int same = count == k && is_right(count);
        printf("k %4zu: %4zu chosen, the least of them %.2f, %s\n", k, count, (double)least,
               same ? "as the full sort has them" : "WRONG");
        right = right && same;
    }
    for (int i = 3; i < SCORES; i++) scores[i] = i % 2 ? NAN : -INFINITY;
    size_t count;
    if (kh_select_topk(scores, SCORES, 8, chosen, NULL, &count)) return 1;
    printf("three scores among nothing: %zu chosen\n", count);
    return right && count == 3 ? 0 : 1;
}
