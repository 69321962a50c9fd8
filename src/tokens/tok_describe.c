/* A tokenizer of tokenizer.json in GGUF's words, for conversion.
 *
 * GGUF names a model and leaves the stages to the reader; so a tokenizer can be written only if its stages are
 * those that the name stands for (tok_gguf.c):
 *
 *     gpt2    byte-level BPE; a pre-tokenizer that some name stands for (tok_describe_pre.c); no normalizer, but
 *             NFC is passed over, as every converter does
 *     llama   BPE with all 256 byte tokens, blanks as U+2581, whose ranks can be scores (tok_describe_bpe.c)
 *     t5      unigram; a character map, blanks as U+2581
 *     bert    WordPiece behind BERT's normalizer and words; ## inside words becomes U+2581 in front of them
 *
 * Everything else is a sentence that names what GGUF has no word for. Three things are written
 * although GGUF does not keep them: white space that special tokens take along (lstrip, rstrip:
 * <mask> of RoBERTa), that a blank stands in front of the text only (Metaspace's "first"; GGUF's
 * readers put it behind markers too), and, where runs of blanks are one, the blank at the end of a
 * text (the SentencePiece models from which such files come drop it as well). And a character map works on characters there, as in
 * SentencePiece; in `tokenizers` it takes the rest of a short grapheme along.
 *
 * Ids that nothing names get the text [PAD7] and the kind "unused", as in llama.cpp's converter. */
#include "tokens/tok_describe.h"

#include "base/fail.h"
#include "tokens/tok_unicode.h"

#include <stdio.h>
#include <string.h>

static kh_status refuse(const char *what)
{
    KH_FAIL(KH_ERR_UNSUPPORTED, "GGUF cannot express %s", what);
}

static kh_status make(kh_store *store, kh_slice *out, const char *front, kh_slice text)
{
    size_t n = strlen(front);
    char *bytes;
    KH_TRY(kh_store_new(store, &bytes, n + text.size + 1, 1));
    memcpy(bytes, front, n);
    if (text.size) memcpy(bytes + n, text.data, text.size);
    *out = (kh_slice){bytes, n + text.size};
    return KH_OK;
}

/* Pieces as they are; unused ids get a name. */
static kh_status copy_pieces(const kh_tokenizer *t, kh_description *d)
{
    size_t V = (size_t)t->vocab.size;
    KH_TRY(kh_store_new(&d->store, &d->pieces, V, sizeof *d->pieces));
    KH_TRY(kh_store_new(&d->store, &d->kinds, V, sizeof *d->kinds));
    for (int32_t id = 0; id < t->vocab.size; ++id) {
        d->pieces[id] = t->vocab.pieces[id];
        d->kinds[id] = t->vocab.kinds[id];
        if (id == t->options.unk && t->model != KH_TOKENIZER_BYTES) d->kinds[id] = KH_TOKEN_UNKNOWN;
        if (d->kinds[id] != KH_TOKEN_UNUSED) continue;
        char name[24];
        int n = snprintf(name, sizeof name, "[PAD%d]", id);
        KH_TRY(make(&d->store, &d->pieces[id], "", (kh_slice){name, (size_t)n}));
    }
    return KH_OK;
}

/* User-defined tokens are found anywhere in GGUF's texts. */
static kh_status check_markers(const kh_tokenizer *t)
{
    const kh_markers *lists[] = {&t->markers, &t->late_markers};
    for (size_t k = 0; k < 2; ++k)
        for (uint32_t i = 0; i < lists[k]->count; ++i) {
            const kh_marker *m = &lists[k]->list[i];
            if (m->flags & KH_MARKER_SPECIAL || !m->flags) continue;
            KH_FAIL(KH_ERR_UNSUPPORTED,
                    "GGUF cannot express the added token \"%.*s\", which is found only as a word "
                    "or takes the "
                    "white space beside it along",
                    m->text.size < 64 ? (int)m->text.size : 64, m->text.data);
        }
    return KH_OK;
}

static int is_split(const kh_tokenizer *t, int i, kh_split_kind kind, kh_split_behavior behavior)
{
    const kh_split_step *s = &t->split.steps[i];
    return i < t->split.count && s->kind == kind && s->behavior == behavior && !s->invert;
}

static int is_norm(const kh_tokenizer *t, int i, kh_norm_kind kind, unsigned flags)
{
    return i < t->norm.count && t->norm.steps[i].kind == kind && t->norm.steps[i].flags == flags;
}

static kh_status describe_bytes(const kh_tokenizer *t, kh_description *d, kh_gguf *out)
{
    const char *pre;
    for (int i = 0; i < t->norm.count; ++i)
        if (!is_norm(t, i, KH_NORM_FORM, KH_NFC))
            return refuse(
                "a normalizer in front of byte-level BPE (but for NFC, which it leaves out)");
    KH_TRY(kh_describe_pre(t, &pre));
    KH_TRY(kh_describe_merges(t, d));
    KH_TRY(kh_gguf_set_string(out, "tokenizer.ggml.pre", (kh_slice){pre, strlen(pre)}));
    return kh_gguf_set_strings(out, "tokenizer.ggml.merges", d->merges, d->n_merges);
}

static int is_blank_step(const kh_norm_step *s)
{
    return s->kind == KH_NORM_REPLACE && kh_slice_is(s->from, " ") &&
           kh_slice_is(s->to, KH_TOKENIZER_BLANK);
}

/* How blanks are written: *prefix is set where the text gets one in front. */
static kh_status find_blanks(const kh_tokenizer *t, int norm, int split, int *prefix)
{
    const kh_norm_step *s = t->norm.steps + norm;
    int left = t->norm.count - norm, cuts = t->split.count - split;
    const kh_split_step *last = t->split.steps + split;
    *prefix = 0;
    if (left > 0 && s->kind == KH_NORM_PREPEND && kh_slice_is(s->to, KH_TOKENIZER_BLANK)) {
        *prefix = 1;
        ++s;
        --left;
    }
    int replaced = left == 1 && is_blank_step(s);
    if (replaced && cuts == 0) return KH_OK;
    if (replaced && cuts == 1 && last->kind == KH_SPLIT_TEXT && kh_slice_is(last->text, " "))
        return KH_OK; /* there are no blanks left to cut at */
    if (left == 0 && !*prefix && cuts == 1 && last->kind == KH_SPLIT_METASPACE &&
        kh_slice_is(last->text, KH_TOKENIZER_BLANK)) {
        *prefix = (last->flags & (KH_META_ALWAYS | KH_META_FIRST)) != 0;
        return KH_OK;
    }
    return refuse(
        "this normalizer and pre-tokenizer (expected: blanks become U+2581, nothing else)");
}

static kh_status set_flag(kh_gguf *out, const char *key, int value)
{
    return kh_gguf_set_u64(out, key, KH_GGUF_BOOL, value != 0);
}

static kh_status describe_chars(const kh_tokenizer *t, kh_description *d, kh_gguf *out)
{
    int prefix, missing = 0;
    if (t->options.prefix.size || t->options.suffix.size)
        return refuse("BPE with a prefix inside words or a suffix at their end");
    for (int b = 0; b < 256; ++b) missing += t->byte_ids[b] < 0;
    if (!t->options.byte_fallback || missing)
        return refuse("BPE over characters without the tokens of all 256 bytes");
    if (t->options.whole_words) return refuse("BPE over characters that takes whole words first");
    KH_TRY(find_blanks(t, 0, 0, &prefix));
    if (t->split.count && t->split.steps[0].flags & KH_META_SPLIT &&
        t->split.steps[0].kind == KH_SPLIT_METASPACE)
        return refuse("BPE over characters that is cut into words");
    KH_TRY(kh_describe_scores(t, d));
    return set_flag(out, "tokenizer.ggml.add_space_prefix", prefix);
}

/* SentencePiece's runs of blanks that are one; those at the ends of a text go in GGUF, always. */
static kh_status find_runs(const kh_tokenizer *t, int *norm, int *merge)
{
    int stripped = is_norm(t, *norm, KH_NORM_STRIP, KH_NORM_RIGHT) ||
                   is_norm(t, *norm, KH_NORM_STRIP, KH_NORM_LEFT | KH_NORM_RIGHT);
    *norm += stripped;
    const kh_norm_step *s = &t->norm.steps[*norm];
    if (*norm < t->norm.count && s->kind == KH_NORM_PATTERN && kh_slice_is(s->from, " {2,}") &&
        (kh_slice_is(s->to, " ") || kh_slice_is(s->to, KH_TOKENIZER_BLANK))) {
        *merge = 1;
        ++*norm;
    }
    if (stripped && !*merge) return refuse("white space that is dropped at the end of a text only");
    return KH_OK;
}

static kh_status describe_unigram(const kh_tokenizer *t, kh_description *d, kh_gguf *out)
{
    int norm = 0, split = 0, merge = 0, prefix;
    if (is_norm(t, norm, KH_NORM_CHARSMAP, 0)) {
        const kh_charsmap *map = &t->norm.steps[norm++].map;
        KH_TRY(kh_gguf_set_array(out, "tokenizer.ggml.precompiled_charsmap", KH_GGUF_U8,
                                 map->units - 4, 4 + 4 * map->n_units + map->texts.size));
    }
    KH_TRY(find_runs(t, &norm, &merge));
    if (is_split(t, 0, KH_SPLIT_WHITE, KH_SPLIT_REMOVED)) {
        merge = 1;
        ++split;
    }
    KH_TRY(find_blanks(t, norm, split, &prefix));
    KH_TRY(kh_store_new(&d->store, &d->scores, (size_t)t->vocab.size, sizeof *d->scores));
    for (int32_t id = 0; id < t->vocab.size; ++id) d->scores[id] = (float)t->scores[id];
    KH_TRY(set_flag(out, "tokenizer.ggml.remove_extra_whitespaces", merge));
    return set_flag(out, "tokenizer.ggml.add_space_prefix", prefix);
}

/* BERT's normalizer: which parts of it are there. */
static kh_status find_folding(const kh_tokenizer *t, int *lower, int *accents)
{
    int at = 0;
    if (!is_norm(t, at, KH_NORM_CLEAN, 0) || !is_norm(t, at + 1, KH_NORM_IDEOGRAPH, 0))
        return refuse("WordPiece without BERT's cleaning of text and ideographs that stand apart");
    at += 2;
    *accents = is_norm(t, at, KH_NORM_FORM, KH_NFD) && is_norm(t, at + 1, KH_NORM_NONSPACED, 0);
    if (*accents) at += 2;
    *lower = is_norm(t, at, KH_NORM_LOWER, 0);
    at += *lower;
    return at == t->norm.count ? KH_OK : refuse("WordPiece behind another normalizer than BERT's");
}

static kh_status describe_wordpiece(const kh_tokenizer *t, kh_description *d, kh_gguf *out)
{
    int lower = 0, accents = 0;
    kh_slice prefix = t->options.prefix;
    KH_TRY(find_folding(t, &lower, &accents));
    if (t->split.count != 2 || !is_split(t, 0, KH_SPLIT_WHITE, KH_SPLIT_REMOVED) ||
        !is_split(t, 1, KH_SPLIT_PUNCTUATION, KH_SPLIT_ISOLATED))
        return refuse("WordPiece behind another pre-tokenizer than BERT's");
    if (t->options.longest_word != 100)
        return refuse("a limit of the characters of a word other than 100");
    for (int32_t id = 0; id < t->vocab.size; ++id) {
        kh_slice piece = d->pieces[id];
        if (d->kinds[id] != KH_TOKEN_NORMAL) continue;
        if (prefix.size && piece.size > prefix.size &&
            !memcmp(piece.data, prefix.data, prefix.size))
            d->pieces[id] = (kh_slice){piece.data + prefix.size, piece.size - prefix.size};
        else
            KH_TRY(make(&d->store, &d->pieces[id], KH_TOKENIZER_BLANK, piece));
    }
    KH_TRY(set_flag(out, "tokenizer.ggml.normalizer.lowercase", lower));
    return set_flag(out, "tokenizer.ggml.normalizer.strip_accents", accents);
}

/* The one token in front of a text and the one behind it; -1 where there is none. */
static kh_status find_edges(const kh_tokenizer *t, int32_t *before, int32_t *after)
{
    const kh_post_template *one = &t->post.one;
    int at = 0;
    *before = *after = -1;
    if (at < one->count && one->items[at].id >= 0) *before = one->items[at++].id;
    if (at < one->count && one->items[at].id == KH_POST_A) ++at;
    if (at < one->count && one->items[at].id >= 0) *after = one->items[at++].id;
    if (at != one->count) return refuse("more than one token in front of a text or behind it");
    return KH_OK;
}

static kh_status set_id(kh_gguf *out, const char *key, int32_t id)
{
    return id < 0 ? KH_OK : kh_gguf_set_u64(out, key, KH_GGUF_U32, (uint64_t)id);
}

static kh_status set_special(const kh_tokenizer *t, kh_gguf *out)
{
    const kh_special_ids *s = &t->special;
    int32_t before, after;
    KH_TRY(find_edges(t, &before, &after));
    int32_t bos = before >= 0 ? before : s->bos, eos = after >= 0 ? after : s->eos;
    if (t->model == KH_TOKENIZER_WORDPIECE) {
        if (before < 0 || after < 0)
            return refuse("WordPiece without a token on both sides of a text");
        eos = s->eos;
    }
    KH_TRY(set_id(out, "tokenizer.ggml.bos_token_id", bos));
    KH_TRY(set_id(out, "tokenizer.ggml.eos_token_id", eos));
    KH_TRY(set_id(out, "tokenizer.ggml.eot_token_id", s->eot));
    KH_TRY(set_id(out, "tokenizer.ggml.unknown_token_id",
                  t->options.unk >= 0 ? t->options.unk : s->unk));
    KH_TRY(set_id(out, "tokenizer.ggml.padding_token_id", s->pad));
    KH_TRY(set_id(out, "tokenizer.ggml.seperator_token_id",
                  t->model == KH_TOKENIZER_WORDPIECE ? after : s->sep));
    KH_TRY(set_id(out, "tokenizer.ggml.cls_token_id", s->cls));
    KH_TRY(set_id(out, "tokenizer.ggml.mask_token_id", s->mask));
    KH_TRY(set_flag(out, "tokenizer.ggml.add_bos_token", before >= 0));
    if (t->model == KH_TOKENIZER_WORDPIECE) return KH_OK;
    return set_flag(out, "tokenizer.ggml.add_eos_token", after >= 0);
}

static kh_status set_chats(const kh_tokenizer *t, kh_gguf *out)
{
    kh_slice names[KH_MOST_TEMPLATES];
    size_t n = 0;
    for (int i = 0; i < t->n_chats; ++i) {
        const kh_chat_text *chat = &t->chats[i];
        char key[128] = "tokenizer.chat_template";
        if (!kh_slice_is(chat->name, "default")) {
            if (chat->name.size > 64 || memchr(chat->name.data, 0, chat->name.size))
                return refuse("a chat template with such a name");
            snprintf(key, sizeof key, "tokenizer.chat_template.%.*s", (int)chat->name.size,
                     chat->name.data);
            names[n++] = chat->name;
        }
        KH_TRY(kh_gguf_set_string(out, key, chat->text));
    }
    return n ? kh_gguf_set_strings(out, "tokenizer.chat_templates", names, n) : KH_OK;
}

static kh_status describe(const kh_tokenizer *t, kh_description *d, kh_gguf *out)
{
    static const char *const names[] = {
        [KH_TOKENIZER_BYTES] = "gpt2",
        [KH_TOKENIZER_CHARS] = "llama",
        [KH_TOKENIZER_UNIGRAM] = "t5",
        [KH_TOKENIZER_WORDPIECE] = "bert",
    };
    size_t V = (size_t)t->vocab.size;
    if (!t->skips_longest)
        KH_FAIL(KH_ERR_ARGUMENT, "a tokenizer that was read from a GGUF file is copied from there");
    if (t->model == KH_TOKENIZER_WORDS) return refuse("a tokenizer of whole words (WordLevel)");
    KH_TRY(check_markers(t));
    KH_TRY(copy_pieces(t, d));
    const char *name = names[t->model];
    KH_TRY(kh_gguf_set_string(out, "tokenizer.ggml.model", (kh_slice){name, strlen(name)}));
    if (t->model == KH_TOKENIZER_BYTES) KH_TRY(describe_bytes(t, d, out));
    if (t->model == KH_TOKENIZER_CHARS) KH_TRY(describe_chars(t, d, out));
    if (t->model == KH_TOKENIZER_UNIGRAM) KH_TRY(describe_unigram(t, d, out));
    if (t->model == KH_TOKENIZER_WORDPIECE) KH_TRY(describe_wordpiece(t, d, out));
    if (t->model != KH_TOKENIZER_BYTES)
        KH_TRY(kh_gguf_set_string(out, "tokenizer.ggml.pre", (kh_slice){"default", 7}));
    KH_TRY(kh_gguf_set_strings(out, "tokenizer.ggml.tokens", d->pieces, V));
    if (d->scores)
        KH_TRY(kh_gguf_set_array(out, "tokenizer.ggml.scores", KH_GGUF_F32, d->scores, V));
    KH_TRY(kh_gguf_set_array(out, "tokenizer.ggml.token_type", KH_GGUF_I32, d->kinds, V));
    KH_TRY(set_special(t, out));
    return set_chats(t, out);
}

kh_status kh_tokenizer_describe(const kh_tokenizer *tokenizer, kh_gguf *out)
{
    kh_description d = {.pieces = NULL};
    kh_status status = describe(tokenizer, &d, out);
    kh_store_free(&d.store);
    return status;
}
