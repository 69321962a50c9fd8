/* Masked tokens, as BERT learns them (Devlin et al., 2019, section 3.1): 15 % of the tokens are chosen; most
 * become [MASK], some another token or stay, so that an encoder does not only work where it sees a mask.
 *
 * Cells of a row: 3 r chooses, 3 r + 1 says what becomes of it, 3 r + 2 which other token. */
#include "train/masking.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

kh_status kh_masking_open(kh_masking *out, const kh_special_ids *special, int V, double share,
                          size_t rows)
{
    *out = (kh_masking){
        .share = share,
        .mask = special->mask,
        .marks = {special->bos, special->eos, special->cls, special->sep, special->pad},
        .V = V};
    if (!(share > 0 && share <= 1))
        KH_FAIL(KH_ERR_ARGUMENT,
                "masking: a share above 0 and at most 1 of the tokens is expected, found %g",
                share);
    if (out->mask < 0 || out->mask >= V)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "masking: the vocabulary has no token that stands for a masked one (mask_token)");
    KH_TRY(kh_new(&out->tokens, rows, sizeof *out->tokens, "a batch"));
    KH_TRY(kh_new(&out->targets, rows, sizeof *out->targets, "a batch"));
    return kh_new(&out->logit_rows, rows, sizeof *out->logit_rows, "a batch");
}

void kh_masking_close(kh_masking *m)
{
    kh_free(m->tokens);
    kh_free(m->targets);
    kh_free(m->logit_rows);
}

static int may_be_chosen(const kh_masking *m, int32_t id)
{
    if (id == m->mask) return 0;
    for (size_t i = 0; i < KH_MASKING_MARKS; i++)
        if (id == m->marks[i]) return 0;
    return 1;
}

static int32_t becomes(const kh_masking *m, int32_t id, size_t row, kh_rng_key key)
{
    double u = kh_rng_uniform(key, 3 * row + 1);
    if (u < 0.8) return m->mask;
    return u < 0.9 ? (int32_t)(kh_rng_bits(key, 3 * row + 2) % (uint64_t)m->V) : id;
}

void kh_masking_apply(kh_masking *m, kh_batch *batch, kh_rng_key key)
{
    size_t count = 0, luckiest = batch->n;
    double least = 2;
    for (size_t t = 0; t < batch->n; t++) {
        double u = kh_rng_uniform(key, 3 * t);
        m->tokens[t] = batch->tokens[t];
        if (!may_be_chosen(m, batch->tokens[t])) continue;
        if (u < least) {
            least = u;
            luckiest = t;
        }
        if (u < m->share) m->logit_rows[count++] = (uint32_t)t;
    }
    if (count == 0 && luckiest < batch->n) m->logit_rows[count++] = (uint32_t)luckiest;
    for (size_t i = 0; i < count; i++) {
        size_t t = m->logit_rows[i];
        m->targets[i] = batch->tokens[t];
        m->tokens[t] = becomes(m, batch->tokens[t], t, key);
    }
    batch->tokens = m->tokens;
    batch->logit_rows = m->logit_rows;
    batch->logit_count = count;
}
