/* The tokenizer of a Hugging Face folder as values of a GGUF file.
 *
 * The tokenizer says what it is in GGUF's words (format/tok_describe.c). What it cannot know is how many
 * rows the model's embedding has: it is often padded to a round number, and a reader of GGUF expects a
 * token for every row. The missing ones are called [PAD5], [PAD6] ..., are of the kind "unused" and have
 * the lowest score, as llama.cpp's converter writes them. */
#include "api/convert_tokens.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "model/hf.h"
#include "tokens/tokenizer.h"

#include <stdio.h>
#include <string.h>

enum { PAD_NAME = 24 };

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
static kh_status pad_numbers(kh_gguf *out, const kh_gguf_value *value, size_t rows,
                             const void *number)
{
    size_t count = (size_t)value->count;
    char key[64], *all;
    snprintf(key, sizeof key, "%.*s", (int)value->key.size, value->key.data);
    KH_TRY(kh_new(&all, rows, 4, "a vocabulary"));
    memcpy(all, value->data, 4 * count);
    for (size_t i = count; i < rows; i++) memcpy(all + 4 * i, number, 4);
    kh_status status = kh_gguf_set_array(out, key, value->element, all, rows);
    kh_free(all);
    return status;
}

static kh_status add(kh_gguf *out, const kh_gguf_value *value, size_t rows)
{
    static const int32_t unused = KH_TOKEN_UNUSED;
    static const float least = -10000;
    if (kh_gguf_find(out, "tokenizer.chat_template") && is_key(value, "tokenizer.chat_template"))
        return KH_OK;
    if (value->kind == KH_GGUF_ARRAY && value->count > 0 && value->count < rows) {
        if (is_key(value, "tokenizer.ggml.tokens")) return pad_tokens(out, value, rows);
        if (is_key(value, "tokenizer.ggml.token_type"))
            return pad_numbers(out, value, rows, &unused);
        if (is_key(value, "tokenizer.ggml.scores")) return pad_numbers(out, value, rows, &least);
    }
    return kh_gguf_set_value(out, value);
}

static kh_status describe(kh_gguf *words, const char *path)
{
    char *folder = NULL;
    kh_tokenizer *tokenizer = NULL;
    KH_TRY(kh_hf_folder_of(&folder, path));
    kh_status status = kh_tokenizer_open_folder(&tokenizer, folder);
    if (status == KH_OK) status = kh_tokenizer_describe(tokenizer, words);
    kh_tokenizer_close(tokenizer);
    kh_free(folder);
    return status;
}

kh_status kh_convert_tokens(kh_gguf *out, const char *path)
{
    const kh_tensor *embedding = kh_gguf_tensor(out, "token_embd.weight");
    size_t rows = embedding ? (size_t)embedding->dims[1] : 0;
    kh_gguf *words;
    KH_TRY(kh_gguf_new(&words, path));
    kh_status status = describe(words, path);
    for (size_t i = 0; status == KH_OK && i < kh_gguf_value_count(words); i++)
        status = add(out, kh_gguf_value_at(words, i), rows);
    kh_gguf_close(words);
    return status;
}
