/* LM-Debugger's three routes, by the inspector of the debug routes. What they answer is wire/lm_debugger.c; here are its
 * paths, which have two numbers in them where ours have one part. */
#include "base/fail.h"
#include "server/server_impl.h"
#include "wire/questions.h"

#include <string.h>

/* Digits, at most nine. */
static int number_of(const char *text, size_t n, json_int_t *out)
{
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9') return 0;
        *out = *out * 10 + (text[i] - '0');
    }
    return n > 0 && n < 10;
}

static kh_status projections(server_job *job)
{
    const char *part = server_job_part(job);
    size_t n = strcspn(part, "/");
    json_int_t layer, dim;
    if (!number_of(part, n, &layer) || !part[n] ||
        !number_of(part + n + 1, strlen(part + n + 1), &dim))
        KH_FAIL(KH_ERR_ARGUMENT, "%.40s: numbers are expected: /get_projections/layer/12/dim/345",
                part);
    if (json_object_set_new(job->body, "layer", json_integer(layer)) != 0 ||
        json_object_set_new(job->body, "dim", json_integer(dim)) != 0)
        KH_FAIL(KH_ERR_MEMORY, "no memory for a request");
    return server_inspect(job, wire_lm_projections, SERVER_JSON);
}

static kh_status data(server_job *job)
{
    return server_inspect(job, wire_lm_data, SERVER_JSON);
}

static kh_status generate(server_job *job)
{
    return server_inspect(job, wire_lm_generate, SERVER_JSON);
}

const server_route server_routes_lmdebugger[] = {
    {"GET", "/get_projections/layer/{layer}/dim/{dim}", SERVER_WORKER, projections,
     "LM-Debugger's: the tokens that a value vector promotes", 0, NULL},
    {"POST", "/get_data", SERVER_WORKER, data,
     "LM-Debugger's: predictions before and after each feed-forward layer, and its dominant "
     "neurons",
     0, "prompt:text interventions:array"},
    {"POST", "/generate", SERVER_WORKER, generate,
     "LM-Debugger's: a prompt continued, greedily, under interventions", 0,
     "prompt:text generate_k:int interventions:array"},
    {NULL, NULL, SERVER_HERE, NULL, NULL, 0, NULL}};
