/* attn/attn.h: attention for the forward pass: the plan (which method where) and the op.
 *
 * What one layer does with a batch:
 *
 *   k, v of all rows --kh_kv_write--> pages of each sequence
 *   work items = (span, key head g, run of heads with one setting, tile of tokens, chunk of keys)
 *     select   a method turns a tile of query rows into keys (ranges or indices with scores)
 *     attend   the shared scorer turns keys into partial results (m, u, w)
 *   partial results of the chunks of a tile are merged in index order -> z
 *
 * Chunks of keys exist only where there are few query rows (decode); their size is a constant, so
 * results never depend on the number of threads. */
#ifndef KH_ATTN_ATTN_H
#define KH_ATTN_ATTN_H

#include "kv/kv.h"
#include "run/run.h"

#include <keyhole/status.h>

typedef struct kh_attn_method kh_attn_method; /* attn/method.h */

/* One parsed METHOD[:name=value,...]. */
typedef struct kh_attn_setting {
    const kh_attn_method *method;
    int k;       /* topk: kept keys */
    int recent;  /* the last W keys (the row's own included) are always among the k */
    int sinks;   /* the first S keys of the sequence are always among the k */
    float min_p; /* 0: off; keeps only keys of weight >= min_p times the row's largest */
    int tail_mean; /* 1: what is dropped is replaced by its exact mass times the mean of all visible values */
} kh_attn_setting;

/* Which setting applies where: parsed once, never changed. */
typedef struct kh_attn_plan kh_attn_plan;

/* Grammar:  PLAN    := PHASED | RULES | STACK PLAN { ";" STACK PLAN }
 *           STACK   := "encoder=" | "decoder=" | "cross="  (of a model with an encoder; one that is absent is `full`)
 *           PHASED  := "prefill=" RULES ";" "decode=" RULES   (a phase that is absent is `full`)
 *           RULES   := SETTING | (RANGE "=" SETTING) { ";" RANGE "=" SETTING }
 *           RANGE   := LAYERS [ "." HEADS ],  each "3", "0-1", "2-" or "*"
 *           SETTING := METHOD [ ":" name "=" value { "," name "=" value } ]
 * Layers and heads count from 0; later rules win; layers that no rule names are `full`. METHOD: full,
 * window (recent=W,sinks=S), topk (k, recent, sinks, min-p, tail=mean). A mistake is KH_ERR_ARGUMENT
 * with a sentence that names the part of the text and what is allowed. "auto" is resolved by the
 * caller before parsing. */
kh_status kh_attn_plan_parse(kh_attn_plan **out, const char *text, int layers, int heads);
/* The same for a decoder behind an encoder: layers of the plan are the encoder's, the decoder's, and the
 * decoder's attention to its source, behind one another; without a STACK all three are meant, and layers
 * count from 0 in each. encoder 0: as kh_attn_plan_parse. */
kh_status kh_attn_plan_parse_stacks(kh_attn_plan **out, const char *text, int encoder, int decoder,
                                    int heads);
void kh_attn_plan_free(kh_attn_plan *plan);
const char *kh_attn_plan_text(const kh_attn_plan *plan); /* verbatim */
/* KH_ERR_ARGUMENT where one of these layers, whose rows see all keys, has a setting that speaks of the keys before
 * a row (recent). */
kh_status kh_attn_plan_check_all_keys(const kh_attn_plan *plan, int first, int layers);
const kh_attn_setting *kh_attn_plan_at(const kh_attn_plan *plan, enum kh_phase phase, int layer,
                                       int head);

/* What attention of a layer read, and on the way back the gradients that it left, which may be added to. */
typedef struct kh_attn_watched {
    const struct kh_attn_layer *layer;
    const struct kh_attn_save *save; /* the kept keys, counted in each sequence */
    const float *q /* [T][H][E] */, *k /* [T][G][E] */, *v /* [T][G][E] */;
    float *dq /* [T][H][E] */, *dk /* [T][G][E] */, *dv /* [T][G][E] */;
} kh_attn_watched;

/* A loss of queries, keys and values, by nobody's op. Either may be NULL. */
typedef struct kh_attn_watch {
    void *context;
    kh_status (*seen)(void *context, const struct kh_attn_layer *layer,
                      const float *q /* [T][H][E] */, const float *k /* [T][G][E] */,
                      const float *v /* [T][G][E] */);
    kh_status (*back)(void *context, const kh_attn_watched *at);
} kh_attn_watch;

/* Numbers that cost extra; summed over rows and heads in index order. */
typedef struct kh_attn_stats {
    double rows;      /* (query row, head) pairs that were attended */
    double keys_kept; /* sum of the keys that entered their softmax */
    double keys_seen; /* sum of the visible keys */
    double kept_mass; /* sum of the exact share of the full softmax that the kept keys hold */
    int want_mass;    /* set by the caller: kept_mass needs every exponential */
} kh_attn_stats;

/* Which keys a row may see at all. */
enum kh_attn_order {
    KH_ATTN_CAUSAL,  /* those at its own position and before */
    KH_ATTN_ALL_KEYS /* all of the sequence; no window, no `recent` */
};

typedef struct kh_attn_layer {
    int layer;  /* in plans, probes and dropout */
    int before; /* how many of those have no place in the cache: it calls this one layer - before */
    int source; /* 1: keys and values are those of run->kv_cross */
    int encoder; /* 1: rows that see all keys see those of their span, which the length does not tell */
    int H, G, E;   /* heads, key heads (H % G == 0), head width (keys and values) */
    float scale;   /* on q.k before the softmax */
    float softcap; /* 0: none */
    int window;    /* 0: all earlier keys; else the last `window` keys, the row's own included */
    enum kh_attn_order order;
    const struct kh_attn_bias *bias; /* NULL, or what is added to raw scores: attn/bias.h */
} kh_attn_layer;

/* The layer's place in its cache. */
static inline int kh_attn_place(const kh_attn_layer *layer)
{
    return layer->layer - layer->before;
}

/* Bytes that one layer needs in run->step and in each worker's scratch for batches of at most T rows
 * over sequences of at most S positions, for any setting of the plan. */
void kh_attn_need(const kh_attn_plan *plan, const kh_attn_layer *layer, const kh_kv_shape *shape,
                  size_t T, size_t S, size_t *step, size_t *scratch);

/* Writes the batch's keys and values into the sequences (prepared by the caller, who also advances them
 * after the last layer) and attends. q, k are rotated already. */
kh_status kh_attn_forward(kh_run *run, const kh_attn_layer *layer, float *z /* [T][H][E] */,
                          const float *q /* [T][H][E] */, const float *k /* [T][G][E] */,
                          const float *v /* [T][G][E] */);

/* kh_attn_forward for a run with a tape: its record, and choices that a replay of its segment finds again.
 * Spans begin at position 0. */
kh_status kh_attn_forward_taped(kh_run *run, const kh_attn_layer *layer, float *z /* [T][H][E] */,
                                const float *q /* [T][H][E] */, const float *k /* [T][G][E] */,
                                const float *v /* [T][G][E] */);

/* Attention of the batch's spans to run->source: its keys and values [n][G][E] are written into run->kv_cross (of one
 * layer), and with a tape a record is left. */
kh_status kh_attn_source(kh_run *run, const kh_attn_layer *layer, float *z /* [T][H][E] */,
                         const float *q /* [T][H][E] */, const float *k /* [n][G][E] */,
                         const float *v /* [n][G][E] */);

/* The second half alone: keys and values are in the sequences already (all positions that a row sees,
 * whether or not they count into the length yet). */
kh_status kh_attn_attend(kh_run *run, const kh_attn_layer *layer, float *z /* [T][H][E] */,
                         const float *q /* [T][H][E] */);

/* The same where rows of one head are `row` floats apart, and heads `head`. */
typedef struct kh_attn_strides {
    size_t row, head;
} kh_attn_strides;
kh_status kh_attn_attend_strided(kh_run *run, const kh_attn_layer *layer, float *z,
                                 kh_attn_strides z_by, const float *q, kh_attn_strides q_by);

#endif
