/* Fuzz target of the tokenizers. The first byte chooses: a text for one of the tiny vocabularies of
 * tests/golden/tokens (ids must come back as the clean text), or a GGUF file whose tokenizer is opened
 * and used. */
#include "base/alloc.h"
#include "format/utf8.h"
#include "tokens/tokenizer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TINY = 6 };

static struct tiny {
    const char *name;
    kh_gguf *file;
    kh_tokenizer *tokenizer;
} tiny[TINY] = {{.name = "spm"},       {.name = "gpt2"},  {.name = "smollm"},
                {.name = "llama-bpe"}, {.name = "qwen2"}, {.name = "default"}};

static void must(int holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "%s; last error: %s\n", what, kh_last_error());
    abort();
}

static void open_tiny(void)
{
    for (int i = 0; i < TINY && !tiny[i].tokenizer; ++i) {
        char path[128];
        snprintf(path, sizeof path, "tests/golden/tokens/%s.gguf", tiny[i].name);
        must(kh_gguf_open(&tiny[i].file, path) == KH_OK, "run from the root of the tree");
        must(kh_tokenizer_open(&tiny[i].tokenizer, tiny[i].file) == KH_OK, "a golden vocabulary");
    }
}

/* Feeds the ids to a stream; every output is whole. */
static void stream(const kh_tokenizer *t, const kh_tokens *tokens, kh_buf *out, unsigned flags)
{
    kh_detokenizer state = {0};
    for (size_t i = 0; i < tokens->count; ++i) {
        must(kh_detokenize(t, &state, out, tokens->ids[i], flags) == KH_OK, "an id of our own");
        must(state.held.size < 4, "more than a character is held back");
    }
    must(kh_detokenize_end(&state, out) == KH_OK, "the end of a stream");
    must(kh_utf8_valid(out->data, out->size) == out->size, "half a character came out");
    kh_detokenizer_free(&state);
}

static void use(const kh_tokenizer *t, const char *text, size_t size, unsigned flags, kh_buf *out)
{
    kh_tokens tokens = {0};
    kh_text_range guard = {size / 3, size / 3};
    must(kh_tokenize_guarded(t, &tokens, text, size, flags, &guard, size % 2) == KH_OK, "a text");
    for (size_t i = 0; i < tokens.count; ++i)
        must(tokens.ids[i] >= 0 && tokens.ids[i] < kh_tokenizer_size(t), "an id out of range");
    stream(t, &tokens, out, flags);
    kh_tokens_free(&tokens);
}

static void fuzz_text(const struct tiny *which, const char *text, size_t size)
{
    kh_buf clean = {0}, out = {0};
    use(which->tokenizer, text, size, KH_TOKENIZE_SPECIAL | KH_TOKENIZE_EDGES, &out);
    kh_buf_clear(&out);
    use(which->tokenizer, text, size, 0, &out);
    must(kh_utf8_clean(&clean, text, size) == KH_OK, "cleaning");
    int blanks = clean.size && memmem(clean.data, clean.size, "\xE2\x96\x81", 3);
    if (!blanks || which != tiny)
        must(out.size == clean.size && (!out.size || !memcmp(out.data, clean.data, out.size)),
             "the text did not come back");
    kh_buf_free(&clean);
    kh_buf_free(&out);
}

/* The reader wants aligned memory: a copy of exactly the right size. */
static void fuzz_file(const uint8_t *bytes, size_t size)
{
    static const char text[] = "a b  <|im_end|></s><0x41>\xFF 12\xF0\x9F\x98\x80\n\n\xE2\x96\x81z";
    kh_gguf *file;
    kh_tokenizer *t;
    void *data = size ? malloc(size) : NULL;
    if (!data) return;
    memcpy(data, bytes, size);
    if (kh_gguf_open_memory(&file, data, size, "fuzz") != KH_OK) {
        free(data);
        return;
    }
    if (kh_tokenizer_open(&t, file) == KH_OK) {
        kh_buf out = {0};
        use(t, text, sizeof text - 1, KH_TOKENIZE_SPECIAL | KH_TOKENIZE_EDGES, &out);
        for (int32_t id = -1; id <= kh_tokenizer_size(t) && id < 4096; ++id) {
            kh_status status = kh_token_bytes(t, &out, id, KH_TOKENIZE_SPECIAL, id % 2);
            must(status == (id < 0 || id == kh_tokenizer_size(t) ? KH_ERR_ARGUMENT : KH_OK),
                 "the bytes of an id");
            kh_slice raw = kh_token_raw(t, id);
            int32_t found = kh_token_find(t, raw.data, raw.size);
            must(raw.size == 0 || found >= id, "a piece is found, or its last double");
        }
        kh_buf_free(&out);
    } else {
        must(kh_last_error()[0] != 0, "an error without a sentence");
    }
    kh_tokenizer_close(t);
    kh_gguf_close(file);
    free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    open_tiny();
    uint64_t live = kh_alloc_get_stats().live;
    if (!size) return 0;
    if (data[0] % 8 < TINY)
        fuzz_text(&tiny[data[0] % 8], (const char *)data + 1, size - 1);
    else
        fuzz_file(data + 1, size - 1);
    must(kh_alloc_get_stats().live == live, "a leak");
    return 0;
}
