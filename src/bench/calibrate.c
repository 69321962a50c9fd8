/* The automatic setting of a file.
 *
 * Candidates differ in budget, in how many first layers stay full and in the tail. Each reads the same
 * text of the file's length (at most 8,192 tokens) in a process of its own; perplexity over all tokens and
 * the time to read are measured together. Chosen is the fastest prompt among those whose perplexity is
 * within 2 % of full attention; full attention itself is a candidate, so there is always one.
 *
 * Times on a busy machine scatter, perplexities do not: candidates within 2 % of the fastest time are
 * decided by the lower perplexity. */
#include "base/fail.h"
#include "gen/auto.h"
#include "gen/engine.h"

#include <keyhole/eval.h>
#include <stdio.h>
#include <string.h>

static const char *const candidates[] = {
    "full",
    "topk:k=256,tail=mean",
    "topk:k=128,tail=mean",
    "topk:k=128,min-p=0.01,tail=mean",
    "0-1=full;2-=topk:k=256,min-p=0.01,tail=mean",
    "0-1=full;2-=topk:k=128,min-p=0.01,tail=mean",
    "0-1=full;2-=topk:k=64,tail=mean",
    "0-1=full;2-=topk:k=128,tail=mean",
    "0-3=full;4-=topk:k=128,min-p=0.01,tail=mean",
};
enum { COUNT = sizeof candidates / sizeof *candidates, LONGEST = 8192 };

static size_t choose(const kh_ppl_result *r)
{
    const double quality = 1.02, same_time = 1.02;
    double fastest = r[0].seconds;
    for (size_t i = 0; i < COUNT; i++)
        if (r[i].ppl <= r[0].ppl * quality && r[i].seconds < fastest) fastest = r[i].seconds;
    size_t best = 0;
    for (size_t i = 0; i < COUNT; i++) {
        int fit = r[i].ppl <= r[0].ppl * quality && r[i].seconds <= fastest * same_time;
        int best_fit = r[best].seconds <= fastest * same_time;
        if (fit && (!best_fit || r[i].ppl < r[best].ppl)) best = i;
    }
    return best;
}

kh_status kh_calibrate(const kh_model *model, const int32_t *ids, size_t count,
                       const kh_calibrate_options *o, kh_calibrate_row *rows, size_t room,
                       size_t *row_count)
{
    *row_count = 0;
    if (room < COUNT) KH_FAIL(KH_ERR_ARGUMENT, "room for %d rows is needed", (int)COUNT);
    size_t trained = (size_t)kh_model_get_info(model)->context;
    size_t length = o->tokens ? o->tokens : trained < LONGEST ? trained : LONGEST;
    if (length > trained)
        KH_FAIL(KH_ERR_CONTEXT, "%zu tokens exceed the trained length of %zu", length, trained);
    if (count < length)
        KH_FAIL(KH_ERR_ARGUMENT, "the text has %zu tokens, %zu are needed", count, length);
    kh_ppl_options p = {.session = o->session,
                        .attns = candidates,
                        .attn_count = COUNT,
                        .context = length,
                        .max_windows = 1,
                        .isolate = 1,
                        .progress = o->progress,
                        .progress_context = o->progress_context};
    kh_ppl_result results[COUNT];
    KH_TRY(kh_ppl(model, ids, length, &p, results));
    size_t best = choose(results);
    for (size_t i = 0; i < COUNT; i++) {
        rows[i] = (kh_calibrate_row){.ppl = results[i].ppl,
                                     .ratio = results[i].ppl / results[0].ppl,
                                     .seconds = results[i].seconds,
                                     .chosen = i == best};
        snprintf(rows[i].attn, sizeof rows[i].attn, "%s", candidates[i]);
    }
    *row_count = COUNT;
    return o->dry_run ? KH_OK : kh_auto_store(model->identity, candidates[best]);
}
