/* Facts in a long text.
 *
 * The text is cut at the end of a sentence so that text and facts together have about the wanted number of
 * tokens: the ratio of bytes to tokens of a first try gives the next, four rounds are enough. A fact
 * stands as a sentence of its own between two sentences of the text.
 *
 * The tokens of a fact are found by bytes: the pieces of all tokens, laid end to end, are the text again
 * (byte-level and SentencePiece vocabularies both guarantee it, up to a leading space), so the byte where
 * a token begins is a running sum. */
#include "bench/plant.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "model/network.h"

#include <string.h>

static const kh_fact facts[] = {
    {"The password of the old lighthouse is crimson.", "The password of the old lighthouse is",
     "crimson"},
    {"The favourite fruit of Captain Morrow is the pineapple.",
     "The favourite fruit of Captain Morrow is the", "pineapple"},
    {"The code name of the secret garden is Falcon.", "The code name of the secret garden is",
     "Falcon"},
    {"The train to Whitby leaves from platform nineteen.",
     "The train to Whitby leaves from platform", "nineteen"},
    {"The name of the blacksmith's dog is Juniper.", "The name of the blacksmith's dog is",
     "Juniper"},
    {"The painting in the north tower shows a walrus.", "The painting in the north tower shows a",
     "walrus"},
    {"The treasure of Port Ellery is buried under the windmill.",
     "The treasure of Port Ellery is buried under the", "windmill"},
    {"The best student of Doctor Hale comes from Lisbon.",
     "The best student of Doctor Hale comes from", "Lisbon"},
};

size_t kh_fact_count(void)
{
    return sizeof facts / sizeof *facts;
}

const kh_fact *kh_fact_at(size_t index)
{
    return index < kh_fact_count() ? &facts[index] : NULL;
}

/* The byte behind the next end of a sentence at or after `at`. */
static size_t sentence_end(const char *text, size_t size, size_t at)
{
    for (; at + 1 < size; at++)
        if (strchr(".!?", text[at]) && (text[at + 1] == ' ' || text[at + 1] == '\n')) return at + 1;
    return size;
}

static kh_status write_text(kh_buf *out, size_t *places, const char *text, size_t size,
                            const kh_fact *list, size_t n)
{
    size_t from = 0;
    kh_buf_clear(out);
    for (size_t i = 0; i < n; i++) {
        size_t want = (size_t)((double)size * ((double)i + 0.5) / (double)n);
        size_t at = sentence_end(text, size, want > from ? want : from);
        KH_TRY(kh_buf_add(out, text + from, at - from));
        KH_TRY(kh_buf_add(out, " ", 1));
        places[i] = out->size;
        KH_TRY(kh_buf_text(out, list[i].sentence));
        from = at;
    }
    return kh_buf_add(out, text + from, size - from);
}

static int begins(const kh_planted *p, size_t at, const char *piece, size_t n)
{
    return n <= p->size - at && memcmp(p->text + at, piece, n) == 0;
}

static kh_status find_offsets(kh_planted *p, const kh_model *model)
{
    KH_TRY(kh_new(&p->offsets, p->count, sizeof *p->offsets, "offsets"));
    kh_buf piece = {0};
    kh_status status = KH_OK;
    size_t at = 0;
    for (size_t i = 0; status == KH_OK && i < p->count; i++) {
        kh_buf_clear(&piece);
        status = kh_token_bytes(model->tokenizer, &piece, p->ids[i], KH_TOKENIZE_SPECIAL, 0);
        /* SentencePiece puts a space in front of the text, and bos is no part of it */
        size_t n = piece.size, skip = n > 0 && !begins(p, at, piece.data, n);
        if (skip && (piece.data[0] != ' ' || !begins(p, at, piece.data + 1, n - 1))) skip = n;
        p->offsets[i] = at;
        at += n - skip;
    }
    kh_buf_free(&piece);
    KH_TRY(status);
    if (at != p->size)
        KH_FAIL(KH_ERR_STATE, "the pieces of the tokens are not the text again (byte %zu of %zu)",
                at, p->size);
    return KH_OK;
}

static void find_facts(kh_planted *p, const size_t *places, const kh_fact *list, size_t n)
{
    for (size_t f = 0; f < n; f++) {
        size_t begin = places[f], stop = begin + strlen(list[f].sentence), i = 0;
        while (i + 1 < p->count && p->offsets[i + 1] <= begin) i++;
        p->facts[f].first = i;
        while (i < p->count && p->offsets[i] < stop) i++;
        p->facts[f].end = i;
        p->facts[f].depth = (float)p->facts[f].first / (float)p->count;
    }
}

/* The longest part of the text that stays within the tokens, in `out`. */
static kh_status fit(kh_buf *out, size_t *places, kh_planted *p, const kh_model *model,
                     const char *text, size_t size, const kh_fact *list, size_t n, size_t tokens)
{
    double per_token = 4.0, budget = (double)tokens, least = 0.98 * budget;
    for (int round = 0; round < 8; round++) {
        double want = budget * per_token;
        if (want > (double)size && round == 0) want = (double)size;
        if (!(want <= (double)size))
            KH_FAIL(KH_ERR_ARGUMENT, "the text has %zu bytes, too few for %zu tokens", size,
                    tokens);
        size_t part = sentence_end(text, size, (size_t)want);
        KH_TRY(write_text(out, places, text, part, list, n));
        kh_free_ids(p->ids);
        p->ids = NULL;
        KH_TRY(kh_model_tokenize(model, out->data, out->size, KH_TEXT_EDGES, &p->ids, &p->count));
        if (p->count <= tokens && (double)p->count > least) return KH_OK;
        per_token = (double)part / (double)p->count;
        /* a short text is cut coarsely, at sentences: aim lower after a few rounds */
        budget = (round < 2 ? 0.99 : 1.05 - 0.04 * round) * (double)tokens;
        if (round > 3) least = 0.7 * (double)tokens;
    }
    if (p->count <= tokens) return KH_OK;
    KH_FAIL(KH_ERR_STATE, "the text could not be cut to %zu tokens", tokens);
}

kh_status kh_plant(kh_planted *out, const kh_model *model, const char *text, size_t size,
                   const kh_fact *list, size_t n, size_t tokens)
{
    *out = (kh_planted){0};
    kh_buf buf = {0};
    size_t *places = NULL;
    kh_status status = kh_new(&places, n, sizeof *places, "facts");
    if (status == KH_OK) status = kh_new(&out->facts, n, sizeof *out->facts, "facts");
    if (status == KH_OK) status = fit(&buf, places, out, model, text, size, list, n, tokens);
    out->text = buf.data;
    out->size = buf.size;
    if (status == KH_OK) status = find_offsets(out, model);
    if (status == KH_OK) find_facts(out, places, list, n);
    kh_free(places);
    if (status != KH_OK) kh_planted_free(out);
    return status;
}

void kh_planted_free(kh_planted *p)
{
    kh_free(p->text);
    kh_free_ids(p->ids);
    kh_free(p->offsets);
    kh_free(p->facts);
    *p = (kh_planted){0};
}
