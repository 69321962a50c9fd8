/* inspect/account.h: who gives how much to a logit, at one position. */
#ifndef KH_INSPECT_ACCOUNT_H
#define KH_INSPECT_ACCOUNT_H

#include "inspect/inspector.h"

/* What a layer gave, and what is needed to say more of it. */
typedef struct kh_account {
    size_t position;
    int32_t a, b;
    /* of the pass */
    float *embeddings, *last;  /* [D] the stream at its beginning and at its end */
    float *z;                  /* [N][H * E] */
    float *coefficients;       /* [N][F]; of layers of experts 0 */
    float *attn_out, *mlp_out; /* [N][D] as the layer made them, before norms on outputs */
    float *change;             /* [D] what edits wrote, over all layers */
    kh_lens_token a_token, b_token;
    /* of the logit */
    double total, scale, embed, bias, edits;
    float *heads;   /* [N][H] */
    float *neurons; /* [N][F] */
    double *mlps;   /* [N] of layers whose neurons are not told apart */
    float *writes;  /* [N][H * E]: W_o^T u, what one unit of z gives */
    float *reads;   /* [N][F]: W_down^T u, what one unit of a coefficient gives */
} kh_account;

/* `a` KH_TOKEN_NONE: only what the pass shows; b KH_TOKEN_NONE: the logit of a alone; KH_TOKEN_BEST: found here. */
kh_status kh_account_open(kh_account *out, kh_inspector *inspector, size_t position, int32_t a,
                          int32_t b);
void kh_account_close(kh_account *account);
/* The keys of heads of one layer: which position gave most to the logit by way of it, for shares of heads. Reads the
 * position alone once more. */
kh_status kh_account_sources(const kh_account *account, kh_inspector *inspector, kh_share *heads,
                             size_t count);

#endif
