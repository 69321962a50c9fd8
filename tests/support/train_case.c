/* A model and a batch for tests of training. */
#include "support/train_case.h"

#include "support/family_golden.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

void make_sample(sample *s, int V, int gaps)
{
    *s = (sample){.spans = {{0, 0, SAMPLE_FIRST, 0}, {1, SAMPLE_FIRST, SAMPLE_SECOND, 0}}};
    size_t wanted = 0;
    for (int t = 0; t < SAMPLE_ROWS; t++) {
        s->tokens[t] = (t * 37 + 11) % V;
        s->positions[t] = t < SAMPLE_FIRST ? t : t - SAMPLE_FIRST;
        s->targets[t] = gaps && t % 5 == 3 ? -1 : (t * 53 + 5) % V;
        if (s->targets[t] >= 0) s->rows[wanted++] = (uint32_t)t;
    }
    s->data.batch = (kh_batch){.n = SAMPLE_ROWS,
                               .tokens = s->tokens,
                               .position = s->positions,
                               .spans = s->spans,
                               .span_count = 2,
                               .logit_rows = s->rows,
                               .logit_count = wanted};
    s->data.targets = s->targets;
}

kh_params *params_of(const char *path)
{
    kh_params *params = NULL;
    kh_model *model = NULL;
    GOOD(kh_model_open_network(&model, path));
    GOOD(kh_params_open(&params, model->file));
    kh_model_close(model);
    return params;
}

kh_params *params_named(const char *name)
{
    return params_of(family_path(family_named(name)));
}
