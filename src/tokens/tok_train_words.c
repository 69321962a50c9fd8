/* Words and pieces of a tokenizer that is being made: two tables by text.
 *
 * A text repeats its words: 10 MB of prose have about 2 million, of which 2 % are different. So each
 * is kept once with its count, and everything later works on those.
 *
 *     bytes   t h e   k e y h o l e ...      all words, one behind the other
 *     words   (0, 3, count) (3, 8, count)    in the order in which they came
 *     slots   index + 1 by hash              at most half full
 *
 * The hash is seeded by the system, so no text can be built whose words collide; the order of words
 * does not depend on it. */
#include "tokens/tok_train_impl.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/rng.h"
#include "tokens/tok_vocab.h"

#include <string.h>

static kh_status grow_slots(kh_word_counts *w)
{
    size_t mask = w->mask ? 2 * w->mask + 1 : 4095;
    uint32_t *slots;
    KH_TRY(kh_new(&slots, mask + 1, sizeof *slots, "a table of words"));
    if (!w->slots) w->seed = kh_rng_entropy();
    for (size_t i = 0; i < w->count; ++i) {
        size_t at = w->words[i].hash & mask;
        while (slots[at]) at = (at + 1) & mask;
        slots[at] = (uint32_t)i + 1;
    }
    kh_free(w->slots);
    w->slots = slots;
    w->mask = mask;
    return KH_OK;
}

kh_status kh_words_add(kh_word_counts *w, const char *word, size_t size)
{
    if (size > INT32_MAX) KH_FAIL(KH_ERR_UNSUPPORTED, "a word has %zu bytes", size);
    if (w->count >= INT32_MAX) KH_FAIL(KH_ERR_UNSUPPORTED, "the text has too many words");
    if (2 * w->count >= w->mask) KH_TRY(grow_slots(w));
    uint32_t hash = (uint32_t)kh_vocab_hash(word, size, w->seed);
    size_t at = hash & w->mask;
    for (; w->slots[at]; at = (at + 1) & w->mask) {
        kh_word *known = &w->words[w->slots[at] - 1];
        if (known->hash != hash || known->size != size ||
            memcmp(w->bytes.data + known->at, word, size) != 0)
            continue;
        ++known->count;
        ++w->total;
        return KH_OK;
    }
    KH_TRY(kh_grow(&w->words, w->count, &w->room, sizeof *w->words, "the words of a text"));
    size_t start = w->bytes.size;
    KH_TRY(kh_buf_add(&w->bytes, word, size));
    w->words[w->count++] = (kh_word){start, 1, (uint32_t)size, hash};
    w->slots[at] = (uint32_t)w->count;
    ++w->total;
    return KH_OK;
}

void kh_words_free(kh_word_counts *w)
{
    kh_buf_free(&w->bytes);
    kh_free(w->words);
    kh_free(w->slots);
    *w = (kh_word_counts){.count = 0};
}

kh_status kh_pieces_add(kh_pieces *pieces, kh_slice text, uint32_t *id)
{
    size_t found = kh_names_find(&pieces->index, text);
    if (found == SIZE_MAX) {
        kh_slice kept;
        KH_TRY(kh_names_grow(&pieces->index, "a vocabulary"));
        KH_TRY(kh_store_text(&pieces->store, &kept, text.data, text.size));
        found = pieces->index.count;
        kh_names_add(&pieces->index, kept);
    }
    *id = (uint32_t)found;
    return KH_OK;
}

void kh_pieces_free(kh_pieces *pieces)
{
    kh_names_free(&pieces->index);
    kh_store_free(&pieces->store);
}
