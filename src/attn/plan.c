/* The attention plan: one line of text, parsed once into a table.
 *
 *     settings  [count]                                 each distinct SETTING of the text, `full` first
 *     at        [2 phases][layers][heads] index         what applies where
 *
 * The text is split at ';'. A piece that starts with "prefill=" or "decode=" changes the phase that
 * the following pieces speak of; without such a piece every rule speaks of both. A piece that starts
 * with a digit or '*' is RANGE=SETTING, anything else a bare SETTING for all layers, which must be the
 * only one of its phase, because a bare one among others is usually a forgotten range.
 *
 * A model with an encoder has three stacks of layers: the encoder's, the decoder's, and the decoder's attention to
 * its source. Their rows lie behind one another; "encoder=", "decoder=" and "cross=" before a piece say of which
 * stack the following speak, else all are meant, and layers count from 0 in each.
 *
 * A mistake is reported with the piece it stands in and what would be allowed there; the caller adds
 * the option's name. Numbers are read by strtol and strtof and must be consumed whole. */
#include "attn/attn.h"

#include "attn/method.h"
#include "base/alloc.h"
#include "base/fail.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PHASES = 2, STACKS = 3, MAX_TEXT = 4096, MAX_NUMBER = 1 << 24 };

struct kh_attn_plan {
    char *text; /* verbatim */
    char *work; /* the copy that parsing cuts up */
    int layers, heads;
    int first[STACKS],
        count_of[STACKS]; /* layers of each stack; only the first one without an encoder */
    int stacks;
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

static int parse_count(int *out, const char *text, int least)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno || value < least || value > MAX_NUMBER)
        return 0;
    *out = (int)value;
    return 1;
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
    case KH_PARAM_K: good = parse_count(&s->k, value, p->least); break;
    case KH_PARAM_RECENT: good = parse_count(&s->recent, value, p->least); break;
    case KH_PARAM_SINKS: good = parse_count(&s->sinks, value, p->least); break;
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
    for (char *rest = text, *item = strsep(&rest, ","); item; item = strsep(&rest, ",")) {
        char *value = strchr(item, '=');
        if (!value)
            KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': '%s' has no '=': parameters are name=value",
                    piece, item);
        *value++ = 0;
        const struct param *p = params;
        while (p < params + PARAMS && !is(item, p->name)) p++;
        if (p == params + PARAMS || !(p->bit & s->method->params))
            KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': %s has no parameter '%s' (it has: %s)", piece,
                    s->method->name, item, list_params(names, s->method->params));
        if (seen & p->bit)
            KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': %s is given twice", piece, item);
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

/* "3", "0-1", "2-" or "*" into [first, last]. */
static kh_status parse_range(int *first, int *last, char *text, int count, const char *what,
                             const char *piece)
{
    *first = 0;
    *last = count - 1;
    if (is(text, "*")) return KH_OK;
    char *dash = strchr(text, '-');
    if (dash) *dash++ = 0;
    if (!parse_count(first, text, 0) || (dash && *dash && !parse_count(last, dash, 0)))
        KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': %ss are written 3, 0-1, 2- or *", piece, what);
    if (!dash) *last = *first;
    if (*first >= count || *last >= count)
        KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': there is no %s %d, the model has 0-%d", piece,
                what, *first >= count ? *first : *last, count - 1);
    if (*first > *last)
        KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': the %s range %d-%d runs backwards", piece, what,
                *first, *last);
    return KH_OK;
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

/* What the pieces speak of that follow. */
typedef struct scope {
    int phase[2], stack[2]; /* first and last */
    size_t bare, rules, pieces;
    unsigned seen;   /* phases */
    unsigned stacks; /* seen */
} scope;

static int most_layers(const kh_attn_plan *plan, const scope *in)
{
    int most = 0;
    for (int s = in->stack[0]; s <= in->stack[1]; s++)
        if (plan->count_of[s] > most) most = plan->count_of[s];
    return most;
}

static void set_layer(kh_attn_plan *plan, const scope *in, int layer, const int head[2],
                      uint16_t index)
{
    for (int phase = in->phase[0]; phase <= in->phase[1]; phase++)
        for (int h = head[0]; h <= head[1]; h++)
            plan->at[((size_t)phase * (size_t)plan->layers + (size_t)layer) * (size_t)plan->heads +
                     (size_t)h] = index;
}

/* One piece without its phase. */
static kh_status parse_rule(kh_attn_plan *plan, char *text, scope *in)
{
    char piece[MAX_TEXT + 1];
    memcpy(piece, text, strlen(text) + 1);
    int layers = most_layers(plan, in);
    int layer[2] = {0, layers - 1}, head[2] = {0, plan->heads - 1};
    if (isdigit((unsigned char)text[0]) || text[0] == '*') {
        char *setting = strchr(text, '=');
        if (!setting)
            KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': layers without a setting (0-1=full)", piece);
        *setting++ = 0;
        char *heads = strchr(text, '.');
        if (heads) *heads++ = 0;
        KH_TRY(parse_range(&layer[0], &layer[1], text, layers, "layer", piece));
        if (heads) KH_TRY(parse_range(&head[0], &head[1], heads, plan->heads, "head", piece));
        text = setting;
    } else {
        ++in->bare;
    }
    kh_attn_setting s = {0};
    uint16_t index = 0;
    KH_TRY(parse_setting(&s, text, piece));
    KH_TRY(add_setting(plan, &s, &index));
    for (int stack = in->stack[0]; stack <= in->stack[1]; stack++)
        for (int l = layer[0]; l <= layer[1] && l < plan->count_of[stack]; l++)
            set_layer(plan, in, plan->first[stack] + l, head, index);
    return KH_OK;
}

/* Which stack a piece turns to, if it does; *piece moves behind the word. */
static kh_status parse_stack(kh_attn_plan *plan, char **piece, scope *in)
{
    static const char *const names[STACKS] = {"encoder=", "decoder=", "cross="};
    for (int s = 0; s < STACKS; s++) {
        size_t n = strlen(names[s]);
        if (strncmp(*piece, names[s], n) != 0) continue;
        if (plan->stacks == 1)
            KH_FAIL(KH_ERR_ARGUMENT, "attention '%s': the model has one stack of layers, not %.*s",
                    plan->text, (int)n - 1, names[s]);
        if ((in->pieces > 0 && !in->stacks) || in->stacks >> s & 1)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "attention '%s': 'encoder=', 'decoder=' and 'cross=' start the text and stand "
                    "once each",
                    plan->text);
        *in = (scope){.phase = {0, PHASES - 1}, .stack = {s, s}, .stacks = in->stacks | 1u << s};
        *piece += n;
        return KH_OK;
    }
    return KH_OK;
}

/* The same for phases. */
static kh_status parse_phase(kh_attn_plan *plan, char **piece, scope *in)
{
    static const char *const names[PHASES] = {"prefill=", "decode="};
    for (int phase = 0; phase < PHASES; phase++) {
        size_t n = strlen(names[phase]);
        if (strncmp(*piece, names[phase], n) != 0) continue;
        if ((in->pieces > 0 && !in->seen) || in->seen >> phase & 1)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "attention '%s': 'prefill=' and 'decode=' start the text and stand once each",
                    plan->text);
        in->seen |= 1u << phase;
        in->phase[0] = in->phase[1] = phase;
        in->bare = in->rules = 0;
        *piece += n;
        return KH_OK;
    }
    return KH_OK;
}

static kh_status parse(kh_attn_plan *plan)
{
    scope in = {.phase = {0, PHASES - 1}, .stack = {0, plan->stacks - 1}};
    for (char *rest = plan->work, *piece = strsep(&rest, ";"); piece; piece = strsep(&rest, ";")) {
        KH_TRY(parse_stack(plan, &piece, &in));
        KH_TRY(parse_phase(plan, &piece, &in));
        if (!*piece)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "attention '%s': an empty setting (full, window, topk:k=64 ...)", plan->text);
        KH_TRY(parse_rule(plan, piece, &in));
        in.pieces++;
        if (++in.rules > 1 && in.bare > 0)
            KH_FAIL(
                KH_ERR_ARGUMENT,
                "attention '%s': of several settings each needs its layers (0-1=full;2-=topk:k=64)",
                plan->text);
    }
    return KH_OK;
}

static kh_status allocate(kh_attn_plan *plan, const char *text)
{
    size_t cells = (size_t)PHASES * (size_t)plan->layers * (size_t)plan->heads;
    plan->capacity = 2;
    for (const char *c = text; *c; c++) plan->capacity += *c == ';';
    KH_TRY(kh_new(&plan->at, cells, sizeof *plan->at, "the attention plan"));
    KH_TRY(kh_new(&plan->settings, plan->capacity, sizeof *plan->settings, "the attention plan"));
    plan->text = kh_strdup(text);
    plan->work = kh_strdup(text);
    if (!plan->text || !plan->work) KH_FAIL(KH_ERR_MEMORY, "no memory for the attention plan");
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
    int layers = encoder > 0 ? encoder + 2 * decoder : decoder;
    *out = NULL;
    if (strlen(text) > MAX_TEXT)
        KH_FAIL(KH_ERR_ARGUMENT, "the attention setting has %zu characters, at most %d are allowed",
                strlen(text), MAX_TEXT);
    if (layers < 1 || heads < 1)
        KH_FAIL(KH_ERR_ARGUMENT, "attention for %d layers of %d heads", layers, heads);
    kh_attn_plan *plan;
    KH_TRY(kh_new(&plan, 1, sizeof *plan, "the attention plan"));
    plan->layers = layers;
    plan->heads = heads;
    plan->stacks = encoder > 0 ? STACKS : 1;
    plan->count_of[0] = encoder > 0 ? encoder : decoder;
    plan->count_of[1] = plan->count_of[2] = encoder > 0 ? decoder : 0;
    for (int s = 1; s < STACKS; s++) plan->first[s] = plan->first[s - 1] + plan->count_of[s - 1];
    kh_status status = allocate(plan, text);
    if (!status) status = parse(plan);
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
    kh_free(plan->work);
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
