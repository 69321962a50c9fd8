/* t5: T5 v1.0 and v1.1, Flan-T5, UnifiedQA: an encoder and a decoder that also attends to it; t5encoder: the
 * encoder alone.
 *
 * Pre-norm blocks with RMSNorm and no biases. Distances bias the scores by a table of the first block that
 * all blocks of a stack share; cross-attention has none. Scores are not scaled. v1.0 has ReLU, and a head
 * tied to the embedding behind a factor of D^-1/2; v1.1 a gate with GELU and a head of its own. */
#include "base/fail.h"
#include "model/families.h"

#include <math.h>

static kh_status relative(kh_description *d, const kh_gguf *file, const char *buckets,
                          const char *distance)
{
    uint64_t n = 0, most = 128;
    KH_TRY(kh_gguf_u64(file, buckets, &n, 1 << 16));
    KH_TRY(kh_gguf_opt_u64(file, distance, &most, 1 << 30));
    if (n < 4 || n % 2 != 0)
        KH_FAIL(KH_ERR_FORMAT, "%s: an even number from 4 on is expected, found %llu", buckets,
                (unsigned long long)n);
    if (most < n)
        KH_FAIL(KH_ERR_FORMAT, "%s: at least the %llu buckets are expected, found %llu", distance,
                (unsigned long long)n, (unsigned long long)most);
    d->buckets = (int)n;
    d->max_distance = (int)most;
    d->attn_scale = 1;
    if (kh_gguf_tensor(file, "enc.blk.0.ffn_gate.weight")) d->act = KH_ACT_GELU_TANH;
    return KH_OK;
}

static kh_status describe(kh_description *d, const kh_gguf *file)
{
    uint64_t start = 0;
    KH_TRY(relative(d, file, "t5.attention.relative_buckets_count",
                    "t5.attention.relative_max_distance"));
    KH_TRY(kh_gguf_opt_u64(file, "t5.decoder_start_token_id", &start, (uint64_t)d->V - 1));
    d->start = (int)start;
    if (!kh_gguf_tensor(file, "output.weight")) d->logit_scale = 1.0f / sqrtf((float)d->D);
    return KH_OK;
}

static kh_status describe_encoder(kh_description *d, const kh_gguf *file)
{
    return relative(d, file, "t5encoder.attention.relative_buckets_count",
                    "t5encoder.attention.relative_max_distance");
}

const kh_family kh_family_t5 = {.name = "t5",
                                .parts = KH_PARTS_DECODER | KH_PART_CROSS | KH_PART_RELATIVE,
                                .optional = KH_PART_GATE | KH_PART_HEAD,
                                .structure = KH_ENCODER_DECODER,
                                .positions = KH_POSITIONS_RELATIVE,
                                .act = KH_ACT_RELU,
                                .describe = describe};

const kh_family kh_family_t5encoder = {.name = "t5encoder",
                                       .parts = KH_PART_PRE_NORM | KH_PART_FF | KH_PART_RELATIVE |
                                                KH_PART_ALONE,
                                       .optional = KH_PART_GATE,
                                       .structure = KH_ENCODER,
                                       .positions = KH_POSITIONS_RELATIVE,
                                       .act = KH_ACT_RELU,
                                       .describe = describe_encoder};
