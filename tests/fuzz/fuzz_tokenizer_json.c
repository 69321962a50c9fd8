/* Fuzz target of tokenizer.json: whatever the bytes say, opening ends with a tokenizer or a sentence; a tokenizer
 * gives ids of its vocabulary and whole characters, for texts that hold everything odd, and can be described. */
#include "base/alloc.h"
#include "format/utf8.h"
#include "tokens/tokenizer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "%s; last error: %s\n", what, kh_last_error());
    abort();
}

/* A pattern may take too long, and a vocabulary may have no way to say a text. */
static int may_fail(kh_status status)
{
    return status == KH_ERR_UNSUPPORTED || status == KH_ERR_FORMAT || status == KH_ERR_MEMORY;
}

static void decode(const kh_tokenizer *t, const kh_tokens *ids)
{
    kh_detokenizer state = {0};
    kh_buf out = {0};
    kh_status status = KH_OK;
    for (size_t i = 0; i < ids->count && status == KH_OK; ++i) {
        must(ids->ids[i] >= 0 && ids->ids[i] < kh_tokenizer_size(t), "an id out of range");
        status = kh_detokenize(t, &state, &out, ids->ids[i], i % 2 ? KH_TOKENIZE_SPECIAL : 0);
        must(state.held.size < 4, "more than a character is held back");
    }
    must(status == KH_OK || may_fail(status), "the bytes of an id");
    must(kh_detokenize_end(&state, &out) == KH_OK, "the end of a stream");
    must(kh_utf8_valid(out.data, out.size) == out.size, "half a character came out");
    kh_detokenizer_free(&state);
    kh_buf_free(&out);
}

static void use(const kh_tokenizer *t, const char *text, size_t size)
{
    kh_tokens ids = {0}, types = {0};
    kh_slice half = {text, size / 2}, rest = {text + size / 2, size - size / 2};
    kh_pair_ranges ranges;
    kh_status status = kh_tokenize(t, &ids, text, size, KH_TOKENIZE_SPECIAL | KH_TOKENIZE_EDGES);
    must(status == KH_OK || (may_fail(status) && !ids.count), "a text");
    decode(t, &ids);
    ids.count = 0;
    status = kh_tokenize_pair(t, &ids, &types, &ranges, half, rest, 0);
    must(status == KH_OK || (may_fail(status) && !ids.count), "a pair");
    must(ids.count == types.count, "an id without a type");
    kh_tokens_free(&ids);
    kh_tokens_free(&types);
}

static void describe(const kh_tokenizer *t)
{
    kh_gguf *file;
    kh_tokenizer *again;
    must(kh_gguf_new(&file, "fuzz") == KH_OK, "an empty file");
    if (kh_tokenizer_describe(t, file) == KH_OK && kh_tokenizer_open(&again, file) == KH_OK)
        kh_tokenizer_close(again);
    kh_gguf_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char odd[] =
        "Ab  b\xFF e\xCC\x81\xCC\xA3\xD6\xB0 \xC3\xA9<t> 12\xF0\x9F\x98\x80\n\n\xE2\x96\x81z[CLS] "
        "\xE4\xB8\xAD.\xE2\x80\x8D aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
    uint64_t live = kh_alloc_get_stats().live;
    kh_tokenizer *t;
    kh_status status = kh_tokenizer_open_json(&t, (const char *)data, size, "fuzz");
    if (status == KH_OK) {
        use(t, odd, sizeof odd - 1);
        use(t, (const char *)data, size < 256 ? size : 256);
        describe(t);
    } else {
        must(kh_last_error()[0] != 0 && !t, "an error without a sentence");
    }
    kh_tokenizer_close(t);
    must(kh_alloc_get_stats().live == live, "a leak");
    return 0;
}
