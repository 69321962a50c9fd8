/* What answers are steered by: control vectors by number, whose strengths change while the server runs.
 *
 *     vectors    0: happy.gguf x 0.8    1: formal.gguf x 0          from the command line, or learned over HTTP
 *     steering   their sum, a row for each layer                    one observer, which all slots share
 *
 * Rows that are read from now on are steered by the new sum. What an idle slot has read under the old one is forgotten; a
 * slot that answers goes on, steered otherwise from its next token, and forgets when it is done. Without any vector no
 * slot has an observer, and none costs anything. */
#include "base/fail.h"
#include "server/server_impl.h"
#include "wire/questions.h"

#include <math.h>
#include <string.h>

static int any(const server *s)
{
    for (size_t i = 0; i < s->vectors.count; i++)
        if (s->vectors.items[i].scale != 0) return 1;
    return 0;
}

static kh_status apply(server *s)
{
    const kh_probe *probe = any(s) ? kh_steering_probe(s->steering) : NULL;
    kh_steering_clear(s->steering);
    KH_TRY(wire_vectors_sum(&s->vectors, NULL, s->steering));
    for (size_t i = 0; i < s->options.slots; i++) {
        server_slot *slot = &s->slots[i];
        kh_session_observe(slot->session, probe);
        slot->stale = slot->job != NULL;
        if (!slot->job) KH_TRY(kh_session_rewind(slot->session, 0));
    }
    return KH_OK;
}

kh_status server_steering_open(server *s)
{
    KH_TRY(kh_steering_open(&s->steering, s->model));
    for (size_t i = 0; i < s->options.vector_count; i++) {
        const server_vector *v = &s->options.vectors[i];
        kh_control *control = NULL;
        KH_TRY(kh_control_open(&control, s->model, v->path));
        KH_TRY(wire_vectors_add(&s->vectors, control, v->path, v->scale, v->first, v->last));
    }
    return apply(s);
}

void server_steering_close(server *s)
{
    wire_vectors_free(&s->vectors);
    kh_steering_close(s->steering);
    s->steering = NULL;
}

kh_status server_steering_list(server_job *job)
{
    return server_send(job, wire_vectors_json(&job->server->vectors));
}

kh_status server_steering_set(server_job *job)
{
    const json_t *list = NULL;
    KH_TRY(wire_get_array(server_job_body(job), "list", &list));
    if (!list) KH_FAIL(KH_ERR_ARGUMENT, "a list is expected: [{\"id\": 0, \"scale\": 1.0}]");
    if (!job->server->steering) KH_FAIL(KH_ERR_UNSUPPORTED, "this model's answers are not steered");
    KH_TRY(wire_vectors_set(&job->server->vectors, list));
    KH_TRY(apply(job->server));
    return server_steering_list(job);
}

/* Takes the layers. */
static kh_status send_vector(server_job *job, int64_t id, json_t *layers)
{
    const wire_vector *v = &job->server->vectors.items[id];
    return server_send(job, json_pack("{s:I, s:s, s:o, s:o}", "id", (json_int_t)id, "path", v->name,
                                      "scale", wire_real(v->scale), "layers", layers));
}

/* What is learned is the server's only when it is known what it writes: a client that left has added nothing. */
static kh_status learn(server *s, const wire_ask *ask, json_t **layers)
{
    const char *name = "learned";
    double scale = 0;
    kh_control *control = NULL;
    KH_TRY(wire_get_text(ask->body, "name", &name, NULL));
    KH_TRY(wire_get_real(ask->body, "scale", &scale, -1e6, 1e6));
    KH_TRY(wire_learn(ask, &control));
    kh_status status = wire_control_layers(ask, control, layers);
    if (status != KH_OK) {
        kh_control_close(control);
        return status;
    }
    KH_TRY(wire_vectors_add(&s->vectors, control, name, scale, 0, 0));
    return scale != 0 ? apply(s) : KH_OK;
}

kh_status server_steering_learn(server_job *job, const wire_ask *ask)
{
    const wire_vectors *list = &job->server->vectors;
    json_t *layers = NULL;
    int64_t id = -1;
    KH_TRY(wire_get_int(ask->body, "id", &id, 0, INT64_MAX));
    if (id >= (int64_t)list->count)
        KH_FAIL(KH_ERR_ARGUMENT, "id: there is no control vector %lld", (long long)id);
    kh_status status = id >= 0 ? wire_control_layers(ask, list->items[id].control, &layers)
                               : learn(job->server, ask, &layers);
    if (status == KH_OK) return send_vector(job, id >= 0 ? id : (int64_t)list->count - 1, layers);
    json_decref(layers);
    return status;
}
