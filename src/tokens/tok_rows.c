/* A tokenizer's values for a model whose embedding may have more rows than there are tokens.
 *
 * The tokenizer says what it is in GGUF's words (tokens/tok_describe.c). What it cannot know is how many
 * rows the model's embedding has: it is often padded to a round number, and a reader of GGUF expects a
 * token for every row. The missing ones are called [PAD5], [PAD6] ..., are of the kind "unused" and have
 * the lowest score, as llama.cpp's converter writes them. */
#include "tokens/tokenizer.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>

enum { PAD_NAME = 24, MOST_KEY = 128 };

static int is_key(const kh_gguf_value *value, const char *key)
{
    return value->key.size == strlen(key) && memcmp(value->key.data, key, value->key.size) == 0;
}

static kh_status pad_tokens(kh_gguf *out, const kh_gguf_value *value, size_t rows)
{
    size_t count = (size_t)value->count;
    kh_slice *all;
    char *names;
    KH_TRY(kh_new(&all, rows, sizeof *all, "a vocabulary"));
    kh_status status = kh_new(&names, rows - count, PAD_NAME, "a vocabulary");
    if (status == KH_OK) {
        memcpy(all, value->strings, count * sizeof *all);
        for (size_t i = count; i < rows; i++) {
            char *name = names + (i - count) * PAD_NAME;
            int n = snprintf(name, PAD_NAME, "[PAD%zu]", i);
            all[i] = (kh_slice){name, (size_t)n};
        }
        status = kh_gguf_set_strings(out, "tokenizer.ggml.tokens", all, rows);
    }
    kh_free(names);
    kh_free(all);
    return status;
}

/* Arrays of 4-byte numbers, one for each token. */
static kh_status pad_numbers(kh_gguf *out, const kh_gguf_value *value, const char *key, size_t rows,
                             const void *number)
{
    size_t count = (size_t)value->count;
    char *all;
    KH_TRY(kh_new(&all, rows, 4, "a vocabulary"));
    memcpy(all, value->data, 4 * count);
    for (size_t i = count; i < rows; i++) memcpy(all + 4 * i, number, 4);
    kh_status status = kh_gguf_set_array(out, key, value->element, all, rows);
    kh_free(all);
    return status;
}

static kh_status add(kh_gguf *out, const kh_gguf_value *value, size_t rows)
{
    static const char prefix[] = "tokenizer.";
    static const int32_t unused = KH_TOKEN_UNUSED;
    static const float least = -10000;
    char key[MOST_KEY];
    if (value->key.size < sizeof prefix || value->key.size >= sizeof key ||
        memcmp(value->key.data, prefix, sizeof prefix - 1) != 0)
        return KH_OK;
    memcpy(key, value->key.data, value->key.size);
    key[value->key.size] = 0;
    if (kh_gguf_find(out, key)) return KH_OK;
    if (value->kind == KH_GGUF_ARRAY && value->count > 0 && value->count < rows) {
        if (is_key(value, "tokenizer.ggml.tokens")) return pad_tokens(out, value, rows);
        if (is_key(value, "tokenizer.ggml.token_type"))
            return pad_numbers(out, value, key, rows, &unused);
        if (is_key(value, "tokenizer.ggml.scores"))
            return pad_numbers(out, value, key, rows, &least);
    }
    return kh_gguf_set_value(out, value);
}

kh_status kh_tokenizer_copy_values(kh_gguf *out, const kh_gguf *words, size_t rows)
{
    for (size_t i = 0; i < kh_gguf_value_count(words); i++)
        KH_TRY(add(out, kh_gguf_value_at(words, i), rows));
    return KH_OK;
}
