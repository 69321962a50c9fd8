/* Names of points, as people write them.
 *
 * One canonical name for a tensor; names of others where they mean exactly that, and a refusal where they almost do:
 * TransformerLens' hook_attn_out is what is added to the stream (attn_out_post), its ln2.hook_normalized has no gain and is
 * no point here, its hook_embed comes before positions and scaling, its hook_attn_in
 * before the norm, once for each head (attn.hook_in is the norm with its gain); llama.cpp's kqv_out lies on either side of the output
 * projection, whichever the graph. */
#include "base/alloc.h"
#include "base/fail.h"
#include "model/network.h"

#include <keyhole/trace.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "%" stands for the layer. */
static const struct {
    const char *text;
    kh_point point;
} aliases[] = {{"blocks.%.hook_resid_pre", KH_POINT_RESID_PRE},
               {"blocks.%.attn.hook_in", KH_POINT_ATTN_IN},
               {"blocks.%.attn.hook_q", KH_POINT_Q},
               {"blocks.%.attn.hook_k", KH_POINT_K},
               {"blocks.%.attn.hook_v", KH_POINT_VALUE},
               {"blocks.%.attn.hook_z", KH_POINT_Z},
               {"blocks.%.attn.hook_out", KH_POINT_ATTN_OUT},
               {"blocks.%.hook_attn_out", KH_POINT_ATTN_OUT_POST},
               {"blocks.%.hook_resid_mid", KH_POINT_RESID_MID},
               {"blocks.%.mlp.hook_in", KH_POINT_MLP_IN},
               {"blocks.%.mlp.hook_pre", KH_POINT_MLP_PRE},
               {"blocks.%.mlp.hook_pre_linear", KH_POINT_MLP_PRE_LINEAR},
               {"blocks.%.mlp.hook_post", KH_POINT_MLP_ACT},
               {"blocks.%.mlp.hook_out", KH_POINT_MLP_OUT},
               {"blocks.%.hook_mlp_out", KH_POINT_MLP_OUT_POST},
               {"blocks.%.hook_resid_post", KH_POINT_RESID_POST},
               {"ffn_inp-%", KH_POINT_RESID_MID},
               {"l_out-%", KH_POINT_RESID_POST}};

static int has_layers(kh_point point)
{
    return point != KH_POINT_EMBEDDINGS && point != KH_POINT_FINAL_NORM && point != KH_POINT_LOGITS;
}

typedef struct names {
    const kh_model *model;
    uint8_t *chosen; /* [KH_POINT_COUNT][N]; points outside the blocks: layer 0 */
} names;

/* Layers of "12", "3-5", "3-"; returns how many bytes were read, 0: none. */
static size_t read_layers(const char *text, size_t size, int N, int *first, int *last)
{
    char copy[32];
    int used = 0, n = 0;
    if (size == 0 || size >= sizeof copy) return 0;
    memcpy(copy, text, size);
    copy[size] = 0;
    if (sscanf(copy, "%9d%n", first, &used) != 1 || *first < 0) return 0;
    *last = *first;
    if (copy[used] != '-') return (size_t)used;
    if (sscanf(copy + used + 1, "%9d%n", last, &n) == 1) return (size_t)(used + 1 + n);
    *last = N - 1;
    return (size_t)used + 1;
}

static kh_status choose(names *n, kh_point point, int first, int last, const char *text,
                        size_t size)
{
    int N = n->model->d.N;
    if (first < 0 || last < first || last >= N)
        KH_FAIL(KH_ERR_ARGUMENT, "%.*s: the model has layers 0 to %d", (int)size, text, N - 1);
    for (int l = first; l <= last; l++) n->chosen[(size_t)point * (size_t)N + (size_t)l] = 1;
    return KH_OK;
}

static kh_status take_canonical(names *n, kh_point point, const char *rest, size_t size,
                                const char *text, size_t all)
{
    int first = 0, last = n->model->d.N - 1;
    if (!has_layers(point)) {
        if (size) KH_FAIL(KH_ERR_ARGUMENT, "%.*s: this point has no layers", (int)all, text);
        return choose(n, point, 0, 0, text, all);
    }
    if (size == 0) return choose(n, point, first, last, text, all);
    if (read_layers(rest + 1, size - 1, n->model->d.N, &first, &last) != size - 1)
        KH_FAIL(KH_ERR_ARGUMENT, "%.*s: a layer is expected behind the name, such as %s.3",
                (int)all, text, kh_point_name(point));
    return choose(n, point, first, last, text, all);
}

/* 1: the text is that alias, of layer *layer. */
static int is_alias(const char *alias, const char *text, size_t size, int *layer)
{
    size_t front = strcspn(alias, "%"), back = strlen(alias) - front - 1;
    int last;
    if (size < front + back || memcmp(text, alias, front) != 0) return 0;
    if (memcmp(text + size - back, alias + front + 1, back) != 0) return 0;
    size_t digits = size - front - back;
    for (size_t i = 0; i < digits; i++)
        if (text[front + i] < '0' || text[front + i] > '9') return 0;
    return digits > 0 && read_layers(text + front, digits, 0, layer, &last) == digits;
}

static kh_status take_name(names *n, const char *text, size_t size)
{
    int layer = 0;
    for (int p = 0; p < KH_POINT_COUNT; p++) {
        const char *name = kh_point_name((kh_point)p);
        size_t length = strlen(name);
        if (size >= length && memcmp(text, name, length) == 0 &&
            (size == length || text[length] == '.'))
            return take_canonical(n, (kh_point)p, text + length, size - length, text, size);
    }
    for (size_t a = 0; a < sizeof aliases / sizeof *aliases; a++)
        if (is_alias(aliases[a].text, text, size, &layer))
            return choose(n, aliases[a].point, layer, layer, text, size);
    KH_FAIL(KH_ERR_ARGUMENT,
            "'%.*s' is no point: resid_post.12, attn_rows.3-5, z, logits ... are expected "
            "(keyhole trace --help lists them)",
            (int)(size < 60 ? size : 60), text);
}

static kh_status collect(const names *n, kh_trace_point **out, size_t *count)
{
    size_t N = (size_t)n->model->d.N, all = KH_POINT_COUNT * N;
    for (size_t i = 0; i < all; i++) *count += n->chosen[i];
    KH_TRY(kh_new(out, *count + 1, sizeof **out, "points"));
    size_t at = 0;
    for (size_t i = 0; i < all; i++) {
        if (!n->chosen[i]) continue;
        kh_point point = (kh_point)(i / N);
        (*out)[at++] = (kh_trace_point){point, has_layers(point) ? (int)(i % N) : -1};
    }
    return KH_OK;
}

kh_status kh_trace_points_parse(kh_trace_point **out, size_t *count, const kh_model *model,
                                const char *text)
{
    names n = {.model = model};
    *out = NULL;
    *count = 0;
    KH_TRY(kh_new(&n.chosen, KH_POINT_COUNT * (size_t)model->d.N, 1, "points"));
    kh_status status = KH_OK;
    for (const char *at = text; status == KH_OK && *at;) {
        at += strspn(at, ", \t\n");
        size_t size = strcspn(at, ", \t\n");
        if (size) status = take_name(&n, at, size);
        at += size;
    }
    if (status == KH_OK) status = collect(&n, out, count);
    kh_free(n.chosen);
    if (status == KH_OK && *count == 0)
        status = kh_fail(KH_ERR_ARGUMENT, "no point was named, such as resid_post.12");
    if (status != KH_OK) {
        kh_trace_points_free(*out);
        *out = NULL;
    }
    return status;
}

void kh_trace_points_free(kh_trace_point *points)
{
    kh_free(points);
}
