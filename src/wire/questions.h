/* wire/questions.h: questions of inspection in JSON, and their answers: what the debug routes and the command line's
 * --json have in common (docs/debugger.md has the members). Each reads its subject from the request. */
#ifndef KH_WIRE_QUESTIONS_H
#define KH_WIRE_QUESTIONS_H

#include "wire/subject.h"
#include "wire/vectors.h"

/* Where an answer goes, value by value. send takes the value; NULL means that there was no memory. */
typedef struct wire_sink {
    kh_status (*send)(void *context, json_t *value);
    void *context;
} wire_sink;

typedef struct wire_ask {
    const kh_model *model;
    kh_inspector *inspector;
    const json_t *body;
    wire_sink sink;
    json_t **
        kept; /* NULL, or where an answer leaves what the next question may ask again; the caller's to free */
    const wire_vectors *vectors; /* that control_vectors of a request name; NULL: none */
    const char
        *labels; /* the file of labels, beside which top tokens are kept; NULL: there is none */
} wire_ask;

/* Hands on a value of the answer, which it takes; KH_ERR_MEMORY where a part of it is missing. */
kh_status wire_send(const wire_ask *ask, json_t *value);

/* One document each. */
kh_status wire_why(const wire_ask *ask);
kh_status wire_head(const wire_ask *ask);
kh_status wire_neurons(const wire_ask *ask);
kh_status wire_neuron(const wire_ask *ask);
kh_status wire_next(const wire_ask *ask);
kh_status wire_search(const wire_ask *ask);
kh_status wire_find_heads(const wire_ask *ask);
kh_status wire_activations(const wire_ask *ask); /* of several prompts, or of the subject */
/* By text; needs no inspector. KH_ERR_UNSUPPORTED where the program was built without SQLite, and the next too. */
kh_status wire_search_text(const wire_ask *ask);
/* Documents one after the other, the last of type "done". */
kh_status wire_search_table(const wire_ask *ask); /* makes what the above looks in */
kh_status wire_clusters(const wire_ask *ask);
kh_status wire_lens(const wire_ask *ask);
kh_status wire_edit(const wire_ask *ask);
kh_status wire_patch(const wire_ask *ask);

kh_status wire_steer(const wire_ask *ask); /* one document */

/* LM-Debugger's three calls, a document each; the first reads layer and dim from the body. */
kh_status wire_lm_projections(const wire_ask *ask);
kh_status wire_lm_data(const wire_ask *ask);
kh_status wire_lm_generate(const wire_ask *ask);
/* The subject read by the question's inspector and by another one, with the text "other" where there is one; `a` and `b`
 * name the files. Documents one after the other. */
kh_status wire_diff(const wire_ask *ask, kh_inspector *other, const char *a, const char *b);

/* A control vector from a request: pairs, prompts, or from (and minus). */
kh_status wire_learn(const wire_ask *ask, kh_control **out);
/* [{"layer", "norm", "top", "bottom"}] */
kh_status wire_control_layers(const wire_ask *ask, const kh_control *control, json_t **out);
/* Adds what a request steers by to the edits of its subject, which look at *steering from then on (NULL where it steers by
 * nothing); close it behind them, on failure too. */
kh_status wire_steer_subject(wire_subject *subject, const wire_ask *ask, kh_steering **steering);
/* Reads the subject and makes it the inspector's text, edited and steered as the request says. */
kh_status wire_set_subject(const wire_ask *ask);

/* A subject whose text is the member `name`, a text or ids; with the template and edits of the request. */
kh_status wire_named_subject(wire_subject *out, const wire_ask *ask, const char *name);
/* The two most probable tokens behind `position`, best first. */
kh_status wire_best_two(const wire_ask *ask, size_t position, kh_lens_token *best /* [2] */);
/* The tokens a and b of a request that need not be about a logit: KH_TOKEN_NONE both. */
kh_status wire_maybe_question(const wire_ask *ask, int32_t *a, int32_t *b);
/* A list [count] of lists: the tokens that value vectors promote, each at its upper end or, where the coefficient is
 * negative, at the lower one. NULL: no memory; coefficients NULL: all upper ends. */
kh_status wire_promoted(const wire_ask *ask, const kh_component *neurons, const float *coefficients,
                        size_t count, json_t **out);
double wire_seconds(void); /* a clock that only runs forward */

#endif
