/* From a word to ids: the models that merge.
 *
 * Byte-level BPE (BYTES). Every byte of the word is a symbol and ranked merges join them. Pieces
 * are stored with a letter in place of each byte: printable Latin-1 stands for itself, the other
 * 68 bytes for U+0100 and following, in order. Only the vocabulary knows those letters: symbols
 * carry ids, so no mapped copy of the text is made (except to look a whole word up, where the
 * model asks for that). A byte without a piece is left out before merging, as Hugging Face's BPE
 * without an unknown token does; SmolLM2 has no piece for 21 bytes (U+0004 is one).
 *
 * BPE over characters (CHARS) is the general form: symbols are characters, with the prefix of
 * pieces inside a word and the suffix of its last one where the model has them. What is no piece
 * becomes the tokens of its bytes, or the unknown token: one for each, or one for neighbours. An
 * unknown token that waits for its neighbour is overtaken by byte tokens; that is how the library
 * does it.
 *
 * SentencePiece-style BPE (SCORES). Characters are symbols, the pair whose union is the
 * best-scored piece merges first. A character without a piece becomes the tokens of its bytes
 * (<0x41>), or the unknown token where the vocabulary has no bytes. Control, unknown and byte
 * pieces never arise by merging: text that spells <s> is text.
 *
 * The merge loop is tok_merge.c. */
#include "base/fail.h"
#include "format/utf8.h"
#include "tokens/tok_impl.h"

#include <string.h>

static int is_printable(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

uint32_t kh_byte_letter(unsigned byte)
{
    if (is_printable(byte)) return byte;
    if (byte <= 0x20) return 0x100 + byte;
    return byte == 0xAD ? 0x143 : 0x121 + (byte - 0x7F);
}

int kh_letter_byte(uint32_t letter)
{
    if (letter < 0x100) return is_printable(letter) ? (int)letter : -1;
    if (letter <= 0x120) return (int)(letter - 0x100);
    if (letter <= 0x142) return (int)(letter - 0x121 + 0x7F);
    return letter == 0x143 ? 0xAD : -1;
}

void kh_tokenizer_find_bytes(kh_tokenizer *tokenizer)
{
    static const char digits[] = "0123456789ABCDEF";
    for (unsigned byte = 0; byte < 256; ++byte) {
        char piece[6] = {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
        size_t size = sizeof piece;
        if (tokenizer->model == KH_TOKENIZER_BYTES) size = kh_utf8_put(piece, kh_byte_letter(byte));
        tokenizer->byte_ids[byte] = kh_vocab_find(&tokenizer->vocab, piece, size);
    }
}

static kh_status emit(kh_encoder *e)
{
    for (uint32_t i = 0; i != KH_NO_SYMBOL; i = e->merger.symbols[i].next)
        KH_TRY(kh_tokens_add(e->out, e->merger.symbols[i].id));
    return KH_OK;
}

/* The id of a word as the vocabulary stores it, or -1. */
static kh_status whole_word(kh_encoder *e, const char *word, size_t size, int32_t *id)
{
    *id = -1;
    const kh_vocab *vocab = &e->tokenizer->vocab;
    if (size > vocab->longest) return KH_OK;
    kh_buf_clear(&e->text);
    KH_TRY(kh_letters_add(&e->text, word, size));
    *id = kh_vocab_find(vocab, e->text.data, e->text.size);
    if (*id >= 0 && !kh_vocab_is_text(vocab, *id)) *id = -1;
    return KH_OK;
}

kh_status kh_encode_bytes(void *context, const char *word, size_t size)
{
    kh_encoder *e = context;
    const kh_tokenizer *t = e->tokenizer;
    if (t->options.whole_words) {
        int32_t id;
        KH_TRY(whole_word(e, word, size, &id));
        if (id >= 0) return kh_tokens_add(e->out, id);
    }
    KH_TRY(kh_merger_start(&e->merger, size));
    uint32_t at = 0;
    for (size_t i = 0; i < size; ++i) {
        int32_t id = t->byte_ids[(unsigned char)word[i]];
        if (id >= 0) kh_merger_add(&e->merger, at++, 1, id);
    }
    if (!e->merger.count) return KH_OK;
    kh_merger_run(&e->merger, kh_merge_by_rank, &t->merges, word);
    return emit(e);
}

kh_status kh_encode_fallback(kh_encoder *e, const char *text, size_t size, int *done)
{
    const kh_tokenizer *t = e->tokenizer;
    *done = 0;
    for (size_t i = 0; i < size; ++i)
        if (t->byte_ids[(unsigned char)text[i]] < 0) return KH_OK;
    *done = 1;
    for (size_t i = 0; i < size; ++i)
        KH_TRY(kh_tokens_add(e->out, t->byte_ids[(unsigned char)text[i]]));
    return KH_OK;
}

/* A character with what the model puts around it. */
static kh_status dress(kh_encoder *e, const char *text, size_t size, int first, int last,
                       kh_slice *out)
{
    const kh_tokenizer_options *o = &e->tokenizer->options;
    *out = (kh_slice){text, size};
    if ((first || !o->prefix.size) && (!last || !o->suffix.size)) return KH_OK;
    kh_buf_clear(&e->text);
    if (!first) KH_TRY(kh_buf_add(&e->text, o->prefix.data, o->prefix.size));
    KH_TRY(kh_buf_add(&e->text, text, size));
    if (last) KH_TRY(kh_buf_add(&e->text, o->suffix.data, o->suffix.size));
    *out = (kh_slice){e->text.data, e->text.size};
    return KH_OK;
}

static int all_bytes(const kh_tokenizer *t, kh_slice text)
{
    for (size_t i = 0; i < text.size; ++i)
        if (t->byte_ids[(unsigned char)text.data[i]] < 0) return 0;
    return 1;
}

static void add_waiting(kh_encoder *e, uint32_t *waiting)
{
    if (*waiting) kh_merger_add(&e->merger, 0, *waiting, e->tokenizer->options.unk);
    *waiting = 0;
}

/* `waiting` is the size of an unknown token that may still grow. */
static void add_char(kh_encoder *e, kh_slice text, size_t size, uint32_t *waiting)
{
    const kh_tokenizer *t = e->tokenizer;
    int32_t id = kh_vocab_find(&t->vocab, text.data, text.size);
    if (id >= 0) {
        add_waiting(e, waiting);
        kh_merger_add(&e->merger, 0, (uint32_t)size, id);
    } else if (t->options.byte_fallback && all_bytes(t, text)) {
        for (size_t i = 0; i < text.size; ++i)
            kh_merger_add(&e->merger, 0, 1, t->byte_ids[(unsigned char)text.data[i]]);
    } else if (t->options.unk >= 0) {
        if (!t->options.fuse_unk) add_waiting(e, waiting);
        *waiting += (uint32_t)size;
    }
}

kh_status kh_encode_chars(void *context, const char *word, size_t size)
{
    kh_encoder *e = context;
    const kh_tokenizer *t = e->tokenizer;
    if (t->options.whole_words) {
        int32_t id = kh_vocab_find(&t->vocab, word, size);
        if (id >= 0) return kh_tokens_add(e->out, id);
    }
    size_t most = size;
    if (t->options.byte_fallback)
        if (__builtin_mul_overflow(size, 1 + t->options.prefix.size, &most) ||
            __builtin_add_overflow(most, t->options.suffix.size, &most))
            most = SIZE_MAX;
    if (most >= KH_NO_SYMBOL / 2)
        KH_FAIL(KH_ERR_ARGUMENT, "a text of %zu bytes is too long to be tokenised", size);
    KH_TRY(kh_merger_start(&e->merger, most));
    uint32_t waiting = 0;
    for (size_t at = 0, n; at < size; at += n) {
        n = kh_utf8_next(word + at, size - at).size;
        kh_slice text;
        KH_TRY(dress(e, word + at, n, at == 0, at + n == size, &text));
        add_char(e, text, n, &waiting);
    }
    add_waiting(e, &waiting);
    if (!e->merger.count) return KH_OK;
    kh_merger_run(&e->merger, kh_merge_by_rank, &t->merges, word);
    return emit(e);
}

/* A character that is no piece. */
static kh_status emit_unknown(kh_encoder *e, const char *text, size_t size)
{
    int done;
    KH_TRY(kh_encode_fallback(e, text, size, &done));
    return done ? KH_OK : kh_tokens_add(e->out, e->tokenizer->special.unk);
}

kh_status kh_encode_scores(void *context, const char *word, size_t size)
{
    kh_encoder *e = context;
    const kh_tokenizer *t = e->tokenizer;
    if (size >= KH_NO_SYMBOL / 2)
        KH_FAIL(KH_ERR_ARGUMENT, "a text of %zu bytes is too long to be tokenised", size);
    size_t count = 0;
    for (size_t i = 0; i < size; ++i) count += (word[i] & 0xC0) != 0x80;
    KH_TRY(kh_merger_start(&e->merger, count));
    for (size_t at = 0; at < size;) {
        size_t n = kh_utf8_next(word + at, size - at).size;
        int32_t id = kh_vocab_find(&t->vocab, word + at, n);
        if (id >= 0 && !kh_vocab_is_text(&t->vocab, id)) id = -1;
        kh_merger_add(&e->merger, (uint32_t)at, (uint32_t)n, id);
        at += n;
    }
    if (!count) return KH_OK;
    kh_merger_run(&e->merger, kh_merge_by_score, &t->vocab, word);
    const kh_symbol *symbols = e->merger.symbols;
    for (uint32_t i = 0; i != KH_NO_SYMBOL; i = symbols[i].next)
        KH_TRY(symbols[i].id >= 0 ? kh_tokens_add(e->out, symbols[i].id)
                                  : emit_unknown(e, word + symbols[i].start, symbols[i].size));
    return KH_OK;
}
