/* From a stretch of text to ids, by the two models.
 *
 * Byte-level BPE ("gpt2"). The pre-tokenizer cuts the text into words; inside a word every byte is a
 * symbol and ranked merges join them. Pieces are stored with a letter in place of each byte: printable
 * Latin-1 stands for itself, the other 68 bytes for U+0100 and following, in order. Only the vocabulary
 * knows those letters: symbols carry ids, so no mapped copy of the text is made (except to look a whole
 * word up, where the model asks for that). A byte without a piece is left out before merging, as
 * Hugging Face's BPE without an unknown token does; SmolLM2 has no piece for 21 bytes (U+0004 is one).
 *
 * SentencePiece-style BPE ("llama"). The whole stretch is one word: blanks become U+2581, characters
 * are symbols, the pair whose union is the best-scored piece merges first. A character without a piece
 * becomes the tokens of its bytes (<0x41>), or the unknown token where the vocabulary has no bytes.
 * Control, unknown and byte pieces never arise by merging: text that spells <s> is text.
 *
 * The word cut is exact for both, the merge loop is tok_merge.c. */
#include "format/tok_impl.h"

#include "base/fail.h"
#include "format/utf8.h"

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
    for (size_t i = 0; i < size; ++i) {
        char letter[4];
        size_t n = kh_utf8_put(letter, kh_byte_letter((unsigned char)word[i]));
        KH_TRY(kh_buf_add(&e->text, letter, n));
    }
    *id = kh_vocab_find(vocab, e->text.data, e->text.size);
    if (*id >= 0 && !kh_vocab_is_text(vocab, *id)) *id = -1;
    return KH_OK;
}

static kh_status encode_word(void *context, const char *word, size_t size)
{
    kh_encoder *e = context;
    const kh_tokenizer *t = e->tokenizer;
    if (kh_pretok_whole_words(t->pretok)) {
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

kh_status kh_encode_bytes(kh_encoder *encoder, const char *text, size_t size)
{
    return kh_pretok_split(encoder->tokenizer->pretok, &encoder->scratch, text, size, encode_word,
                           encoder);
}

/* A character that is no piece. */
static kh_status emit_unknown(kh_encoder *e, const char *text, size_t size)
{
    const kh_tokenizer *t = e->tokenizer;
    for (size_t i = 0; i < size; ++i)
        if (t->byte_ids[(unsigned char)text[i]] < 0) return kh_tokens_add(e->out, t->special.unk);
    for (size_t i = 0; i < size; ++i)
        KH_TRY(kh_tokens_add(e->out, t->byte_ids[(unsigned char)text[i]]));
    return KH_OK;
}

static kh_status add_blanked(kh_buf *out, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        const char *blank = memchr(text + at, ' ', size - at);
        size_t run = blank ? (size_t)(blank - text) - at : size - at;
        KH_TRY(kh_buf_add(out, text + at, run));
        at += run;
        for (; at < size && text[at] == ' '; ++at) KH_TRY(kh_buf_add(out, KH_TOKENIZER_BLANK, 3));
    }
    return KH_OK;
}

kh_status kh_encode_scores(kh_encoder *encoder, const char *text, size_t size, int first)
{
    const kh_tokenizer *t = encoder->tokenizer;
    kh_buf *word = &encoder->text;
    kh_buf_clear(word);
    KH_TRY(kh_buf_reserve(word, size + size / 2 + 3));
    if (first && t->space_prefix) KH_TRY(kh_buf_add(word, KH_TOKENIZER_BLANK, 3));
    KH_TRY(add_blanked(word, text, size));
    if (word->size >= KH_NO_SYMBOL / 2)
        KH_FAIL(KH_ERR_ARGUMENT, "a text of %zu bytes is too long to be tokenised", word->size);
    size_t count = 0;
    for (size_t i = 0; i < word->size; ++i) count += (word->data[i] & 0xC0) != 0x80;
    KH_TRY(kh_merger_start(&encoder->merger, count));
    for (size_t at = 0; at < word->size;) {
        size_t n = kh_utf8_next(word->data + at, word->size - at).size;
        int32_t id = kh_vocab_find(&t->vocab, word->data + at, n);
        if (id >= 0 && !kh_vocab_is_text(&t->vocab, id)) id = -1;
        kh_merger_add(&encoder->merger, (uint32_t)at, (uint32_t)n, id);
        at += n;
    }
    if (!count) return KH_OK;
    kh_merger_run(&encoder->merger, kh_merge_by_score, &t->vocab, word->data);
    const kh_symbol *symbols = encoder->merger.symbols;
    for (uint32_t i = 0; i != KH_NO_SYMBOL; i = symbols[i].next)
        KH_TRY(symbols[i].id >= 0
                   ? kh_tokens_add(encoder->out, symbols[i].id)
                   : emit_unknown(encoder, word->data + symbols[i].start, symbols[i].size));
    return KH_OK;
}
