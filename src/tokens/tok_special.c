/* Which ids are special, and which of them end a turn.
 *
 * Files name bos, eos, eot and others by id; an id outside the vocabulary is an error, because
 * every later stage indexes with it. The markers that end a turn are often named by their text
 * alone: a chat model answers with <|im_end|> while eos_token_id still says <|endoftext|>. Texts
 * that nothing else could mean count whenever the token is a marker; texts that are also plain
 * text somewhere ("</s>" is an HTML tag in Gemma's vocabulary) count only as control tokens. */
#include "base/fail.h"
#include "tokens/tok_impl.h"

#include <string.h>

static kh_status read_id(const kh_tokenizer *t, const kh_gguf *file, const char *key, int32_t *out)
{
    uint64_t id = UINT64_MAX;
    *out = -1;
    KH_TRY(kh_gguf_opt_u64(file, key, &id, UINT32_MAX));
    if (id >= UINT32_MAX) return KH_OK; /* absent, or a writer's -1 */
    if (id >= (uint64_t)t->vocab.size)
        KH_FAIL(KH_ERR_FORMAT, "%s is %llu, but there are %d tokens", key, (unsigned long long)id,
                t->vocab.size);
    *out = (int32_t)id;
    return KH_OK;
}

void kh_tokenizer_add_end(kh_tokenizer *t, int32_t id)
{
    if (id < 0 || t->n_ends == KH_MOST_ENDS || kh_token_ends(t, id)) return;
    t->ends[t->n_ends++] = id;
}

void kh_tokenizer_find_ends(kh_tokenizer *t)
{
    static const struct {
        const char *text;
        int control_only;
    } known[] = {
        {"<|eot_id|>", 0},
        {"<|im_end|>", 0},
        {"<|end|>", 0},
        {"<|endoftext|>", 0},
        {"<|eom_id|>", 0},
        {"<|end_of_text|>", 0},
        {"<end_of_turn>", 0},
        {"<|return|>", 0},
        {"<end_of_utterance>", 0},
        {"<|endofturn|>", 0},
        {"<\xEF\xBD\x9C"
         "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
         0},
        {"</s>", 1},
        {"<eos>", 1},
        {"<EOT>", 1},
        {"[EOT]", 1},
        {"[EOS]", 1},
        {"<|EOT|>", 1},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i) {
        int32_t id = kh_vocab_find(&t->vocab, known[i].text, strlen(known[i].text));
        if (id < 0) continue;
        unsigned kind = t->vocab.kinds[id];
        if (kind == KH_TOKEN_CONTROL || (kind == KH_TOKEN_USER && !known[i].control_only))
            kh_tokenizer_add_end(t, id);
    }
}

kh_status kh_tokenizer_find_special(kh_tokenizer *t, const kh_gguf *file)
{
    kh_special_ids *s = &t->special;
    int32_t eom;
    KH_TRY(read_id(t, file, "tokenizer.ggml.bos_token_id", &s->bos));
    KH_TRY(read_id(t, file, "tokenizer.ggml.eos_token_id", &s->eos));
    KH_TRY(read_id(t, file, "tokenizer.ggml.eot_token_id", &s->eot));
    KH_TRY(read_id(t, file, "tokenizer.ggml.eom_token_id", &eom));
    KH_TRY(read_id(t, file, "tokenizer.ggml.unknown_token_id", &s->unk));
    KH_TRY(read_id(t, file, "tokenizer.ggml.padding_token_id", &s->pad));
    KH_TRY(read_id(t, file, "tokenizer.ggml.seperator_token_id", &s->sep)); /* so spelt in GGUF */
    KH_TRY(read_id(t, file, "tokenizer.ggml.mask_token_id", &s->mask));
    KH_TRY(read_id(t, file, "tokenizer.ggml.cls_token_id", &s->cls));
    s->add_bos = t->model == KH_TOKENIZER_SCORES || t->pre.adds_bos;
    s->add_eos = 0;
    KH_TRY(kh_gguf_opt_bool(file, "tokenizer.ggml.add_bos_token", &s->add_bos));
    KH_TRY(kh_gguf_opt_bool(file, "tokenizer.ggml.add_eos_token", &s->add_eos));
    if (s->bos < 0) s->add_bos = 0;
    if (s->eos < 0) s->add_eos = 0;
    kh_tokenizer_add_end(t, s->eos);
    kh_tokenizer_add_end(t, s->eot);
    kh_tokenizer_add_end(t, eom);
    kh_tokenizer_find_ends(t);
    return KH_OK;
}

int kh_token_ends(const kh_tokenizer *tokenizer, int32_t id)
{
    for (int i = 0; i < tokenizer->n_ends; ++i)
        if (tokenizer->ends[i] == id) return 1;
    return 0;
}
