/* From the texts of options to the plans of a model: which attention and which neurons, layer by layer, and in what
 * products are taken. Sessions and encoders begin here.
 *
 * Layers of an encoder come before those of its decoder, and behind these the decoder's attention to its source; rows
 * of the first and the last see all keys, so settings that speak of the keys before a row are refused there. */
#include "gen/plans.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "gen/auto.h"

#include <string.h>

kh_status kh_plans_attn(kh_attn_plan **out, const kh_model *model, const char *attn)
{
    char automatic[256];
    const kh_description *d = &model->d;
    if (!attn) attn = "full";
    if (strcmp(attn, "auto") == 0) {
        KH_TRY(kh_auto_find(model->identity, automatic, sizeof automatic, NULL));
        attn = automatic;
    }
    KH_TRY(kh_attn_plan_parse_stacks(out, attn, d->encoder_layers, d->N, d->H));
    kh_status status = KH_OK;
    if (d->structure == KH_ENCODER) status = kh_attn_plan_check_all_keys(*out, 0, d->N);
    if (d->structure == KH_ENCODER_DECODER) {
        status = kh_attn_plan_check_all_keys(*out, 0, d->encoder_layers);
        if (status == KH_OK)
            status = kh_attn_plan_check_all_keys(*out, d->encoder_layers + d->N, d->N);
    }
    if (status != KH_OK) {
        kh_attn_plan_free(*out);
        *out = NULL;
    }
    return status;
}

kh_status kh_plans_ff(kh_ff_plan **out, const kh_model *model, const kh_kern *kern, const char *ff)
{
    const kh_stack *stacks[] = {&model->w.encoder, &model->w.stack};
    size_t n = 0;
    KH_TRY(kh_ff_plan_parse(out, ff, model->d.encoder_layers, model->d.N));
    const kh_weight **down = NULL;
    kh_status status = kh_new(&down, (size_t)(model->d.encoder_layers + model->d.N), sizeof *down,
                              "the feed-forward layers");
    for (size_t s = 0; status == KH_OK && s < 2; s++)
        for (int l = 0; l < stacks[s]->N; l++) down[n++] = &stacks[s]->blocks[l].down;
    if (status == KH_OK) status = kh_ff_plan_bind(*out, kern, down);
    kh_free(down);
    if (status != KH_OK) {
        kh_ff_plan_close(*out);
        *out = NULL;
    }
    return status;
}

enum kh_compute kh_plans_compute(kh_precision precision)
{
    return precision == KH_PRECISION_F32  ? KH_COMPUTE_F32
           : precision == KH_PRECISION_Q8 ? KH_COMPUTE_Q8
                                          : KH_COMPUTE_DEFAULT;
}
