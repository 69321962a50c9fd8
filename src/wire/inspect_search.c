/* Parts that write a token, and heads by what they do on a text, in JSON. */
#include "wire/questions.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/rng.h"
#include "wire/json_value.h"

#include <string.h>

enum { MOST = 10000, MOST_WORDS = 64, MOST_RANDOM = 2048 };

/* ---- search ---- */

/* words: texts of one token each, or ids. */
static kh_status read_words(const wire_ask *ask, int32_t *ids, size_t *count)
{
    const json_t *list = NULL;
    KH_TRY(wire_get_array(ask->body, "words", &list));
    *count = json_array_size(list);
    if (*count == 0 || *count > MOST_WORDS)
        KH_FAIL(KH_ERR_ARGUMENT, "words: 1 to %d tokens are expected, as texts or ids", MOST_WORDS);
    for (size_t i = 0; i < *count; i++) {
        json_t *one = json_pack("{s:O}", "words", json_array_get(list, i));
        ids[i] = -1;
        kh_status status = wire_one_token(one, "words", ask->model, &ids[i]);
        json_decref(one);
        KH_TRY(status);
        if (ids[i] < 0) KH_FAIL(KH_ERR_ARGUMENT, "words: tokens as texts or ids are expected");
    }
    return KH_OK;
}

static json_t *hit_json(const kh_search_hit *h, json_t *tokens)
{
    json_t *out = json_pack("{s:o, s:s, s:o, s:o, s:O*}", "part", wire_part_text(&h->part), "end",
                            h->logit < 0 ? "bottom" : "top", "logit", wire_real(h->logit), "cosine",
                            wire_real(h->cosine), "tokens", tokens);
    if (out && h->part.kind == KH_COMPONENT_NEURON)
        json_object_set_new(out, "rank", json_integer((json_int_t)h->rank));
    return out;
}

static kh_status hits_json(const wire_ask *ask, const kh_search_hit *hits, size_t count,
                           json_t **out)
{
    kh_component *parts = NULL;
    float *signs = NULL;
    json_t *tokens = NULL;
    int neurons = count > 0 && hits[0].part.kind == KH_COMPONENT_NEURON;
    kh_status status = kh_new(&parts, count + 1, sizeof *parts, "hits");
    if (status == KH_OK) status = kh_new(&signs, count + 1, sizeof *signs, "hits");
    for (size_t i = 0; i < count && status == KH_OK; i++) {
        parts[i] = hits[i].part;
        signs[i] = hits[i].logit < 0 ? -1 : 1; /* the end at which the token is */
    }
    if (status == KH_OK && neurons) status = wire_promoted(ask, parts, signs, count, &tokens);
    kh_free(parts);
    kh_free(signs);
    KH_TRY(status);
    *out = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(*out, hit_json(&hits[i], json_array_get(tokens, i)));
    json_decref(tokens);
    return KH_OK;
}

kh_status wire_search(const wire_ask *ask)
{
    static const char *const orders[] = {"logit", "cosine", "rank", NULL};
    static const char *const ends[] = {"both", "top", "bottom", NULL};
    double start = wire_seconds();
    int32_t ids[MOST_WORDS];
    kh_search_options o = {.tokens = ids};
    kh_search_hit *hits = NULL;
    int order = 0, heads = 0;
    int64_t most = 20;
    size_t count = 0;
    json_t *list = NULL;
    KH_TRY(read_words(ask, ids, &o.count));
    KH_TRY(wire_get_choice(ask->body, "by", orders, &order));
    KH_TRY(wire_get_choice(ask->body, "ends", ends, &o.ends));
    KH_TRY(wire_get_int(ask->body, "most", &most, 1, MOST));
    KH_TRY(wire_get_flag(ask->body, "heads", &heads));
    o.order = (kh_search_order)order;
    o.most = (size_t)most;
    KH_TRY(heads ? kh_search_heads(ask->inspector, &o, &hits, &count)
                 : kh_search(ask->inspector, &o, &hits, &count));
    kh_status status = hits_json(ask, hits, count, &list);
    kh_search_free(hits);
    KH_TRY(status);
    return wire_send(
        ask, json_pack("{s:o, s:o}", "hits", list, "seconds", wire_real(wire_seconds() - start)));
}

/* ---- finder ---- */

static const char *const scores[] = {"induction", "previous",  "duplicate", "sink",
                                     "entropy",   "retrieval", NULL};

static double score_of(const kh_head_scores *h, int which)
{
    const double all[] = {h->induction, h->previous, h->duplicate,
                          h->sink,      h->entropy,  h->retrieval};
    return all[which];
}

static json_t *head_json(const kh_head_scores *h)
{
    json_t *list = json_object();
    for (int i = 0; scores[i]; i++) json_object_set_new(list, scores[i], wire_real(score_of(h, i)));
    return json_pack("{s:o, s:o}", "part", wire_part_text(&h->head), "scores", list);
}

/* Best first; equals in the order of the model. */
static void sort_heads(kh_head_scores *all, size_t n, int by)
{
    for (size_t i = 1; i < n; i++) {
        kh_head_scores one = all[i];
        size_t at = i;
        for (; at > 0 && score_of(&all[at - 1], by) < score_of(&one, by); at--)
            all[at] = all[at - 1];
        all[at] = one;
    }
}

/* Tokens drawn at random and said twice: what no text prepared a head for, and induction must copy. */
static kh_status random_text(const wire_ask *ask, size_t n)
{
    int vocabulary = kh_model_get_info(ask->model)->vocabulary;
    kh_rng_key key = {1, 0};
    int32_t *ids = NULL;
    KH_TRY(kh_new(&ids, 2 * n, sizeof *ids, "a text"));
    for (size_t i = 0; i < n; i++)
        ids[i] = ids[n + i] = (int32_t)(kh_rng_bits(key, i) % (uint64_t)vocabulary);
    kh_status status = kh_inspector_set(ask->inspector, ids, 2 * n, 0, NULL, 0);
    kh_free(ids);
    return status;
}

static kh_status read_find(const wire_ask *ask, kh_find_options *o)
{
    int64_t random = 0, length, query, key = -1, keys = 1;
    KH_TRY(wire_get_int(ask->body, "random", &random, 2, MOST_RANDOM));
    KH_TRY(random ? random_text(ask, (size_t)random) : wire_set_subject(ask));
    length = (int64_t)kh_inspector_length(ask->inspector);
    query = length - 1;
    KH_TRY(wire_get_int(ask->body, "query", &query, 0, length - 1));
    KH_TRY(wire_get_int(ask->body, "key", &key, 0, length - 1));
    KH_TRY(wire_get_int(ask->body, "keys", &keys, 1, length));
    *o = (kh_find_options){(size_t)query, key < 0 ? 0 : (size_t)key, key < 0 ? 0 : (size_t)keys};
    return KH_OK;
}

kh_status wire_find_heads(const wire_ask *ask)
{
    double start = wire_seconds();
    const kh_model_info *info = kh_model_get_info(ask->model);
    size_t n = (size_t)info->layers * (size_t)info->heads;
    kh_find_options o;
    kh_head_scores *all = NULL;
    int by = 0;
    int64_t most = 0;
    KH_TRY(wire_get_choice(ask->body, "by", scores, &by));
    KH_TRY(wire_get_int(ask->body, "most", &most, 1, MOST));
    KH_TRY(read_find(ask, &o));
    KH_TRY(kh_new(&all, n, sizeof *all, "heads"));
    kh_status status = kh_find_heads(ask->inspector, &o, all);
    json_t *list = json_array();
    if (status == KH_OK) sort_heads(all, n, by);
    for (size_t h = 0; h < n && status == KH_OK && (most == 0 || h < (size_t)most); h++)
        json_array_append_new(list, head_json(&all[h]));
    kh_free(all);
    if (status != KH_OK) {
        json_decref(list);
        return status;
    }
    return wire_send(ask, json_pack("{s:s, s:I, s:o, s:o}", "by", scores[by], "tokens",
                                    (json_int_t)kh_inspector_length(ask->inspector), "heads", list,
                                    "seconds", wire_real(wire_seconds() - start)));
}
