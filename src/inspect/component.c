/* Names of parts: L12N345, L5H3, 5_mlp_out (include/keyhole/inspect.h has the list).
 *
 * Neurons and heads are called as TransformerLens' labels and LM-Debugger's links call them, the residual stream
 * and what is added to it as TransformerLens labels its components. A name is short enough to be a chip, a flag
 * or a word of a URL, and there is one reader and one writer of it. */
#include "base/fail.h"
#include "model/network.h"

#include <ctype.h>
#include <keyhole/inspect.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const struct {
    kh_component_kind kind;
    const char *suffix;
} streams[] = {{KH_COMPONENT_ATTENTION, "_attn_out"},
               {KH_COMPONENT_MLP, "_mlp_out"},
               {KH_COMPONENT_PRE, "_pre"},
               {KH_COMPONENT_MID, "_mid"},
               {KH_COMPONENT_POST, "_post"}};

size_t kh_component_text(const kh_component *part, char *text, size_t size)
{
    int n = 0;
    switch (part->kind) {
    case KH_COMPONENT_NEURON: n = snprintf(text, size, "L%dN%d", part->layer, part->index); break;
    case KH_COMPONENT_HEAD: n = snprintf(text, size, "L%dH%d", part->layer, part->index); break;
    case KH_COMPONENT_KEY:
        n = snprintf(text, size, "L%dH%dK%d", part->layer, part->index, part->key);
        break;
    case KH_COMPONENT_EMBED: n = snprintf(text, size, "embed"); break;
    case KH_COMPONENT_BIAS: n = snprintf(text, size, "bias"); break;
    default:
        for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
            if (streams[i].kind == part->kind)
                n = snprintf(text, size, "%d%s", part->layer, streams[i].suffix);
    }
    return n > 0 ? (size_t)n : 0;
}

/* A number of at most six digits; NULL when there is none. */
static const char *number(const char *at, int *out)
{
    int value = 0, digits = 0;
    for (; isdigit((unsigned char)*at); at++, digits++) {
        if (digits == 6) return NULL;
        value = value * 10 + (*at - '0');
    }
    *out = value;
    return digits ? at : NULL;
}

static int is_letter(const char *at, char letter)
{
    return toupper((unsigned char)*at) == letter;
}

/* L12N345, L12.D345, L5H3, L5H3K17 */
static int read_indexed(kh_component *out, const char *text)
{
    const char *at = is_letter(text, 'L') ? number(text + 1, &out->layer) : NULL;
    if (!at) return 0;
    if (*at == '.') at++;
    int neuron = is_letter(at, 'N') || is_letter(at, 'D');
    if (!neuron && !is_letter(at, 'H')) return 0;
    out->kind = neuron ? KH_COMPONENT_NEURON : KH_COMPONENT_HEAD;
    at = number(at + 1, &out->index);
    if (at && !neuron && is_letter(at, 'K')) {
        out->kind = KH_COMPONENT_KEY;
        at = number(at + 1, &out->key);
    }
    return at && *at == 0;
}

static int read_stream(kh_component *out, const char *text)
{
    if (strcasecmp(text, "embed") == 0) {
        out->kind = KH_COMPONENT_EMBED;
        out->layer = -1;
        return 1;
    }
    const char *at = number(text, &out->layer);
    for (size_t i = 0; at && i < sizeof streams / sizeof *streams; i++)
        if (strcasecmp(at, streams[i].suffix) == 0) {
            out->kind = streams[i].kind;
            return 1;
        }
    return 0;
}

static kh_status check(const kh_component *p, const kh_description *d, const char *text)
{
    if (p->layer >= d->N)
        KH_FAIL(KH_ERR_ARGUMENT, "'%s': the model has layers 0 to %d", text, d->N - 1);
    int neuron = p->kind == KH_COMPONENT_NEURON;
    int head = p->kind == KH_COMPONENT_HEAD || p->kind == KH_COMPONENT_KEY;
    if (neuron && d->experts.count)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "'%s': neurons of a mixture of experts are not told apart; "
                "%d_mlp_out names the whole layer",
                text, p->layer);
    if (neuron && p->index >= d->F)
        KH_FAIL(KH_ERR_ARGUMENT, "'%s': a layer has neurons 0 to %d", text, d->F - 1);
    if (head && p->index >= d->H)
        KH_FAIL(KH_ERR_ARGUMENT, "'%s': a layer has heads 0 to %d", text, d->H - 1);
    if (p->kind == KH_COMPONENT_MID && d->form == KH_BLOCK_PARALLEL)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "'%s': attention and feed-forward of this model read the same "
                "stream: there is none in between",
                text);
    return KH_OK;
}

kh_status kh_component_parse(kh_component *out, const kh_model *model, const char *text)
{
    *out = (kh_component){0};
    if (!read_indexed(out, text)) {
        *out = (kh_component){0};
        if (!read_stream(out, text))
            KH_FAIL(KH_ERR_ARGUMENT,
                    "'%s' names no part: L12N345 (neuron), L5H3 (head), L5H3K17 "
                    "(key of a head), 5_attn_out, 5_mlp_out, 5_pre, 5_mid, 5_post "
                    "or embed is expected",
                    text);
    }
    return check(out, &model->d, text);
}
