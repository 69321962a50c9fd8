/* Whole models in double: every family's tiny folder that has a head for tokens, as a GGUF file of 16 bits, is
 * opened by the build in which float is double, and its gradients are compared with differences of its loss. */
#include "base/alloc.h"
#include "export_double.h"
#include "format/gguf.h"
#include "model/network.h"
#include "ops/unpack.h"
#include "support/family_golden.h"
#include "tensor/half.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void *narrow(const kh_tensor *t)
{
    kh_unpack unpack = kh_unpack_of(kh_kern_get(KH_ISA_REF), t->type);
    size_t n = 1;
    for (int i = 0; i < t->n_dims; i++) n *= (size_t)t->dims[i];
    float *wide = kh_alloc(n * sizeof *wide);
    uint16_t *half = kh_alloc(n * sizeof *half);
    if (unpack.f32)
        unpack.f32(wide, t->data, n);
    else
        memcpy(wide, t->data, n * sizeof *wide);
    for (size_t i = 0; i < n; i++) half[i] = kh_f32_to_bf16(wide[i]);
    kh_free(wide);
    return half;
}

/* The family's model in a file of its own. */
static void write_narrow(const char *path, const char *folder)
{
    kh_model *model = NULL;
    kh_gguf *to = NULL;
    GOOD(kh_model_open_network(&model, folder));
    GOOD(kh_gguf_new(&to, path));
    for (size_t i = 0; i < kh_gguf_value_count(model->file); i++)
        GOOD(kh_gguf_set_value(to, kh_gguf_value_at(model->file, i)));
    for (size_t i = 0; i < kh_gguf_tensor_count(model->file); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(model->file, i);
        void *data = narrow(t);
        GOOD(kh_gguf_keep(to, kh_free, data));
        GOOD(kh_gguf_add_tensor(to, t->name, KH_TYPE_BF16, t->n_dims, t->dims, data));
    }
    GOOD(kh_gguf_write(to, path));
    kh_gguf_close(to);
    kh_model_close(model);
}

static void prove(void **state)
{
    const family *f = *state;
    char path[64], said[512];
    snprintf(path, sizeof path, "/tmp/kh_grad_%ld.gguf", (long)getpid());
    write_narrow(path, family_path(f));
    const kh_grad_model ways[] = {
        {path, NULL, NULL, 0}, {path, "topk:k=4", NULL, 1}, {path, "topk:k=4", "topk:k=9", 0}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        double worst = 0;
        int status = kh_grad_prove_model(&ways[i], &worst, said, sizeof said);
        if (status) {
            unlink(path);
            fail_msg("%s, attention %s, feed-forward %s: %s", f->name,
                     ways[i].attn ? ways[i].attn : "full", ways[i].ff ? ways[i].ff : "dense", said);
        }
        print_message("%-20s %-10s %-10s %.1e\n", f->name, ways[i].attn ? ways[i].attn : "full",
                      ways[i].ff ? ways[i].ff : "dense", worst);
    }
    unlink(path);
}

int main(void)
{
    struct CMUnitTest tests[64];
    size_t n = 0;
    for (size_t i = 0; i < family_count; i++)
        if (families[i].task == FAMILY_CAUSAL || families[i].task == FAMILY_MASKED ||
            families[i].task == FAMILY_T5)
            tests[n++] = (struct CMUnitTest){families[i].name, prove, NULL, NULL,
                                             (void *)(uintptr_t)&families[i]};
    return _cmocka_run_group_tests("models", tests, n, NULL, NULL);
}
