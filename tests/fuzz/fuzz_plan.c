/* Fuzz target of the settings of attention and of feed-forward layers: any text, for a model of 1 to 64 layers and
 * heads, with an encoder or without. What parses has every number in its range, and its text is kept to the letter. */
#include "attn/method.h"
#include "base/alloc.h"
#include "ff/keep.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 1 << 24 };

static void must(int good)
{
    if (!good) abort();
}

static void check(const kh_attn_setting *s)
{
    unsigned params = s->method->params;
    must(s->k >= 0 && s->k <= MOST && s->recent >= 0 && s->recent <= MOST);
    must(s->sinks >= 0 && s->sinks <= MOST && s->min_p >= 0 && s->min_p <= 1);
    must(s->tail_mean == 0 || s->tail_mean == 1);
    must(s->k == 0 || params & KH_PARAM_K);
    must(s->recent == 0 || params & KH_PARAM_RECENT);
    must(s->sinks == 0 || params & KH_PARAM_SINKS);
    must(s->min_p == 0 || params & KH_PARAM_MIN_P);
    must(!s->tail_mean || params & KH_PARAM_TAIL);
    if (s->method == &kh_attn_topk) must(s->k >= 1 && s->recent + s->sinks <= s->k);
}

static void attention(const char *text, int encoder, int layers, int heads)
{
    kh_attn_plan *plan = NULL;
    kh_status status = kh_attn_plan_parse_stacks(&plan, text, encoder, layers, heads);
    must((status == KH_OK) == (plan != NULL));
    must(status == KH_OK || (status == KH_ERR_ARGUMENT && kh_last_error()[0]));
    if (plan) {
        must(strcmp(kh_attn_plan_text(plan), text) == 0);
        if (encoder > 0) layers = encoder + 2 * layers;
        for (int phase = KH_PHASE_PREFILL; phase <= KH_PHASE_DECODE; phase++)
            for (int layer = 0; layer < layers; layer++)
                for (int head = 0; head < heads; head++)
                    check(kh_attn_plan_at(plan, (enum kh_phase)phase, layer, head));
    }
    kh_attn_plan_free(plan);
}

static void feed_forward(const char *text, int encoder, int layers)
{
    kh_ff_plan *plan = NULL;
    kh_status status = kh_ff_plan_parse(&plan, text, encoder, layers);
    must((status == KH_OK) == (plan != NULL));
    must(status == KH_OK || (status == KH_ERR_ARGUMENT && kh_last_error()[0]));
    if (plan) {
        int dense = 1;
        must(strcmp(kh_ff_plan_text(plan), text) == 0);
        for (int layer = 0; layer < encoder + layers; layer++) {
            kh_ff_setting s = kh_ff_plan_at(plan, layer);
            must(s.k <= INT32_MAX && s.rule <= KH_FF_NORM);
            dense &= s.k == 0;
        }
        must(dense == kh_ff_plan_is_dense(plan));
    }
    kh_ff_plan_close(plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    int layers = 1 + data[0] % 64, heads = 1 + data[1] % 64, encoder = data[0] / 64;
    uint64_t live = kh_alloc_get_stats().live;
    char *text = malloc(size - 1);
    if (!text) return 0;
    memcpy(text, data + 2, size - 2);
    text[size - 2] = 0;
    attention(text, encoder, layers, heads);
    feed_forward(text, encoder, layers);
    free(text);
    must(kh_alloc_get_stats().live == live);
    return 0;
}
