/* Parameter groups: one pass over the rules, each over all names.
 *
 * What the rule of decay is by default: tensors with more than one row decay, vectors do not. That is what
 * most published trainers do (gains and biases are not pulled to zero; embeddings are). Recipes with another
 * one say so in a rule: "*:decay=0.1" for Long Range Arena, where everything decays.
 *
 * A pattern without a match is always a slip of the name (another family's, a layer that is not there), and
 * what would follow is hours of training that change the wrong tensors, hence an error. So is a run that has
 * nothing to train. */
#include "train/groups.h"

#include "base/fail.h"
#include "base/named.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_PATTERN = 256, SHOWN = 3 };

typedef struct change {
    double rate, decay; /* negative: as it was */
} change;

static const kh_named_value values[] = {
    {"rate", KH_NAMED_REAL, offsetof(change, rate), -1, 0, HUGE_VAL, NULL},
    {"decay", KH_NAMED_REAL, offsetof(change, decay), -1, 0, HUGE_VAL, NULL},
    {.name = NULL}};
static const kh_named_form form = {"a rule", values};

static kh_status no_match(const char *pattern, const kh_tensor_spec *tensors, size_t n)
{
    char names[512] = "";
    for (size_t i = 0, used = 0; i < n && i < SHOWN && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 tensors[i].name);
    KH_FAIL(KH_ERR_ARGUMENT, "'%s' matches none of the %zu tensors (the first are %s)", pattern, n,
            names);
}

/* Applies a change to what one pattern matches. */
static kh_status match_one(kh_tensor_setting *settings, const kh_tensor_spec *tensors, size_t n,
                           const char *pattern, size_t size, const change *c)
{
    char text[MOST_PATTERN];
    size_t found = 0;
    if (size == 0 || size >= sizeof text)
        KH_FAIL(KH_ERR_ARGUMENT, "a pattern over names of tensors has %zu characters, not 1 to %d",
                size, MOST_PATTERN - 1);
    memcpy(text, pattern, size);
    text[size] = 0;
    for (size_t i = 0; i < n; i++) {
        if (fnmatch(text, tensors[i].name, FNM_NOESCAPE) != 0) continue;
        found++;
        if (c->rate >= 0) settings[i].rate = c->rate;
        if (c->decay >= 0) settings[i].decay = c->decay;
    }
    return found ? KH_OK : no_match(text, tensors, n);
}

/* Patterns up to `end`, with commas between. */
static kh_status match(kh_tensor_setting *settings, const kh_tensor_spec *tensors, size_t n,
                       const char *patterns, const char *end, const change *c)
{
    for (const char *at = patterns; at <= end;) {
        size_t size = strcspn(at, ",:");
        KH_TRY(match_one(settings, tensors, n, at, size, c));
        at += size + 1;
    }
    return KH_OK;
}

kh_status kh_groups_apply(kh_tensor_setting *settings, const kh_tensor_spec *tensors, size_t n,
                          const kh_groups_options *o)
{
    size_t left = 0;
    for (size_t i = 0; i < n; i++)
        settings[i] = (kh_tensor_setting){o->train ? 0 : 1, tensors[i].rows > 1 ? o->decay : 0};
    if (o->train) {
        change c = {1, -1};
        if (strchr(o->train, ':'))
            KH_FAIL(KH_ERR_ARGUMENT, "'%s': patterns of what is trained have no ':'", o->train);
        KH_TRY(match(settings, tensors, n, o->train, o->train + strlen(o->train), &c));
    }
    for (size_t r = 0; r < o->count; r++) {
        change c;
        const char *rule = o->rules[r], *colon = strchr(rule, ':');
        if (!colon)
            KH_FAIL(KH_ERR_ARGUMENT, "group '%s': a rule is written PATTERN,...:rate=R,decay=D",
                    rule);
        KH_TRY(kh_named_values(&c, colon + 1, &form, rule, "group"));
        kh_status status = match(settings, tensors, n, rule, colon, &c);
        if (status) return kh_fail_context(status, "group '%s'", rule);
    }
    for (size_t i = 0; i < n; i++) left += settings[i].rate > 0;
    if (!left) KH_FAIL(KH_ERR_ARGUMENT, "all %zu tensors are frozen: nothing is left to train", n);
    return KH_OK;
}
