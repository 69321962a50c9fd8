/* What can be said about a task without training: the statistics of its examples, and how far predictors
 * come that do not solve it.
 *
 * Every shallow predictor is a table of counts. For an answer it sees a cell (the root operator, the
 * place of a query, a distance in steps) and counts which vote was right there; afterwards it answers with
 * the commonest vote of the cell, and with the commonest of all where the cell was never met. Votes are
 * labels, ids, or positions in a list from which the id is then taken. One loop serves all of them, and
 * "majority" is the table with one cell.
 *
 * They are fitted on the training split and measured on the test split, as a model is; the standard error
 * of an accuracy p over N examples is sqrt(p (1 - p) / N), 0.5 points at the usual 10,000.
 *
 * Equal examples are found by sorting 64-bit hashes: with 10^5 examples two different ones are taken for
 * equal once in 10^9 times. */
#include "tasks/task_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdlib.h>
#include <string.h>

void kh_task_majority_shape(const kh_task *task, size_t *cells, size_t *votes)
{
    *cells = 1;
    *votes = (size_t)(task->info.classes ? task->info.classes : task->info.vocabulary);
}

void kh_task_majority_see(const kh_task *task, const kh_task_example *example, size_t row,
                          size_t *cell, size_t *vote)
{
    *cell = 0;
    *vote = (size_t)(task->info.classes ? example->label : example->targets[row]);
}

/* ---- statistics ---- */

static uint64_t hash_example(const kh_task_example *example)
{
    uint64_t hash = example->n;
    for (size_t t = 0; t < example->n; t++) {
        hash = (hash ^ (uint64_t)example->tokens[t]) * 0x9E3779B97F4A7C15ull;
        hash ^= hash >> 32;
    }
    return hash;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static size_t count_answers(const kh_task *task, const kh_task_example *example)
{
    if (task->info.classes) return 1;
    size_t count = 0;
    for (size_t t = 0; t < example->n; t++) count += example->targets[t] >= 0;
    return count;
}

static void add_example(const kh_task *task, const kh_task_example *example, kh_task_stats *out,
                        double *sums)
{
    out->mean_length += (double)example->n;
    if (example->n < out->shortest) out->shortest = example->n;
    if (example->n > out->longest) out->longest = example->n;
    out->answers += (double)count_answers(task, example);
    out->acceptance += (double)example->fits; /* divided by all drafts at the end */
    if (task->info.classes) out->share[example->label] += 1;
    if (task->family->measure) task->family->measure(task, example, sums);
}

kh_status kh_task_measure(const kh_task *task, uint64_t seed, kh_task_split split, size_t count,
                          kh_task_stats *out)
{
    *out = (kh_task_stats){.shortest = (size_t)-1, .classes = task->info.classes};
    if (count == 0) KH_FAIL(KH_ERR_ARGUMENT, "statistics of no examples");
    uint64_t *hashes = NULL;
    kh_task_example example = {0};
    double sums[KH_TASK_MOST_NUMBERS] = {0}, drafts = 0;
    kh_status status = kh_new(&hashes, count, sizeof *hashes, "the statistics");
    if (status == KH_OK) status = kh_task_example_open(&example, task);
    for (size_t i = 0; i < count && status == KH_OK; i++) {
        status = kh_task_generate(task, seed, split, i, &example);
        if (status != KH_OK) break;
        hashes[i] = hash_example(&example);
        drafts += (double)example.drafts;
        add_example(task, &example, out, sums);
    }
    if (status == KH_OK) {
        qsort(hashes, count, sizeof *hashes, by_value);
        for (size_t i = 1; i < count; i++) out->duplicates += hashes[i] == hashes[i - 1];
        double n = (double)count;
        out->examples = count;
        out->mean_length /= n;
        out->answers /= n;
        out->acceptance /= drafts;
        for (int c = 0; c < out->classes; c++) out->share[c] /= n;
        const char *const *names = task->family->numbers;
        for (; names && names[out->count]; out->count++)
            out->numbers[out->count] = (kh_task_number){names[out->count], sums[out->count] / n};
    }
    kh_task_example_close(&example);
    kh_free(hashes);
    return status;
}

/* ---- baselines ---- */

typedef struct table {
    const kh_task_shallow *rule;
    size_t cells, votes;
    uint32_t *count; /* [cells + 1][votes]; the last row counts all answers */
    uint32_t *best;  /* [cells + 1] the commonest vote */
    double right;    /* sum over examples of the share of right answers */
} table;

static kh_status open_table(table *t, const kh_task *task, const kh_task_shallow *rule)
{
    t->rule = rule;
    rule->shape(task, &t->cells, &t->votes);
    KH_TRY(kh_new(&t->count, (t->cells + 1) * t->votes, sizeof *t->count, "a baseline"));
    return kh_new(&t->best, t->cells + 1, sizeof *t->best, "a baseline");
}

static void settle(table *t)
{
    for (size_t cell = t->cells + 1; cell-- > 0;) {
        const uint32_t *row = t->count + cell * t->votes;
        size_t best = cell == t->cells ? 0 : t->best[t->cells];
        for (size_t v = 0; v < t->votes; v++)
            if (row[v] > row[best]) best = v;
        t->best[cell] = (uint32_t)best;
    }
}

/* Counts on an example, or adds how much of it the settled table has right. */
static void visit(table *t, const kh_task *task, const kh_task_example *example, int fitting)
{
    size_t answers = 0, right = 0;
    for (size_t row = 0; row < example->n; row++) {
        if (task->info.classes ? row > 0 : example->targets[row] < 0) continue;
        size_t cell = 0, vote = 0;
        t->rule->see(task, example, row, &cell, &vote);
        if (fitting) {
            t->count[cell * t->votes + vote]++;
            t->count[t->cells * t->votes + vote]++;
        }
        answers++;
        right += t->best[cell] == vote;
    }
    if (answers) t->right += (double)right / (double)answers;
}

static kh_status pass(table *tables, size_t count, const kh_task *task, uint64_t seed,
                      kh_task_example *example, size_t examples, int fitting)
{
    for (size_t i = 0; i < count; i++) tables[i].right = 0;
    for (size_t e = 0; e < examples; e++) {
        KH_TRY(kh_task_generate(task, seed, fitting ? KH_TASK_TRAIN : KH_TASK_TEST, e, example));
        for (size_t i = 0; i < count; i++) visit(&tables[i], task, example, fitting);
    }
    for (size_t i = 0; i < count && fitting; i++) settle(&tables[i]);
    return KH_OK;
}

kh_status kh_task_baselines(const kh_task *task, uint64_t seed, size_t fitted, size_t tested,
                            kh_task_number *out, size_t *count)
{
    *count = 0;
    if (fitted == 0 || tested == 0) KH_FAIL(KH_ERR_ARGUMENT, "baselines of no examples");
    table tables[KH_TASK_MOST_NUMBERS] = {0};
    kh_task_example example = {0};
    size_t n = 0;
    kh_status status = kh_task_example_open(&example, task);
    for (const kh_task_shallow *rule = task->family->shallow; rule->name && status == KH_OK; rule++)
        status = open_table(&tables[n++], task, rule);
    if (status == KH_OK) status = pass(tables, n, task, seed, &example, fitted, 1);
    if (status == KH_OK) status = pass(tables, n, task, seed, &example, tested, 0);
    for (size_t i = 0; i < n && status == KH_OK; i++)
        out[(*count)++] = (kh_task_number){tables[i].rule->name, tables[i].right / (double)tested};
    for (size_t i = 0; i < n; i++) {
        kh_free(tables[i].count);
        kh_free(tables[i].best);
    }
    kh_task_example_close(&example);
    return status;
}
