/* ListOps: nested operations on lists of digits (Nangia and Bowman, 2018; the generator of Long Range Arena).
 *
 *     node(depth)    an operation with probability 1/4 while depth < the deepest, else a digit
 *     operation      MIN, MAX, MED or SM (uniform) of 2 .. args nodes (uniform) one level deeper
 *     length         a digit counts 1, an operation 2 ("[OP" and "]") and its arguments
 *
 * MED is the median, truncated where it lies between two digits; SM is the sum modulo 10. An expression
 * is kept if min < length < max; a draft is given up when it reaches max. Of the expressions that fit, those
 * whose hash modulo 10 is 8 belong to validation, 9 to test and the others to training, so no expression
 * occurs in two splits, whatever the seeds.
 *
 * Ids are those of the original's pipeline, which drops the parentheses of the written form and writes X for
 * "]": 0 fills up, 1-4 are the openers, 5 is X, 6-15 the digits, 16 would be a word that is none of these.
 *
 * The published window (500 .. 2000, depth 10, args 10) does not tell a model that reads the tree from one
 * that reads its first token; shorter ones do. Hence the default, and the shallow predictors:
 *
 *     the root operator                                 the commonest result of that operation
 *     the root operation on its direct digits           its arguments that are no digits are left out
 *     the same, as counted                              the commonest result for what that gives
 *
 * A draft that fits is found by trying: 12 at the published window, 39 at the rarest of the usual ones, times
 * ten for the small splits; a draft costs a handful of draws, because most are a single digit. */
#include "tasks/task_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>

enum { LEAST, MOST, DEPTH, ARGS };
enum { OPENER = 1, CLOSER = 5, DIGIT = 6, VOCABULARY = 17 };
enum { MIN, MAX, MED, SM, OPERATORS };
enum { MOST_DEPTH = 64, MOST_ARGS = 64, MOST_DRAFTS = 4000000 };

static const kh_task_param params[] = {{"min", "16", KH_TASK_WHOLE, 0, 1 << 20},
                                       {"max", "128", KH_TASK_WHOLE, 2, 1 << 20},
                                       {"depth", "5", KH_TASK_WHOLE, 1, MOST_DEPTH},
                                       {"args", "5", KH_TASK_WHOLE, 2, MOST_ARGS},
                                       {NULL, NULL, KH_TASK_WHOLE, 0, 0}};

static kh_status open(kh_task *task)
{
    double least = task->value[LEAST], most = task->value[MOST], longest = 1;
    if (most <= least + 1)
        KH_TASK_REFUSE(task, "no length lies between min=%.0f and max=%.0f", least, most);
    for (int d = 1; d < (int)task->value[DEPTH] && longest < 1e9; d++)
        longest = 2 + task->value[ARGS] * longest;
    if (longest <= least)
        KH_TASK_REFUSE(task, "the longest expression has %.0f tokens, min is %.0f", longest, least);
    task->info.vocabulary = VOCABULARY;
    task->info.classes = 10;
    task->info.pad = 0;
    task->info.longest = (size_t)most - 1;
    return KH_OK;
}

static int apply(int op, const int *values, int count)
{
    int sorted[MOST_ARGS], sum = 0;
    for (int i = 0; i < count; i++) {
        int at = i;
        for (; at > 0 && sorted[at - 1] > values[i]; at--) sorted[at] = sorted[at - 1];
        sorted[at] = values[i];
        sum += values[i];
    }
    switch (op) {
    case MIN: return sorted[0];
    case MAX: return sorted[count - 1];
    case MED: return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
    default: return sum % 10;
    }
}

/* ---- drafts ---- */

typedef struct draft {
    kh_task_draws *draws;
    int32_t *tokens; /* [room] */
    size_t n, room;
    int depth, args;
} draft;

static int put(draft *d, int32_t id)
{
    if (d->n == d->room) return 0;
    d->tokens[d->n++] = id;
    return 1;
}

/* Writes a node and returns its value, or -1 when there is no room. */
static int grow(draft *d, int depth)
{
    /* 30 of 40 are digits, 10 are operations: one draw decides for both. */
    int drawn = (int)kh_task_below(d->draws, depth < d->depth ? 40 : 10);
    if (drawn < 30) return put(d, DIGIT + drawn % 10) ? drawn % 10 : -1;
    drawn = (int)kh_task_below(d->draws, (uint64_t)(d->args - 1) * OPERATORS);
    int op = drawn % OPERATORS, count = 2 + drawn / OPERATORS, values[MOST_ARGS];
    if (!put(d, OPENER + op)) return -1;
    for (int i = 0; i < count; i++)
        if ((values[i] = grow(d, depth + 1)) < 0) return -1;
    return put(d, CLOSER) ? apply(op, values, count) : -1;
}

static kh_task_split split_of(const int32_t *tokens, size_t n)
{
    uint64_t hash = n;
    for (size_t t = 0; t < n; t++) {
        hash = (hash ^ (uint64_t)tokens[t]) * 0x9E3779B97F4A7C15ull;
        hash ^= hash >> 29;
    }
    hash %= 10;
    return hash == 8 ? KH_TASK_VALID : hash == 9 ? KH_TASK_TEST : KH_TASK_TRAIN;
}

static kh_status make(const kh_task *task, kh_task_split split, kh_task_draws *draws,
                      kh_task_example *out)
{
    size_t least = kh_task_count_of(task, LEAST);
    out->fits = 0;
    for (out->drafts = 1; out->drafts <= MOST_DRAFTS; out->drafts++) {
        draft d = {.draws = draws,
                   .tokens = out->tokens,
                   .room = task->info.longest,
                   .depth = (int)task->value[DEPTH],
                   .args = (int)task->value[ARGS]};
        out->label = grow(&d, 1);
        out->n = d.n;
        if (out->label < 0 || d.n <= least) continue;
        out->fits++;
        if (split_of(d.tokens, d.n) == split) return KH_OK;
    }
    KH_FAIL(KH_ERR_CHECK, "task '%s': none of %d drafts has an allowed length", task->setting.data,
            MOST_DRAFTS);
}

/* ---- written form ---- */

static int spell(const kh_task *task, int32_t id, char *out, size_t room)
{
    static const char *const words[] = {"_", "[MIN", "[MAX", "[MED", "[SM", "X", "0", "1",
                                        "2", "3",    "4",    "5",    "6",   "7", "8", "9"};
    (void)task;
    return snprintf(out, room, "%s", id >= 0 && id < DIGIT + 10 ? words[id] : "?");
}

/* Binary parentheses, as the published files have them: each argument of an operation, and its end,
 * closes one pair that was opened in front of it: ( ( ( [MAX 4 ) 3 ) ] ). */
static kh_status text(const kh_task *task, const kh_task_example *example, kh_buf *out)
{
    int *parts = NULL; /* [n] pairs of the operation that opens there */
    size_t above[MOST_DEPTH + 1] = {0}, depth = 0;
    KH_TRY(kh_new(&parts, example->n, sizeof *parts, "the written form"));
    for (size_t t = 0; t < example->n; t++) {
        int32_t id = example->tokens[t];
        if (depth) parts[above[depth]] += id == CLOSER || id >= DIGIT;
        if (id == CLOSER && --depth) parts[above[depth]]++;
        if (id < CLOSER) above[++depth] = t;
    }
    kh_status status = KH_OK;
    depth = 0;
    for (size_t t = 0; t < example->n && status == KH_OK; t++) {
        int32_t id = example->tokens[t];
        char word[8];
        for (int i = 0; i < parts[t] && status == KH_OK; i++) status = kh_buf_text(out, "( ");
        spell(task, id, word, sizeof word);
        if (status == KH_OK)
            status = kh_buf_format(out, "%s%s", id == CLOSER ? "]" : word,
                                   depth && id >= CLOSER ? " )" : "");
        depth += id < CLOSER;
        if (id == CLOSER && --depth && status == KH_OK) status = kh_buf_text(out, " )");
        if (status == KH_OK && t + 1 < example->n) status = kh_buf_text(out, " ");
    }
    kh_free(parts);
    return status;
}

/* ---- statistics and baselines ---- */

static const char *const numbers[] = {"levels", "operations", NULL};

static void measure(const kh_task *task, const kh_task_example *example, double *sums)
{
    (void)task;
    int depth = 0, deepest = 0;
    for (size_t t = 0; t < example->n; t++) {
        sums[1] += example->tokens[t] < CLOSER;
        depth += (example->tokens[t] < CLOSER) - (example->tokens[t] == CLOSER);
        if (depth > deepest) deepest = depth;
    }
    sums[0] += deepest + 1;
}

/* 0-3: the root operator; 4: the expression is a digit. */
static size_t root_of(const kh_task_example *example)
{
    return example->tokens[0] < CLOSER ? (size_t)example->tokens[0] - OPENER : OPERATORS;
}

static void root_shape(const kh_task *task, size_t *cells, size_t *votes)
{
    (void)task;
    *cells = OPERATORS + 1;
    *votes = 10;
}

static void root_see(const kh_task *task, const kh_task_example *example, size_t row, size_t *cell,
                     size_t *vote)
{
    (void)task;
    (void)row;
    *cell = root_of(example);
    *vote = (size_t)example->label;
}

/* The root operation on those of its arguments that are digits; without any, a guess. */
static int direct_result(const kh_task_example *example)
{
    static const int guesses[] = {[MIN] = 0, [MAX] = 9, [MED] = 4, [SM] = 0};
    int values[MOST_ARGS], count = 0, depth = 0, root = (int)root_of(example);
    if (root == OPERATORS) return example->tokens[0] - DIGIT;
    for (size_t t = 0; t < example->n; t++) {
        int32_t id = example->tokens[t];
        depth += (id < CLOSER) - (id == CLOSER);
        if (id >= DIGIT && depth == 1) values[count++] = id - DIGIT;
    }
    return count ? apply(root, values, count) : guesses[root];
}

/* The vote is how far the result is from the direct one; none is the commonest. */
static void direct_shape(const kh_task *task, size_t *cells, size_t *votes)
{
    (void)task;
    *cells = 1;
    *votes = 10;
}

static void direct_see(const kh_task *task, const kh_task_example *example, size_t row,
                       size_t *cell, size_t *vote)
{
    (void)task;
    (void)row;
    *cell = 0;
    *vote = (size_t)(example->label + 10 - direct_result(example)) % 10;
}

static void counted_shape(const kh_task *task, size_t *cells, size_t *votes)
{
    (void)task;
    *cells = (OPERATORS + 1) * 10;
    *votes = 10;
}

static void counted_see(const kh_task *task, const kh_task_example *example, size_t row,
                        size_t *cell, size_t *vote)
{
    root_see(task, example, row, cell, vote);
    *cell = *cell * 10 + (size_t)direct_result(example);
}

static const kh_task_shallow shallow[] = {
    {"the commonest result", kh_task_majority_shape, kh_task_majority_see},
    {"the root operator", root_shape, root_see},
    {"the root operation on its direct digits", direct_shape, direct_see},
    {"the same, as counted", counted_shape, counted_see},
    {NULL, NULL, NULL}};

const kh_task_family kh_task_listops = {
    .kind = {"listops", "nested operations on lists of digits; which digit results",
             "min=16,max=128,depth=5,args=5"},
    .params = params,
    .open = open,
    .make = make,
    .spell = spell,
    .text = text,
    .numbers = numbers,
    .measure = measure,
    .shallow = shallow,
};
