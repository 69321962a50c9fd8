/* The attention plan: one line of text, parsed once into a table.
 *
 *     settings  [count]                                 each distinct SETTING of the text, `full` first
 *     at        [2 phases][layers][heads] index         what applies where (run/rules.h)
 *
 * A model with an encoder has three stacks of layers: the encoder's, the decoder's, and the decoder's attention to
 * its source. Their rows lie behind one another.
 *
 * A mistake is reported with the piece it stands in and what would be allowed there; the caller adds
 * the option's name. Numbers are read by strtol and strtof and must be consumed whole. */
#include "attn/attn.h"

#include "attn/method.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "base/named.h"
#include "run/rules.h"

#include <stdlib.h>
#include <string.h>

enum { PHASES = 2 };

struct kh_attn_plan {
    char *text; /* verbatim */
    int layers, heads;
    kh_attn_setting *settings; /* [capacity] */
    size_t count, capacity;
    uint16_t *at; /* [PHASES][layers][heads] */
};

/* What the parameters are called, where they go and what they may be. */
static const struct param {
    const char *name;
    unsigned bit;
    int least;
    const char *allowed;
} params[] = {
    {"k", KH_PARAM_K, 1, "a whole number from 1"},
    {"recent", KH_PARAM_RECENT, 0, "a whole number from 0"},
    {"sinks", KH_PARAM_SINKS, 0, "a whole number from 0"},
    {"min-p", KH_PARAM_MIN_P, 0, "a number from 0 to 1"},
    {"tail", KH_PARAM_TAIL, 0, "mean"},
};
enum { PARAMS = sizeof params / sizeof *params };

static int is(const char *word, const char *name)
{
    return strcmp(word, name) == 0;
}

static int parse_share(float *out, const char *text)
{
    char *end;
    float value = strtof(text, &end);
    if (end == text || *end || !(value >= 0.0f && value <= 1.0f)) return 0;
    *out = value;
    return 1;
}

static kh_status set_param(kh_attn_setting *s, const struct param *p, const char *value,
                           const char *piece)
{
    int good = 0;
    switch (p->bit) {
    case KH_PARAM_K: good = kh_rules_count(&s->k, value, p->least); break;
    case KH_PARAM_RECENT: good = kh_rules_count(&s->recent, value, p->least); break;
    case KH_PARAM_SINKS: good = kh_rules_count(&s->sinks, value, p->least); break;
    case KH_PARAM_MIN_P: good = parse_share(&s->min_p, value); break;
    default: good = s->tail_mean = is(value, "mean"); break;
    }
    if (!good)
        KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': %s=%s is not allowed, %s must be %s", piece,
                p->name, value, p->name, p->allowed);
    return KH_OK;
}

/* "k, recent, sinks" into a buffer that is long enough for all names. */
static const char *list_params(char *out, unsigned bits)
{
    out[0] = 0;
    for (size_t i = 0; i < PARAMS; i++) {
        if (!(params[i].bit & bits)) continue;
        if (out[0]) strncat(out, ", ", 8);
        strncat(out, params[i].name, 16);
    }
    return out[0] ? out : "none";
}

static kh_status parse_params(kh_attn_setting *s, char *text, const char *piece)
{
    char names[128];
    unsigned seen = 0;
    while (text) {
        char *name, *value;
        KH_TRY(kh_named_cut(&text, &name, &value, piece, "attention"));
        const struct param *p = params;
        while (p < params + PARAMS && !is(name, p->name)) p++;
        if (p == params + PARAMS || !(p->bit & s->method->params))
            KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': %s has no parameter '%s' (it has: %s)", piece,
                    s->method->name, name, list_params(names, s->method->params));
        if (seen & p->bit)
            KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': %s is given twice", piece, name);
        seen |= p->bit;
        KH_TRY(set_param(s, p, value, piece));
    }
    unsigned missing = s->method->needs & ~seen;
    if (missing)
        KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': %s needs %s", piece, s->method->name,
                list_params(names, missing));
    return s->method->check ? s->method->check(s, piece) : KH_OK;
}

/* METHOD[:name=value,...]; `text` is cut up, `piece` is what a sentence quotes. */
static kh_status parse_setting(kh_attn_setting *s, char *text, const char *piece)
{
    char *args = strchr(text, ':');
    if (args) *args++ = 0;
    for (size_t i = 0; i < KH_ATTN_METHOD_COUNT; i++)
        if (is(text, kh_attn_methods[i]->name))
            *s = (kh_attn_setting){.method = kh_attn_methods[i]};
    if (!s->method)
        KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': no method is called '%s' (full, window, topk)",
                piece, text);
    if (args) return parse_params(s, args, piece);
    if (s->method->needs) {
        char names[128];
        KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': %s needs %s", piece, text,
                list_params(names, s->method->needs));
    }
    return s->method->check ? s->method->check(s, piece) : KH_OK;
}

static kh_status add_setting(kh_attn_plan *plan, const kh_attn_setting *s, uint16_t *index)
{
    for (size_t i = 0; i < plan->count; i++) {
        const kh_attn_setting *o = &plan->settings[i];
        if (o->method == s->method && o->k == s->k && o->recent == s->recent &&
            o->sinks == s->sinks && o->min_p == s->min_p && o->tail_mean == s->tail_mean) {
            *index = (uint16_t)i;
            return KH_OK;
        }
    }
    if (plan->count == plan->capacity)
        KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': more than %zu settings", plan->text,
                plan->capacity);
    plan->settings[plan->count] = *s;
    *index = (uint16_t)plan->count++;
    return KH_OK;
}

/* A setting of the text. */
static kh_status take_setting(void *context, uint16_t *index, char *text, const char *piece)
{
    kh_attn_setting s = {0};
    KH_TRY(parse_setting(&s, text, piece));
    return add_setting(context, &s, index);
}

static kh_status allocate(kh_attn_plan *plan, const char *text, size_t cells)
{
    plan->capacity = 2;
    for (const char *c = text; *c; c++) plan->capacity += *c == ';';
    KH_TRY(kh_new(&plan->at, cells, sizeof *plan->at, "the attention plan"));
    KH_TRY(kh_new(&plan->settings, plan->capacity, sizeof *plan->settings, "the attention plan"));
    plan->text = kh_strdup(text);
    if (!plan->text) KH_FAIL(KH_ERR_MEMORY, "no memory for the attention plan");
    plan->settings[plan->count++] = (kh_attn_setting){.method = &kh_attn_full};
    return KH_OK;
}

kh_status kh_attn_plan_parse(kh_attn_plan **out, const char *text, int layers, int heads)
{
    return kh_attn_plan_parse_stacks(out, text, 0, layers, heads);
}

kh_status kh_attn_plan_parse_stacks(kh_attn_plan **out, const char *text, int encoder, int decoder,
                                    int heads)
{
    kh_rules rules = {.what = "attention",
                      .setting = "full, window, topk:k=64",
                      .rules = "0-1=full;2-=topk:k=64",
                      .stacks = encoder > 0 ? KH_RULES_STACKS : 1,
                      .layers = {encoder > 0 ? encoder : decoder, decoder, decoder},
                      .phases = PHASES,
                      .heads = heads,
                      .parse = take_setting};
    *out = NULL;
    if (decoder < 1 || heads < 1)
        KH_FAIL(KH_ERR_ARGUMENT, "attention for %d layers of %d heads", decoder, heads);
    kh_attn_plan *plan;
    KH_TRY(kh_new(&plan, 1, sizeof *plan, "the attention plan"));
    plan->layers = encoder > 0 ? encoder + 2 * decoder : decoder;
    plan->heads = heads;
    rules.context = plan;
    kh_status status = allocate(plan, text, kh_rules_size(&rules));
    if (!status) status = kh_rules_parse(plan->at, &rules, text);
    if (status) {
        kh_attn_plan_free(plan);
        return status;
    }
    *out = plan;
    return KH_OK;
}

void kh_attn_plan_free(kh_attn_plan *plan)
{
    if (!plan) return;
    kh_free(plan->at);
    kh_free(plan->settings);
    kh_free(plan->text);
    kh_free(plan);
}

const char *kh_attn_plan_text(const kh_attn_plan *plan)
{
    return plan->text;
}

const kh_attn_setting *kh_attn_plan_at(const kh_attn_plan *plan, enum kh_phase phase, int layer,
                                       int head)
{
    size_t row = (size_t)phase * (size_t)plan->layers + (size_t)layer;
    return &plan->settings[plan->at[row * (size_t)plan->heads + (size_t)head]];
}

kh_status kh_attn_plan_check_all_keys(const kh_attn_plan *plan, int first, int layers)
{
    for (int phase = 0; phase < PHASES; phase++)
        for (int layer = first; layer < first + layers; layer++)
            for (int head = 0; head < plan->heads; head++) {
                int recent = kh_attn_plan_at(plan, (enum kh_phase)phase, layer, head)->recent;
                if (recent > 0)
                    KH_FAIL(KH_ERR_ARGUMENT,
                            "attention '%s': recent=%d means the keys before a row and needs the "
                            "causal mask",
                            plan->text, recent);
            }
    return KH_OK;
}
