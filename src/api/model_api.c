/* The public side of a model that needs more than the model layer: metadata and tensors as text,
 * and tokens. Chat is in chat_api.c. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "model/network.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static_assert((int)KH_TEXT_SPECIAL == (int)KH_TOKENIZE_SPECIAL, "one set of flags");
static_assert((int)KH_TEXT_EDGES == (int)KH_TOKENIZE_EDGES, "one set of flags");

size_t kh_model_metadata_count(const kh_model *model)
{
    return kh_gguf_value_count(model->file);
}

static kh_status element_text(kh_buf *out, const kh_gguf_value *v, uint64_t i)
{
    uint64_t u = 0;
    double x = 0;
    if (v->strings) return kh_buf_add(out, v->strings[i].data, v->strings[i].size);
    if (kh_gguf_element_u64(v, i, &u) == KH_OK)
        return kh_buf_format(out, "%llu", (unsigned long long)u);
    if (kh_gguf_element_f64(v, i, &x) == KH_OK) return kh_buf_format(out, "%g", x);
    return kh_buf_text(out, "?");
}

static kh_status value_text(kh_buf *out, const kh_gguf_value *v)
{
    enum { SHOWN = 4 };
    KH_TRY(kh_buf_reserve(out, 0));
    if (v->kind != KH_GGUF_ARRAY) return element_text(out, v, 0);
    KH_TRY(kh_buf_format(out, "[%llu] ", (unsigned long long)v->count));
    for (uint64_t i = 0; i < v->count && i < SHOWN; i++) {
        if (i) KH_TRY(kh_buf_text(out, ", "));
        KH_TRY(element_text(out, v, i));
    }
    return v->count > SHOWN ? kh_buf_text(out, ", ...") : KH_OK;
}

/* Copies text, cut with "..." and never inside a UTF-8 character. */
static void copy_cut(char *out, size_t size, const char *text, size_t n)
{
    if (size == 0) return;
    size_t keep = n < size ? n : size - 1;
    if (keep < n) {
        keep = size > 4 ? size - 4 : 0;
        while (keep > 0 && ((unsigned char)text[keep] & 0xC0) == 0x80) keep--;
    }
    memcpy(out, text, keep);
    snprintf(out + keep, size - keep, "%s", keep < n ? "..." : "");
}

kh_status kh_model_metadata(const kh_model *model, size_t index, char *key, size_t key_size,
                            char *value, size_t value_size)
{
    const kh_gguf_value *v = kh_gguf_value_at(model->file, index);
    if (!v) KH_FAIL(KH_ERR_ARGUMENT, "there is no metadata number %zu", index);
    kh_buf text = {0};
    kh_status status = value_text(&text, v);
    if (status == KH_OK) {
        copy_cut(key, key_size, v->key.data, v->key.size);
        copy_cut(value, value_size, text.data, text.size);
    }
    kh_buf_free(&text);
    return status;
}

size_t kh_model_tensor_count(const kh_model *model)
{
    return kh_gguf_tensor_count(model->file);
}

kh_status kh_model_tensor(const kh_model *model, size_t index, kh_tensor_info *out)
{
    if (index >= kh_gguf_tensor_count(model->file))
        KH_FAIL(KH_ERR_ARGUMENT, "there is no tensor number %zu", index);
    const kh_tensor *t = kh_gguf_tensor_at(model->file, index);
    *out = (kh_tensor_info){
        .name = t->name, .type = kh_type_name(t->type), .n_dims = t->n_dims, .bytes = t->size};
    memcpy(out->dims, t->dims, sizeof out->dims);
    return KH_OK;
}

kh_status kh_model_tokenize(const kh_model *model, const char *text, size_t size, unsigned flags,
                            int32_t **ids, size_t *count)
{
    *ids = NULL;
    *count = 0;
    kh_tokens tokens = {0};
    kh_status status = kh_tokenize(model->tokenizer, &tokens, text, size, flags);
    if (status != KH_OK) {
        kh_tokens_free(&tokens);
        return status;
    }
    *ids = tokens.ids;
    *count = tokens.count;
    return KH_OK;
}

kh_status kh_model_detokenize(const kh_model *model, const int32_t *ids, size_t count,
                              unsigned flags, char **text, size_t *size)
{
    *text = NULL;
    *size = 0;
    kh_buf out = {0};
    kh_detokenizer state = {0};
    kh_status status = kh_buf_reserve(&out, 0);
    for (size_t i = 0; i < count && status == KH_OK; i++) {
        if (ids[i] < 0 || ids[i] >= kh_tokenizer_size(model->tokenizer))
            status = kh_fail(KH_ERR_ARGUMENT, "token %zu: id %d is not between 0 and %d", i, ids[i],
                             kh_tokenizer_size(model->tokenizer) - 1);
        else
            status = kh_detokenize(model->tokenizer, &state, &out, ids[i], flags);
    }
    if (status == KH_OK) status = kh_detokenize_end(&state, &out);
    kh_detokenizer_free(&state);
    if (status != KH_OK) {
        kh_buf_free(&out);
        return status;
    }
    *text = out.data;
    *size = out.size;
    return KH_OK;
}

int32_t kh_model_mask(const kh_model *model)
{
    return kh_tokenizer_special(model->tokenizer)->mask;
}

size_t kh_model_marker(const kh_model *model, int32_t id, char *bytes, size_t size)
{
    if (id < 0 || id >= kh_tokenizer_size(model->tokenizer)) return 0;
    kh_slice raw = kh_token_raw(model->tokenizer, id);
    memcpy(bytes, raw.data, raw.size < size ? raw.size : size);
    return raw.size;
}

size_t kh_model_piece(const kh_model *model, int32_t id, char *bytes, size_t size)
{
    if (id < 0 || id >= kh_tokenizer_size(model->tokenizer)) return 0;
    kh_buf out = {0};
    size_t n = 0;
    if (kh_token_bytes(model->tokenizer, &out, id, KH_TOKENIZE_SPECIAL, 0) == KH_OK) {
        n = out.size;
        if (n && size) memcpy(bytes, out.data, n < size ? n : size);
    }
    kh_buf_free(&out);
    return n;
}

int32_t kh_model_bos(const kh_model *model)
{
    return kh_tokenizer_special(model->tokenizer)->bos;
}

int kh_model_ends(const kh_model *model, int32_t id)
{
    return id >= 0 && id < kh_tokenizer_size(model->tokenizer) &&
           kh_token_ends(model->tokenizer, id);
}

void kh_free_ids(int32_t *ids)
{
    kh_free(ids);
}

void kh_free_text(char *text)
{
    kh_free(text);
}
