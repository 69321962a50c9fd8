/* keyhole/inspect.h: why a model said something, and what it says when a part of it is changed.
 *
 * An inspector holds one text and the edits under which the model reads it. Every answer is computed when it is
 * asked for, by reading the rows in question again through the one forward pass with an observer attached: what
 * nobody asks for costs nothing, and no array grows with layers times tokens. Rows are read again in whole
 * blocks of KH_INSPECT_BLOCK positions, so an answer does not depend on how much is asked at once.
 *
 * Layers, heads, neurons and positions count from 0. Only decoders can be inspected; others are
 * KH_ERR_UNSUPPORTED, by name. */
#ifndef KEYHOLE_INSPECT_H
#define KEYHOLE_INSPECT_H

#include <keyhole/model.h>
#include <keyhole/points.h>
#include <keyhole/session.h>
#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { KH_INSPECT_BLOCK = 32 };

/* ---- the names of parts ---- */

/* What adds to the residual stream, and what can be edited. Texts, in any case of letters:
 *
 *     L12N345  L12.N345  L12D345   neuron 345 of layer 12: its coefficient, act(gate) * up
 *     L5H3     L5.H3               head 3 of layer 5: z, its weighted sum of values
 *     L5H3K17                      the weight of key 17 in the rows of that head
 *     5_attn_out  5_mlp_out        what attention and feed-forward of layer 5 add to the residual stream
 *     5_pre  5_mid  5_post         the residual stream before, inside and behind layer 5
 *     embed                        the embeddings that the stream begins with */
typedef enum kh_component_kind {
    KH_COMPONENT_NEURON,
    KH_COMPONENT_HEAD,
    KH_COMPONENT_KEY,
    KH_COMPONENT_ATTENTION,
    KH_COMPONENT_MLP,
    KH_COMPONENT_PRE,
    KH_COMPONENT_MID,
    KH_COMPONENT_POST,
    KH_COMPONENT_EMBED,
    KH_COMPONENT_BIAS /* of the accounting: all biases together; cannot be edited */
} kh_component_kind;

typedef struct kh_component {
    kh_component_kind kind;
    int layer; /* -1: embeddings */
    int index; /* neuron or head; else 0 */
    int key;   /* position of a key; else 0 */
} kh_component;

enum { KH_COMPONENT_TEXT = 40 };
/* The canonical text, cut to `size`; returns its length. */
KH_API size_t kh_component_text(const kh_component *part, char *text, size_t size);
/* KH_ERR_ARGUMENT with a sentence that says what is expected; parts that the model does not have are refused
 * with the range that it has. */
KH_API kh_status kh_component_parse(kh_component *out, const kh_model *model, const char *text);

/* ---- edits ---- */

typedef enum kh_edit_operation {
    KH_EDIT_ZERO,
    KH_EDIT_SCALE, /* times value */
    KH_EDIT_SET,   /* becomes value; of a head or a stream: every component of the vector */
    KH_EDIT_ADD,   /* plus value; of a vector: value times the direction */
    KH_EDIT_CLAMP, /* into [value, high] */
    KH_EDIT_MEAN, /* becomes its mean over the text's prompt, as the model reads it without edits */
    KH_EDIT_SWAP, /* exchanged with part `other` of the same kind and layer; of a stream: what it has of one
                        direction becomes what it has of the other, and the reverse */
    KH_EDIT_PROJECT, /* of a stream: loses what it has of the direction */
    KH_EDIT_COMPAT, /* neurons, as LM-Debugger: the pre-activation becomes S + 0.01 (value > 0) or 0 */
    KH_EDIT_EXACT /* neurons: |coefficient| times the norm of the value vector becomes S + 0.01, with the
                        sign of value. S: the largest such score of the layer at the prompt's last position */
} kh_edit_operation;

/* A direction of the residual stream, of length 1 unless it is a vector of the caller's. */
typedef enum kh_direction_kind {
    KH_DIRECTION_NONE,
    KH_DIRECTION_TOKEN,  /* the row of the output head, with the final norm's gain */
    KH_DIRECTION_NEURON, /* a value vector */
    KH_DIRECTION_VECTOR  /* [D] of the caller, as it is */
} kh_direction_kind;
typedef struct kh_direction {
    kh_direction_kind kind;
    int32_t token;     /* TOKEN */
    int layer, neuron; /* NEURON */
    const float *data; /* VECTOR [D]; must outlive the edit */
} kh_direction;

enum { KH_EDIT_EVERYWHERE = INT32_MAX, KH_EDIT_LAST = -1 };

/* One change. It applies to rows whose position is in [first, last] and whose step is in [first_step, last_step]:
 * the prompt is step 0, the row of the n-th generated token is step n. first KH_EDIT_LAST: the prompt's last. */
typedef struct kh_edit {
    kh_component part;
    kh_edit_operation operation;
    float value, high;
    int other;
    kh_direction direction, second;
    int32_t first, last;
    int32_t first_step, last_step;
} kh_edit;

/* The text of an edit, as files, flags and the page have it:
 *
 *     PART ":" OPERATION [ "@" POSITIONS ] [ "/" STEPS ]
 *
 *     L12H3:zero            5_mlp_out:scale=0.5@3-7        L12N345:set=2.5/1-        L12N345:compat=1
 *     L3H1K0:zero@last      L12N345:clamp=-1..1            L12H3:swap=L12H5          L12H3:mean
 *     20_post:add=4*" Paris"    20_post:project=L3N12      20_post:swap=" Paris"," Rome"
 *
 * POSITIONS and STEPS are "3", "0-5", "7-"; POSITIONS may be "last". A direction is a token in quotes (one
 * token, JSON's escapes), "#1234" (its id), or a neuron. */
KH_API kh_status kh_edit_parse(kh_edit *out, const kh_model *model, const char *text);
/* The canonical text; free with kh_free_text. A direction that is the caller's vector is KH_ERR_UNSUPPORTED. */
KH_API kh_status kh_edit_text(const kh_edit *edit, const kh_model *model, char **text);

/* ---- the inspector ---- */

typedef struct kh_inspector kh_inspector;

/* For one model; `options` NULL: defaults. The setting of attention and feed-forward is that of every answer. */
KH_API kh_status kh_inspector_open(kh_inspector **out, const kh_model *model,
                                   const kh_session_options *options);
KH_API void kh_inspector_close(kh_inspector *inspector); /* takes NULL */
/* Asks a running call to stop soon: KH_ERR_STOPPED. From any thread or signal handler. */
KH_API void kh_inspector_stop(kh_inspector *inspector);
KH_API const char *kh_inspector_attn(const kh_inspector *inspector);

/* The text to look at, and the edits under which it is read (copied, but for vectors of the caller). The first
 * `prompt` ids count as the prompt (0: all). Nothing is computed yet; what was read before and stays the same
 * is not read again. */
KH_API kh_status kh_inspector_set(kh_inspector *inspector, const int32_t *ids, size_t count,
                                  size_t prompt, const kh_edit *edits, size_t edit_count);
KH_API size_t kh_inspector_length(const kh_inspector *inspector);
KH_API const int32_t *kh_inspector_tokens(const kh_inspector *inspector); /* [length] */

/* Goes on with the text: what is generated becomes part of it. As kh_generate, under the edits. */
KH_API kh_status kh_inspector_generate(kh_inspector *inspector, const kh_generate_options *options,
                                       kh_generate_result *out);

/* Reads the text up to a position, which other calls do by themselves: for those who tell how far a long one is. */
KH_API kh_status kh_inspector_read(kh_inspector *inspector, size_t position);

/* Observes the rows of positions [first, first + count) as they are read again, under the edits, which come
 * before the observer at every point. `seen` is called with the position of the first row before each block. */
KH_API kh_status kh_inspector_watch(kh_inspector *inspector, size_t first, size_t count,
                                    const kh_probe *probe,
                                    void (*seen)(void *context, size_t position, size_t rows),
                                    void *context);

/* ---- lens: what the stream would say if the model ended here ---- */

typedef enum kh_tap {
    KH_TAP_BEFORE,  /* resid_pre: before attention */
    KH_TAP_BETWEEN, /* resid_mid: between attention and feed-forward; parallel blocks have none */
    KH_TAP_AFTER    /* resid_post */
} kh_tap;
KH_API const char *kh_tap_name(kh_tap tap); /* "before" */

typedef struct kh_lens_token {
    int32_t id;
    float logit, probability;
    uint32_t rank; /* 0: the most probable; of equals the lower id first */
} kh_lens_token;

typedef struct kh_lens_cell {
    size_t position;
    int layer;
    kh_tap tap;
    size_t top_count, bottom_count, tracked_count;
    const kh_lens_token *top, *bottom; /* best first; worst first */
    const kh_lens_token *tracked;      /* in the order of the options */
    double entropy;                    /* nats */
    double kl;                         /* KL(model's own distribution here || this cell), nats */
    double norm;                       /* of the stream */
    double
        next; /* log of the probability that the model gives, here, to the text's next token; NaN at its end */
} kh_lens_cell;

typedef struct kh_lens_options {
    size_t first, count;     /* positions; count 0: to the end */
    int first_layer, layers; /* layers 0: to the last */
    unsigned taps;           /* bits 1 << KH_TAP_x; 0: after */
    int top, bottom;         /* tokens of each cell; top 0: 10 */
    const int32_t *tracked;  /* [tracked_count] */
    size_t tracked_count;
    /* Positions ascending, in a position layers, in a layer taps. Its arrays are valid during the call; a status
     * other than KH_OK stops. */
    kh_status (*cell)(void *context, const kh_lens_cell *cell);
    void *context;
} kh_lens_options;

/* Each tap goes through the final norm, with its own scale, the output head and its soft-cap. */
KH_API kh_status kh_lens(kh_inspector *inspector, const kh_lens_options *options);

typedef struct kh_lens_need {
    size_t cells, rows; /* rows that are read again */
    double operations;  /* multiplications and additions of both */
    uint64_t bytes;     /* of memory, beside the session's */
} kh_lens_need;
/* What that will cost. */
KH_API kh_status kh_lens_cost(const kh_inspector *inspector, const kh_lens_options *options,
                              kh_lens_need *out);

/* ---- why: the exact account of a logit ---- */

/* In place of a token: none at all; the most probable one at the position that is not the other token. */
enum { KH_TOKEN_NONE = -1, KH_TOKEN_BEST = -2 };

typedef struct kh_share {
    kh_component part;
    double value;        /* of the logit, or of the difference of logits */
    float coefficient;   /* of a neuron; else 0 */
    int32_t source;      /* of a head: the position whose value gave most of it; else -1 */
    double source_value; /* what that position gave */
} kh_share;

typedef struct kh_why_options {
    size_t position; /* whose next token is explained */
    int32_t a, b;    /* tokens, or KH_TOKEN_BEST; b KH_TOKEN_NONE: the logit of a alone */
    size_t most;     /* heads, neurons and layers that are listed, each; 0: 12 */
} kh_why_options;

typedef struct kh_why {
    kh_lens_token a, b;    /* as the model gives them here; b.id KH_TOKEN_NONE: there is none */
    double total;          /* as the model computed it, before a soft-cap */
    double sum;            /* of all parts */
    double leftover;       /* total - sum */
    double scale;          /* of the final norm here: what the stream was divided by */
    kh_share embed, bias;  /* bias: of attention, feed-forward, final norm and head */
    double heads, neurons; /* all of them */
    double mlps;           /* feed-forward layers whose neurons are not told apart (experts) */
    double edits;          /* what edits wrote into the stream, or into what a layer adds to it */
    kh_share *strong_heads, *strong_neurons; /* by size of the value, largest first */
    size_t head_count, neuron_count;
    kh_share *attention, *mlp; /* [layers] the sum of each layer's heads, and of its neurons */
    int layers;
} kh_why;

/* logit(a) - logit(b) = embedding + every head + every neuron + biases (+ what edits wrote), with the final norm linearised at
 * its observed scale. Free with kh_why_free. */
KH_API kh_status kh_why_open(kh_why *out, kh_inspector *inspector, const kh_why_options *options);
KH_API void kh_why_free(kh_why *why);
/* The value of one part, listed or not, at the same position and for the same tokens. */
KH_API kh_status kh_why_part(kh_inspector *inspector, const kh_why_options *options,
                             const kh_component *part, kh_share *out);

typedef struct kh_vocabulary_end {
    kh_lens_token *tokens; /* [count]; probability is 0: these are raw logits */
    size_t count;
} kh_vocabulary_end;
KH_API void kh_vocabulary_end_free(kh_vocabulary_end *end);

/* ---- heads: a row of attention as it was computed ---- */

typedef struct kh_head_key {
    uint32_t position;
    float weight; /* after the softmax */
    double norm;  /* weight times the length of what its value writes into the stream */
    double value; /* what it gives to the logit that is asked about; 0 where none is */
} kh_head_key;

typedef struct kh_head_options {
    size_t position;
    int layer, head;
    int32_t a, b; /* as of why; a -1: no logit */
} kh_head_options;

typedef struct kh_head {
    kh_head_key *keys; /* [count], positions ascending */
    size_t count;
    double kept; /* share of the softmax over all visible keys that these hold */
    double entropy;
    double value; /* of all keys */
} kh_head;
KH_API kh_status kh_head_open(kh_head *out, kh_inspector *inspector,
                              const kh_head_options *options);
KH_API void kh_head_free(kh_head *head);
/* What a head writes into the stream at a position, as raw products with the output head: the `tokens` most and least
 * promoted. Free both with kh_vocabulary_end_free. */
KH_API kh_status kh_head_writes(kh_inspector *inspector, size_t position, int layer, int head,
                                size_t tokens, kh_vocabulary_end *top, kh_vocabulary_end *bottom);

/* ---- neurons ---- */

typedef struct kh_neuron_here {
    int layer, neuron;
    float coefficient; /* act(gate) * up */
    double score;      /* |coefficient| times the norm of the value vector */
    double value;      /* of logit(a) [- logit(b)]; 0 where none is asked about */
} kh_neuron_here;

typedef struct kh_neurons_options {
    size_t position;
    int layer;    /* -1: all */
    int32_t a, b; /* as of why; a -1: no logit */
    size_t most;  /* of each layer; 0: 10 */
    int by_value; /* 1: by size of the value instead of the score */
} kh_neurons_options;

/* The dominant neurons: *out [*count], layer by layer, strongest first; free with kh_neurons_free. */
KH_API kh_status kh_neurons(kh_inspector *inspector, const kh_neurons_options *options,
                            kh_neuron_here **out, size_t *count);
KH_API void kh_neurons_free(kh_neuron_here *neurons);

typedef struct kh_neighbour {
    int layer, neuron;
    double cosine;
} kh_neighbour;

typedef struct kh_neuron_options {
    int layer, neuron;
    size_t tokens;     /* of each end; 0: 50 */
    size_t neighbours; /* 0: none */
    int vectors;       /* 1: gate and up in the vocabulary too */
} kh_neuron_options;

/* What a neuron is, whatever the text: raw products with the output head, as LM-Debugger shows them. */
typedef struct kh_neuron {
    double value_norm, gate_norm, up_norm; /* gate_norm 0: the layer has no gate */
    kh_vocabulary_end value_top, value_bottom;
    kh_vocabulary_end gate_top, gate_bottom, up_top, up_bottom;
    kh_neighbour *neighbours; /* by cosine of the value vectors, over all layers */
    size_t neighbour_count;
} kh_neuron;
KH_API kh_status kh_neuron_open(kh_neuron *out, kh_inspector *inspector,
                                const kh_neuron_options *options);
KH_API void kh_neuron_free(kh_neuron *neuron);

/* The value vectors of many neurons in the vocabulary at once: their upper ends, top [count], and where `bottom` is not
 * NULL their lower ends. Free each with kh_vocabulary_end_free, on failure too. */
KH_API kh_status kh_neuron_tokens(kh_inspector *inspector, const kh_component *neurons,
                                  size_t count, size_t tokens, kh_vocabulary_end *top,
                                  kh_vocabulary_end *bottom);

/* What it does at a position. */
typedef struct kh_neuron_state {
    float gate, up;    /* before the activation; up 1 where the layer has no gate */
    float activated;   /* act(gate) */
    float coefficient; /* activated * up */
    double score, value;
} kh_neuron_state;
KH_API kh_status kh_neuron_at(kh_inspector *inspector, size_t position, int layer, int neuron,
                              int32_t a, int32_t b, kh_neuron_state *out);

/* ---- search: which parts write a token ---- */

typedef enum kh_search_order {
    KH_SEARCH_LOGIT,  /* e . v: what a coefficient of 1 gives to the token's raw logit */
    KH_SEARCH_COSINE, /* the same of both at length 1 */
    KH_SEARCH_RANK /* the token's rank among all tokens that the value vector promotes (or suppresses), best first;
                         among the neurons with the largest logits */
} kh_search_order;

typedef struct kh_search_options {
    const int32_t *tokens; /* [count]; of several the mean of their rows is asked for */
    size_t count;
    kh_search_order order;
    int ends; /* 1: neurons that promote, 2: that suppress, 3 or 0: both, those that promote first */
    size_t most; /* of each end; 0: 20 */
} kh_search_options;

typedef struct kh_search_hit {
    kh_component part;
    double logit, cosine;
    uint32_t rank; /* of the best of the tokens, from the end that it is at; of heads 0 */
} kh_search_hit;

/* Every neuron of every layer, exactly: one product with each down projection. *out [*count]; free with
 * kh_search_free. */
KH_API kh_status kh_search(kh_inspector *inspector, const kh_search_options *options,
                           kh_search_hit **out, size_t *count);
/* Heads by how far a z of length 1 can move the token's logit (logit), and by that over the most that any direction of
 * the stream can be moved, the root of the sum of squares of what the head's columns hold (cosine). */
KH_API kh_status kh_search_heads(kh_inspector *inspector, const kh_search_options *options,
                                 kh_search_hit **out, size_t *count);
KH_API void kh_search_free(kh_search_hit *hits);

/* ---- clusters: value vectors that point the same way ---- */

typedef struct kh_cluster {
    size_t size;           /* neurons */
    double cosine;         /* with the centre, mean over them */
    kh_vocabulary_end top; /* the centre, of length 1, as a raw product with the output head */
    kh_vocabulary_end bottom;
    kh_neighbour *members; /* [member_count] nearest to the centre first */
    size_t member_count;
} kh_cluster;

typedef struct kh_clusters_options {
    size_t count;              /* clusters: 1 to 4096, at most one for each neuron */
    int first_layer, layers;   /* layers 0: to the last */
    int rounds;                /* at most; 0: 20 */
    uint64_t seed;             /* of the neurons that are the first centres */
    const kh_component *start; /* NULL, or [count] neurons in their place */
    size_t tokens, members;    /* of each cluster; 0: 10 */
    /* Behind each round: how many neurons changed their cluster, and the mean cosine of all. NULL: nobody asks. A status
     * other than KH_OK stops. */
    kh_status (*round)(void *context, int round, size_t moved, double cosine);
    void *context;
} kh_clusters_options;

typedef struct kh_clusters {
    kh_cluster
        *clusters; /* [count] largest first, of equal size in the order of their first centres */
    size_t count;
    int32_t *
        of; /* [layers][neurons of a layer] each neuron's cluster; -1: it is 0, or of a layer of experts */
    size_t neurons; /* that are in one */
    int first_layer, layers;
    int rounds, settled; /* settled 1: nothing moved in the last round */
    double cosine;       /* mean over all neurons */
} kh_clusters;

/* Spherical k-means over the value vectors of all neurons, or of some layers: a vector belongs to the centre with which its
 * cosine is largest, a centre is the direction of its vectors' sum at length 1. Holds the centres, a block of vectors and a
 * number for each neuron, never all vectors. The same options give the same bits. Free with kh_clusters_free. */
KH_API kh_status kh_clusters_open(kh_clusters *out, kh_inspector *inspector,
                                  const kh_clusters_options *options);
KH_API void kh_clusters_free(kh_clusters *clusters);

/* ---- finder: heads by what they do on the inspector's text ---- */

typedef struct kh_head_scores {
    kh_component head;
    double previous;  /* mean weight on the position before */
    double sink;      /* on position 0, of rows behind it */
    double duplicate; /* on earlier positions of the same token, of rows that have one */
    double
        induction; /* on positions behind an earlier one of the same token, of rows that have one */
    double entropy;   /* nats, mean over rows */
    double retrieval; /* weight of the row `query` on positions [key, key + keys) */
} kh_head_scores;

typedef struct kh_find_options {
    size_t query;     /* a position */
    size_t key, keys; /* positions that it is asked about; keys 0: no retrieval */
} kh_find_options;

/* out [layers * heads] in their order. Reads the whole text again, row by row. */
KH_API kh_status kh_find_heads(kh_inspector *inspector, const kh_find_options *options,
                               kh_head_scores *out);

/* ---- base beside edited ---- */

typedef struct kh_compared {
    size_t position;
    double kl;                          /* KL(edited || base) of the next token, nats */
    kh_lens_token base_top, edited_top; /* the most probable of each */
    double base_entropy, edited_entropy;
    float base_next,
        edited_next; /* probability of the text's own next token; NaN behind the last */
} kh_compared;

/* Both distributions at positions [first, length) of the inspector's text: as it is read with no edits, and under
 * its edits. */
KH_API kh_status kh_compare(kh_inspector *inspector, size_t first,
                            kh_status (*row)(void *context, const kh_compared *row), void *context);

/* ---- does all this hold for the file at hand? ---- */

/* Proves on a short text of its own, under the inspector's settings, that probabilities sum to 1, that the last cell of
 * a lens is the model's own distribution, that an account adds up to its logit, that edits which change nothing change
 * no bit, and that a generated text looks as it does when it is read. `check` is told each: passed 1, 0, or -1 where it could not be run, and a
 * sentence with the number that was found. Takes the inspector's text. KH_ERR_CHECK when one failed. */
KH_API kh_status kh_inspector_check(kh_inspector *inspector,
                                    void (*check)(void *context, const char *name, int passed,
                                                  const char *detail),
                                    void *context);

/* ---- patch: what of one prompt makes another one answer like it ---- */

/* Two prompts of as many tokens, aligned token by token: the inspector's text is the corrupted one, `clean` the other. A
 * cell is the corrupted prompt with one activation of the clean one written in. */
typedef struct kh_patch_cell {
    kh_component
        part; /* what was written: a stream, attention or feed-forward of a layer, or a head */
    int32_t position; /* where; -1: at every position */
    double value;     /* logit(a) - logit(b) behind the last position, or logit(a) where b is -1 */
    double share;     /* 0: as corrupted, 1: as clean; NaN where both are the same */
} kh_patch_cell;

typedef struct kh_patch_options {
    const int32_t *clean; /* [count] */
    size_t count;
    int32_t a, b;
    unsigned
        kinds; /* bits 1 << KH_COMPONENT_x of PRE, MID, POST, ATTENTION, MLP (each at every position)
                         and HEAD; 0: PRE */
    int32_t position;        /* of heads; negative: all positions at once */
    int first_layer, layers; /* layers 0: to the last */
    int estimate;            /* 1: attribution patching, below */
    /* Kind by kind, in a kind layers, in a layer positions or heads ascending. A status other than KH_OK stops. */
    kh_status (*cell)(void *context, const kh_patch_cell *cell);
    void *context;
} kh_patch_options;

typedef struct kh_patch {
    double clean, corrupted;  /* the metric of both prompts */
    size_t first, differing;  /* the first position that differs; how many do */
    size_t cells, runs, rows; /* rows that the sweep reads; full passes would read runs * length */
    uint64_t bytes;           /* of memory, beside the session's; of estimates: never more */
} kh_patch;

/* The sweep. Nothing before the patched position is read again. *out is complete before the first cell. Prompts of
 * different length are KH_ERR_ARGUMENT, with both lengths and where they part.
 *
 * With `estimate` the same cells to first order, all from one backward pass of the metric through the corrupted prompt:
 * value = corrupted + gradient . (activation of the clean run - activation of the corrupted one). Kept keys count as
 * given. `rows` then counts the whole text three times: read, read again, taken back. Under edits, and with attention that
 * has no gradient, KH_ERR_UNSUPPORTED. */
KH_API kh_status kh_patch_sweep(kh_inspector *inspector, const kh_patch_options *options,
                                kh_patch *out);

typedef enum kh_patch_input {
    KH_PATCH_INPUTS, /* queries, keys and values */
    KH_PATCH_QUERIES,
    KH_PATCH_KEYS,
    KH_PATCH_VALUES
} kh_patch_input;

/* Path patching: the sender is a head as in the clean run, every other head stays as in the corrupted one, and what
 * arrives at the receiver is all that changes: at the logits (receiver NULL: the direct path, feed-forward layers
 * included), or at the input of a head or of a feed-forward layer (all of it), whose output then goes on through the whole
 * corrupted model. Cells are the senders, heads of the asked layers below the receiver; below feed-forward are the heads
 * of its own layer too, unless the block is parallel. kinds, position and estimate of the options are not looked at. */
KH_API kh_status kh_patch_paths(kh_inspector *inspector, const kh_patch_options *options,
                                const kh_component *receiver, kh_patch_input input, kh_patch *out);

/* What a sweep will cost: cells, runs, rows and bytes; no metrics. */
KH_API kh_status kh_patch_cost(const kh_inspector *inspector, const kh_patch_options *options,
                               kh_patch *out);

/* ---- diff: where two readings part ---- */

/* What one position shows. Distances are |b - a| / |a| of the streams. */
typedef struct kh_diff_row {
    size_t position;
    int parted; /* 1: beyond the threshold somewhere */
    kh_component
        part; /* behind which, first: the embeddings, or a layer's attention or feed-forward */
    double distance;    /* there */
    double last;        /* behind the last layer */
    double kl;          /* KL(a || b) of the next token, nats */
    kh_lens_token a, b; /* the most probable of each */
} kh_diff_row;

typedef struct kh_diff_part {
    kh_component part;
    double apart; /* mean distance of the streams behind it; in parallel blocks of what it writes */
    double
        own; /* the same where b is given a's stream in front of every part: what this part alone does */
} kh_diff_part;

typedef struct kh_diff_options {
    double threshold; /* 0: 0.05 */
    int no_own;       /* 1: leaves out `own`, which costs a second reading of both */
    kh_status (*row)(void *context, const kh_diff_row *row); /* positions ascending */
    void *context;
} kh_diff_options;

typedef struct kh_diff {
    int parted;        /* 1: at `first` */
    kh_diff_row first; /* the first position that parts */
    double mean_kl, most_kl;
    size_t most_position; /* of most_kl */
    kh_diff_part *parts;  /* [count] in the order of the stream; free with kh_diff_free */
    size_t count;
} kh_diff;

/* Two inspectors with texts of as many tokens, of models of the same shape: the same text through two files, or with two
 * settings of attention, or two prompts of one model. They must not be the same one. */
KH_API kh_status kh_diff_open(kh_diff *out, kh_inspector *a, kh_inspector *b,
                              const kh_diff_options *options);
KH_API void kh_diff_free(kh_diff *diff);

/* ---- weights ---- */

/* The file with the edits as weights: scale and zero of neurons, heads, attention and feed-forward layers, and
 * project of a stream, everywhere (`@` and `/` are refused). Touched tensors become F16; written atomically. */
KH_API kh_status kh_edits_save(const kh_model *model, const kh_edit *edits, size_t count,
                               const char *path, size_t *touched);

#ifdef __cplusplus
}
#endif
#endif
