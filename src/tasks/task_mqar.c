/* MQAR, multi-query associative recall (Arora et al., "Zoology", 2023; the generator of HazyResearch/zoology).
 *
 *     k1 v1 k2 v2 ... kK vK | . . k3 . k1 . . . k2 ...      L tokens
 *                                 v3   v1       v2           what these rows have to predict
 *
 * K keys (distinct ids of [1, V/2)) with their values (distinct ids of [V/2, V)), and behind them every
 * key once more, at a place 2K + 2 * slot. Slots are drawn one after the other without replacement, slot i
 * (from 1) with weight i^(power - 1): power 1 is uniform, the published 0.01 asks soon after the list.
 * Between the queries stand zeros, or with random=1 uniform ids of the whole vocabulary.
 *
 * Weights are whole numbers, 2^32 for the first slot: sums are exact, and a draw is an exact choice
 * among what is left.
 *
 * Because the first slot drawn goes to the first key, a query's place tells something about its key: a
 * predictor that sees only the place beats 1/K (measured 0.287 for L=64, pairs=4). It is one of the
 * baselines, beside the commonest value and one pair for all. */
#include "tasks/task_impl.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "tasks/task_math.h"

#include <string.h>

enum { L, PAIRS, VOCAB, POWER, RANDOM };

static const kh_task_param params[] = {
    {"L", "64", KH_TASK_WHOLE, 4, 1 << 20},      {"pairs", "4", KH_TASK_WHOLE, 1, 1 << 16},
    {"vocab", "512", KH_TASK_WHOLE, 4, 1 << 24}, {"power", "0.01", KH_TASK_REAL, 0, 8},
    {"random", "0", KH_TASK_WHOLE, 0, 1},        {NULL, NULL, KH_TASK_WHOLE, 0, 0}};

static size_t slots_of(const kh_task *task)
{
    return (kh_task_count_of(task, L) - 2 * kh_task_count_of(task, PAIRS)) / 2;
}

/* own: uint64_t weight[slots]; scratch: unsigned char taken[slots], used[vocab], all zero between. */
static kh_status open(kh_task *task)
{
    size_t length = kh_task_count_of(task, L), pairs = kh_task_count_of(task, PAIRS);
    size_t vocab = kh_task_count_of(task, VOCAB);
    if (length % 2) KH_TASK_REFUSE(task, "L must be even, found %zu", length);
    if (4 * pairs > length)
        KH_TASK_REFUSE(task, "L must be at least 4 * pairs = %zu, found %zu", 4 * pairs, length);
    if (vocab <= length)
        KH_TASK_REFUSE(task, "vocab must be larger than L = %zu, found %zu", length, vocab);
    size_t slots = slots_of(task);
    uint64_t *weight = NULL;
    KH_TRY(kh_new(&weight, slots, sizeof *weight, "the weights of a task"));
    for (size_t i = 0; i < slots; i++) {
        double share = kh_task_power((double)(i + 1), task->value[POWER] - 1);
        weight[i] = (uint64_t)(share * 0x1p32) + 1;
    }
    task->own = weight;
    task->scratch_size = slots + vocab;
    task->info.vocabulary = (int)vocab;
    task->info.longest = length;
    return KH_OK;
}

/* `count` distinct ids of [first, end) at out[0], out[2], ... */
static void draw_distinct(kh_task_draws *draws, int32_t *out, size_t count, size_t first,
                          size_t end, unsigned char *used)
{
    for (size_t i = 0; i < count;) {
        size_t id = first + kh_task_below(draws, end - first);
        if (used[id]) continue;
        used[id] = 1;
        out[2 * i++] = (int32_t)id;
    }
    for (size_t i = 0; i < count; i++) used[out[2 * i]] = 0;
}

static size_t draw_slot(kh_task_draws *draws, const uint64_t *weight, unsigned char *taken,
                        uint64_t *left)
{
    uint64_t at = kh_task_below(draws, *left);
    size_t slot = 0;
    for (;; slot++) {
        if (taken[slot]) continue;
        if (at < weight[slot]) break;
        at -= weight[slot];
    }
    taken[slot] = 1;
    *left -= weight[slot];
    return slot;
}

static kh_status make(const kh_task *task, kh_task_split split, kh_task_draws *draws,
                      kh_task_example *out)
{
    (void)split;
    size_t length = kh_task_count_of(task, L), pairs = kh_task_count_of(task, PAIRS);
    size_t vocab = kh_task_count_of(task, VOCAB), slots = slots_of(task);
    const uint64_t *weight = task->own;
    unsigned char *taken = out->scratch, *used = taken + slots;
    uint64_t left = 0;
    for (size_t i = 0; i < slots; i++) left += weight[i];
    memset(taken, 0, slots);
    draw_distinct(draws, out->tokens, pairs, 1, vocab / 2, used);
    draw_distinct(draws, out->tokens + 1, pairs, vocab / 2, vocab, used);
    for (size_t t = 2 * pairs; t < length; t++)
        out->tokens[t] = task->value[RANDOM] > 0 ? (int32_t)kh_task_below(draws, vocab) : 0;
    for (size_t j = 0; j < pairs; j++) {
        size_t t = 2 * pairs + 2 * draw_slot(draws, weight, taken, &left);
        out->tokens[t] = out->tokens[2 * j];
        out->targets[t] = out->tokens[2 * j + 1];
    }
    out->n = length;
    return KH_OK;
}

static const char *const numbers[] = {"first pair asked for in the first four slots",
                                      "queries in the first four slots", "mean slot of a query",
                                      NULL};

static void measure(const kh_task *task, const kh_task_example *example, double *sums)
{
    size_t pairs = kh_task_count_of(task, PAIRS);
    for (size_t t = 2 * pairs; t < example->n; t += 2) {
        if (example->targets[t] < 0) continue;
        size_t slot = (t - 2 * pairs) / 2;
        sums[0] += slot < 4 && example->tokens[t] == example->tokens[0];
        sums[1] += (slot < 4) / (double)pairs;
        sums[2] += (double)slot / (double)pairs;
    }
}

/* ---- baselines ---- */

static size_t pair_of(const kh_task_example *example, size_t row)
{
    size_t pair = 0;
    while (example->tokens[2 * pair + 1] != example->targets[row]) pair++;
    return pair;
}

static void pair_shape(const kh_task *task, size_t *cells, size_t *votes)
{
    *cells = 1;
    *votes = kh_task_count_of(task, PAIRS);
}

static void pair_see(const kh_task *task, const kh_task_example *example, size_t row, size_t *cell,
                     size_t *vote)
{
    (void)task;
    *cell = 0;
    *vote = pair_of(example, row);
}

static void place_shape(const kh_task *task, size_t *cells, size_t *votes)
{
    *cells = slots_of(task);
    *votes = kh_task_count_of(task, PAIRS);
}

static void place_see(const kh_task *task, const kh_task_example *example, size_t row, size_t *cell,
                      size_t *vote)
{
    *cell = (row - 2 * kh_task_count_of(task, PAIRS)) / 2;
    *vote = pair_of(example, row);
}

static const kh_task_shallow shallow[] = {
    {"the commonest value", kh_task_majority_shape, kh_task_majority_see},
    {"the value of one pair of the list", pair_shape, pair_see},
    {"the value that the query's place suggests", place_shape, place_see},
    {NULL, NULL, NULL}};

const kh_task_family kh_task_mqar = {
    .kind = {"mqar", "pairs of keys and values, then keys whose value is asked for",
             "L=64,pairs=4,vocab=512,power=0.01,random=0"},
    .params = params,
    .open = open,
    .make = make,
    .numbers = numbers,
    .measure = measure,
    .shallow = shallow,
};
