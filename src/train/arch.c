/* A description of a model in one line. Every name is one row of a table; ranges are checked where the model is
 * composed (train/scratch.c), which knows what an architecture allows. */
#include "train/arch.h"

#include "base/fail.h"
#include "base/named.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { WHOLE, REAL, TEXT, CHOICE, POOLING };

typedef struct entry {
    const char *name;
    enum kind kind;
    size_t offset;
} entry;

#define AT(field) offsetof(kh_scratch_options, field)

static const entry entries[] = {{"layers", WHOLE, AT(layers)},
                                {"encoder_layers", WHOLE, AT(encoder_layers)},
                                {"width", WHOLE, AT(width)},
                                {"heads", WHOLE, AT(heads)},
                                {"key_heads", WHOLE, AT(key_heads)},
                                {"head_width", WHOLE, AT(head_width)},
                                {"ff", WHOLE, AT(ff)},
                                {"vocabulary", WHOLE, AT(vocabulary)},
                                {"context", WHOLE, AT(context)},
                                {"types", WHOLE, AT(types)},
                                {"window", WHOLE, AT(window)},
                                {"rotated", WHOLE, AT(rotated)},
                                {"buckets", WHOLE, AT(buckets)},
                                {"max_distance", WHOLE, AT(max_distance)},
                                {"experts", WHOLE, AT(experts)},
                                {"experts_used", WHOLE, AT(experts_used)},
                                {"expert_ff", WHOLE, AT(expert_ff)},
                                {"shared_ff", WHOLE, AT(shared_ff)},
                                {"norm_eps", REAL, AT(norm_eps)},
                                {"rope_base", REAL, AT(rope_base)},
                                {"act", TEXT, AT(act)},
                                {"head", CHOICE, AT(head)},
                                {"biases", CHOICE, AT(biases)},
                                {"gate", CHOICE, AT(gate)},
                                {"mask_head", CHOICE, AT(mask_head)},
                                {"fixed_positions", CHOICE, AT(fixed_positions)},
                                {"cls", CHOICE, AT(cls)},
                                {"classes", WHOLE, AT(classes)},
                                {"pooling", POOLING, AT(pooling)},
                                {"towers", WHOLE, AT(towers)},
                                {"class_dense", WHOLE, AT(class_dense)},
                                {"class_inner", WHOLE, AT(class_inner)},
                                {"class_act", TEXT, AT(class_act)},
                                {"init", TEXT, AT(init.name)},
                                {"spread", REAL, AT(init.spread)},
                                {"zero_row", WHOLE, AT(init.zero_row)}};

enum { COUNT = sizeof entries / sizeof *entries };

static kh_status unknown(const char *name, const char *text)
{
    char names[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < COUNT && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 entries[i].name);
    return kh_fail(KH_ERR_ARGUMENT, "model '%s': '%s' is not known; there are %s", text, name,
                   names);
}

static kh_status wrong(const entry *e, const char *value, const char *text, const char *expected)
{
    return kh_fail(KH_ERR_ARGUMENT, "model '%s': %s=%s: %s is expected", text, e->name, value,
                   expected);
}

static kh_status set(kh_scratch_options *to, const entry *e, const char *value, const char *text)
{
    void *at = (char *)to + e->offset;
    char *end = NULL;
    errno = 0;
    if (e->kind == WHOLE) {
        long n = strtol(value, &end, 10);
        if (end == value || *end || errno || n < -1 || n > 1 << 30)
            return wrong(e, value, text, "a whole number");
        *(int *)at = (int)n;
    } else if (e->kind == REAL) {
        double x = strtod(value, &end);
        if (end == value || *end || !isfinite(x)) return wrong(e, value, text, "a number");
        *(double *)at = x;
    } else if (e->kind == TEXT) {
        *(const char **)at = value;
    } else if (e->kind == CHOICE) {
        int yes = strcmp(value, "yes") == 0;
        if (!yes && strcmp(value, "no") != 0) return wrong(e, value, text, "yes or no");
        *(kh_scratch_choice *)at = yes ? KH_SCRATCH_WITH : KH_SCRATCH_WITHOUT;
    } else {
        static const char *const names[] = {"mean", "first", "last"};
        size_t i = 0;
        while (i < 3 && strcmp(value, names[i]) != 0) i++;
        if (i == 3) return wrong(e, value, text, "mean, first or last");
        *(kh_scratch_pooling *)at = (kh_scratch_pooling)(KH_SCRATCH_POOL_MEAN + (int)i);
    }
    return KH_OK;
}

kh_status kh_arch_parse(kh_arch *out, const char *text)
{
    *out = (kh_arch){0};
    size_t n = strlen(text);
    if (n == 0 || n >= sizeof out->text)
        KH_FAIL(KH_ERR_ARGUMENT, "a model is described by an architecture and its numbers, as "
                                 "llama:layers=4,width=128");
    memcpy(out->text, text, n + 1);
    out->options.architecture = out->text;
    char *at = strchr(out->text, ':');
    if (at) *at++ = 0;
    while (at) {
        char *name, *value;
        KH_TRY(kh_named_cut(&at, &name, &value, text, "model"));
        size_t i = 0;
        while (i < COUNT && strcmp(entries[i].name, name) != 0) i++;
        if (i == COUNT) return unknown(name, text);
        KH_TRY(set(&out->options, &entries[i], value, text));
    }
    return KH_OK;
}
