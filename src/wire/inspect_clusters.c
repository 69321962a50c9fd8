/* Clusters of value vectors, in JSON. */
#include "wire/questions.h"

#include "base/fail.h"
#include "wire/json_value.h"

enum { MOST = 4096, MOST_LISTED = 1000, MOST_ROUNDS = 10000 };

static kh_status take_round(void *context, int round, size_t moved, double cosine)
{
    const wire_ask *ask = context;
    return wire_send(ask, json_pack("{s:s, s:i, s:I, s:o}", "type", "round", "round", round,
                                    "moved", (json_int_t)moved, "cosine", wire_real(cosine)));
}

static json_t *cluster_json(const wire_ask *ask, const kh_cluster *c)
{
    json_t *members = json_array();
    for (size_t i = 0; i < c->member_count; i++) {
        const kh_component part = {KH_COMPONENT_NEURON, c->members[i].layer, c->members[i].neuron,
                                   0};
        json_array_append_new(members, json_pack("{s:o, s:o}", "part", wire_part_text(&part),
                                                 "cosine", wire_real(c->members[i].cosine)));
    }
    return json_pack(
        "{s:I, s:o, s:o, s:o, s:o}", "size", (json_int_t)c->size, "cosine", wire_real(c->cosine),
        "top", wire_raw_tokens(ask->model, c->top.tokens, c->top.count), "bottom",
        wire_raw_tokens(ask->model, c->bottom.tokens, c->bottom.count), "members", members);
}

static kh_status read_options(const wire_ask *ask, kh_clusters_options *o)
{
    int layers = kh_model_get_info(ask->model)->layers;
    int64_t count = 0, first = 0, some = 0, rounds = 20, seed = 1, members = 10, tokens = 10;
    KH_TRY(wire_get_int(ask->body, "clusters", &count, 1, MOST));
    if (count == 0) KH_FAIL(KH_ERR_ARGUMENT, "clusters: how many is expected, 1 to %d", MOST);
    KH_TRY(wire_get_int(ask->body, "first_layer", &first, 0, layers - 1));
    KH_TRY(wire_get_int(ask->body, "layers", &some, 0, layers));
    KH_TRY(wire_get_int(ask->body, "rounds", &rounds, 1, MOST_ROUNDS));
    KH_TRY(wire_get_int(ask->body, "seed", &seed, 0, (int64_t)1 << 53));
    KH_TRY(wire_get_int(ask->body, "members", &members, 1, MOST_LISTED));
    KH_TRY(wire_get_int(ask->body, "top_n", &tokens, 1, MOST_LISTED));
    *o = (kh_clusters_options){.count = (size_t)count,
                               .first_layer = (int)first,
                               .layers = (int)some,
                               .rounds = (int)rounds,
                               .seed = (uint64_t)seed,
                               .tokens = (size_t)tokens,
                               .members = (size_t)members,
                               .round = take_round,
                               .context = (void *)(uintptr_t)ask};
    return KH_OK;
}

kh_status wire_clusters(const wire_ask *ask)
{
    double start = wire_seconds();
    kh_clusters_options o;
    kh_clusters found;
    KH_TRY(read_options(ask, &o));
    KH_TRY(kh_clusters_open(&found, ask->inspector, &o));
    json_t *list = json_array();
    for (size_t k = 0; k < found.count; k++)
        json_array_append_new(list, cluster_json(ask, &found.clusters[k]));
    json_t *done = json_pack("{s:s, s:o, s:I, s:i, s:i, s:i, s:b, s:o, s:o}", "type", "done",
                             "clusters", list, "neurons", (json_int_t)found.neurons, "first_layer",
                             found.first_layer, "layers", found.layers, "rounds", found.rounds,
                             "settled", found.settled, "cosine", wire_real(found.cosine), "seconds",
                             wire_real(wire_seconds() - start));
    kh_clusters_free(&found);
    return wire_send(ask, done);
}
