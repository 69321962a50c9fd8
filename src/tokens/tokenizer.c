/* The tokenizer as an object: opening, closing, questions.
 *
 * One object whatever it was read from. A tokenizer is a list of stages (tok_impl.h): markers, a
 * normalizer, a splitter, a model, templates, a decoder. tokenizer.json names them one by one
 * (tok_json.c); a GGUF file names a model, and the stages follow from that (tok_gguf.c). Text goes
 * through them in tok_walk.c. */
#include "tokens/tokenizer.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "tokens/tok_impl.h"

#include <string.h>

kh_status kh_tokenizer_open(kh_tokenizer **out, const kh_gguf *file)
{
    *out = NULL;
    kh_tokenizer *t;
    KH_TRY(kh_new(&t, 1, sizeof *t, "a tokenizer"));
    kh_status status = kh_tokenizer_open_parts(t, file);
    if (status != KH_OK) {
        kh_tokenizer_close(t);
        return status;
    }
    *out = t;
    return KH_OK;
}

void kh_tokenizer_close(kh_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    kh_norm_free(&tokenizer->norm);
    kh_split_free(&tokenizer->split);
    kh_decoder_free(&tokenizer->decoder);
    kh_merges_free(&tokenizer->merges);
    kh_markers_free(&tokenizer->markers);
    kh_markers_free(&tokenizer->late_markers);
    kh_markers_free(&tokenizer->guarded_markers);
    kh_trie_free(&tokenizer->trie);
    kh_free(tokenizer->scores);
    kh_vocab_free(&tokenizer->vocab);
    kh_store_free(&tokenizer->store);
    kh_free(tokenizer);
}

int32_t kh_tokenizer_size(const kh_tokenizer *tokenizer)
{
    return tokenizer->vocab.size;
}

const kh_special_ids *kh_tokenizer_special(const kh_tokenizer *tokenizer)
{
    return &tokenizer->special;
}

const char *kh_tokenizer_model(const kh_tokenizer *tokenizer)
{
    static const char *const names[] = {
        [KH_TOKENIZER_BYTES] = "gpt2",     [KH_TOKENIZER_SCORES] = "llama",
        [KH_TOKENIZER_CHARS] = "bpe",      [KH_TOKENIZER_UNIGRAM] = "t5",
        [KH_TOKENIZER_WORDPIECE] = "bert", [KH_TOKENIZER_WORDS] = "words",
    };
    return names[tokenizer->model];
}

const char *kh_tokenizer_pre(const kh_tokenizer *tokenizer)
{
    return tokenizer->pre.name ? tokenizer->pre.name : "";
}

kh_token_kind kh_token_get_kind(const kh_tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || id >= tokenizer->vocab.size) return KH_TOKEN_UNKNOWN;
    return (kh_token_kind)tokenizer->vocab.kinds[id];
}

kh_slice kh_token_raw(const kh_tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || id >= tokenizer->vocab.size) return (kh_slice){"", 0};
    return tokenizer->vocab.pieces[id];
}

int32_t kh_token_find(const kh_tokenizer *tokenizer, const char *piece, size_t size)
{
    return kh_vocab_find(&tokenizer->vocab, piece, size);
}

kh_slice kh_tokenizer_chat_template(const kh_tokenizer *tokenizer, const char *name)
{
    const char *wanted = name ? name : "default";
    for (int i = 0; i < tokenizer->n_chats; ++i) {
        kh_slice have = tokenizer->chats[i].name;
        if (strlen(wanted) == have.size && !memcmp(have.data, wanted, have.size))
            return tokenizer->chats[i].text;
    }
    if (!name && tokenizer->n_chats) return tokenizer->chats[0].text;
    return (kh_slice){"", 0};
}
