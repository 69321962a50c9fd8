/* Every allocation of inspection fails once, in the library and in the JSON of its answers: a sentence says so, no answer
 * comes with a part missing, nothing is left behind, and then it works. */
#include "base/alloc.h"
#include "base/fail.h"
#include "support/family_golden.h"
#include "support/fault_case.h"
#include "wire/json_value.h"
#include "wire/labels.h"
#include "wire/questions.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static kh_model *model;
static char saved[] = "/tmp/keyhole-test-XXXXXX", named[] = "/tmp/keyhole-test-XXXXXX";
static char folder[] = "/tmp/keyhole-test-XXXXXX", beside[64], table[128];
static size_t bytes; /* the size of the whole answer */
static const kh_session_options so = {.context = 40, .threads = 1};

/* Values and bytes of texts: what does not change from one time to the next, found without an allocation. */
static size_t size_of(json_t *value)
{
    const char *key;
    json_t *member;
    size_t i, n = 1 + json_string_length(value);
    json_object_foreach(value, key, member) n += strlen(key) + size_of(member);
    json_array_foreach(value, i, member) n += size_of(member);
    return n;
}

static kh_status add_size(void *context, json_t *value)
{
    *(size_t *)context += size_of(value);
    json_decref(value);
    return KH_OK;
}

/* A question from an inspector of its own; the answer is as long as the first time. */
static kh_status ask_it(kh_status (*question)(const wire_ask *), const char *body)
{
    size_t sum = 0;
    wire_ask ask = {.model = model, .sink = {add_size, &sum}, .labels = beside};
    json_t *asked = json_loads(body, 0, NULL);
    wire_begin();
    kh_status status = asked ? kh_inspector_open(&ask.inspector, model, &so) : KH_ERR_MEMORY;
    ask.body = asked;
    if (status == KH_OK) status = question(&ask);
    kh_inspector_close(ask.inspector);
    json_decref(asked);
    if (status == KH_OK && bytes == 0) bytes = sum;
    if (status == KH_OK && sum != bytes)
        fail_msg("an answer of size %zu, which was %zu", sum, bytes);
    return status;
}

#define TEXT                                                                                       \
    "\"tokens\": [3, 5, 7, 11, 13, 17, 19, 23, 29], \"edits\": [\"L1H1:zero\", \"L0N3:mean\"]"

static kh_status lens(void)
{
    return ask_it(wire_lens,
                  "{" TEXT ", \"top_n\": 3, \"bottom_n\": 2, \"tracked\": [5], \"first\": 5}");
}

static kh_status why(void)
{
    return ask_it(wire_why, "{" TEXT ", \"most\": 4}");
}

static kh_status head(void)
{
    return ask_it(wire_head, "{" TEXT ", \"part\": \"L1H0\", \"a\": 5}");
}

static kh_status neurons(void)
{
    return ask_it(wire_neurons, "{" TEXT ", \"most\": 2}");
}

static kh_status neuron(void)
{
    return ask_it(wire_neuron, "{" TEXT ", \"part\": \"L1N2\", \"top_n\": 3, \"neighbours\": 2}");
}

static kh_status activations(void)
{
    return ask_it(wire_activations,
                  "{\"prompts\": [\"a b\", \"c\"], \"edits\": [\"L1H1:zero\"], \"hook_point\": "
                  "\"resid_post,q.0,attn_rows.1,logits\", \"type\": \"all_tokens\"}");
}

static kh_status lm_data(void)
{
    return ask_it(wire_lm_data, "{\"prompt\": \"a b\", \"interventions\": [{\"layer\": 1, "
                                "\"dim\": 3, \"coeff\": 0}]}");
}

static kh_status lm_projections(void)
{
    return ask_it(wire_lm_projections, "{\"layer\": 1, \"dim\": 3}");
}

/* A label and a view are written, listed, carried out and in again. */
static kh_status labels(void)
{
    const wire_labels at = {named, model};
    json_t *out[4] = {NULL}, *label = json_pack("{s:s, s:s}", "part", "L0N1", "text", "x"),
           *view = json_pack("{s:s}", "query", "?q");
    kh_buf lines = {0};
    kh_status status = label && view ? wire_labels_put(&at, label, &out[0]) : KH_ERR_MEMORY;
    if (status == KH_OK) status = wire_views_put(&at, "first", view, &out[1]);
    if (status == KH_OK) status = wire_labels_list(&at, &out[2]);
    if (status == KH_OK) status = wire_labels_export(&at, &lines);
    if (status == KH_OK) status = wire_labels_import(&at, lines.data, lines.size, &out[3]);
    kh_buf_free(&lines);
    for (int i = 0; i < 4; i++) json_decref(out[i]);
    json_decref(label);
    json_decref(view);
    return status == KH_ERR_UNSUPPORTED ? KH_OK : status;
}

static kh_status clusters(void)
{
    return ask_it(wire_clusters, "{\"clusters\": 5, \"rounds\": 3, \"top_n\": 2, \"members\": 2}");
}

/* In the table that open_all made. */
static kh_status text_search(void)
{
    kh_status status = ask_it(wire_search_text, "{\"text\": \"a t\", \"most\": 3}");
    return status == KH_ERR_UNSUPPORTED ? KH_OK : status;
}

static kh_status make_table(void)
{
    kh_status status = ask_it(wire_search_table, "{}");
    const wire_labels at = {beside, model};
    json_t *out = NULL, *label = json_pack("{s:s, s:s}", "part", "L0N1", "text", "a word");
    if (status == KH_OK) status = wire_labels_put(&at, label, &out);
    json_decref(out);
    json_decref(label);
    return status == KH_ERR_UNSUPPORTED ? KH_OK : status;
}

static kh_status save(void)
{
    kh_edit edits[2];
    size_t touched;
    KH_TRY(kh_edit_parse(&edits[0], model, "L1N3:zero"));
    KH_TRY(kh_edit_parse(&edits[1], model, "0_mlp_out:project=L0N2"));
    return kh_edits_save(model, edits, 2, saved, &touched);
}

static void take_check(void *context, const char *name, int passed, const char *detail)
{
    (void)context, (void)name, (void)passed, (void)detail;
}

static kh_status check(void)
{
    kh_inspector *inspector = NULL;
    kh_status status = kh_inspector_open(&inspector, model, &so);
    if (status == KH_OK) status = kh_inspector_check(inspector, take_check, NULL);
    kh_inspector_close(inspector);
    return status;
}

#define FAILING(name, least)                                                                       \
    static void failing_##name(void **state)                                                       \
    {                                                                                              \
        (void)state;                                                                               \
        bytes = 0;                                                                                 \
        every_allocation_fails_once(#name, name, least);                                           \
    }

FAILING(lens, 50)
FAILING(why, 50)
FAILING(head, 50)
FAILING(neurons, 50)
FAILING(neuron, 50)
FAILING(activations, 50)
FAILING(lm_data, 50)
FAILING(lm_projections, 50)
FAILING(labels, 2)
FAILING(clusters, 50)
FAILING(text_search, 2)
FAILING(save, 10)
FAILING(check, 20)

static int open_all(void **state)
{
    (void)state;
    wire_setup();
    model = open_model(family_path(family_named("llama")));
    int file = mkstemp(saved), other = mkstemp(named);
    if (!mkdtemp(folder)) return -1;
    snprintf(beside, sizeof beside, "%s/labels.sqlite", folder);
    snprintf(table, sizeof table, "%s/tokens-%s.sqlite", folder,
             kh_model_get_info(model)->identity);
    if (make_table() != KH_OK) return -1;
    return file < 0 || other < 0 || unlink(named) != 0 ? -1 : close(file) | close(other);
}

static int close_all(void **state)
{
    (void)state;
    kh_model_close(model);
    unlink(named);
    unlink(beside);
    unlink(table);
    rmdir(folder);
    return unlink(saved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failing_lens),        cmocka_unit_test(failing_why),
        cmocka_unit_test(failing_head),        cmocka_unit_test(failing_neurons),
        cmocka_unit_test(failing_neuron),      cmocka_unit_test(failing_activations),
        cmocka_unit_test(failing_lm_data),     cmocka_unit_test(failing_lm_projections),
        cmocka_unit_test(failing_labels),      cmocka_unit_test(failing_clusters),
        cmocka_unit_test(failing_text_search), cmocka_unit_test(failing_save),
        cmocka_unit_test(failing_check)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
